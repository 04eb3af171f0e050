//! The network between clusters in memory: control connections, and introductions over real TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_core::view::Transport;
use eastway_core::{Chain, Reason, SpiffeId};
use eastway_identity::ClientTls;
use eastway_registry::Resources;
use eastway_transport::tunnel::ConnectError;
use eastway_transport::{IncomingStream, Io, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel, TunnelStats, tls};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::{Gateway, piped};
use crate::dialer::{DialError, Dialer};

/// The network between the clusters: which gateway listens at which address, and whether bytes pass.
#[derive(Debug)]
pub(crate) struct Wan {
    gateways: Mutex<BTreeMap<String, Listener>>,
    /// Who does not reach what: identities, and the addresses that are not there for them.
    apart: Mutex<BTreeSet<(String, String)>>,
    /// For QUIC, which is all that most tests use.
    pub(crate) open: watch::Sender<bool>,
    /// For TCP.
    pub(crate) tcp: watch::Sender<bool>,
}

impl Wan {
    /// The way onto the network for the gateway `own`.
    pub(crate) fn dialer(self: &Arc<Self>, transports: &'static [Transport], own: SpiffeId) -> Arc<dyn Dialer> {
        Arc::new(WanDialer { wan: Arc::clone(self), own: Arc::new(own), transports })
    }

    /// A cluster with one gateway on the network, which does not run yet.
    pub(crate) async fn gateway(self: &Arc<Self>, cluster: &'static str, resources: Resources) -> Gateway {
        self.gateway_over(&[Transport::Quic], cluster, resources).await
    }

    /// The same, over other transports.
    pub(crate) async fn gateway_over(
        self: &Arc<Self>,
        transports: &'static [Transport],
        cluster: &'static str,
        resources: Resources,
    ) -> Gateway {
        let own = SpiffeId::gateway(&format!("{cluster}.mesh.internal"), "gw-1");
        let gateway = Gateway::new(cluster, self.dialer(transports, own.clone()), resources).await;
        self.listen(&format!("gw-1.{cluster}:15443"), own, &gateway);
        gateway
    }

    /// Another gateway of the cluster of `first`.
    pub(crate) fn sibling(self: &Arc<Self>, first: &Gateway, id: &'static str) -> Gateway {
        let own = SpiffeId::gateway(&first.trust_domain(), id);
        let mut sibling = first.sibling(id);
        sibling.dialer = self.dialer(&[Transport::Quic], own.clone());
        self.listen(&format!("{id}.{}:15443", first.cluster), own, &sibling);
        sibling
    }

    /// Who connects to `address` reaches `gateway`, which shows the identity `own` there.
    pub(crate) fn listen(&self, address: &str, own: SpiffeId, gateway: &Gateway) {
        let listener = Listener { identity: Arc::new(own), server: Arc::clone(&gateway.server) };
        self.gateways.lock().insert(address.to_owned(), listener);
    }

    /// The gateway `id` of the cluster of `of` does not reach `address`, or does again.
    pub(crate) fn part(&self, of: &Gateway, id: &str, address: &str, apart: bool) {
        let pair = (SpiffeId::gateway(&of.trust_domain(), id).to_string(), address.to_owned());
        match apart {
            true => self.apart.lock().insert(pair),
            false => self.apart.lock().remove(&pair),
        };
    }

    /// Nobody is reached at `address` any more.
    pub(crate) fn silence(&self, address: &str) {
        self.gateways.lock().remove(address);
    }

    fn over(&self, transport: Transport) -> &watch::Sender<bool> {
        match transport {
            Transport::Quic => &self.open,
            Transport::Tcp => &self.tcp,
        }
    }
}

#[derive(Clone)]
struct Listener {
    identity: Arc<SpiffeId>,
    server: Arc<Mutex<Option<Arc<crate::Server>>>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener of {}", self.identity)
    }
}

impl Default for Wan {
    fn default() -> Self {
        Self {
            gateways: Mutex::default(),
            apart: Mutex::default(),
            open: watch::Sender::new(true),
            tcp: watch::Sender::new(true),
        }
    }
}

/// One gateway's way onto the network.
#[derive(Debug)]
struct WanDialer {
    wan: Arc<Wan>,
    own: Arc<SpiffeId>,
    transports: &'static [Transport],
}

