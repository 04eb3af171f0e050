//! One type for every byte stream of the data path.
//!
//! An enum rather than a boxed trait, so that the hot kinds are called directly and can be taken apart again: the relay
//! looks for QUIC streams to move their chunks without copying, and TLS runs over any `Io`, also over another TLS session.

pub(crate) mod ahead;
mod detached;
pub(crate) mod quic;
pub(crate) mod tls;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use eastway_core::{Reason, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tcp::Watched;
pub use detached::Detached;
pub use quic::QuicStream;
pub use tls::TlsStream;

/// A byte stream. Shutting it down sends the end of its kind (FIN, `close_notify` and FIN) and leaves reading open.
///
/// Dropping it ends it as its kind does: TCP closes, a QUIC stream that was not shut down is reset. To make sure that the
/// other side does not take the end for a regular one, use [`Io::abort`].
#[derive(Debug)]
pub enum Io {
    /// A TCP connection.
    Plain(TcpStream),
    /// A TCP connection whose peer must go on acknowledging.
    Watched(Box<Watched>),
    /// A TLS session over another stream.
    Tls(Box<TlsStream>),
    /// A stream of a tunnel.
    Quic(QuicStream),
    /// A stream of which the first bytes were read already.
    Rewound(Box<Rewound>),
    /// A stream whose bytes are passed on in pieces, without being copied.
    Chunked(Box<dyn ChunkStream>),
    /// Anything else: in memory, or handed back by an HTTP library.
    Other(Box<dyn ByteStream>),
}

/// What can be an [`Io::Chunked`].
pub trait ChunkStream: ByteStream {
    /// The next piece; an empty one is the end.
    fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;

    /// Takes bytes from the front of `chunk`, and says how many.
    fn poll_write_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<usize>>;

    /// Ends what is still open of the stream, so that the other side learns the reason.
    fn condemn(&mut self, reason: Reason);

    /// Who is on the other side of what carries the stream, if that is known.
    fn peer_id(&self) -> Option<Arc<SpiffeId>> {
        None
    }

    /// Notes whether what the stream carries waits for a reader that takes nothing. `true` if so many streams of its connection
    /// do that they may hold half of the connection's window.
    fn set_stalled(&mut self, _stalled: bool) -> bool {
        false
    }
}

/// What can be an [`Io::Other`]; implemented by everything that fits.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> ByteStream for T {}

/// A stream and bytes that come before what it has left; made by [`Io::rewound`].
#[derive(Debug)]
pub struct Rewound {
    prefix: Bytes,
    io: Io,
}

impl Io {
    /// A stream that passes bytes on in pieces.
    pub fn chunked(stream: impl ChunkStream + 'static) -> Self {
        Self::Chunked(Box::new(stream))
    }

    /// Any other kind of stream.
    pub fn other(stream: impl ByteStream + 'static) -> Self {
        Self::Other(Box::new(stream))
    }

    /// Two ends of a stream in memory, with `capacity` bytes of room in each direction.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (a, b) = tokio::io::duplex(capacity);
        (Self::other(a), Self::other(b))
    }

    /// A TCP connection that fails with [`io::ErrorKind::TimedOut`] when its peer's host has acknowledged nothing of what
    /// was sent for `limit`. A host that acknowledges and takes nothing, because its application does not read, lives.
    pub fn watched(tcp: TcpStream, limit: Duration) -> Self {
        Self::Watched(Box::new(Watched::new(tcp, limit)))
    }

    /// The stream with `prefix` put back in front of it.
    pub fn rewound(self, prefix: Bytes) -> Self {
        if prefix.is_empty() { self } else { Self::Rewound(Box::new(Rewound { prefix, io: self })) }
    }

    /// Who is on the other side, as its certificate says. Of nested sessions, the innermost one counts: it is the one that
    /// whoever holds this `Io` speaks through.
    pub fn peer_id(&self) -> Option<Arc<SpiffeId>> {
        match self {
            Self::Tls(tls) => tls.peer_id().cloned(),
            Self::Quic(quic) => Some(Arc::clone(quic.peer())),
            Self::Rewound(rewound) => rewound.io.peer_id(),
            Self::Chunked(stream) => stream.peer_id(),
            Self::Plain(_) | Self::Watched(_) | Self::Other(_) => None,
        }
    }

    /// The certificates that the other side of a TLS session showed, its own first.
    pub fn peer_chain(&self) -> Option<&[rustls_pki_types::CertificateDer<'static>]> {
        match self {
            Self::Tls(tls) => tls.peer_chain(),
            Self::Rewound(rewound) => rewound.io.peer_chain(),
            Self::Plain(_) | Self::Watched(_) | Self::Quic(_) | Self::Chunked(_) | Self::Other(_) => None,
        }
    }

