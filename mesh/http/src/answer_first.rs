//! A stream that tells what was received before it tells that nothing more can be sent.
//!
//! An upstream may answer a request early (401, 413) and close before it has read the body. Then writing fails although the
//! answer is here to be read; hyper would end the connection by the write's error and drop the answer. [`AnswerFirst`] keeps
//! that error until reading has come to an end. Used by [`H1`](crate::client::H1) alone: over HTTP/2 a stream's end is told by
//! frames.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream under an HTTP/1.1 client.
#[derive(Debug)]
pub(crate) struct AnswerFirst {
    io: Io,
    /// Why writing failed. Nothing is written any more, and it is told when reading ends.
    failed: Option<io::Error>,
}

impl AnswerFirst {
    pub(super) const fn new(io: Io) -> Self {
        Self { io, failed: None }
    }

    /// The stream itself.
    pub(crate) fn into_io(self) -> Io {
        self.io
    }

    /// Passes what came of writing on, but for its failure, which waits. Whoever writes is the one who reads, and is woken
    /// to look for the answer.
    fn written<T>(&mut self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }
}

impl AsyncRead for AnswerFirst {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let ended = read.is_err() || buf.filled().len() == before;
        // An end after a failed write is no orderly one: a body that only it would end is not known to be whole.
        match self.failed.take_if(|_| ended && buf.remaining() > 0) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for AnswerFirst {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