#[async_trait]
impl Dialer for WanDialer {
    async fn dial(
        &self,
        address: &str,
        trust_domain: &str,
        transport: Transport,
    ) -> Result<Arc<dyn Tunnel>, DialError> {
        let listener = self.wan.gateways.lock().get(address).cloned();
        let _ = self.wan.over(transport).subscribe().wait_for(|open| *open).await;
        let refused = |message: &str| DialError { reason: Reason::PathDown, message: message.to_owned() };
        let apart = self.wan.apart.lock().contains(&(self.own.to_string(), address.to_owned()));
        let listener = listener.filter(|_| !apart).ok_or_else(|| refused("nobody listens"))?;
        let server = listener.server.lock().clone().ok_or_else(|| refused("the gateway does not run"))?;
        if listener.identity.trust_domain != trust_domain {
            return Err(refused("another identity"));
        }
        let (near, far) = tunnels(&self.wan, (&self.own, &listener.identity), transport);
        tokio::spawn(async move { server.on_control_connection(far).await });
        Ok(near)
    }

    async fn introduce(&self, address: &str, tls: ClientTls) -> Result<Io, DialError> {
        let refused = |message: &str| DialError { reason: Reason::PathDown, message: message.to_owned() };
        let listener = self.wan.gateways.lock().get(address).cloned().ok_or_else(|| refused("nobody listens"))?;
        let server = listener.server.lock().clone().ok_or_else(|| refused("the gateway does not run"))?;
        if !server.joining().is_open() {
            return Err(refused("it takes no token"));
        }
        let (near, far) = Io::pair(64 << 10);
        tokio::spawn(async move {
            if let Ok(io) = tls::accept(far, server.joining().tls()).await {
                server.joining().serve(io).await;
            }
        });
        let shaken = tls::connect(near, tls).await;
        shaken.map_err(|error| refused(&Chain(&error).to_string()))
    }

    fn transports(&self) -> &[Transport] {
        self.transports
    }
}

/// A control connection in memory.
struct MemoryTunnel {
    peer: Arc<SpiffeId>,
    transport: Transport,
    open: watch::Sender<bool>,
    to_peer: mpsc::Sender<Io>,
    from_peer: AsyncMutex<mpsc::Receiver<Io>>,
    ended: Arc<watch::Sender<Option<Reason>>>,
}

fn tunnels(
    wan: &Wan,
    ends: (&Arc<SpiffeId>, &Arc<SpiffeId>),
    transport: Transport,
) -> (Arc<dyn Tunnel>, Arc<dyn Tunnel>) {
    let (to_far, from_near) = mpsc::channel(8);
    let (to_near, from_far) = mpsc::channel(8);
    let ended = Arc::new(watch::Sender::new(None));
    let tunnel = |peer: &Arc<SpiffeId>, to_peer, from_peer| MemoryTunnel {
        peer: Arc::clone(peer),
        transport,
        open: wan.over(transport).clone(),
        to_peer,
        from_peer: AsyncMutex::new(from_peer),
        ended: Arc::clone(&ended),
    };
    (Arc::new(tunnel(ends.1, to_far, from_far)), Arc::new(tunnel(ends.0, to_near, from_near)))
}

impl std::fmt::Debug for MemoryTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryTunnel to {}", self.peer)
    }
}

#[async_trait]
impl Tunnel for MemoryTunnel {
    async fn open(&self, _: &StreamOpen, _: Bytes) -> Result<(StreamAccepted, Io), OpenError> {
        Err(OpenError::Timeout)
    }

    async fn accept(&self) -> Option<IncomingStream> {
        None
    }

    async fn open_raw(&self) -> Result<Io, OpenError> {
        let (near, far) = piped(self.open.subscribe());
        self.to_peer.send(far).await.map_err(|_| OpenError::Timeout)?;
        Ok(near)
    }

    async fn accept_raw(&self) -> Option<Io> {
        let mut from_peer = self.from_peer.lock().await;
        tokio::select! {
            io = from_peer.recv() => io,
            _ = self.closed() => None,
        }
    }

    async fn confirmed(&self) -> Result<(), ConnectError> {
        Ok(())
    }

    async fn closed(&self) -> Reason {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|reason| *reason).unwrap_or(Reason::TunnelLost)
    }

    fn is_closed(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn close(&self, reason: Reason) {
        self.ended.send_replace(Some(reason));
    }

    fn stats(&self) -> TunnelStats {
        TunnelStats::default()
    }

    fn peer(&self) -> &Arc<SpiffeId> {
        &self.peer
    }

    fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &[]
    }

    fn remote_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 15443).into()
    }

    fn kind(&self) -> Kind {
        Kind::Control
    }

    fn transport(&self) -> Transport {
        self.transport
    }
}
