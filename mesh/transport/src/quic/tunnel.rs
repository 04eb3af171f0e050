//! A QUIC connection as a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_core::view::Transport;
use eastway_core::{Chain, Reason, SpiffeId};
use eastway_identity::Held;
use rustls_pki_types::CertificateDer;
use tokio_util::task::AbortOnDropHandle;

use super::admission::Admission;
use super::{QuicOptions, congestion};
use crate::error::{code, lost};
use crate::io::Io;
use crate::io::quic::{QuicStream, Shared};
use crate::tunnel::{
    self, ConnectError, IncomingStream, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel, TunnelStats,
};

/// A connection between two gateways.
#[derive(Debug)]
pub struct QuicTunnel {
    connection: quinn::Connection,
    shared: Arc<Shared>,
    kind: Kind,
    options: Arc<QuicOptions>,
    /// The count of received packets after which the peer was silent while a stream waited for its answer.
    silent_since: AtomicU64,
}

impl QuicTunnel {
    /// Of a connection that was established; `admission` counts one that the peer opened, and `hold` keeps an eye on the
    /// peer's certificates.
    pub(super) fn new(
        connection: quinn::Connection,
        kind: Kind,
        options: &Arc<QuicOptions>,
        admission: Option<&Arc<Admission>>,
        hold: impl FnOnce(&[CertificateDer<'static>]) -> Held,
    ) -> Result<Arc<Self>, ConnectError> {
        let certificates = connection.peer_identity().and_then(|identity| identity.downcast().ok());
        let chain: Vec<CertificateDer<'static>> = certificates.map(|chain| *chain).unwrap_or_default();
        let peer = eastway_identity::peer_id(&chain).map_err(|error| {
            connection.close(code(Reason::IdentityRefused), Reason::IdentityRefused.code().as_bytes());
            ConnectError::Invalid(error.to_string())
        })?;
        let place = match admission {
            Some(admission) => Some(admission.connection(&peer.trust_domain).ok_or_else(|| {
                connection.close(code(Reason::Overloaded), Reason::Overloaded.code().as_bytes());
                ConnectError::Overloaded
            })?),
            None => None,
        };
        // It holds the connection, so it must not outlive those who use it.
        let watching = AbortOnDropHandle::new(tokio::spawn(end_when_revoked(connection.clone(), hold(&chain))));
        let shared = Arc::new(Shared {
            _kept: Box::new((place, watching)),
            peer: Arc::new(peer),
            chain,
            remote: connection.remote_address(),
            streams: 0.into(),
            opened: 0.into(),
            accepted: 0.into(),
            sent: 0.into(),
            received: 0.into(),
            stalled: 0.into(),
            stall_limit: u64::from(options.window_streams() / 2),
        });
        let silent_since = AtomicU64::new(NEVER);
        Ok(Arc::new(Self { connection, shared, kind, options: Arc::clone(options), silent_since }))
    }

    /// Packets received so far.
    fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    fn stream(&self, halves: (quinn::SendStream, quinn::RecvStream), opener: bool) -> QuicStream {
        QuicStream::new(halves, Arc::clone(&self.shared), opener)
    }

    async fn open_stream(&self) -> Result<QuicStream, OpenError> {
        let halves = self.connection.open_bi().await.map_err(|error| OpenError::Lost(lost(&error)))?;
        Ok(self.stream(halves, true))
    }
}

#[async_trait]
impl Tunnel for QuicTunnel {
    async fn open(&self, open: &StreamOpen, early: Bytes) -> Result<(StreamAccepted, Io), OpenError> {
        let received = self.received();
        let opening = async { tunnel::open_over(self.open_stream().await?.into(), open, early).await };
        tokio::time::timeout(self.options.open_timeout, opening).await.map_err(|_| {
            // A peer that is only slow would have acknowledged the opening message by now.
            if self.received() == received {
                self.silent_since.store(received, Ordering::Relaxed);
            }
            OpenError::Timeout
        })?
    }

    async fn accept(&self) -> Option<IncomingStream> {
        let stream = self.accept_raw().await?;
        Some(IncomingStream::new(stream, Arc::clone(&self.shared.peer), self.options.opening_timeout))
    }

    async fn open_raw(&self) -> Result<Io, OpenError> {
        let opening = self.open_stream();
        let stream =
            tokio::time::timeout(self.options.open_timeout, opening).await.map_err(|_| OpenError::Timeout)??;
        Ok(stream.into())
    }

    async fn accept_raw(&self) -> Option<Io> {
        let halves = self.connection.accept_bi().await.ok()?;
        Some(self.stream(halves, false).into())
    }

    async fn confirmed(&self) -> Result<(), ConnectError> {
        // quinn tells it by a counter only.
        while self.connection.side().is_client() && self.connection.stats().frame_rx.handshake_done == 0 {
            let pause = tokio::time::sleep(CONFIRMATION_POLL);
            tokio::select! {
                error = self.connection.closed() => return Err(error.into()),
                () = pause => {}
            }
        }
        Ok(())
    }

    async fn closed(&self) -> Reason {
        lost(&self.connection.closed().await)
    }

    fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    fn is_usable(&self) -> bool {
        let silent_since = self.silent_since.load(Ordering::Relaxed);
        !self.is_closed() && (silent_since == NEVER || silent_since != self.received())
    }

    fn close(&self, reason: Reason) {
        congestion::open_window(&self.connection);
        self.connection.close(code(reason), reason.code().as_bytes());
    }

    fn stats(&self) -> TunnelStats {
        let path = self.connection.stats().path;
        let Shared { streams, opened, accepted, sent, received, .. } = &*self.shared;
        TunnelStats {
            rtt: path.rtt,
            min_rtt: path.min_rtt,
            streams: streams.load(Ordering::Relaxed),
            opened: opened.load(Ordering::Relaxed),
            accepted: accepted.load(Ordering::Relaxed),
            bytes_sent: sent.load(Ordering::Relaxed),
            bytes_received: received.load(Ordering::Relaxed),
            mtu: path.current_mtu,
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
            black_holes: path.black_holes_detected,
        }
    }

    fn peer(&self) -> &Arc<SpiffeId> {
        &self.shared.peer
    }

    fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.shared.chain
    }

    fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn transport(&self) -> Transport {
        Transport::Quic
    }
}

/// Closes the connection when its peer's identity is accepted no longer.
async fn end_when_revoked(connection: quinn::Connection, held: Held) {
    tokio::select! {
        revoked = std::future::poll_fn(|cx| held.poll_revoked(cx)) => {
            tracing::info!(peer = %connection.remote_address(), error = %Chain(&revoked), "a tunnel connection ends");
            congestion::open_window(&connection);
            connection.close(code(Reason::IdentityRefused), Reason::IdentityRefused.code().as_bytes());
        }
        _ = connection.closed() => {}
    }
}

/// How often the confirmation of a handshake is looked for.
const CONFIRMATION_POLL: Duration = Duration::from_millis(5);
/// No count of packets is that high.
const NEVER: u64 = u64::MAX;
