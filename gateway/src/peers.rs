//! A worker's data connections to the gateways of peer clusters: made when first wanted, shared by all streams.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::Transport;
use eastway_core::{Chain, Reason, via};
use eastway_identity::{Expected, client_config};
use eastway_runtime::throttled;
use eastway_server::PeerPath;
use eastway_telemetry::metrics::{TunnelGuard, TunnelPeer};
use eastway_transport::tunnel::{Carrier, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel};
use eastway_transport::{ALPN, Io};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::carriers::Carriers;
use crate::node::GatewayNode;
use crate::relay::PeerStream;
use crate::resolve::{self, ResolveError};
use crate::turns;

/// How long the peers may take to hear that this gateway leaves.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How often a stream that waits to be opened follows its path to another transport.
const MOST_MOVES: u32 = 2;

/// A worker's connections, by the peer gateway's address.
pub(crate) struct Peers {
    carriers: Carriers,
    slots: RefCell<HashMap<String, Rc<Slot>>>,
    /// Grows with each stream: the gateways of a peer take turns.
    turn: Cell<usize>,
    metrics: RefCell<HashMap<(String, Transport), Arc<TunnelPeer>>>,
}

/// The connection to one gateway. One task connects at a time; the others wait for it.
#[derive(Default)]
struct Slot {
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    tunnel: Arc<dyn Tunnel>,
    /// Its gateway could not be reached meanwhile, or not over its transport: if it can again, it may be in another life, which
    /// does not know this connection. Streams that are open on it may go on; new ones take another.
    doubtful: Rc<Cell<bool>>,
    watching: JoinHandle<()>,
    _counted: TunnelGuard,
}

impl Connection {
    fn is_usable_over(&self, transport: Transport) -> bool {
        self.tunnel.transport() == transport && self.tunnel.is_usable() && !self.doubtful.get()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watching.abort();
    }
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
    /// No connections yet; `carriers` will make them.
    pub(crate) fn new(carriers: Carriers, turn: usize) -> Self {
        Self { carriers, slots: RefCell::default(), turn: Cell::new(turn), metrics: RefCell::default() }
    }

    /// The metrics of the tunnels to `cluster` over `transport`.
    pub(crate) fn metrics(&self, node: &GatewayNode, cluster: &str, transport: Transport) -> Arc<TunnelPeer> {
        let of = (cluster.to_owned(), transport);
        let mut metrics = self.metrics.borrow_mut();
        Arc::clone(metrics.entry(of).or_insert_with(|| node.tunnels.peer(cluster, transport.as_str())))
    }

    /// Opens a stream to a gateway of `cluster`, on the best path that lives, if possible by none of those to `avoid`; the
    /// next one is tried if nothing was sent.
    ///
    /// # Errors
    /// The peer's refusal, or [`Reason::PathDown`] if no path works.
    pub(crate) async fn open(
        &self,
        node: &Arc<GatewayNode>,
        cluster: &str,
        open: &StreamOpen,
        avoid: &[String],
    ) -> Result<(StreamAccepted, Io, PeerStream), Reason> {
        let hold = node.federation.hold(cluster).await;
        let (trust_domain, paths) = node.federation.paths(cluster).ok_or(Reason::UnknownService)?;
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let paths = turns::order(paths, avoid, turn);
        let mut last = Reason::PathDown;
        for path in paths {
            match self.open_by_path(node, (cluster, &path), &trust_domain, open).await {
                Ok((accepted, io, (metrics, via))) => {
                    return Ok((accepted, io, PeerStream::opened(metrics, via, hold)));
                }
                Err(StreamFailure { reason, message: Some(message) }) => {
                    tracing::debug!(cluster, reason = reason.code(), message, "the peer refused the stream");
                    if !goes_on(reason) {
                        return Err(reason);
                    }
                    last = reason;
                }
                Err(StreamFailure { reason, message: None }) => last = reason,
            }
        }
        Err(last)
    }

