//! The application beside this sidecar: reached over plain connections on this host, which are pooled.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use eastway_core::{Reason, SpiffeId};
use eastway_http::body::{End, Observer};
use eastway_http::client::{Failure, PoolOptions};
use eastway_http::framing::UpgradeTo;
use eastway_http::head::is_idempotent;
use eastway_http::refuse::PROXY_STATUS;
use eastway_http::reserved::MESH_PREFIX;
use eastway_http::{Body, ClientOptions, Edits, H1, H2, Pool, SendError, Upgrading};
use eastway_runtime::clock;
use eastway_transport::{Io, tcp};
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Version};

use super::spoken::Spoken;
use crate::config::AppProtocol;
use crate::load::{InFlight, orca};
use crate::node::Node;
use crate::record::RequestRecord;
use crate::stream;
use crate::traffic_policy;
use crate::worker::Worker;

/// The verified identity of the caller.
const SOURCE: HeaderName = HeaderName::from_static("eastway-source");
/// This endpoint's load, for the caller's next choice.
const LOAD: HeaderName = HeaderName::from_static("eastway-load");

/// A worker's connections to its application.
pub(crate) struct App {
    h1: Pool<()>,
    h2: RefCell<Option<H2>>,
    spoken: Spoken,
    options: ClientOptions,
}

impl App {
    /// No connections yet. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        let pool = PoolOptions { max_idle_per_key: node.config.limits.idle_connections, ..PoolOptions::default() };
        let mut options =
            ClientOptions { max_header_bytes: node.config.limits.header_bytes, ..ClientOptions::default() };
        // The application is on this host: when it goes, the kernel says so.
        options.h2 = traffic_policy::h2(&node.config.limits, None);
        options.continue_after = node.config.timeouts.continue_after;
        Self { h1: Pool::new(pool), h2: RefCell::default(), spoken: Spoken::default(), options }
    }

    /// Closes what is idle, for the end of the worker.
    pub(crate) fn clear(&self) {
        self.h1.clear();
        self.h2.borrow_mut().take();
    }
}

/// A plain connection to the application.
///
/// # Errors
/// [`Reason::AppUnreachable`], or [`Reason::Overloaded`] if this sidecar has no descriptors left.
pub(super) async fn connect(node: &Node) -> Result<Io, Reason> {
    let inbound = node.config.inbound.as_ref().ok_or(Reason::AppUnreachable)?;
    // On this host, an application that does not read is slow, and never gone without the kernel's saying so.
    let connect_timeout = node.config.timeouts.connect;
    let options =
        tcp::DialOptions { connect_timeout, user_timeout: None, uses_reserve: false, ..tcp::DialOptions::default() };
    tcp::dial(inbound.app, &options).await.map(Io::from).map_err(|error| {
        tracing::debug!(app = %inbound.app, %error, "the application cannot be reached");
        if tcp::is_exhaustion(&error) { Reason::Overloaded } else { Reason::AppUnreachable }
    })
}

/// Hands a call to the application.
///
/// # Errors
/// The reason why there is no response.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    caller: &SpiffeId,
    record: &mut RequestRecord,
    request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let in_flight = worker.node.load.enter();
    let (mut parts, body) = request.into_parts();
    let spoken = if parts.headers.contains_key(crate::SPOKEN) { Version::HTTP_11 } else { parts.version };
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX);
    if let Ok(source) = HeaderValue::try_from(caller.to_string()) {
        edits.set(SOURCE, source);
    }
    edits.apply(&mut parts.headers);
    let mut request = Request::from_parts(parts, worker.limited(body));
    let from_caller = Upgrading::take(request.extensions_mut());
    let mut charged = Charged { in_flight, failed: false };
    match send(worker, request, spoken).await {
        Ok(response) => Ok(answer(worker, record, response, charged, from_caller)),
        Err(reason) => {
            charged.failed = true;
            Err(reason)
        }
    }
}

