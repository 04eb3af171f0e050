//! A stream of a tunnel over TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use eastway_core::{Reason, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ends::Ends;
use crate::error::StreamError;
use crate::io::ChunkStream;
use crate::link::{Opaque, Stream};

/// A stream that counts, and that says of the tunnel's end why it came.
#[derive(Debug)]
pub(super) struct TunnelStream {
    opaque: Opaque,
    ends: Arc<Ends>,
    /// Whether this side opened it.
    opener: bool,
    /// Whether it counts among the connection's stalled streams.
    stalled: bool,
}

impl TunnelStream {
    pub(super) fn new(stream: Stream, ends: &Arc<Ends>, opener: bool) -> Self {
        ends.streams.fetch_add(1, Ordering::Relaxed);
        let total = if opener { &ends.opened } else { &ends.accepted };
        total.fetch_add(1, Ordering::Relaxed);
        Self { opaque: Opaque::new(stream), ends: Arc::clone(ends), opener, stalled: false }
    }

    /// Counts what came, and says why the tunnel ended if that is what went wrong.
    fn received(&self, read: io::Result<usize>) -> io::Result<usize> {
        read.inspect(|count| {
            self.ends.received.fetch_add(*count as u64, Ordering::Relaxed);
        })
        .map_err(|error| self.explained(error))
    }

    fn sent(&self, written: io::Result<usize>) -> io::Result<usize> {
        written
            .inspect(|count| {
                self.ends.sent.fetch_add(*count as u64, Ordering::Relaxed);
            })
            .map_err(|error| self.explained(error))
    }

    fn explained(&self, error: io::Error) -> io::Error {
        match StreamError::of(&error) {
            Some(StreamError::Lost(_)) => StreamError::Lost(self.ends.reason()).into(),
            _ => error,
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.opaque).poll_read(cx, buf));
        let count = buf.filled().len() - before;
        Poll::Ready(self.received(read.map(|()| count)).map(drop))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.opaque).poll_write(cx, buf));
        Poll::Ready(self.sent(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.opaque).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.opaque).poll_shutdown(cx)
    }
}

impl ChunkStream for TunnelStream {
    fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut chunk = Bytes::new();
        let read = ready!(self.opaque.poll_read_chunk(cx));
        let count = self.received(read.map(|read| {
            chunk = read;
            chunk.len()
        }));
        Poll::Ready(count.map(|_| chunk))
    }

    fn poll_write_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<usize>> {
        let written = ready!(self.opaque.poll_write_chunk(cx, chunk));
        Poll::Ready(self.sent(written))
    }

    fn condemn(&mut self, reason: Reason) {
        self.opaque.condemn(reason);
    }

    fn peer_id(&self) -> Option<Arc<SpiffeId>> {
        Some(Arc::clone(&self.ends.peer))
    }

    fn set_stalled(&mut self, stalled: bool) -> bool {
        match (self.stalled, stalled) {
            (false, true) => drop(self.ends.stalled.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.ends.stalled.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.stalled = stalled;
        stalled && self.ends.stalled.load(Ordering::Relaxed) >= self.ends.stall_limit
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.condemn(if self.opener { Reason::CallerGone } else { Reason::UpstreamReset });
        self.set_stalled(false);
        self.ends.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
