//! A body that comes over a connection of our own, which reads it when somebody asks for more.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::BodyError;

/// Where a body comes from. Messages of a connection are numbered: a body that outlives its own must not read from the next.
pub(crate) trait Source {
    /// What comes next of the `number`th message's body; `None` after its end.
    fn poll_frame(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;

    /// Whether the body that is under way was read to its end.
    fn is_read(&self) -> bool;

    /// Nobody reads the `number`th message's body any more; it is `whole` or not.
    fn let_go(&self, number: u64, whole: bool);
}

/// A body on its way here.
pub(crate) struct Streamed {
    source: Rc<dyn Source>,
    number: u64,
    /// Bytes that are to come, if that is known.
    left: Option<u64>,
    ended: bool,
}

impl Streamed {
    /// The body of the `number`th message of `source`, with its length if that is known.
    pub(crate) const fn new(source: Rc<dyn Source>, number: u64, length: Option<u64>) -> Self {
        Self { source, number, left: length, ended: false }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.source.poll_frame(self.number, cx));
        let (ended, whole) = match &frame {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(len));
                (self.source.is_read(), true)
            }
            None => (true, true),
            Some(Err(_)) => (true, false),
        };
        if ended {
            self.end(whole);
        }
        Poll::Ready(frame)
    }

    pub(super) const fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn end(&mut self, whole: bool) {
        if !std::mem::replace(&mut self.ended, true) {
            self.source.let_go(self.number, whole);
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.end(false);
    }
}
