//! What TLS reads from: more than it asks for at a time.
//!
//! rustls asks for 4 KiB at a time, which are four system calls for each record of a bulk transfer. Here one takes what is
//! there, up to two records, into a buffer of the thread's that is held only until it is used up.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;

/// Bytes that are read at once.
const READ: usize = 32 * 1024;
/// Buffers that a thread keeps while nobody needs them.
const KEPT: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A stream that is read ahead of who reads it.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    io: Io,
    /// What was read, of which `start..end` was not handed out. Empty while nothing is there.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, buffer: Box::default(), start: 0, end: 0 }
    }

    pub(crate) const fn io(&self) -> &Io {
        &self.io
    }

    pub(crate) const fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Reads as much as there is, if nothing was read ahead.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start < self.end {
            return Poll::Ready(Ok(()));
        }
        let mut buffer = rent();
        let mut room = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let read = room.filled().len();
        if read == 0 {
            give_back(buffer);
            return polled;
        }
        (self.buffer, self.start, self.end) = (buffer, 0, read);
        polled
    }
}

fn rent() -> Box<[u8]> {
    let kept = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
    kept.unwrap_or_else(|| vec![0; READ].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    // A thread that is ending keeps nothing.
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    });
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.io, Io::Plain(_) | Io::Watched(_) | Io::Other(_)) {
            // What is in memory already need not be copied once more.
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        ready!(self.poll_fill(cx))?;
        let data = self.buffer.get(self.start..self.end).unwrap_or_default();
        let count = data.len().min(buf.remaining());
        buf.put_slice(&data[..count]);
        self.start += count;
        if self.start == self.end && !self.buffer.is_empty() {
            give_back(std::mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_and_nothing_is_held_afterwards() {
        let (near, mut far) = Io::pair(3 * READ);
        let sent: Vec<u8> = (0..3 * READ).map(|number| (number % 251) as u8).collect();
        far.write_all(&sent).await.expect("there is room");
        far.shutdown().await.expect("open");
        let mut ahead = ReadAhead::new(near);
        let mut came = vec![0; 5];
        ahead.read_exact(&mut came).await.expect("there is more");
        assert_eq!((ahead.start, ahead.end), (5, READ), "the rest was read with it");
        ahead.read_to_end(&mut came).await.expect("an end");
        assert_eq!(came, sent);
        assert!(ahead.buffer.is_empty(), "a buffer is held although nothing is in it");
    }

    #[tokio::test]
    async fn who_waits_holds_no_buffer() {
        let (near, _far) = Io::pair(100);
        let mut ahead = ReadAhead::new(near);
        let read = ahead.read_u8();
        assert!(tokio::time::timeout(std::time::Duration::ZERO, read).await.is_err());
        assert!(ahead.buffer.is_empty());
    }
}
