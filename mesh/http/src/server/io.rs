//! The stream under hyper's HTTP/2 server: what was read ahead, and how the connection progresses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection has done so far. Shared between its stream, its service and its driver: one thread, but hyper wants
/// streams that can be upgraded to be `Send`.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes sent.
    written: AtomicU64,
    /// Whether bytes wait because the peer does not read.
    stalled: AtomicBool,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests whose response is not complete.
    active: AtomicU32,
}

impl Progress {
    pub(super) fn start(self: &Arc<Self>) -> Active {
        self.requests.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }

    /// How many bytes were sent when the peer stopped reading; `None` if none wait.
    pub(super) fn stalled_at(&self) -> Option<u64> {
        self.stalled.load(Relaxed).then(|| self.written.load(Relaxed))
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.stalled.store(polled.is_pending(), Relaxed);
        if let Poll::Ready(Ok(written)) = polled {
            self.written.fetch_add(*written as u64, Relaxed);
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Relaxed) > 0
    }
}

/// A request under way, until its response was handed to hyper to the end.
pub(super) struct Active(Arc<Progress>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct ServerIo {
    io: Io,
    progress: Arc<Progress>,
}

impl ServerIo {
    pub(super) const fn new(io: Io, progress: Arc<Progress>) -> Self {
        Self { io, progress }
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.progress.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.progress.wrote(&polled);
        polled
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
