//! The way to one gateway, as its control connections find it: one over each transport.
//!
//! The connections are watched alike. Which of them carries what goes to the gateway is decided by [`TransportChoice`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{PathState, Transport};
use eastway_registry::PathFacts;
use eastway_resilience::liveness::PathMonitor;
use eastway_resilience::transports::{TransportChoice, TransportFacts};
use eastway_transport::Tunnel;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::hub::Hub;

/// What the tasks of one path know of it, and the catalogue's copy of that.
pub(super) struct Path {
    pub(super) hub: Arc<Hub>,
    pub(super) cluster: String,
    pub(super) address: String,
    known: Mutex<Known>,
    /// The connection over the transport in use.
    carrying: watch::Sender<Option<Arc<dyn Tunnel>>>,
}

struct Known {
    facts: PathFacts,
    choice: TransportChoice,
    ways: BTreeMap<Transport, Way>,
}

/// What is known of the path over one transport.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    seen: TransportFacts,
    min_rtt: Option<Duration>,
    rtt: Option<Duration>,
    tunnel: Option<Arc<dyn Tunnel>>,
    /// The gateway does not take this cluster for its peer.
    refused: bool,
}

impl Way {
    /// A connection was made, of which nothing was heard yet.
    pub(super) fn connected(&mut self, tunnel: &Arc<dyn Tunnel>) {
        self.seen.state = PathState::Unknown;
        self.tunnel = Some(Arc::clone(tunnel));
    }

    /// There is no connection, perhaps because the gateway has `refused` it.
    pub(super) fn lost(&mut self, refused: bool) {
        self.refused = refused;
        self.seen = TransportFacts { state: PathState::Down, loss: None, ..self.seen };
        self.tunnel = None;
    }

    /// As if the pings had said so.
    #[cfg(test)]
    pub(super) fn becomes(&mut self, state: PathState) {
        self.seen.state = state;
    }

    /// What the pings say.
    pub(super) fn heard(&mut self, monitor: &PathMonitor) {
        self.seen = TransportFacts {
            state: monitor.state(),
            silent_since: monitor.silent_since(),
            answered: monitor.answered(),
            loss: monitor.loss(),
        };
        // Only those that are peers are answered.
        self.refused &= self.seen.state != PathState::Up;
        (self.min_rtt, self.rtt) = (monitor.min_rtt(), monitor.smoothed_rtt());
    }
}

impl Path {
    /// Nothing is known yet of a path over `transports`, of which the first is preferred.
    pub(super) fn new(hub: Arc<Hub>, cluster: String, address: String, transports: &[Transport]) -> Self {
        let choice = TransportChoice::new(hub.options.peering.transports, transports, hub.clock.now());
        let ways = transports.iter().map(|transport| (*transport, Way::default())).collect();
        let known = Mutex::new(Known { facts: PathFacts::default(), choice, ways });
        Self { hub, cluster, address, known, carrying: watch::Sender::new(None) }
    }

    /// Whether it leads to a gateway of this cluster.
    pub(super) fn leads_to_sibling(&self) -> bool {
        self.hub.read(|catalogue, _| catalogue.meta().name == self.cluster)
    }

    /// Whether the gateway answers over `transport`, as far as known.
    pub(super) fn state_over(&self, transport: Transport) -> PathState {
        self.known.lock().ways.get(&transport).map(|way| way.seen.state).unwrap_or_default()
    }

    /// Whether the gateway has refused the last connection over `transport`.
    pub(super) fn refuses_over(&self, transport: Transport) -> bool {
        self.known.lock().ways.get(&transport).is_some_and(|way| way.refused)
    }

    /// Whether the gateway answers over another transport than this one.
    pub(super) fn works_without(&self, transport: Transport) -> bool {
        let known = self.known.lock();
        known.ways.iter().any(|(other, way)| *other != transport && way.seen.state == PathState::Up)
    }

    /// The connection over the transport in use, whenever that is another one.
    pub(super) fn carrying(&self) -> watch::Receiver<Option<Arc<dyn Tunnel>>> {
        self.carrying.subscribe()
    }

    /// Changes what is known of the path over `transport`, and decides which one is used.
    pub(super) fn note_way(&self, transport: Transport, change: impl FnOnce(&mut Way)) {
        let now = self.hub.clock.now();
        self.change(|Known { facts, choice, ways }| {
            let Some(way) = ways.get_mut(&transport) else { return false };
            let before = way.seen.state;
            change(way);
            let seen = way.seen;
            choice.observe(transport, seen, now);
            describe(facts, choice, ways);
            seen.state != before
        });
    }

    /// Changes what the gateway said of itself.
    pub(super) fn note(&self, change: impl FnOnce(&mut PathFacts)) {
        self.change(|known| {
            change(&mut known.facts);
            false
        });
    }

    /// Makes a change, which answers whether those who wait for one must look, and publishes what became of it.
    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let (facts, moved) = {
            let mut known = self.known.lock();
            let before = known.facts.clone();
            let moved = change(&mut known);
            self.carry(&known);
            let after = known.facts.clone();
            self.log(&before, &after);
            let turned = |facts: &PathFacts| (facts.state, facts.draining, facts.transport);
            ((after != before).then(|| after.clone()), moved || turned(&after) != turned(&before))
        };
        if let Some(facts) = facts {
            self.hub.change(|catalogue, _| catalogue.set_path(&self.cluster, &self.address, facts));
        }
        if moved {
            self.hub.paths.send_modify(|version| *version += 1);
        }
    }

    /// Tells who needs the connection in use, if it is another one than before.
    fn carry(&self, known: &Known) {
        let used = known.choice.used().and_then(|used| known.ways.get(&used)?.tunnel.clone());
        self.carrying.send_if_modified(|carrying| {
            let same = match (&*carrying, &used) {
                (Some(carrying), Some(used)) => Arc::ptr_eq(carrying, used),
                (None, None) => true,
                _ => false,
            };
            *carrying = used;
            !same
        });
    }

    fn log(&self, before: &PathFacts, after: &PathFacts) {
        let (cluster, address) = (&self.cluster, &self.address);
        if after.state != before.state {
            let (from, to) = (before.state, after.state);
            tracing::info!(cluster, address, ?from, ?to, "a path changed");
        }
        if after.transport_changes != before.transport_changes
            && let Some(transport) = after.transport
        {
            let because = after.transport_cause;
            tracing::info!(cluster, address, %transport, because, "a path goes over another transport");
        }
    }
}

/// Brings the facts of the path up to those of the transport in use. How far away the gateway is does not depend on it.
fn describe(facts: &mut PathFacts, choice: &TransportChoice, ways: &BTreeMap<Transport, Way>) {
    let used = choice.used().and_then(|used| Some((used, ways.get(&used)?)));
    facts.state = choice.state();
    facts.min_rtt = match used.and_then(|(_, way)| way.min_rtt) {
        Some(measured) => Some(measured),
        None => ways.values().find_map(|way| way.min_rtt),
    };
    (facts.rtt, facts.loss) = used.map(|(_, way)| (way.rtt, way.seen.loss)).unwrap_or_default();
    facts.transport_cause = choice.cause().map(|cause| cause.as_str());
    facts.transport_changes = choice.changes();
    facts.refuses = ways.values().any(|way| way.refused);
    facts.transport = used.filter(|(_, way)| way.tunnel.is_some()).map(|(used, _)| used);
    if ways.values().all(|way| way.tunnel.is_none()) {
        facts.draining = false;
    }
}
