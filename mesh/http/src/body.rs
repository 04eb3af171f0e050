//! The one body type of the workspace.
//!
//! A [`Body`] streams: nothing is collected unless a caller asks for it by name ([`Body::collect`], [`Kept`],
//! [`held`]). Frames and trailers pass as they come. What must happen when a body ends, whichever way, is attached to it
//! ([`Observer`], [`Body::hold`]) and happens exactly once.

pub mod held;
mod kept;
mod observe;
mod reader;
mod streamed;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eastway_core::Reason;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

pub use kept::Kept;
pub use observe::{End, Observer};
pub use reader::Unread;
pub(crate) use streamed::{Source, Streamed};

use crate::h2_cause::find_h2;
use crate::names::clean_trailers;
use crate::sweeper::{Deadline, Sweeper};
use observe::Watch;

/// A request's or response's body. Lives on one worker: it is not `Send`.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    watch: Watch,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    /// Data and trailers that are complete.
    Held(Bytes, Option<Box<HeaderMap>>),
    Incoming(Tracked),
    Kept(kept::Attempt),
    Streamed(Streamed),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that is at hand.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self::of(Kind::Full(bytes)) }
    }

    /// Any other body. Costs an allocation and a virtual call per frame: not for the path of every request.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::of(Kind::Boxed(Box::pin(body)))
    }

    /// The body of a request that hyper's server received.
    pub(crate) fn received(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self::of(Kind::Incoming(Tracked { incoming, strict: true, bodiless: false }))
    }

    /// The body of a response that hyper's client received. A `bodiless` response (to HEAD, 204, 304) may state a length
    /// all the same, which is that of a body that never comes.
    pub(crate) fn answered(incoming: Incoming, bodiless: bool) -> Self {
        if bodiless && incoming.is_end_stream() {
            return Self::empty();
        }
        Self::of(Kind::Incoming(Tracked { incoming, strict: false, bodiless }))
    }

    /// A body that comes over a connection of our own.
    pub(crate) const fn streamed(streamed: Streamed) -> Self {
        Self::of(Kind::Streamed(streamed))
    }

    /// Whether all of it is at hand, or there is none.
    pub const fn is_at_hand(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Full(_) | Kind::Held(..))
    }

    /// The data, if it is at hand and all there is.
    pub(crate) fn at_hand(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    pub(crate) fn held(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::of(Kind::Held(bytes, trailers.map(Box::new)))
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, watch: Watch::NONE }
    }

    /// Calls `observer` with what passes and, exactly once, with how it ended; dropping the body unread is an end too.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.watch.observe(observer);
        self
    }

    /// Keeps `guard` until the body ends: a permit, a count in flight, a pooled connection.
    #[must_use]
    pub fn hold<T: 'static>(self, guard: T) -> Self {
        self.observe(observe::Hold(guard))
    }

    /// Fails the body with [`BodyError::Idle`] when it is waited for, and nothing arrives for the deadline's limit.
    #[must_use]
    pub fn idle_limit(mut self, deadline: Deadline) -> Self {
        if !self.is_end_stream() {
            self.watch.limit(deadline);
        }
        self
    }

    /// Gives the body up if nobody reads on for `limit`, although there may be something to read: then [`BodyError::Unread`]
    /// is all that is left of it. It is counted by `unread` before, after a second. Costs a task: not for what is small.
    /// Call it on a `LocalSet`.
    #[must_use]
    pub fn read_limit(self, sweeper: &Sweeper, limit: Duration, unread: Unread) -> Self {
        reader::limited(self, sweeper, limit, unread)
    }

    /// Reads the body to its end, as long as its data does not exceed `limit`.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] beyond the limit, else what the body failed with.
    pub async fn collect(mut self, limit: usize) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) if first.len() + rest.len() + data.len() > limit => return Err(BodyError::TooLong),
                Ok(data) if first.is_empty() => first = data,
                Ok(data) => rest.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        if rest.is_empty() {
            return Ok((first, trailers));
        }
        let mut all = BytesMut::with_capacity(first.len() + rest.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&rest);
        Ok((all.freeze(), trailers))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = this.kind.poll_frame(cx);
        match polled {
            Poll::Pending => match this.watch.poll_idle(cx) {
                Poll::Ready(()) => {
                    this.kind = Kind::Empty;
                    this.watch.end(&End::Failed(&BodyError::Idle));
                    Poll::Ready(Some(Err(BodyError::Idle)))
                }
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) => {
                this.watch.passed(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.watch.end(&End::Failed(&error));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.watch.end(&End::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Held(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            Kind::Incoming(tracked) => tracked.incoming.is_end_stream(),
            Kind::Kept(attempt) => attempt.is_end_stream(),
            Kind::Streamed(streamed) => streamed.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // With trailers the length must stay unsaid, or HTTP/1 would have no chunk to hang them on.
            Kind::Held(_, Some(_)) => SizeHint::default(),
            Kind::Held(bytes, None) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(tracked) if tracked.bodiless => SizeHint::default(),
            Kind::Incoming(tracked) => tracked.incoming.size_hint(),
            Kind::Kept(attempt) => attempt.size_hint(),
            Kind::Streamed(streamed) => streamed.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                *self = Self::Empty;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Held(bytes, trailers) => {
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
                }
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            Self::Incoming(tracked) => tracked.poll_frame(cx),
            Self::Kept(attempt) => attempt.poll_frame(cx),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
            Self::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.watch.is_none() {
            // Who reads a body may stop at its last frame without asking for the end behind it.
            let end = if self.is_end_stream() { End::Complete } else { End::Dropped };
            self.watch.end(&end);
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::Held(..) => "Held",
            Kind::Incoming(_) => "Incoming",
            Kind::Kept(_) => "Kept",
            Kind::Streamed(_) => "Streamed",
            Kind::Boxed(_) => "Boxed",
        };
        f.debug_struct("Body").field("kind", &kind).field("size", &self.size_hint()).finish()
    }
}

/// hyper's body, with what hyper does not check.
struct Tracked {
    incoming: Incoming,
    /// A request. hyper reports a reset with the code `NO_ERROR` as a clean end. That is right for a response
    /// after an early answer, but a truncated request must never look like a whole one.
    strict: bool,
    /// The length that the head states says nothing of what comes.
    bodiless: bool,
}

impl Tracked {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        // HTTP/2 often ends a stream with an empty frame; nobody needs to see those.
        while let Poll::Ready(Some(Ok(frame))) = &polled
            && frame.data_ref().is_some_and(Bytes::is_empty)
        {
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Transport(error)))),
            Poll::Ready(None) => {
                let short = !self.bodiless && self.incoming.size_hint().exact().is_some_and(|rest| rest > 0);
                if short || (self.strict && !self.incoming.is_end_stream()) {
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                Poll::Ready(None)
            }
        }
    }
}

