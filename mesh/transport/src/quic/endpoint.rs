//! An endpoint: one socket, its connections, and the handshakes on it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eastway_core::Reason;
use eastway_core::view::Transport;
use eastway_identity::{ClientTls, ServerTls};
use eastway_runtime::throttled;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, Runtime, TokioRuntime, TransportConfig};

use super::admission::{Admission, HandshakePlace, HandshakeVerdict};
use super::cid::{ShardedIds, initial_ids, kind_of};
use super::datagram::LargePackets;
use super::reset::ResetKey;
use super::tunnel::QuicTunnel;
use super::{QuicOptions, mtu};
use crate::error::code;
use crate::tunnel::{Carrier, ConnectError, IncomingTunnel, Kind, Tunnel};

/// One socket's end of the tunnels. Clones are handles of the same endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    options: Arc<QuicOptions>,
    tls: ServerTls,
    admission: Arc<Admission>,
    closing: Arc<AtomicBool>,
}

impl Endpoint {
    /// Starts the endpoint of the socket number `shard` of those that [`super::bind`] made, in the calling runtime: that
    /// runtime drives it and all of its connections.
    ///
    /// # Errors
    /// If the socket or the TLS configuration cannot be used for QUIC.
    pub fn new(socket: UdpSocket, shard: u8, tls: ServerTls, options: &QuicOptions) -> io::Result<Self> {
        let payload = mtu::payload(socket.local_addr()?, options.max_mtu);
        let closing = Arc::default();
        let transport = options.transport(payload, &closing);
        let crypto = QuicServerConfig::try_from(Arc::clone(tls.config())).map_err(invalid)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::clone(&transport))
            .migration(options.migration)
            .max_incoming(options.max_incoming)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * options.max_incoming as u64);
        let mut config = EndpointConfig::default();
        if let Some(secret) = &options.reset_secret {
            config.reset_key(Arc::new(ResetKey::new(secret)));
        }
        config.max_udp_payload_size(payload).map_err(invalid)?.cid_generator(move || Box::new(ShardedIds::new(shard)));
        let runtime = Arc::new(TokioRuntime);
        let socket = LargePackets::new(runtime.wrap_udp_socket(socket)?, payload);
        let inner = quinn::Endpoint::new_with_abstract_socket(config, Some(server), Arc::new(socket), runtime)?;
        let admission = Arc::new(Admission::new(options));
        Ok(Self { inner, transport, options: Arc::new(options.clone()), tls, admission, closing })
    }

    /// The address that the endpoint is bound to.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Connections that are open now, handshakes included.
    pub fn connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// The next peer that wants a tunnel; `None` once the endpoint is closed. When handshakes pile up, clients have to prove
    /// their addresses first; beyond the limits they are refused.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.inner.accept().await?;
            let peer = incoming.remote_address();
            match self.admission.handshake(peer, incoming.remote_address_validated()) {
                HandshakeVerdict::Admit(place) => {
                    let (options, admission) = (Arc::clone(&self.options), Arc::clone(&self.admission));
                    return Some(Incoming { incoming, place, options, tls: self.tls.clone(), admission });
                }
                HandshakeVerdict::Prove => {
                    throttled!(info, %peer, "handshakes pile up: clients have to prove their addresses first");
                    // Fails only for a client that has proven its address already.
                    drop(incoming.retry());
                }
                HandshakeVerdict::Refuse => {
                    throttled!(warn, %peer, "refused a connection: the limits of handshakes or connections are reached");
                    incoming.refuse();
                }
            }
        }
    }

    /// Opens a tunnel to the gateway at `address`, whose identity must be one that `client` expects.
    ///
    /// # Errors
    /// As [`Carrier::connect`].
    pub async fn connect(
        &self,
        address: SocketAddr,
        client: ClientTls,
        kind: Kind,
    ) -> Result<Arc<QuicTunnel>, ConnectError> {
        let generation = client.generation();
        let crypto = QuicClientConfig::try_from(Arc::clone(client.config()))
            .map_err(|e| ConnectError::Invalid(e.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::clone(&self.transport)).initial_dst_cid_provider(initial_ids(kind));
        let server_name = eastway_identity::server_name();
        let connecting = self
            .inner
            .connect_with(config, address, &server_name.to_str())
            .map_err(|error| ConnectError::Invalid(error.to_string()))?;
        let connection = tokio::time::timeout(self.options.handshake_timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        QuicTunnel::new(connection, kind, &self.options, None, |chain| client.hold(chain, generation))
    }

    /// Waits until all connections have ended and their peers were told.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

#[async_trait]
impl Carrier for Endpoint {
    async fn connect(
        &self,
        address: SocketAddr,
        client: ClientTls,
        kind: Kind,
    ) -> Result<Arc<dyn Tunnel>, ConnectError> {
        Ok(Self::connect(self, address, client, kind).await?)
    }

    async fn accept(&self) -> Option<Box<dyn IncomingTunnel>> {
        Some(Box::new(Self::accept(self).await?))
    }

    fn tunnels(&self) -> usize {
        self.connections()
    }

    fn close(&self, reason: Reason) {
        self.closing.store(true, Ordering::Relaxed);
        self.inner.close(code(reason), reason.code().as_bytes());
    }

    async fn shutdown(&self, reason: Reason, limit: Duration) {
        self.close(reason);
        if tokio::time::timeout(limit, self.wait_idle()).await.is_err() {
            tracing::debug!(connections = self.connections(), "not every peer was told that this endpoint closes");
        }
    }

    fn transport(&self) -> Transport {
        Transport::Quic
    }
}

/// A peer that wants a tunnel. Establishing it takes a round trip, so that belongs in a task of its own.
#[derive(Debug)]
pub struct Incoming {
    incoming: quinn::Incoming,
    place: HandshakePlace,
    options: Arc<QuicOptions>,
    tls: ServerTls,
    admission: Arc<Admission>,
}

impl Incoming {
    /// Where it comes from. The address may not be proven yet.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// What the tunnel is for.
    pub fn kind(&self) -> Kind {
        kind_of(&self.incoming.orig_dst_cid())
    }

    /// Turns it away.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Goes through the handshake.
    ///
    /// # Errors
    /// If it fails or takes too long, or the peer has too many connections.
    pub async fn establish(self) -> Result<Arc<QuicTunnel>, ConnectError> {
        let kind = self.kind();
        let _until_done = self.place;
        let generation = self.tls.generation();
        let connecting = self.incoming.accept()?;
        let connection = tokio::time::timeout(self.options.handshake_timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        let hold = |chain: &[_]| self.tls.hold(chain, generation);
        QuicTunnel::new(connection, kind, &self.options, Some(&self.admission), hold)
    }
}

#[async_trait]
impl IncomingTunnel for Incoming {
    fn remote_address(&self) -> SocketAddr {
        Self::remote_address(self)
    }

    async fn establish(self: Box<Self>) -> Result<Arc<dyn Tunnel>, ConnectError> {
        Ok(Self::establish(*self).await?)
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Bytes kept of a peer whose handshake has not been looked at yet: a client hello with its certificates fits.
const INCOMING_BUFFER: u64 = 64 << 10;
