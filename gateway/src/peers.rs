//! A worker's data connections to the gateways of peer clusters: made when first wanted, shared by all streams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{Chain, Reason};
use eastway_identity::{Expected, client_config};
use eastway_runtime::throttled;
use eastway_telemetry::metrics::{TunnelGuard, TunnelPeer};
use eastway_transport::tunnel::{Carrier, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel};
use eastway_transport::{ALPN, Io};
use tokio::sync::Mutex;

use crate::node::GatewayNode;
use crate::relay::PeerStream;

/// How long the peers may take to hear that this gateway leaves.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// A worker's connections, by the peer gateway's address.
pub(crate) struct Peers {
    carrier: Arc<dyn Carrier>,
    slots: RefCell<HashMap<String, Rc<Slot>>>,
    metrics: RefCell<HashMap<String, Arc<TunnelPeer>>>,
}

/// The connection to one gateway. One task connects at a time; the others wait for it.
#[derive(Default)]
struct Slot {
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    tunnel: Arc<dyn Tunnel>,
    _counted: TunnelGuard,
}

/// Why a way to a peer gave no stream.
struct StreamFailure {
    reason: Reason,
    /// What the peer said, if it refused the stream itself.
    message: Option<String>,
}

impl From<Reason> for StreamFailure {
    fn from(reason: Reason) -> Self {
        Self { reason, message: None }
    }
}

impl Peers {
    /// No connections yet; `carrier` will make them.
    pub(crate) fn new(carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier, slots: RefCell::default(), metrics: RefCell::default() }
    }

    /// The metrics of the tunnel to `cluster`.
    pub(crate) fn metrics(&self, node: &GatewayNode, cluster: &str) -> Arc<TunnelPeer> {
        if let Some(known) = self.metrics.borrow().get(cluster) {
            return Arc::clone(known);
        }
        let metrics = node.tunnels.peer(cluster, self.carrier.protocol());
        self.metrics.borrow_mut().insert(cluster.to_owned(), Arc::clone(&metrics));
        metrics
    }

    /// Opens a stream to a gateway of `cluster`, on the best path that lives; the next one is tried if nothing was sent.
    ///
    /// # Errors
    /// The peer's refusal, or [`Reason::PathDown`] if no path works.
    pub(crate) async fn open(
        &self,
        node: &GatewayNode,
        cluster: &str,
        open: &StreamOpen,
    ) -> Result<(StreamAccepted, Io, PeerStream), Reason> {
        let (trust_domain, paths) = node.federation.paths(cluster).ok_or(Reason::UnknownService)?;
        let metrics = self.metrics(node, cluster);
        let mut last = Reason::PathDown;
        for path in paths {
            let opened = tokio::select! {
                biased;
                opened = self.open_by(node, &path.address, &trust_domain, &metrics, open) => opened,
                // Whoever still waits for an answer would wait in vain, and is better served elsewhere.
                () = node.federation.path_down(cluster, &path.address) => Err(Reason::PathDown.into()),
            };
            match opened {
                Ok((accepted, io)) => return Ok((accepted, io, PeerStream::opened(metrics, cluster, &path.address))),
                Err(StreamFailure { reason, message: Some(message) }) => {
                    tracing::debug!(cluster, reason = reason.code(), message, "the peer refused the stream");
                    metrics.refused(reason);
                    if reason != Reason::Draining {
                        return Err(reason);
                    }
                    last = reason;
                }
                Err(StreamFailure { reason, message: None }) => last = reason,
            }
        }
        Err(last)
    }

    /// Opens a stream to the gateway at `address`. A kept connection that proves to be over, because the gateway was
    /// started again since, is replaced once: nothing was sent anywhere.
    async fn open_by(
        &self,
        node: &GatewayNode,
        address: &str,
        trust_domain: &str,
        metrics: &Arc<TunnelPeer>,
        open: &StreamOpen,
    ) -> Result<(StreamAccepted, Io), StreamFailure> {
        let mut replaced = false;
        loop {
            let (tunnel, kept) = self.tunnel(node, address, trust_domain, metrics).await?;
            metrics.rtt(tunnel.stats().rtt);
            match tunnel.open(open, bytes::Bytes::new()).await {
                Ok(opened) => return Ok(opened),
                Err(OpenError::Refused { reason, message }) => {
                    return Err(StreamFailure { reason, message: Some(message) });
                }
                Err(OpenError::Lost(reason)) if kept && !replaced && reason != Reason::Draining => replaced = true,
                Err(error) => return Err(error.reason().into()),
            }
        }
    }

    /// A connection to the gateway at `address`, and whether it was there before.
    async fn tunnel(
        &self,
        node: &GatewayNode,
        address: &str,
        trust_domain: &str,
        metrics: &Arc<TunnelPeer>,
    ) -> Result<(Arc<dyn Tunnel>, bool), Reason> {
        let slot = Rc::clone(self.slots.borrow_mut().entry(address.to_owned()).or_default());
        let mut connection = slot.connection.lock().await;
        if let Some(connection) = connection.as_ref().filter(|connection| connection.tunnel.is_usable()) {
            return Ok((Arc::clone(&connection.tunnel), true));
        }
        *connection = None;
        let expected = Expected::Gateway { trust_domain: trust_domain.to_owned() };
        let client = client_config(&node.identity, expected, &[ALPN]);
        let resolved = tokio::net::lookup_host(address).await.ok().and_then(|mut found| found.next());
        let resolved = resolved.ok_or_else(|| {
            throttled!(info, address, "the peer gateway's address cannot be resolved");
            Reason::PathDown
        })?;
        let tunnel = self.carrier.connect(resolved, client, Kind::Data).await.map_err(|error| {
            throttled!(info, address, error = %Chain(&error), "no data connection to a peer gateway");
            error.reason()
        })?;
        *connection = Some(Connection { tunnel: Arc::clone(&tunnel), _counted: metrics.connected() });
        Ok((tunnel, false))
    }

    /// Closes every connection in order, for the end of the worker.
    pub(crate) async fn close(&self) {
        self.slots.borrow_mut().clear();
        self.carrier.shutdown(Reason::Draining, CLOSE_LIMIT).await;
    }
}