/// Why a body did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it comes over failed, or its framing is broken.
    #[error("the body's connection failed")]
    Transport(#[source] hyper::Error),
    /// Its chunks are none, or its trailers.
    #[error("{0}")]
    Malformed(String),
    /// It ended before its end.
    #[error("the body is truncated")]
    Truncated,
    /// Nothing arrived for longer than allowed.
    #[error("the body was silent for too long")]
    Idle,
    /// It is longer than its reader accepts.
    #[error("the body is longer than the limit")]
    TooLong,
    /// A newer attempt has taken the kept body over.
    #[error("another attempt reads the body now")]
    Superseded,
    /// Nobody read it for longer than allowed.
    #[error("the body was left unread for too long")]
    Unread,
    /// The upstream answered without it.
    #[error("the body is not wanted")]
    Unwanted,
    /// Whoever produced it gave up, for this reason.
    #[error("the body was given up: {0}")]
    Aborted(Reason),
}

impl BodyError {
    /// The reason if this was a request's body, so that the caller is to blame.
    pub fn request_reason(&self) -> Reason {
        match self {
            Self::Idle => Reason::BodyTimeout,
            Self::Aborted(reason) => *reason,
            Self::TooLong | Self::Malformed(_) => Reason::MalformedRequest,
            Self::Transport(error) if is_malformed(error) => Reason::MalformedRequest,
            Self::Transport(_) | Self::Truncated | Self::Superseded | Self::Unwanted | Self::Unread => {
                Reason::CallerGone
            }
        }
    }

    /// The reason if this was a response's body, so that the endpoint is to blame.
    pub const fn response_reason(&self) -> Reason {
        match self {
            Self::Idle => Reason::IdleTimeout,
            Self::Aborted(reason) => *reason,
            Self::TooLong | Self::Malformed(_) => Reason::UpstreamProtocol,
            Self::Transport(_) | Self::Truncated | Self::Superseded | Self::Unwanted | Self::Unread => {
                Reason::UpstreamReset
            }
        }
    }
}

/// Whether a body failed because of what it says, and not because of its connection: chunks that are none, or an end that
/// contradicts the stated length.
fn is_malformed(error: &hyper::Error) -> bool {
    if let Some(h2) = find_h2(error) {
        return h2.is_library() && h2.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData);
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests;
