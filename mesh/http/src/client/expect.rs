//! `Expect: 100-continue`: a request's body that waits until the upstream wants it.
//!
//! Nobody but the upstream knows whether it will take the body, so it is asked, and the caller is not told to go on before
//! it has said so: what is not read here is not sent there. An upstream that says nothing gets the body after a while,
//! because many know nothing of the expectation.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::{Body, BodyError, End, Observer};
use crate::message::{RequestHead, Response};

/// The upstream has said nothing yet.
const WAITING: u8 = 0;
/// The body is wanted, or the wait is over.
const OPEN: u8 = 1;
/// The upstream has answered without it.
const ANSWERED: u8 = 2;
/// That answer has been read to its end: the body will not be sent.
const CLOSED: u8 = 3;

/// What holds a request's body back.
#[derive(Clone)]
pub(super) struct Gate(Arc<Shared>);

/// hyper wants its callbacks to be `Send`, although everything is on one worker.
struct Shared {
    state: AtomicU8,
    waker: AtomicWaker,
}

impl Gate {
    /// Holds the body back until [`Gate::open`] tells that the upstream says 100, but not longer than `patience`, if the caller
    /// asked so.
    pub(super) fn before(head: &RequestHead, body: Body, patience: Duration) -> (Body, Option<Self>) {
        if !head.expects_continue || body.is_end_stream() {
            return (body, None);
        }
        let gate = Self(Arc::new(Shared { state: AtomicU8::new(WAITING), waker: AtomicWaker::new() }));
        let held = Held { body, gate: gate.clone(), patience, wait: None };
        (Body::boxed(held), Some(gate))
    }

    /// The upstream wants the body.
    pub(super) fn open(&self) {
        self.turn(WAITING, OPEN);
    }

    /// The upstream has answered. If the body is not under way, and the answer is no success, it never will be; that breaks
    /// the connection, but not before the answer was read. A success says that the body is wanted: it may be an echo.
    pub(super) fn answered(gate: Option<Self>, response: Response) -> Response {
        let verdict = if response.head.is_success() { OPEN } else { ANSWERED };
        let refused = |gate: &Self| gate.turn(WAITING, verdict) && verdict == ANSWERED;
        let Some(gate) = gate.filter(refused) else { return response };
        if response.body.is_end_stream() {
            gate.turn(ANSWERED, CLOSED);
            return response;
        }
        response.map(|body| body.observe(gate))
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        let turned = self.0.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            self.0.waker.wake();
        }
        turned
    }

    fn state(&self) -> u8 {
        self.0.state.load(Ordering::Acquire)
    }
}

impl Observer for Gate {
    fn end(&mut self, _: &End<'_>) {
        self.turn(ANSWERED, CLOSED);
    }
}

struct Held {
    body: Body,
    gate: Gate,
    patience: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Held {
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.gate.0.waker.register(cx.waker());
        if self.gate.state() == WAITING {
            let patience = self.patience;
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            if wait.as_mut().poll(cx).is_ready() {
                self.gate.turn(WAITING, OPEN);
            }
        }
        match self.gate.state() {
            OPEN => Poll::Ready(true),
            CLOSED => Poll::Ready(false),
            _ => Poll::Pending,
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.gate.state() != OPEN {
            match this.poll_gate(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Some(Err(BodyError::Unwanted))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
