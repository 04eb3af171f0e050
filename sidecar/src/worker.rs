//! A data worker's own state: nothing in it is shared with another thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use eastway_http::{Body, Response, Sweeper};
use eastway_request::{InboundOptions, OutboundOptions};
use eastway_resilience::limits::{Limit, Permit};
use eastway_runtime::drain::InFlight;
use http_body::Body as _;

use crate::app::App;
use crate::node::SidecarNode;
use crate::record::Telemetry;
use crate::upstream::Upstreams;

/// A worker of a sidecar. Lives on its thread's `LocalSet`.
pub(crate) struct Worker {
    pub(crate) node: Arc<SidecarNode>,
    pub(crate) sweeper: Sweeper,
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) app: App,
    pub(crate) telemetry: Telemetry,
    pub(crate) outbound_options: Arc<OutboundOptions>,
    pub(crate) inbound_options: InboundOptions,
    /// Accepted connections of callers, after their handshakes.
    pub(crate) inbound: Arc<Limit>,
    /// Accepted connections of the application.
    pub(crate) outbound: Arc<Limit>,
    rng: RefCell<fastrand::Rng>,
}

impl Worker {
    /// A worker without connections. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: Arc<SidecarNode>, seed: u64) -> Rc<Self> {
        let connections = node.config.limits.connections;
        let (sweeper, mut rng) = (Sweeper::new(), fastrand::Rng::with_seed(seed));
        Rc::new(Self {
            upstreams: Upstreams::new(&node, &sweeper, rng.fork()),
            sweeper,
            app: App::new(&node),
            telemetry: Telemetry::new(&node),
            outbound_options: Arc::new(outbound_options(&node)),
            inbound_options: inbound_options(&node),
            inbound: Limit::new(connections),
            outbound: Limit::new(connections),
            rng: RefCell::new(rng),
            node,
        })
    }

    /// A place for one more connection of the application, and the drain's count of it.
    pub(crate) fn outbound_place(&self) -> Option<(Permit, InFlight)> {
        Some((self.outbound.try_acquire()?, self.node.draining.guard()))
    }

    /// The body of a request, which must not be silent for longer than `timeouts.idle`.
    pub(crate) fn limited(&self, body: Body) -> Body {
        if body.is_end_stream() { body } else { body.idle_limit(self.sweeper.after(self.node.config.timeouts.idle)) }
    }

    /// The body of a response on its way to its reader. Neither may keep the other waiting for longer than `timeouts.idle`;
    /// a small one fits into the buffers whether it is read or not.
    pub(crate) fn passing(&self, response: Response) -> Response {
        if response.body.is_at_hand() {
            return response;
        }
        let (limit, small) = (self.node.config.timeouts.idle, self.node.config.limits.held_response as u64);
        let unread = response.unread();
        response.map(|body| {
            let small = body.is_end_stream() || body.size_hint().exact().is_some_and(|length| length <= small);
            let body = body.idle_limit(self.sweeper.after(limit));
            if small { body } else { body.read_limit(&self.sweeper, limit, unread) }
        })
    }

    /// Waits until draining is over, then closes what is left.
    pub(crate) async fn finish(&self) {
        self.node.draining.until(|| self.inbound.taken() + self.outbound.taken() == 0).await;
        self.upstreams.clear();
        self.app.clear();
    }

    /// Runs `with` on the worker's random numbers. They are never borrowed across an await.
    pub(crate) fn random<T>(&self, with: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        with(&mut self.rng.borrow_mut())
    }
}

/// What decides about the application's requests.
fn outbound_options(node: &SidecarNode) -> OutboundOptions {
    let config = &node.config;
    OutboundOptions {
        suffix: config.suffix.clone(),
        cluster: Arc::clone(&node.zone.cluster),
        via: config.outbound.via,
        idle: config.timeouts.idle,
    }
}

/// What decides about calls to the application.
fn inbound_options(node: &SidecarNode) -> InboundOptions {
    InboundOptions {
        suffix: node.config.suffix.clone(),
        service: node.own.service.clone(),
        trust_domain: node.identity.id().trust_domain.clone(),
    }
}
