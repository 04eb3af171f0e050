//! An HTTP/2 connection to an upstream.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use eastway_transport::Io;
use http::uri::Scheme;
use http::{Request, Response, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::expect::Gate;
use super::{Asked, ClientOptions, Failure, Fault, SendError, failed, received};
use crate::body::{Body, Unread};
use crate::exec::LocalExec;
use crate::framing;

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
    /// [`Failure::Reset`] or [`Failure::Protocol`] if the opening messages cannot be exchanged.
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

    /// Sends an admitted request (see [`framing::admit_request`]) and waits for the head of the response, whose body
    /// streams. Dropping the future or the response's body resets the stream.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let reused = self.shared.used.replace(true);
        // HTTP/2 has no 101.
        let asked = Asked { upgrade: false, ..Asked::by(&mut request) };
        let (mut parts, body) = request.into_parts();
        let sealed = framing::seal_request(&mut parts, Version::HTTP_2, self.shared.scheme.clone());
        let request = Request::from_parts(parts, body);
        if sealed.is_err() {
            return Err(SendError::unsent(Failure::Internal, reused, request));
        }
        let active = Active::start(&self.shared);
        let (request, fault) = Fault::watch(request);
        let (request, gate) = Gate::if_expected(asked, request, self.shared.continue_after);
        let mut sender = self.sender.clone();
        match sender.try_send_request(request).await {
            Ok(response) => {
                let mut response = received(response, asked, reused)?.map(|body| body.hold(active));
                response.extensions_mut().insert(self.shared.unread.clone());
                Ok(Gate::answered(gate, response))
            }
            Err(error) => Err(failed(error, fault.as_ref(), reused)),
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
