//! TLS sessions over any [`Io`].
//!
//! Who may be on the other side is in the configuration (`eastway-identity`); names play no part in it. A session breaks
//! when that identity is accepted no longer. There is no time limit in here: callers put theirs around the handshake. Note
//! that with TLS 1.3 a client is done before the server has judged the client's certificate: that refusal arrives with the
//! first read.

use std::io;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_identity::{ClientTls, Refusal, ServerTls, Tls};
use rustls::server::{Acceptor, ClientHello};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector};

use crate::io::Io;
use crate::io::ahead::ReadAhead;
use crate::io::tls::TlsStream;

/// Opens a session as the client.
///
/// # Errors
/// If the handshake fails, also because the other side is not whom the configuration expects.
pub async fn connect(io: Io, tls: ClientTls) -> Result<Io, TlsError> {
    let generation = tls.generation();
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    let session = connector.connect(eastway_identity::server_name(), ReadAhead::new(io)).await?;
    established(session.into(), &tls, generation)
}

/// Opens a session as the server.
///
/// # Errors
/// If the handshake fails, also because the other side is not whom the configuration expects.
pub async fn accept(io: Io, tls: ServerTls) -> Result<Io, TlsError> {
    let generation = tls.generation();
    let session = TlsAcceptor::from(Arc::clone(tls.config())).accept(ReadAhead::new(io)).await?;
    established(session.into(), &tls, generation)
}

/// The same, with the configuration that `choose` takes for the application protocols which the client offers. What is negotiated is
/// of that configuration, so that who may be on the other side is known before anything is said.
///
/// # Errors
/// As [`accept`].
pub async fn accept_by(io: Io, choose: impl FnOnce(&ClientHello<'_>) -> ServerTls) -> Result<Io, TlsError> {
    let started = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(io)).await?;
    let tls = choose(&started.client_hello());
    let generation = tls.generation();
    let session = started.into_stream(Arc::clone(tls.config())).await?;
    established(session.into(), &tls, generation)
}

/// Whether a client offers one of `protocols` (ALPN).
pub fn offers(hello: &ClientHello<'_>, protocols: &[&[u8]]) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|offered| protocols.contains(&offered)))
}

fn established<C>(session: tokio_rustls::TlsStream<ReadAhead>, tls: &Tls<C>, generation: u64) -> Result<Io, TlsError> {
    if session.get_ref().1.alpn_protocol().is_none() {
        return Err(TlsError::NoProtocol);
    }
    let certificates = session.get_ref().1.peer_certificates();
    let peer = certificates.map(eastway_identity::peer_id).transpose()?.map(Arc::new);
    let held = certificates.map(|chain| tls.hold(chain, generation));
    Ok(Io::Tls(Box::new(TlsStream::new(session, peer, held))))
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

#[cfg(test)]
mod tests;