    /// Opens a stream by the path, over the transport that carries it. If that changes meanwhile, whoever still waits for an answer
    /// would wait in vain, and begins anew over the other one.
    async fn open_by_path(
        &self,
        node: &Arc<GatewayNode>,
        (cluster, path): (&str, &PeerPath),
        trust_domain: &str,
        open: &StreamOpen,
    ) -> Result<(StreamAccepted, Io, (Arc<TunnelPeer>, String)), StreamFailure> {
        let mut transport = path.transport;
        for _ in 0..=MOST_MOVES {
            let carrier = self.carriers.over(transport).ok_or(Reason::PathDown)?;
            let over = carrier.transport();
            let metrics = self.metrics(node, cluster, over);
            let opening = self.open_by(node, carrier, (cluster, &path.address), trust_domain, &metrics, open);
            tokio::select! {
                biased;
                opened = opening => {
                    if let Err(StreamFailure { reason, message: Some(_) }) = &opened {
                        metrics.refused(*reason);
                    }
                    let via = via::name(cluster, &path.address, over);
                    return opened.map(|(accepted, io)| (accepted, io, (metrics, via)));
                }
                () = node.federation.path_leaves(cluster, &path.address, over) => {}
            }
            transport = Some(node.federation.transport(cluster, &path.address).ok_or(Reason::PathDown)?);
        }
        Err(Reason::PathDown.into())
    }

    /// Opens a stream to the gateway at `address`. A kept connection that proves to be over, because the gateway was
    /// started again since, is replaced once: nothing was sent anywhere.
    async fn open_by(
        &self,
        node: &Arc<GatewayNode>,
        carrier: &Arc<dyn Carrier>,
        (cluster, address): (&str, &str),
        trust_domain: &str,
        metrics: &Arc<TunnelPeer>,
        open: &StreamOpen,
    ) -> Result<(StreamAccepted, Io), StreamFailure> {
        let mut replaced = false;
        loop {
            let (tunnel, kept) = self.tunnel(node, carrier, (cluster, address), trust_domain, metrics).await?;
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
        node: &Arc<GatewayNode>,
        carrier: &Arc<dyn Carrier>,
        (cluster, address): (&str, &str),
        trust_domain: &str,
        metrics: &Arc<TunnelPeer>,
    ) -> Result<(Arc<dyn Tunnel>, bool), Reason> {
        let slot = Rc::clone(self.slots.borrow_mut().entry(address.to_owned()).or_default());
        let mut connection = slot.connection.lock().await;
        if let Some(connection) = connection.as_ref().filter(|kept| kept.is_usable_over(carrier.transport())) {
            return Ok((Arc::clone(&connection.tunnel), true));
        }
        *connection = None;
        let expected = Expected::Gateway { trust_domain: trust_domain.to_owned() };
        let client = client_config(&node.identity, expected, &[ALPN]);
        let connecting =
            resolve::connect(address, |resolved| carrier.connect(resolved, client.clone(), Kind::Data)).await;
        let tunnel = connecting.map_err(|error| match error {
            ResolveError::Name(error) => {
                throttled!(info, address, %error, "the peer gateway's address cannot be resolved");
                Reason::PathDown
            }
            ResolveError::Connect(error) => {
                throttled!(info, address, error = %Chain(&error), "no data connection to a peer gateway");
                error.reason()
            }
        })?;
        let doubtful = Rc::default();
        let watching = tokio::task::spawn_local(doubt(
            Arc::clone(node),
            (cluster.to_owned(), address.to_owned()),
            carrier.transport(),
            (Rc::clone(&doubtful), Rc::downgrade(&slot)),
        ));
        let made = Connection { tunnel: Arc::clone(&tunnel), doubtful, watching, _counted: metrics.connected() };
        *connection = Some(made);
        Ok((tunnel, false))
    }

    /// Closes every connection in order, for the end of the worker.
    pub(crate) async fn close(&self) {
        self.slots.borrow_mut().clear();
        self.carriers.shutdown(Reason::Draining, CLOSE_LIMIT).await;
    }
}

/// Lets the slot's connection go once the way to `cluster` by the gateway at `address` is down, goes over another transport, or is
/// none any more. Streams that are open on it go on.
async fn doubt(
    node: Arc<GatewayNode>,
    (cluster, address): (String, String),
    transport: Transport,
    (doubtful, slot): (Rc<Cell<bool>>, Weak<Slot>),
) {
    node.federation.path_leaves(&cluster, &address, transport).await;
    doubtful.set(true);
    if let Some(slot) = slot.upgrade() {
        let mut connection = slot.connection.lock().await;
        *connection = connection.take().filter(|connection| !connection.doubtful.get());
    }
}

/// Whether another gateway of the peer is asked after one that refused for `reason`: it may have room, or know more than one
/// that has just begun or is cut off.
const fn goes_on(reason: Reason) -> bool {
    matches!(reason, Reason::Draining | Reason::Overloaded | Reason::NoReadyEndpoint | Reason::UnknownService)
}
