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

#[derive(Default)]
pub(super) struct Watch {
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) idle: Option<Deadline>,
    /// Whether somebody waits for the next frame.
    waiting: bool,
}

impl Watch {
    pub(super) fn passed(&mut self, frame: &Frame<Bytes>) {
        self.waiting = false;
        if let Some(data) = frame.data_ref() {
            self.observers.iter_mut().for_each(|observer| observer.data(data.len()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.observers.iter_mut().for_each(|observer| observer.trailers(trailers));
        }
    }

    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if !std::mem::replace(&mut self.waiting, true) {
            // The time in which nobody asked is no silence of the body.
            idle.restart();
        }
        idle.poll_expired(cx)
    }

    /// Consumes the watch, so that what it holds is released now and not when the body is dropped.
    pub(super) fn end(mut self, end: &End<'_>) {
        self.observers.iter_mut().for_each(|observer| observer.end(end));
    }
}
