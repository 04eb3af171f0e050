//! What is attached to a body: who watches it, what it keeps alive, and how long it may be silent.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::BodyError;
use crate::sweeper::Deadline;

/// How a body ended.
#[derive(Debug)]
pub enum End<'a> {
    /// Everything was read, trailers included.
    Complete,
    /// It failed.
    Failed(&'a BodyError),
    /// Its reader lost interest before the end.
    Dropped,
}

/// Sees what passes through a body.
pub trait Observer {
    /// A frame with `len` bytes of data passed.
    fn data(&mut self, len: usize) {
        let _ = len;
    }

    /// The trailers passed.
    fn trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
    }

    /// The body ended. Called exactly once, and last.
    fn end(&mut self, end: &End<'_>);
}

/// Keeps a value until the end.
pub(super) struct Hold<T>(pub(super) T);

impl<T> Observer for Hold<T> {
    fn end(&mut self, _: &End<'_>) {}
}

/// What a body does for those who are attached to it.
trait Attached {
    fn passed(&mut self, frame: &Frame<Bytes>);

    /// Nothing came; ready if nothing has come for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    fn end(&mut self, end: &End<'_>);
}

struct Observing<O>(O);

impl<O: Observer> Attached for Observing<O> {
    fn passed(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.0.data(data.len());
        } else if let Some(trailers) = frame.trailers_ref() {
            self.0.trailers(trailers);
        }
    }

    fn poll_idle(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn end(&mut self, end: &End<'_>) {
        self.0.end(end);
    }
}

/// Bears no more silence than its deadline says.
struct Patience {
    idle: Deadline,
    /// Whether somebody waits for the next frame.
    waiting: bool,
}

impl Attached for Patience {
    fn passed(&mut self, _: &Frame<Bytes>) {
        self.waiting = false;
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.waiting, true) {
            // The time in which nobody asked is no silence of the body.
            self.idle.restart();
        }
        self.idle.poll_expired(cx)
    }

    fn end(&mut self, _: &End<'_>) {}
}

/// One that is attached, and those that were before it. Each costs one allocation.
struct Link<A: ?Sized> {
    before: Watch,
    attached: A,
}

/// All that is attached to a body.
#[derive(Default)]
pub(super) struct Watch(Option<Box<Link<dyn Attached>>>);

impl Watch {
    /// Nobody watches.
    pub(super) const NONE: Self = Self(None);

    pub(super) fn observe(&mut self, observer: impl Observer + 'static) {
        self.attach(Observing(observer));
    }

    pub(super) fn limit(&mut self, idle: Deadline) {
        self.attach(Patience { idle, waiting: false });
    }

    fn attach(&mut self, attached: impl Attached + 'static) {
        let before = std::mem::take(self);
        self.0 = Some(Box::new(Link { before, attached }));
    }

    pub(super) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Tells all, in the order in which they were attached.
    pub(super) fn passed(&mut self, frame: &Frame<Bytes>) {
        if let Some(link) = &mut self.0 {
            link.before.passed(frame);
            link.attached.passed(frame);
        }
    }

    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(link) = &mut self.0 else { return Poll::Pending };
        let before = link.before.poll_idle(cx);
        if link.attached.poll_idle(cx).is_ready() { Poll::Ready(()) } else { before }
    }

    /// Tells all, and lets them go: what they hold is released now, and not when the body is dropped.
    pub(super) fn end(&mut self, end: &End<'_>) {
        if let Some(mut link) = self.0.take() {
            link.before.end(end);
            link.attached.end(end);
        }
    }
}
