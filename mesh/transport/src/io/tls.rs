//! A TLS session as a byte stream. It breaks when the identity of its other side is accepted no longer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eastway_core::SpiffeId;
use eastway_identity::{Held, Revoked};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;
use super::ahead::ReadAhead;

/// A TLS session over another stream.
#[derive(Debug)]
pub struct TlsStream {
    session: tokio_rustls::TlsStream<ReadAhead>,
    peer: Option<Arc<SpiffeId>>,
    /// Says when the other side's identity is accepted no longer: the session breaks then.
    held: Option<Held>,
}

impl TlsStream {
    /// `held` watches over the identity of `peer`.
    pub(crate) const fn new(
        session: tokio_rustls::TlsStream<ReadAhead>,
        peer: Option<Arc<SpiffeId>>,
        held: Option<Held>,
    ) -> Self {
        Self { session, peer, held }
    }

    /// Who is on the other side; `None` if it showed no certificate.
    pub const fn peer_id(&self) -> Option<&Arc<SpiffeId>> {
        self.peer.as_ref()
    }

    /// The certificates that the other side showed, its own first.
    pub fn peer_chain(&self) -> Option<&[rustls_pki_types::CertificateDer<'static>]> {
        self.session.get_ref().1.peer_certificates()
    }

    /// The application protocol that was negotiated.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.get_ref().1.alpn_protocol()
    }

    /// The stream that carries the session.
    pub fn lower(&self) -> &Io {
        self.session.get_ref().0.io()
    }

    pub(crate) fn lower_mut(&mut self) -> &mut Io {
        self.session.get_mut().0.io_mut()
    }

    /// Ready with an error once the other side's identity is accepted no longer.
    pub(crate) fn poll_revoked(&self, cx: &Context<'_>) -> Poll<io::Error> {
        self.held.as_ref().map_or(Poll::Pending, |held| held.poll_revoked(cx).map(broken))
    }

    /// An error once the other side's identity is accepted no longer.
    fn in_order(&self) -> io::Result<()> {
        self.held.as_ref().and_then(Held::revoked).map_or(Ok(()), |revoked| Err(broken(revoked)))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whoever waits for the other side is woken by this as well.
        if let Poll::Ready(error) = self.poll_revoked(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.session).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_order()?;
        Pin::new(&mut self.session).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_order()?;
        Pin::new(&mut self.session).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.session).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.session).poll_shutdown(cx)
    }
}

fn broken(revoked: Revoked) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, revoked)
}
