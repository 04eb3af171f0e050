//! The body of a message that comes over a link.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use eastway_core::Reason;
use eastway_link::ResponseHead;
use eastway_transport::link::{State, Stream, StreamFault};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::heads;
use crate::body::BodyError;

/// A body on its way here.
pub(crate) struct Incoming {
    stream: Stream,
    length: Option<u64>,
    /// Bytes that were handed out last: the other side may send as many again once they are dealt with.
    taken: usize,
    ended: bool,
    /// A request's body that its caller sends only if it is asked for.
    asks: bool,
    /// The body of an answer: nobody is served by the stream any more when it is dropped.
    is_answer: bool,
}

impl Incoming {
    /// The body of a request; its caller `asks` whether it is wanted.
    pub(crate) const fn request(stream: Stream, length: Option<u64>, asks: bool) -> Self {
        Self { stream, length, taken: 0, ended: false, asks, is_answer: false }
    }

    /// The body of an answer.
    pub(crate) const fn answer(stream: Stream, length: Option<u64>) -> Self {
        Self { stream, length, taken: 0, ended: false, asks: false, is_answer: true }
    }

    fn failed(&self, fault: StreamFault) -> BodyError {
        match fault {
            StreamFault::Refused(reason) | StreamFault::Reset(reason) | StreamFault::Unsent(reason) => {
                BodyError::Aborted(reason)
            }
            StreamFault::Silent | StreamFault::Lost if self.is_answer => BodyError::Aborted(Reason::UpstreamReset),
            StreamFault::Silent | StreamFault::Lost => BodyError::Truncated,
        }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let id = this.stream.id();
        let mut link = this.stream.lock();
        if std::mem::take(&mut this.asks) {
            let head = ResponseHead { status: 100, length: None, upgrade: None, fields: [("", ""); 0] };
            // Without it, the caller sends after a while.
            let _ = link.connection.send_interim(id, head);
            link.wake_driver();
        }
        if this.taken > 0 {
            link.connection.consume(id, std::mem::take(&mut this.taken));
            if link.connection.has_output() {
                link.wake_driver();
            }
        }
        let data = link.connection.read(id);
        if !data.is_empty() {
            this.taken = data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(state) = link.state(id) else { return Poll::Ready(None) };
        if !state.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut state.rest)))));
        }
        if state.finished {
            this.ended = true;
            let trailers = state.trailers.take().map(|trailers| heads::received_trailers(trailers.view()));
            return Poll::Ready(trailers.filter(|trailers| !trailers.is_empty()).map(|t| Ok(Frame::trailers(t))));
        }
        if let Some(fault) = state.fault {
            drop(link);
            this.ended = true;
            return Poll::Ready(Some(Err(this.failed(fault))));
        }
        state.wait_to_read(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.is_answer && !self.ended {
            let complete = |state: &mut State| state.finished;
            let whole = self.stream.lock().state(self.stream.id()).is_some_and(complete);
            if !whole {
                self.stream.reset(Reason::CallerGone);
            }
        }
    }
}
