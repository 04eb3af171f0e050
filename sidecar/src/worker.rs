//! A data worker's own state: nothing in it is shared with another thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_http::Sweeper;
use eastway_resilience::limits::{Limit, Permit};
use eastway_runtime::drain::InFlight;
use eastway_telemetry::metrics::RouteCache;

use crate::inbound::App;
use crate::node::Node;
use crate::upstream::Upstreams;

/// How often a worker that drains looks whether it is done.
const FINISH_PERIOD: Duration = Duration::from_millis(20);

/// A worker of a sidecar. Lives on its thread's `LocalSet`.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) sweeper: Sweeper,
    pub(crate) upstreams: Upstreams,
    pub(crate) app: App,
    pub(crate) routes: RefCell<RouteCache>,
    /// Accepted connections, both sides together.
    pub(crate) connections: Arc<Limit>,
    rng: RefCell<fastrand::Rng>,
}

impl Worker {
    /// A worker without connections. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: Arc<Node>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            sweeper: Sweeper::new(),
            upstreams: Upstreams::new(&node),
            app: App::new(&node),
            routes: RefCell::new(node.traffic.cache()),
            connections: Limit::new(node.config.limits.connections),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            node,
        })
    }

    /// A place for one more connection, and the drain's count of it.
    pub(crate) fn place(&self) -> Option<(Permit, InFlight)> {
        Some((self.connections.try_acquire()?, self.node.draining.guard()))
    }

    /// Waits until draining is over, then closes what is left.
    pub(crate) async fn finish(&self) {
        let forced = self.node.draining.forced();
        tokio::pin!(forced);
        let mut ticks = tokio::time::interval(FINISH_PERIOD);
        while self.connections.taken() > 0 {
            tokio::select! {
                () = &mut forced => break,
                _ = ticks.tick() => {}
            }
        }
        self.upstreams.clear();
        self.app.clear();
    }

    /// Runs `with` on the worker's random numbers. They are never borrowed across an await.
    pub(crate) fn random<T>(&self, with: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        with(&mut self.rng.borrow_mut())
    }
}
