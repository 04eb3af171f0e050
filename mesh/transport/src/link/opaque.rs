//! An opaque stream of a link as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use eastway_core::Reason;
use eastway_link::SendError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::{State, Stream, StreamFault};
use crate::copies::copied;
use crate::{ChunkStream, StreamError};

/// An opaque stream. Dropping it before both of its ends resets it.
#[derive(Debug)]
pub struct Opaque {
    stream: Stream,
    /// What was received and not read.
    data: Bytes,
    read_ended: bool,
    written_ended: bool,
}

impl Opaque {
    /// Of a stream that was opened as one of opaque bytes.
    pub const fn new(stream: Stream) -> Self {
        Self { stream, data: Bytes::new(), read_ended: false, written_ended: false }
    }

    fn give_back(&self, count: usize) {
        let mut link = self.stream.lock();
        link.connection.consume(self.stream.id(), count);
        if link.connection.has_output() {
            link.wake_driver();
        }
    }
}

fn broken(fault: StreamFault) -> io::Error {
    match fault {
        StreamFault::Refused(reason) | StreamFault::Reset(reason) | StreamFault::Unsent(reason) => {
            StreamError::Reset(reason).into()
        }
        StreamFault::Silent | StreamFault::Lost => StreamError::Lost(Reason::UpstreamReset).into(),
    }
}

/// Why nothing can be written. Who only stopped listening may still have something to say, so that this is another error.
fn unwritable(state: Option<&mut State>) -> io::Error {
    match state {
        Some(State { fault: Some(fault), .. }) => broken(*fault),
        Some(State { stopped: Some(reason), .. }) => StreamError::Stopped(*reason).into(),
        _ => io::ErrorKind::BrokenPipe.into(),
    }
}

impl Opaque {
    /// Waits until there is something in `data`, or nothing more comes.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.data.is_empty() || self.read_ended {
            return Poll::Ready(Ok(()));
        }
        let id = self.stream.id();
        let mut link = self.stream.lock();
        self.data = link.connection.read(id);
        if self.data.is_empty() {
            let Some(state) = link.state(id) else { return Poll::Ready(Ok(())) };
            if !state.finished {
                return match state.fault {
                    Some(fault) => Poll::Ready(Err(broken(fault))),
                    None => state.wait_to_read(cx),
                };
            }
            self.read_ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Opaque {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_data(cx))?;
        let count = self.data.len().min(buf.remaining());
        if count > 0 {
            buf.put_slice(&self.data[..count]);
            self.data.advance(count);
            self.give_back(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl ChunkStream for Opaque {
    fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_data(cx))?;
        let chunk = std::mem::take(&mut self.data);
        if !chunk.is_empty() {
            self.give_back(chunk.len());
        }
        Poll::Ready(Ok(chunk))
    }

    fn condemn(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.written_ended, true) {
            self.read_ended = true;
            self.stream.reset(reason);
        } else if !std::mem::replace(&mut self.read_ended, true) {
            // What was said before the end goes out; what is left of the other side's is not wanted.
            let mut link = self.stream.lock();
            link.connection.stop(self.stream.id(), reason);
            link.wake_driver();
        }
    }

    fn poll_write_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<usize>> {
        let id = self.stream.id();
        let mut link = self.stream.lock();
        let (now, empty) = (link.now(), chunk.is_empty());
        let sent = link.connection.send_data(id, chunk, false, now);
        link.wake_driver();
        match sent {
            Ok(sent) if sent > 0 || empty => return Poll::Ready(Ok(sent)),
            Ok(_) | Err(SendError::Busy) => {}
            Err(_) => return Poll::Ready(Err(unwritable(link.state(id)))),
        }
        match link.state(id) {
            Some(state) if !state.takes_nothing() => state.wait_to_write(cx),
            state => Poll::Ready(Err(unwritable(state))),
        }
    }
}

impl AsyncWrite for Opaque {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut data = copied(&buf[..buf.len().min(AT_ONCE)]);
        self.poll_write_chunk(cx, &mut data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.written_ended, true) {
            let mut link = self.stream.lock();
            // A stream that is gone has ended, too.
            let _ = link.connection.finish(self.stream.id());
            link.wake_driver();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Opaque {
    fn drop(&mut self) {
        self.condemn(Reason::CallerGone);
    }
}

/// Bytes that are taken in one write.
const AT_ONCE: usize = 64 * 1024;
