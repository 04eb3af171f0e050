//! The stream under hyper's server: what was read ahead, how the connection progresses, and hyper's own refusals.
//!
//! hyper answers a head that it cannot parse by itself, with a bare status. [`ServerIo`] recognises such an answer (bytes
//! are written although no request is under way) and sends the refusal of [`refuse`](crate::refuse) in its place, so that
//! a malformed request is answered like any other: with `Proxy-Status` and a line of text.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use eastway_core::Reason;
use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::linger::Lingering;
use super::{Protocol, ServerOptions};
use crate::{framing, refuse};

/// What a connection has done so far. Shared between its stream, its service and its driver: one thread, but hyper wants
/// streams that can be upgraded to be `Send`.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes received.
    read: AtomicU64,
    /// Bytes sent.
    written: AtomicU64,
    /// Whether bytes wait because the peer does not read.
    stalled: AtomicBool,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests whose response is not complete.
    active: AtomicU32,
    /// Whether what is written next belongs to a request.
    solicited: AtomicBool,
    /// Whether a response broke off whose end only the connection's end would tell.
    cut_off: AtomicBool,
    /// Whether a request's body was left unread: then more of it may be under way.
    unread: Arc<AtomicBool>,
}

impl Progress {
    pub(super) fn start(self: &Arc<Self>) -> Active {
        self.requests.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.solicited.store(true, Relaxed);
        Active(Arc::clone(self))
    }

    pub(super) const fn unread(&self) -> &Arc<AtomicBool> {
        &self.unread
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
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

    /// Whether every request that came was answered, and the peer has taken the answers.
    fn is_answered(&self) -> bool {
        self.requests() > 0 && !self.is_active() && self.stalled_at().is_none()
    }
}

/// A request under way, until its response was handed to hyper to the end.
pub(super) struct Active(Arc<Progress>);

impl Active {
    pub(super) fn cut_off(&self) {
        self.0.cut_off.store(true, Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct ServerIo {
    io: Io,
    /// Read while the protocol was detected.
    ahead: Bytes,
    progress: Arc<Progress>,
    refusal: Refusal,
    lingering: Lingering,
}

#[derive(Debug)]
enum Refusal {
    /// Not spoken here: HTTP/2 refuses by frames.
    Never,
    /// Watching for hyper's; with what was read since the last request began, because hyper's answer does not say what was
    /// wrong with it.
    Watching { node: Arc<str>, head: Vec<u8>, requests: u64 },
    /// Ours is being sent instead.
    Sending(Bytes),
}

impl Refusal {
    fn watching(node: Arc<str>, ahead: &[u8]) -> Self {
        Self::Watching { node, head: ahead.to_vec(), requests: 0 }
    }

    /// Bytes came: of a head, unless a request is under way.
    fn saw(&mut self, bytes: &[u8], progress: &Progress) {
        let Self::Watching { head, requests, .. } = self else { return };
        if *requests != progress.requests() {
            *requests = progress.requests();
            head.clear();
            head.shrink_to(KEPT_HEAD);
        }
        if !progress.is_active() {
            head.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD.saturating_sub(head.len()))]);
        }
    }
}

/// Bytes of a head that are looked at to find out what was wrong with it.
const MAX_HEAD: usize = 16 * 1024;
/// Room for a head that an idle connection keeps.
const KEPT_HEAD: usize = 512;

impl ServerIo {
    pub(super) fn new(
        io: Io,
        ahead: Bytes,
        progress: Arc<Progress>,
        protocol: Protocol,
        options: &ServerOptions,
    ) -> Self {
        let watching = || Refusal::watching(Arc::clone(&options.node), &ahead);
        let refusal = if protocol == Protocol::Http2 { Refusal::Never } else { watching() };
        progress.read.fetch_add(ahead.len() as u64, Relaxed);
        Self { io, ahead, progress, refusal, lingering: Lingering::new(options.header_timeout) }
    }

    /// The stream itself, and what was read from it but not consumed.
    pub(crate) fn into_parts(mut self) -> (Io, Bytes) {
        (std::mem::replace(&mut self.io, nothing()), std::mem::take(&mut self.ahead))
    }

    /// Whether `bytes` are a refusal of hyper's own: then ours is written first, and `bytes` count as written.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, first: &[u8], len: usize) -> Poll<io::Result<Option<usize>>> {
        if let Refusal::Watching { node, head, .. } = &self.refusal {
            if self.progress.solicited.load(Relaxed) {
                return Poll::Ready(Ok(None));
            }
            self.refusal = Refusal::Sending(refusal(first, head, node));
        }
        let Refusal::Sending(ours) = &mut self.refusal else { return Poll::Ready(Ok(None)) };
        while !ours.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ours.advance(written);
        }
        Poll::Ready(Ok(Some(len)))
    }
}

/// Whoever reads to the end of the connection must not take a response that broke off for a whole one, nor a whole one for
/// one that broke off: hyper drops a connection without ending it when nobody wants the upgrade that was asked for.
impl Drop for ServerIo {
    fn drop(&mut self) {
        if self.progress.cut_off.load(Relaxed) {
            std::mem::replace(&mut self.io, nothing()).abort(Reason::UpstreamReset);
        } else if self.progress.is_answered() {
            // What cannot be ended at once is dropped, as it would have been.
            let _ = self.lingering.poll_finish(&mut self.io, &mut Context::from_waker(Waker::noop()));
        }
    }
}

fn nothing() -> Io {
    Io::other(tokio::io::empty())
}

/// Our words for what hyper's answer says.
fn refusal(theirs: &[u8], head: &[u8], node: &str) -> Bytes {
    let reason = match theirs.get(9..12) {
        // The status of too long a URI has no reason of its own.
        Some(b"431" | b"414") => Reason::HeaderTooLarge,
        _ if framing::states_lengths(head) => Reason::ConflictingLength,
        _ => Reason::MalformedRequest,
    };
    let line = refuse::line(reason);
    let status = http::StatusCode::from_u16(reason.status()).unwrap_or(http::StatusCode::BAD_REQUEST);
    let node: String = node.chars().filter(char::is_ascii_graphic).collect();
    Bytes::from(format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nproxy-status: {}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{line}",
        reason.proxy_status(&node),
        line.len(),
    ))
}

impl AsyncRead for ServerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let len = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(len));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.progress.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        this.refusal.saw(&buf.filled()[before..], &this.progress);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_refuse(cx, buf, buf.len()))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => {
                let polled = Pin::new(&mut self.io).poll_write(cx, buf);
                self.progress.wrote(&polled);
                polled
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bufs.first().map_or(&[], |buf| buf);
        let len = bufs.iter().map(|buf| buf.len()).sum();
        match ready!(self.poll_refuse(cx, first, len))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => {
                let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
                self.progress.wrote(&polled);
                polled
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // hyper flushes only after it has written all it had.
        if !self.progress.is_active() {
            self.progress.solicited.store(false, Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.lingering.poll_finish(&mut this.io, cx))?;
        let unread = this.progress.unread.load(Relaxed) || matches!(this.refusal, Refusal::Sending(_));
        if unread { this.lingering.poll(&mut this.io, cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}
