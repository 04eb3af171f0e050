//! Telling a host that is gone from one whose application does not read.
//!
//! Bytes wait unsent in both cases. But a living kernel acknowledges the probes of its closed window, for hours if need be;
//! the user timeout of Linux counts that time all the same, and kills the connection. So the kernel is asked instead what it
//! last heard: at most twice per limit, and only while something was sent that may not have arrived.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Window probes without an answer that show the host to be gone: one may be under way.
const UNANSWERED: u8 = 2;
/// Looks in a row that must find nothing under way until no more are taken: between two probes of a closed window the
/// kernel shows none.
const QUIET: u8 = 2;

sockopt_impl!(
    /// What the kernel knows of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// How many packets of a connection the network seems to have lost so far, in either direction: segments that were sent again, and
/// those that came in another order than they were sent. `None` if the connection has failed.
pub fn lost_packets(tcp: &TcpStream) -> Option<u32> {
    let info = getsockopt(tcp, TcpInfo).ok()?;
    Some(info.tcpi_total_retrans.saturating_add(info.tcpi_rcv_ooopack))
}

/// A TCP connection that is looked at while sent bytes are under way.
#[derive(Debug)]
pub struct Watched {
    tcp: TcpStream,
    limit: Duration,
    look: Option<Pin<Box<Sleep>>>,
    /// Bytes were sent, and may not have arrived.
    armed: bool,
    quiet: u8,
}

impl Watched {
    /// The peer's host may acknowledge nothing for `limit`.
    pub fn new(tcp: TcpStream, limit: Duration) -> Self {
        Self { tcp, limit, look: None, armed: false, quiet: 0 }
    }

    /// The connection and the limit; it is watched no longer.
    pub(crate) fn into_parts(self) -> (TcpStream, Option<Duration>) {
        (self.tcp, Some(self.limit))
    }

    /// The connection itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn sent(&mut self) {
        if !self.armed {
            self.armed = true;
            self.quiet = 0;
            self.rearm();
        }
    }

    fn rearm(&mut self) {
        let at = Instant::now() + self.limit / 2;
        match &mut self.look {
            Some(look) => look.as_mut().reset(at),
            None => self.look = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// Fails once the host is gone; else whoever waits for the stream is woken for the next look.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.armed {
            let Some(look) = &mut self.look else { return Poll::Pending };
            if look.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match getsockopt(&self.tcp, TcpInfo).map(|info| Heard::of(&info)) {
                Ok(heard) if heard.is_gone(self.limit) => {
                    let message = format!("its host has acknowledged nothing for {:?}", heard.silence);
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Ok(heard) => self.quiet = if heard.is_quiet() { self.quiet + 1 } else { 0 },
                // The connection has failed already, which reading or writing tells.
                Err(_) => self.quiet = QUIET,
            }
            self.armed = self.quiet < QUIET;
            self.rearm();
        }
        Poll::Pending
    }

    /// What came of reading or writing; while it waits, the host is looked at.
    fn waiting<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending if self.armed => self.poll_look(cx).map(Err),
            polled => polled,
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.sent();
        }
        self.waiting(cx, polled)
    }
}

/// What the kernel last heard of the peer's.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Since the last acknowledgement.
    silence: Duration,
    /// Segments sent and not acknowledged.
    unacknowledged: u32,
    /// Retransmissions in a row.
    retransmitted: u8,
    /// Probes of a closed window, or of an idle connection, that no answer followed.
    unanswered: u8,
    /// The wait for the next retransmission or probe has been doubled so often.
    backoff: u8,
}

impl Heard {
    fn of(info: &libc::tcp_info) -> Self {
        Self {
            silence: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
            unacknowledged: info.tcpi_unacked,
            retransmitted: info.tcpi_retransmits,
            unanswered: info.tcpi_probes,
            backoff: info.tcpi_backoff,
        }
    }

    fn is_gone(&self, limit: Duration) -> bool {
        let asked = self.unacknowledged > 0 && self.retransmitted > 0 || self.unanswered >= UNANSWERED;
        asked && self.silence >= limit
    }

    const fn is_quiet(&self) -> bool {
        self.unacknowledged == 0 && self.unanswered == 0 && self.backoff == 0
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.waiting(cx, polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
