//! The application beside this sidecar: reached over plain connections on this host, which are pooled.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_core::head::{HttpVersion, is_idempotent};
use eastway_http::client::{PoolOptions, SendFailure};
use eastway_http::{ClientOptions, H1, H2, Pool, Request, Response, SendError};
use eastway_transport::{Io, tcp};
use http::uri::Scheme;

use crate::config::AppProtocol;
use crate::h2;
use crate::node::SidecarNode;
use spoken::Spoken;

mod spoken;

/// A worker's connections to its application.
pub(crate) struct App {
    node: Arc<SidecarNode>,
    h1: Pool<()>,
    h2: RefCell<Option<H2>>,
    spoken: Spoken,
    options: ClientOptions,
}

impl App {
    /// No connections yet. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: &Arc<SidecarNode>) -> Self {
        let pool = PoolOptions { max_idle_per_key: node.config.limits.idle_connections, ..PoolOptions::default() };
        let mut options =
            ClientOptions { max_header_bytes: node.config.limits.header_bytes, ..ClientOptions::default() };
        // The application is on this host: when it goes, the kernel says so.
        options.h2 = h2::options(&node.config.limits, None);
        options.continue_after = node.config.timeouts.continue_after;
        Self { node: Arc::clone(node), h1: Pool::new(pool), h2: RefCell::default(), spoken: Spoken::default(), options }
    }

    /// Closes what is idle, for the end of the worker.
    pub(crate) fn clear(&self) {
        self.h1.clear();
        self.h2.borrow_mut().take();
    }

    /// Sends the request in the version that its caller spoke, unless the configuration knows what the application speaks.
    ///
    /// # Errors
    /// The reason why there is no response.
    pub(crate) async fn send(&self, mut request: Request, spoken: HttpVersion) -> Result<Response, Reason> {
        let protocol = self.node.config.inbound.as_ref().map(|inbound| inbound.protocol);
        let upgrade = request.head.upgrade().is_some();
        let h2 = match protocol {
            _ if upgrade => false,
            Some(AppProtocol::H2c) => true,
            Some(AppProtocol::Auto) if spoken == HttpVersion::Http2 => self.spoken.is_h2(&self.node).await?,
            _ => false,
        };
        if h2 {
            return self.connected_h2().await?.send(request).await.map_err(|error| reason(&error));
        }
        let repeatable = is_idempotent(request.head.method());
        let take = || if repeatable { self.h1.take(&()) } else { self.h1.take_for_once(&()) };
        while let Some(connection) = take() {
            match connection.send(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_request() {
                    Some(unsent) => request = unsent,
                    None => return Err(reason_h1(&error)),
                },
            }
        }
        let io = connect(&self.node).await.inspect_err(|_| self.spoken.forget())?;
        self.h1.lease((), H1::new(io, &self.options)).send(request).await.map_err(|error| {
            if error.failure() == SendFailure::Protocol {
                self.spoken.forget();
            }
            reason(&error)
        })
    }

    async fn connected_h2(&self) -> Result<H2, Reason> {
        let known = self.h2.borrow().clone().filter(|h2| !h2.is_closed() && h2.available() > 0);
        if let Some(connection) = known {
            return Ok(connection);
        }
        let io = connect(&self.node).await.inspect_err(|_| self.spoken.forget())?;
        let fresh = H2::new(io, Scheme::HTTP, &self.options).await.map_err(|_| Reason::AppUnreachable)?;
        self.h2.replace(Some(fresh.clone()));
        Ok(fresh)
    }
}

/// A plain connection to the application.
///
/// # Errors
/// [`Reason::AppUnreachable`], or [`Reason::Overloaded`] if this sidecar has no descriptors left.
pub(crate) async fn connect(node: &SidecarNode) -> Result<Io, Reason> {
    let inbound = node.config.inbound.as_ref().ok_or(Reason::AppUnreachable)?;
    connect_to(node, inbound.app).await
}

/// The same to another one of its ports.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_to(node: &SidecarNode, app: SocketAddr) -> Result<Io, Reason> {
    // On this host, an application that does not read is slow, and never gone without the kernel's saying so.
    let connect_timeout = node.config.timeouts.connect;
    let options =
        tcp::DialOptions { connect_timeout, user_timeout: None, uses_reserve: false, ..tcp::DialOptions::default() };
    tcp::dial(app, &options).await.map(Io::from).map_err(|error| {
        tracing::debug!(%app, %error, "the application cannot be reached");
        if tcp::is_exhaustion(&error) { Reason::Overloaded } else { Reason::AppUnreachable }
    })
}

fn reason(error: &SendError) -> Reason {
    match error.failure() {
        // The connection was made: the application itself went away.
        SendFailure::Closed | SendFailure::Refused => Reason::AppUnreachable,
        _ => error.reason(),
    }
}

/// The same for HTTP/1.1, where a connection that was kept may be closed as idle just as it is used.
fn reason_h1(error: &SendError) -> Reason {
    if error.failure() == SendFailure::Reset && error.is_reused() { Reason::StaleConnection } else { reason(error) }
}
