//! A data worker's own state: nothing in it is shared with another thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use eastway_http::Sweeper;
use eastway_request::OutboundOptions;
use eastway_resilience::limits::Limit;

use crate::carriers::{Arrivals, Carriers};
use crate::node::GatewayNode;
use crate::peers::Peers;
use crate::streams::Streams;

/// A worker of a gateway. Lives on its thread's `LocalSet`.
pub(crate) struct Worker {
    pub(crate) node: Arc<GatewayNode>,
    pub(crate) sweeper: Sweeper,
    pub(crate) peers: Peers,
    /// Where tunnels over TCP are left, if there are any.
    pub(crate) arrivals: Option<Arrivals>,
    /// Accepted connections of sidecars, after their handshakes.
    pub(crate) connections: Arc<Limit>,
    /// Relayed streams.
    pub(crate) streams: Streams,
    /// What decides about streams to endpoints of this cluster.
    pub(crate) exit_options: Arc<OutboundOptions>,
    rng: RefCell<fastrand::Rng>,
}

impl Worker {
    /// A worker without connections, whose tunnels `carriers` carry. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: Arc<GatewayNode>, carriers: Carriers, arrivals: Option<Arrivals>, seed: u64) -> Rc<Self> {
        let mut rng = fastrand::Rng::with_seed(seed);
        Rc::new(Self {
            arrivals,
            sweeper: Sweeper::new(),
            // Workers begin with different gateways of a peer.
            peers: Peers::new(carriers, rng.usize(..)),
            connections: Limit::new(node.config.limits.connections),
            streams: Streams::new(&node.config.limits),
            exit_options: Arc::new(OutboundOptions {
                suffix: node.config.suffix.clone(),
                cluster: node.config.cluster.as_str().into(),
                via: false,
                idle: node.config.timeouts.idle,
            }),
            rng: RefCell::new(rng),
            node,
        })
    }

    /// Waits until draining is over, then closes what is left.
    pub(crate) async fn finish(&self) {
        self.node.draining.until(|| self.connections.taken() + self.streams.taken() == 0).await;
        self.peers.close().await;
    }

    /// Runs `with` on the worker's random numbers. They are never borrowed across an await.
    pub(crate) fn random<T>(&self, with: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        with(&mut self.rng.borrow_mut())
    }
}