    /// The application protocol that was negotiated.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.alpn(),
            Self::Quic(_) => Some(crate::ALPN),
            Self::Rewound(rewound) => rewound.io.alpn(),
            Self::Plain(_) | Self::Watched(_) | Self::Chunked(_) | Self::Other(_) => None,
        }
    }

    /// The TCP connection below everything, if there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Watched(watched) => Some(watched.tcp()),
            Self::Tls(tls) => tls.lower().tcp(),
            Self::Rewound(rewound) => rewound.io.tcp(),
            Self::Quic(_) | Self::Chunked(_) | Self::Other(_) => None,
        }
    }

    /// The network address of the other side.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(tcp) => tcp.peer_addr().ok(),
            Self::Watched(watched) => watched.tcp().peer_addr().ok(),
            Self::Tls(tls) => tls.lower().peer_addr(),
            Self::Quic(quic) => Some(quic.remote_address()),
            Self::Rewound(rewound) => rewound.io.peer_addr(),
            Self::Chunked(_) | Self::Other(_) => None,
        }
    }

    /// The own network address, of streams over TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Ready with the error that reads and writes give once a session's peer is accepted no longer; the task is woken when
    /// that comes. For who waits for something else.
    pub(crate) fn poll_revoked(&self, cx: &Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Tls(tls) => tls.poll_revoked(cx),
            Self::Rewound(rewound) => rewound.io.poll_revoked(cx),
            Self::Plain(_) | Self::Watched(_) | Self::Quic(_) | Self::Chunked(_) | Self::Other(_) => Poll::Pending,
        }
    }

    /// Ends the stream so that the other side knows that it is not complete: TCP by RST, TLS by the same without
    /// `close_notify`, a tunnel's stream by RESET_STREAM and STOP_SENDING with the reason's number.
    pub fn abort(mut self, reason: Reason) {
        self.condemn(reason);
    }

    /// As [`Io::abort`], for what will be dropped soon but cannot be given away.
    pub(crate) fn condemn(&mut self, reason: Reason) {
        match self {
            // It may fail if the connection is gone already, which is the aim.
            Self::Plain(tcp) => drop(tcp.set_zero_linger()),
            Self::Watched(watched) => drop(watched.tcp().set_zero_linger()),
            Self::Tls(tls) => tls.lower_mut().condemn(reason),
            Self::Quic(quic) => quic.condemn(reason),
            Self::Rewound(rewound) => rewound.io.condemn(reason),
            Self::Chunked(stream) => stream.condemn(reason),
            Self::Other(_) => {}
        }
    }

    /// Takes the bytes that were put back off again, whole.
    pub(crate) fn unwind(self) -> (Bytes, Self) {
        match self {
            Self::Rewound(rewound) => {
                let Rewound { prefix, io } = *rewound;
                let (deeper, io) = io.unwind();
                if deeper.is_empty() { (prefix, io) } else { ([prefix, deeper].concat().into(), io) }
            }
            io => (Bytes::new(), io),
        }
    }
}

impl From<TcpStream> for Io {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl From<QuicStream> for Io {
    fn from(quic: QuicStream) -> Self {
        Self::Quic(quic)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Watched(watched) => Pin::new(watched).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Quic(quic) => Pin::new(quic).poll_read(cx, buf),
            Self::Rewound(rewound) if rewound.prefix.is_empty() => Pin::new(&mut rewound.io).poll_read(cx, buf),
            Self::Rewound(rewound) => {
                let taken = buf.remaining().min(rewound.prefix.len());
                buf.put_slice(&rewound.prefix[..taken]);
                rewound.prefix.advance(taken);
                Poll::Ready(Ok(()))
            }
            Self::Chunked(chunked) => Pin::new(chunked).poll_read(cx, buf),
            Self::Other(other) => Pin::new(other).poll_read(cx, buf),
        }
    }
}

/// Calls the same method of whatever the stream is made of.
macro_rules! below {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Plain($io) => $call,
            Io::Watched($io) => $call,
            Io::Tls($io) => $call,
            Io::Quic($io) => $call,
            Io::Rewound(rewound) => {
                let $io = &mut rewound.io;
                $call
            }
            Io::Chunked($io) => $call,
            Io::Other($io) => $call,
        }
    };
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        below!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Watched(_) | Self::Tls(_) | Self::Quic(_) => true,
            Self::Rewound(rewound) => rewound.io.is_write_vectored(),
            Self::Chunked(chunked) => chunked.is_write_vectored(),
            Self::Other(other) => other.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests;
