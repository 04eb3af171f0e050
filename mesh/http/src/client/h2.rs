//! An HTTP/2 connection to an upstream.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use eastway_core::Reason;
use eastway_transport::Io;
use http::uri::Scheme;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::expect::Gate;
use super::{ClientOptions, SendError, SendFailure};
use crate::body::{Body, End, Observer, Unread};
use crate::exec::LocalExec;
use crate::framing::{Asked, admit_response};
use crate::h2_heads;
use crate::message::{Request, Response};
use crate::upgrade::Upgrading;

/// An HTTP/2 connection: many requests at once. Clones share it; it ends with the last clone and the last response.
#[derive(Clone)]
pub struct H2 {
    sender: http2::SendRequest<Body>,
    shared: Rc<Shared>,
}

struct Shared {
    scheme: Scheme,
    continue_after: Duration,
    /// Responses that nobody reads, of which so many take half of the connection's window.
    unread: Unread,
    most_unread: u32,
    active: Cell<usize>,
    limit: Cell<usize>,
    used: Cell<bool>,
    held: RefCell<Option<Box<dyn Any>>>,
}

/// Remembers how a request's body fared, because hyper's error does not always say whose fault it was.
#[derive(Clone, Default)]
struct Fault(Rc<Cell<Option<Reason>>>);

impl Fault {
    /// Watches a body; if there is none, there is nothing to watch.
    fn watch(body: Body) -> (Body, Option<Self>) {
        if body.is_end_stream() {
            return (body, None);
        }
        let fault = Self::default();
        (body.observe(fault.clone()), Some(fault))
    }
}

impl Observer for Fault {
    fn end(&mut self, end: &End<'_>) {
        if let End::Failed(error) = end {
            self.0.set(Some(error.request_reason()));
        }
    }
}

/// Judges what came back; `None` if it breaks HTTP's rules.
fn received(response: http::Response<Incoming>, asked: Asked) -> Option<Response> {
    let (mut parts, incoming) = response.into_parts();
    let head = admit_response(&parts, asked).ok()?;
    let upgrading = Upgrading::of_hyper(&mut parts.extensions);
    let bodiless = asked.is_bodiless(head.status);
    Some(Response { upgrading, ..Response::new(head, Body::answered(incoming, bodiless)) })
}

/// A request under way, counted until its response's body ends.
struct Active(Rc<Shared>);

impl Active {
    fn start(shared: &Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl H2 {
    /// Speaks HTTP/2 over `io` by prior knowledge; `scheme` is what `:scheme` says. The driving task starts on the
    /// current `LocalSet`.
    ///
    /// # Errors
    /// [`SendFailure::Reset`] or [`SendFailure::Protocol`] if the opening messages cannot be exchanged.
    pub async fn new(io: Io, scheme: Scheme, options: &ClientOptions) -> Result<Self, SendError> {
        let h2 = &options.h2;
        let mut builder = http2::Builder::new(LocalExec);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2.stream_window)
            .initial_connection_window_size(h2.connection_window)
            .max_frame_size(h2.max_frame_size)
            .max_header_list_size(options.max_header_bytes)
            .max_send_buf_size(h2.send_buffer);
        if let Some(ping) = h2.ping {
            builder.keep_alive_interval(ping.interval).keep_alive_timeout(ping.timeout).keep_alive_while_idle(false);
        }
        let handshake = builder.handshake(TokioIo::new(io)).await;
        let (sender, connection) = handshake.map_err(|error| SendError::classified(error, None, None, false))?;
        let limit = Cell::new(connection.current_max_send_streams());
        let shared = Rc::new(Shared {
            scheme,
            continue_after: options.continue_after,
            unread: Unread::default(),
            most_unread: (h2.connection_window / h2.stream_window.max(1) / 2).max(1),
            active: Cell::new(0),
            limit,
            used: Cell::new(false),
            held: RefCell::default(),
        });
        let watched = Rc::downgrade(&shared);
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            let driven = std::future::poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if let Some(shared) = watched.upgrade() {
                    shared.limit.set(connection.current_max_send_streams());
                }
                polled
            });
            if let Err(error) = driven.await {
                tracing::debug!(%error, "an upstream HTTP/2 connection failed");
            }
        });
        Ok(Self { sender, shared })
    }

    /// Keeps `guard` for as long as the connection is.
    #[must_use]
    pub fn holding(self, guard: impl Any) -> Self {
        self.shared.held.replace(Some(Box::new(guard)));
        self
    }

    /// Sends a request and waits for the head of the response, whose body streams. Dropping the future or the response's body
    /// resets the stream.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub async fn send(&self, request: Request) -> Result<Response, SendError> {
        let reused = self.shared.used.replace(true);
        let Some(sealed) = h2_heads::request(&request.head, &self.shared.scheme) else {
            return Err(SendError::unsent(SendFailure::Internal, reused, request));
        };
        let Request { head, body, upgrading, interim } = request;
        let active = Active::start(&self.shared);
        let (body, fault) = Fault::watch(body);
        let (body, gate) = Gate::before(&head, body, self.shared.continue_after);
        let mut sender = self.sender.clone();
        match sender.try_send_request(sealed.map(|()| body)).await {
            Ok(response) => {
                // HTTP/2 has no 101.
                let asked = Asked { head: head.method() == "HEAD", connect: head.is_connect(), upgrade: false };
                let response =
                    received(response, asked).ok_or_else(|| SendError::new(SendFailure::Protocol, reused))?;
                let response = Response { unread: Some(self.shared.unread.clone()), ..response };
                Ok(Gate::answered(gate, response.map(|body| body.hold(active))))
            }
            Err(mut error) => {
                let body = error.take_message().map(http::Request::into_body);
                let request = body.map(|body| Request { head, body, upgrading, interim });
                let fault = fault.and_then(|fault| fault.0.get());
                Err(SendError::classified(error.into_error(), request, fault, reused))
            }
        }
    }

    /// Whether the connection takes no new requests: it has ended, or a GOAWAY was noticed.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Requests under way, until their responses' bodies ended.
    pub fn active(&self) -> usize {
        self.shared.active.get()
    }

    /// How many requests more the peer takes at once. None while responses that nobody reads take up half of the
    /// connection's window: what comes after them might wait for their readers. They tell of it themselves, see
    /// [`Body::read_limit`].
    pub fn available(&self) -> usize {
        if self.shared.unread.count() >= self.shared.most_unread {
            return 0;
        }
        self.shared.limit.get().saturating_sub(self.active())
    }

    /// Whether it has carried a request before.
    pub fn is_reused(&self) -> bool {
        self.shared.used.get()
    }
}

impl fmt::Debug for H2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2").field("closed", &self.is_closed()).field("active", &self.active()).finish()
    }
}
