//! TLS sessions over any [`Io`].
//!
//! Who may be on the other side is in the configuration (`eastway-identity`); names play no part in it. A session breaks
//! when that identity is accepted no longer. There is no time limit in here: callers put theirs around the handshake. Note
//! that with TLS 1.3 a client is done before the server has judged the client's certificate: that refusal arrives with the
//! first read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eastway_core::{Reason, SpiffeId};
use eastway_identity::{ClientTls, Held, Refusal, Revoked, ServerTls, Tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::io::Io;

/// Opens a session as the client.
///
/// # Errors
/// If the handshake fails, also because the other side is not whom the configuration expects.
pub async fn connect(io: Io, tls: ClientTls) -> Result<Io, TlsError> {
    let generation = tls.generation();
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    let session = connector.connect(eastway_identity::server_name(), io).await?;
    TlsStream::established(session.into(), &tls, generation)
}

/// Opens a session as the server.
///
/// # Errors
/// If the handshake fails, also because the other side is not whom the configuration expects.
pub async fn accept(io: Io, tls: ServerTls) -> Result<Io, TlsError> {
    let generation = tls.generation();
    let session = TlsAcceptor::from(Arc::clone(tls.config())).accept(io).await?;
    TlsStream::established(session.into(), &tls, generation)
}

/// Why there is no session.
///
/// Nodes always agree on an application protocol: who offers none could be led to misread what is meant for another.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake(#[from] io::Error),
    /// The other side offered no application protocol, or chose none (ALPN).
    #[error("no application protocol was negotiated (ALPN)")]
    NoProtocol,
    /// The certificate was accepted, but states no identity of the mesh.
    #[error("the certificate states no identity")]
    Identity(#[from] eastway_identity::IdentityError),
}

impl TlsError {
    /// What was wrong with an identity, if that was it.
    pub fn refusal(&self) -> Option<Refusal> {
        Refusal::of(self)
    }

    /// The reason to report further.
    pub fn reason(&self) -> Reason {
        match self.refusal() {
            None | Some(Refusal::ByPeer) => Reason::TlsFailed,
            Some(_) => Reason::WrongIdentity,
        }
    }
}

/// A TLS session over another stream.
#[derive(Debug)]
pub struct TlsStream {
    session: tokio_rustls::TlsStream<Io>,
    peer: Option<Arc<SpiffeId>>,
    /// Says when the other side's identity is accepted no longer: the session breaks then.
    held: Option<Held>,
}

impl TlsStream {
    fn established<C>(session: tokio_rustls::TlsStream<Io>, tls: &Tls<C>, generation: u64) -> Result<Io, TlsError> {
        if session.get_ref().1.alpn_protocol().is_none() {
            return Err(TlsError::NoProtocol);
        }
        let certificates = session.get_ref().1.peer_certificates();
        let peer = certificates.map(eastway_identity::peer_id).transpose()?.map(Arc::new);
        let held = certificates.map(|chain| tls.hold(chain, generation));
        Ok(Io::Tls(Box::new(Self { session, peer, held })))
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
        self.session.get_ref().0
    }

    pub(crate) fn lower_mut(&mut self) -> &mut Io {
        self.session.get_mut().0
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

#[cfg(test)]
mod tests;
