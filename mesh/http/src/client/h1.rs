//! An HTTP/1.1 connection to an upstream.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use eastway_transport::Io;
use http::uri::Scheme;
use http::{Request, Response, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::expect::Gate;
use super::{Asked, ClientOptions, Failure, Fault, SendError, failed, received};
use crate::answer_first::AnswerFirst;
use crate::body::Body;
use crate::framing;

/// The read and write buffers of one connection may grow to this.
const BUFFER: usize = 128 * 1024;

/// An HTTP/1.1 connection: one request at a time.
pub struct H1 {
    sender: http1::SendRequest<Body>,
    used: bool,
    continue_after: Duration,
    ended: Rc<Cell<Option<Instant>>>,
    held: Option<Box<dyn Any>>,
}

impl H1 {
    /// Speaks HTTP/1.1 over `io`. Sends nothing yet; the driving task starts on the current `LocalSet`.
    ///
    /// # Errors
    /// [`Failure::Closed`] if hyper will not have it.
    pub async fn new(io: Io, options: &ClientOptions) -> Result<Self, SendError> {
        let handshake = http1::Builder::new()
            .max_header_size(options.max_header_bytes as usize)
            .max_buf_size(BUFFER.max(options.max_header_bytes as usize))
            .handshake(TokioIo::new(AnswerFirst::new(io)))
            .await;
        let (sender, connection) = handshake.map_err(|error| SendError::classified(error, None, None, false))?;
        let ended: Rc<Cell<Option<Instant>>> = Rc::default();
        let noted = Rc::clone(&ended);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream HTTP/1.1 connection failed");
            }
            noted.set(Some(Instant::now()));
        });
        Ok(Self { sender, used: false, continue_after: options.continue_after, ended, held: None })
    }

    /// Keeps `guard` for as long as the connection is.
    #[must_use]
    pub fn holding(mut self, guard: impl Any) -> Self {
        self.held = Some(Box::new(guard));
        self
    }

    /// Sends an admitted request (see [`framing::admit_request`]) and waits for the head of the response, whose body
    /// streams. Dropping the future, or the response's body before its end, closes the connection.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let reused = std::mem::replace(&mut self.used, true);
        let asked = Asked::by(&mut request);
        let (mut parts, body) = request.into_parts();
        let sealed = framing::seal_request(&mut parts, Version::HTTP_11, Scheme::HTTP);
        let request = Request::from_parts(parts, body);
        if sealed.is_err() {
            return Err(SendError::unsent(Failure::Internal, reused, request));
        }
        if reused && self.sender.ready().await.is_err() {
            return Err(SendError::unsent(Failure::Closed, reused, super::unsealed(request)));
        }
        let (request, fault) = Fault::watch(request);
        let (request, gate) = Gate::if_expected(asked, request, self.continue_after);
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                let response = received(response, asked, reused)?;
                Ok(Gate::answered(gate, response))
            }
            Err(error) => Err(failed(error, fault.as_ref(), reused)),
        }
    }

    /// Whether another request can be sent at once.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// When the connection ended, if it has.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.ended.get()
    }

    /// Whether it has carried a request before.
    pub const fn is_reused(&self) -> bool {
        self.used
    }

    /// Waits until another request can be sent; `false` if that will never be.
    pub async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

impl fmt::Debug for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1").field("ready", &self.is_ready()).field("used", &self.used).finish_non_exhaustive()
    }
}
