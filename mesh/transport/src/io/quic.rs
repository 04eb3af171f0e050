//! A stream of a tunnel.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use eastway_core::{Reason, SpiffeId};
use quinn::{RecvStream, SendStream, WriteError};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{StreamError, code};

/// What the streams of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What must live as long as the connection is used, and no longer.
    pub(crate) _kept: Box<dyn Any + Send + Sync>,
    pub(crate) peer: Arc<SpiffeId>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) remote: SocketAddr,
    /// Streams that are open now.
    pub(crate) streams: AtomicU64,
    /// Streams that this side ever opened.
    pub(crate) opened: AtomicU64,
    /// Streams that the peer ever opened.
    pub(crate) accepted: AtomicU64,
    /// Bytes of streams, sent.
    pub(crate) sent: AtomicU64,
    /// Bytes of streams, received.
    pub(crate) received: AtomicU64,
    /// Streams whose bytes wait for a reader that takes nothing.
    pub(crate) stalled: AtomicU64,
    /// So many stalled streams may hold half of the connection's window.
    pub(crate) stall_limit: u64,
}

/// A bidirectional stream of a tunnel.
///
/// Shutting it down sends FIN. Dropped before that, it is reset and the peer is told to stop, so that a task that ends
/// early never looks like the regular end of its data.
pub struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    shared: Arc<Shared>,
    /// Whether this side opened it.
    opener: bool,
    /// Whether the sending half has ended: by FIN, or by a reset.
    sent_end: bool,
    /// Whether it counts among the connection's stalled streams.
    stalled: bool,
}

impl QuicStream {
    pub(crate) fn new((send, recv): (SendStream, RecvStream), shared: Arc<Shared>, opener: bool) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        let total = if opener { &shared.opened } else { &shared.accepted };
        total.fetch_add(1, Ordering::Relaxed);
        Self { send, recv, shared, opener, sent_end: false, stalled: false }
    }

    /// Who is on the other side of the tunnel.
    pub fn peer(&self) -> &Arc<SpiffeId> {
        &self.shared.peer
    }

    /// The network address of the other side of the tunnel.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.remote
    }

    /// Ends what is still open of the stream: resets the sending half unless it was finished, and stops the peer.
    pub(crate) fn condemn(&mut self, reason: Reason) {
        self.reset(reason);
        self.stop(reason);
    }

    /// Resets the sending half, unless it has ended already: a reset would take back data that are on their way.
    pub(crate) fn reset(&mut self, reason: Reason) {
        if !self.sent_end {
            self.sent_end = true;
            // It may have ended by itself in the meantime.
            drop(self.send.reset(code(reason)));
        }
    }

    /// Tells the peer that nobody reads what it sends.
    pub(crate) fn stop(&mut self, reason: Reason) {
        // An error says that everything was read already.
        drop(self.recv.stop(code(reason)));
    }

    /// Notes whether what the stream carries waits for a reader that takes nothing. `true` if so many streams do that they
    /// may hold half of the connection's window.
    pub(crate) fn set_stalled(&mut self, stalled: bool) -> bool {
        match (self.stalled, stalled) {
            (false, true) => drop(self.shared.stalled.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.shared.stalled.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.stalled = stalled;
        stalled && self.shared.stalled.load(Ordering::Relaxed) >= self.shared.stall_limit
    }

    /// Reads chunks as they arrived, without copying. 0 chunks: the regular end.
    pub(crate) fn poll_read_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes]) -> Poll<io::Result<usize>> {
        let read = pin!(self.recv.read_chunks(chunks)).poll(cx);
        match ready!(read) {
            Ok(Some(count)) => {
                let bytes: usize = chunks[..count].iter().map(Bytes::len).sum();
                self.shared.received.fetch_add(bytes as u64, Ordering::Relaxed);
                Poll::Ready(Ok(count))
            }
            Ok(None) => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(StreamError::reading(&error, self.unstated()).into())),
        }
    }

    /// Hands chunks over for sending, without copying; what was taken is cut off their fronts. Returns the bytes taken.
    pub(crate) fn poll_write_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes]) -> Poll<io::Result<usize>> {
        let written = pin!(self.send.write_chunks(chunks)).poll(cx);
        match ready!(written) {
            Ok(written) => {
                self.shared.sent.fetch_add(written.bytes as u64, Ordering::Relaxed);
                Poll::Ready(Ok(written.bytes))
            }
            Err(error) => Poll::Ready(Err(self.write_error(&error))),
        }
    }

    fn write_error(&self, error: &WriteError) -> io::Error {
        StreamError::writing(error, self.unstated()).into()
    }

    /// What it means if the peer ends the stream without a reason.
    const fn unstated(&self) -> Reason {
        if self.opener { Reason::UpstreamReset } else { Reason::CallerGone }
    }

    /// What the peer is told if this side drops the stream without a word.
    const fn dropped(&self) -> Reason {
        if self.opener { Reason::CallerGone } else { Reason::UpstreamReset }
    }
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicStream").field("id", &self.send.id()).field("peer", &self.shared.peer).finish()
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(self.recv.poll_read_buf(cx, buf));
        self.shared.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(read.map_err(|error| StreamError::reading(&error, self.unstated()).into()))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(Pin::new(&mut self.send).poll_write(cx, buf)) {
            Ok(written) => {
                self.shared.sent.fetch_add(written as u64, Ordering::Relaxed);
                Poll::Ready(Ok(written))
            }
            Err(error) => Poll::Ready(Err(self.write_error(&error))),
        }
    }

    /// Takes as many of the slices as flow control allows, at once: TLS gathers several records into one call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            match self.as_mut().poll_write(cx, buf) {
                Poll::Ready(Ok(written)) => {
                    total += written;
                    if written < buf.len() {
                        break;
                    }
                }
                // What was taken counts; the error or the wait comes again with the next call.
                _ if total > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sent_end {
            self.sent_end = true;
            // An error says that the peer has stopped reading: it does not miss the end.
            drop(self.send.finish());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.condemn(self.dropped());
        self.set_stalled(false);
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
