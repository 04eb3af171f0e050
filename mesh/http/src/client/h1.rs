//! An HTTP/1.1 connection to an upstream.

mod connection;

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use eastway_core::Reason;
use eastway_transport::Io;
use http_body::Body as _;
use tokio::time::Instant;

use super::expect::Gate;
use super::{ClientOptions, SendError, SendFailure};
use crate::body::{Body, Streamed};
use crate::framing::Length;
use crate::limits::HeadLimits;
use crate::message::{CONTINUE, Interim, MAX_INTERIM, Request, RequestHead, Response, ResponseHead};
use crate::upgrade::Upgrading;
use crate::wire::{Sending, Unanswered, Unsent, is_interim};
use connection::{Connection, Hold};

/// An HTTP/1.1 connection: one request at a time.
pub struct H1 {
    hold: Rc<Hold>,
    used: bool,
    continue_after: Duration,
    held: Option<Box<dyn Any>>,
}

impl H1 {
    /// Speaks HTTP/1.1 over `io`. Sends nothing yet; a task on the current `LocalSet` notices when the connection ends while
    /// it is idle.
    pub fn new(io: Io, options: &ClientOptions) -> Self {
        let limits = HeadLimits { bytes: options.max_header_bytes as usize, ..HeadLimits::default() };
        let connection = Connection::new(io, limits);
        Self { hold: Hold::new(connection), used: false, continue_after: options.continue_after, held: None }
    }

    /// Keeps `guard` for as long as the connection is.
    #[must_use]
    pub fn holding(mut self, guard: impl Any) -> Self {
        self.held = Some(Box::new(guard));
        self
    }

    /// Sends a request and waits for the head of the response, whose body streams. Dropping the future, or the response's body
    /// before its end, closes the connection.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub async fn send(&mut self, request: Request) -> Result<Response, SendError> {
        let reused = std::mem::replace(&mut self.used, true);
        if !self.ready().await {
            return Err(SendError::unsent(SendFailure::Closed, reused, request));
        }
        let Request { head, body, upgrading, interim } = request;
        let (connection, bodiless) = (self.hold.connection(), body.is_end_stream());
        connection.begin(&head, length(&head, &body));
        let (body, gate) = Gate::before(&head, body, self.continue_after);
        let mut waiting = Waiting { connection, upload: Some(Sending::new(body)), interim, hints: 0, answered: false };
        let answer = match poll_fn(|cx| waiting.poll_answer(gate.as_ref(), cx)).await {
            Ok(answer) => answer,
            // Nobody has touched a body that is none.
            Err((failure, true)) if bodiless => {
                let interim = waiting.interim.take();
                return Err(SendError::unsent(
                    failure,
                    reused,
                    Request { head, body: Body::empty(), upgrading, interim },
                ));
            }
            Err((failure, _)) => return Err(SendError::new(failure, reused)),
        };
        waiting.answered = true;
        let upload = waiting.upload.take();
        drop(waiting);
        Ok(Gate::answered(gate, self.answer(answer, upload)))
    }

    /// The response whose head has come. What is left of the request goes on by itself.
    fn answer(&self, head: ResponseHead, upload: Option<Sending>) -> Response {
        let connection = self.hold.connection();
        let asked = connection.asked();
        if head.is_switch() || (asked.connect && head.is_success()) {
            let upgrading = connection.take_io().map(Upgrading::here);
            return Response { upgrading, ..Response::new(head, Body::empty()) };
        }
        connection.go_on(upload);
        let body = match connection.take_body() {
            Some(bytes) => {
                connection.received();
                Body::full(bytes)
            }
            None => Body::streamed(Streamed::new(Rc::clone(&self.hold) as _, 0, head.length)),
        };
        Response::new(head, body)
    }

    /// Whether another request can be sent at once.
    pub fn is_ready(&self) -> bool {
        self.hold.connection().is_idle()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.hold.connection().is_closed()
    }

    /// When the connection ended, if it has.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.hold.connection().ended_at()
    }

    /// Whether it has carried a request before.
    pub const fn is_reused(&self) -> bool {
        self.used
    }

    /// Waits until another request can be sent; `false` if that will never be.
    pub async fn ready(&mut self) -> bool {
        poll_fn(|cx| self.hold.connection().poll_idle(cx)).await
    }
}

/// How the body of a request is delimited: by the length that its head states or that is known, else by chunks.
fn length(head: &RequestHead, body: &Body) -> Length {
    match head.length {
        Some(length) => Length::Known(length),
        None if body.is_end_stream() => Length::Unstated,
        None => body.size_hint().exact().map_or(Length::Chunked, Length::Known),
    }
}

/// A request that waits for its answer: who gives up waiting gives up the connection.
struct Waiting<'a> {
    connection: &'a Rc<Connection>,
    /// What is left of the request.
    upload: Option<Sending>,
    interim: Option<Interim>,
    /// Interim responses that came.
    hints: u8,
    answered: bool,
}

impl Waiting<'_> {
    /// Sends the request's body and waits for the head of the answer. An error says whether not a byte was sent.
    fn poll_answer(
        &mut self,
        gate: Option<&Gate>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, (SendFailure, bool)>> {
        loop {
            if let Some(upload) = &mut self.upload {
                match upload.poll(&**self.connection, cx) {
                    Poll::Ready(Err(Unsent::Body(error))) => {
                        return Poll::Ready(Err((SendFailure::RequestBody(error.request_reason()), false)));
                    }
                    Poll::Ready(Err(Unsent::WrongLength)) => {
                        return Poll::Ready(Err((SendFailure::RequestBody(Reason::MalformedRequest), false)));
                    }
                    Poll::Ready(Ok(()) | Err(Unsent::Unwanted | Unsent::Stalled)) => self.upload = None,
                    Poll::Pending => {}
                }
            }
            match ready!(self.connection.poll_response(cx)) {
                Ok(head) if !is_interim(&head) => return Poll::Ready(Ok(head)),
                Ok(_) if self.hints == MAX_INTERIM => return Poll::Ready(Err((SendFailure::Protocol, false))),
                Ok(head) => {
                    self.hints += 1;
                    if let Some(gate) = gate.filter(|_| head.status == CONTINUE) {
                        gate.open();
                    }
                    if let Some(interim) = &self.interim {
                        interim.pass(head);
                    }
                }
                Err(Unanswered { malformed: true, .. }) => return Poll::Ready(Err((SendFailure::Protocol, false))),
                Err(Unanswered { unsent: true, .. }) => return Poll::Ready(Err((SendFailure::Closed, true))),
                Err(_) => return Poll::Ready(Err((SendFailure::Reset, false))),
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close();
        }
    }
}

impl fmt::Debug for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1").field("ready", &self.is_ready()).field("used", &self.used).finish_non_exhaustive()
    }
}
