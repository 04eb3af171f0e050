//! A request body that can be sent again.
//!
//! The first attempt streams straight from the caller; what passes is copied aside as long as it fits the limit. A
//! later attempt replays the copy and goes on with the stream from there. Beyond the limit the copy is dropped, and
//! with it the possibility of another attempt.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use eastway_core::Reason;
use eastway_resilience::Upload;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use eastway_transport::copies::copied;

use super::{Body, BodyError, Kind};

/// A caller's request body, from which each attempt takes its own [`Body`].
///
/// Observers of the caller's body must not call back into it.
pub struct Kept(Source);

enum Source {
    /// Without a body there is nothing to share.
    Empty,
    Shared(Rc<RefCell<State>>),
}

struct State {
    caller: Body,
    copy: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// When something came last, the end included.
    moved: Instant,
    /// The caller was asked for more, and has nothing.
    waiting: bool,
    /// Why the caller's body failed, if it did.
    failed: Option<Reason>,
    /// More than the limit went by: `copy` is empty and does not start at the beginning.
    overflowed: bool,
    limit: usize,
    /// The exact length, if it was known at first.
    length: Option<u64>,
    /// Which attempt may read; all older ones fail.
    attempt: u32,
}

impl Kept {
    /// The largest body kept, unless configured otherwise: 64 KiB.
    pub const LIMIT: usize = 64 * 1024;

    /// Keeps up to `limit` bytes of `body` for repetition.
    pub fn new(body: Body, limit: usize) -> Self {
        if body.is_end_stream() {
            return Self(Source::Empty);
        }
        let length = body.size_hint().exact();
        Self(Source::Shared(Rc::new(RefCell::new(State {
            caller: body,
            copy: BytesMut::new(),
            trailers: None,
            ended: false,
            moved: Instant::now(),
            waiting: false,
            failed: None,
            // What is known to be too long is not copied at all.
            overflowed: false,
            limit: if length.is_some_and(|length| length > limit as u64) { 0 } else { limit },
            length,
            attempt: 0,
        }))))
    }

    /// The body for the next attempt, which takes over from any earlier one; `None` if too much has gone by already, or
    /// if the caller's body failed.
    pub fn attempt(&self) -> Option<Body> {
        let Source::Shared(shared) = &self.0 else { return Some(Body::empty()) };
        let mut state = shared.borrow_mut();
        if !state.repeatable() {
            return None;
        }
        state.attempt += 1;
        let attempt = state.attempt;
        drop(state);
        Some(Body::of(Kind::Kept(Attempt { shared: Rc::clone(shared), attempt, replayed: 0, trailed: false })))
    }

    /// Whether [`Kept::attempt`] would give a body now.
    pub fn is_repeatable(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Shared(shared) => shared.borrow().repeatable(),
        }
    }

    /// Why the caller's own body failed, if it did: then no attempt is to blame.
    pub fn failure(&self) -> Option<Reason> {
        match &self.0 {
            Source::Empty => None,
            Source::Shared(shared) => shared.borrow().failed,
        }
    }

    /// How far the caller's body has come.
    pub fn upload(&self) -> Upload {
        let Source::Shared(shared) = &self.0 else { return Upload::Complete(None) };
        let state = shared.borrow();
        match (state.ended, state.waiting) {
            (true, _) => Upload::Complete(Some(state.moved.elapsed())),
            (false, true) => Upload::Waiting,
            (false, false) => Upload::Untaken(state.moved.elapsed()),
        }
    }

    /// Whether the caller sent its body to the end.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Shared(shared) => shared.borrow().ended,
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("repeatable", &self.is_repeatable()).finish()
    }
}

impl State {
    const fn repeatable(&self) -> bool {
        !self.overflowed && self.failed.is_none()
    }

    fn keep(&mut self, data: &Bytes) {
        if self.overflowed {
            return;
        }
        if self.copy.len() + data.len() > self.limit {
            self.overflowed = true;
            self.copy = BytesMut::new();
        } else {
            self.copy.extend_from_slice(data);
        }
    }

    fn poll_caller(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.caller).poll_frame(cx);
        self.waiting = polled.is_pending();
        let polled = ready!(polled);
        self.moved = Instant::now();
        match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else {
                    self.trailers = frame.trailers_ref().cloned();
                }
                self.ended = self.caller.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.failed = Some(error.request_reason());
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

/// One attempt's view of a kept body.
pub(super) struct Attempt {
    shared: Rc<RefCell<State>>,
    attempt: u32,
    /// How much of the copy this attempt has sent, its own share included.
    replayed: usize,
    trailed: bool,
}

impl Attempt {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.shared.borrow_mut();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(reason) = state.failed {
            return Poll::Ready(Some(Err(BodyError::Aborted(reason))));
        }
        if self.replayed < state.copy.len() {
            let data = copied(&state.copy[self.replayed..]);
            self.replayed = state.copy.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if state.trailers.is_some() && !self.trailed {
            self.trailed = true;
            return Poll::Ready(state.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if Rc::strong_count(&self.shared) == 1 {
            // Nobody is left who could ask for another attempt.
            state.overflowed = true;
            state.copy = BytesMut::new();
        }
        let polled = state.poll_caller(cx);
        self.replayed = state.copy.len();
        self.trailed = state.trailers.is_some();
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.shared.borrow();
        state.attempt == self.attempt
            && state.ended
            && state.failed.is_none()
            && self.replayed >= state.copy.len()
            && (self.trailed || state.trailers.is_none())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.shared.borrow();
        match state.length {
            // Asked before the first frame only; what remains later is nobody's question.
            Some(length) if self.replayed == 0 => SizeHint::with_exact(length),
            Some(_) => state.caller.size_hint(),
            None => SizeHint::default(),
        }
    }
}