/// Sends the request in the version that its caller spoke, unless the configuration knows what the application speaks.
async fn send(worker: &Rc<Worker>, mut request: Request<Body>, spoken: Version) -> Result<Response<Body>, Reason> {
    let protocol = worker.node.config.inbound.as_ref().map(|inbound| inbound.protocol);
    let upgrade = request.extensions().get::<UpgradeTo>().is_some();
    let h2 = match protocol {
        _ if upgrade => false,
        Some(AppProtocol::H2c) => true,
        Some(AppProtocol::Auto) if spoken == Version::HTTP_2 => worker.app.spoken.is_h2(&worker.node).await?,
        _ => false,
    };
    if h2 {
        return connected_h2(worker).await?.send(request).await.map_err(|error| reason(&error));
    }
    let repeatable = is_idempotent(request.method().as_str());
    let take = || if repeatable { worker.app.h1.take(&()) } else { worker.app.h1.take_for_once(&()) };
    while let Some(connection) = take() {
        match connection.send(request).await {
            Ok(response) => return Ok(response),
            Err(mut error) => match error.take_request() {
                Some(unsent) => request = unsent,
                None => return Err(reason_h1(&error)),
            },
        }
    }
    let io = connect(&worker.node).await.inspect_err(|_| worker.app.spoken.forget())?;
    let connection = H1::new(io, &worker.app.options).await.map_err(|error| reason(&error))?;
    worker.app.h1.lease((), connection).send(request).await.map_err(|error| {
        if error.failure() == Failure::Protocol {
            worker.app.spoken.forget();
        }
        reason(&error)
    })
}

fn reason(error: &SendError) -> Reason {
    match error.failure() {
        // The connection was made: the application itself went away.
        Failure::Closed | Failure::Refused => Reason::AppUnreachable,
        _ => error.reason(),
    }
}

/// The same for HTTP/1.1, where a connection that was kept may be closed as idle just as it is used.
fn reason_h1(error: &SendError) -> Reason {
    if error.failure() == Failure::Reset && error.is_reused() { Reason::StaleConnection } else { reason(error) }
}

async fn connected_h2(worker: &Rc<Worker>) -> Result<H2, Reason> {
    let known = worker.app.h2.borrow().clone().filter(|h2| !h2.is_closed() && h2.available() > 0);
    if let Some(connection) = known {
        return Ok(connection);
    }
    let io = connect(&worker.node).await.inspect_err(|_| worker.app.spoken.forget())?;
    let fresh = H2::new(io, Scheme::HTTP, &worker.app.options).await.map_err(|_| Reason::AppUnreachable)?;
    worker.app.h2.replace(Some(fresh.clone()));
    Ok(fresh)
}

/// The application's response with this endpoint's load; nothing in it may pass for a word of the mesh.
fn answer(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    mut response: Response<Body>,
    mut charged: Charged,
    from_caller: Option<Upgrading>,
) -> Response<Body> {
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX).drop(PROXY_STATUS);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        edits.apply(response.headers_mut());
        if let (Some(caller), Some(app)) = (from_caller, Upgrading::take(response.extensions_mut())) {
            record.answered(response.status().as_u16());
            relay(worker, caller, app, (charged, record.take()));
        }
        return response;
    }
    charged.failed = response.status().is_server_error();
    let stated = response.headers().get(orca::HEADER).and_then(|value| value.to_str().ok());
    if let Some(utilisation) = stated.and_then(orca::utilisation) {
        worker.node.load.stated(utilisation, clock::now());
    }
    if let Ok(load) = HeaderValue::try_from(worker.node.load.report(clock::now()).to_header()) {
        edits.set(LOAD, load);
    }
    edits.apply(response.headers_mut());
    worker.passing(response.map(|body| body.observe(Box::new(charged))))
}

fn relay(worker: &Rc<Worker>, caller: Upgrading, app: Upgrading, (charged, record): (Charged, RequestRecord)) {
    let (guard, limit) = (worker.node.draining.guard(), worker.node.config.timeouts.idle);
    tokio::task::spawn_local(async move {
        let _guards = (charged, guard);
        if let (Ok(caller), Ok(app)) = tokio::join!(caller.io(), app.io()) {
            stream::relay(caller, app, limit, record).await;
        }
    });
}

/// A request in flight at the application, and whether it failed there.
struct Charged {
    in_flight: InFlight,
    failed: bool,
}

impl Observer for Charged {
    fn end(&mut self, end: &End<'_>) {
        self.failed |= matches!(end, End::Failed(_));
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if self.failed {
            self.in_flight.fail();
        }
    }
}
