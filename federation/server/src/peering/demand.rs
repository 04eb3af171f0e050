//! Which peers this gateway is connected to: all that are declared, or, where that is configured, those of which something is
//! wanted: a service that a sidecar follows and they may offer, or a stream that is open to them.
//!
//! What a peer offers is not known before it was heard, so what may be imported of it is what it may offer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{PathState, Staleness};
use eastway_core::{ServiceName, Timestamp};
use eastway_registry::Catalogue;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::hub::Hub;

/// The peers that are wanted.
#[derive(Debug)]
pub(crate) struct Demand {
    /// How long a peer stays connected of which nothing is wanted any more; `None`: all are wanted, always.
    idle: Option<Duration>,
    wanted: Mutex<BTreeMap<String, Wanted>>,
    /// Grows with each peer that is wanted anew, or no longer.
    changes: watch::Sender<u64>,
}

/// A peer that is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Streams that are open to it.
    streams: usize,
    /// When something of it was wanted last.
    last: Timestamp,
}

impl Demand {
    /// Nothing is wanted yet.
    pub(crate) fn new(idle: Option<Duration>) -> Self {
        Self { idle, wanted: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Whether there is to be a connection to the peer `cluster`.
    pub(crate) fn wants(&self, cluster: &str) -> bool {
        self.idle.is_none() || self.wanted.lock().contains_key(cluster)
    }

    /// Whether peers are connected to only while something of them is wanted.
    pub(crate) const fn is_heeded(&self) -> bool {
        self.idle.is_some()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something of these peers is wanted.
    fn want(&self, clusters: impl IntoIterator<Item = String>, now: Timestamp) {
        self.change(|wanted| {
            clusters
                .into_iter()
                .for_each(|cluster| wanted.entry(cluster).or_insert(Wanted { streams: 0, last: now }).last = now);
        });
    }

    /// A stream to the peer begins (`more`), or ends.
    fn count(&self, cluster: &str, more: bool, now: Timestamp) {
        self.change(|wanted| {
            let known = wanted.entry(cluster.to_owned()).or_insert(Wanted { streams: 0, last: now });
            known.last = now;
            known.streams = if more { known.streams + 1 } else { known.streams.saturating_sub(1) };
        });
    }

    /// Lets go of the peers of which nothing was wanted for long.
    fn let_go(&self, now: Timestamp) {
        let idle = self.idle.unwrap_or(Duration::MAX);
        self.change(|wanted| wanted.retain(|_, peer| peer.streams > 0 || now.since(peer.last) < idle));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Wanted>)) {
        let mut wanted = self.wanted.lock();
        let before = wanted.len();
        change(&mut wanted);
        if wanted.len() != before {
            self.changes.send_modify(|version| *version += 1);
        }
    }
}

/// A stream to a peer keeps it wanted for as long as it holds this.
#[derive(Debug)]
pub struct PeerHold(Option<(Arc<Hub>, String)>);

impl Drop for PeerHold {
    fn drop(&mut self) {
        if let Some((hub, cluster)) = &self.0 {
            hub.demand.count(cluster, false, hub.clock.now());
        }
    }
}

/// Sees to it that the peer `cluster` is connected to for as long as the answer is held, and waits until there is a way to it.
pub(crate) async fn hold(hub: &Arc<Hub>, cluster: &str) -> PeerHold {
    if !hub.demand.is_heeded() {
        return PeerHold(None);
    }
    hub.demand.count(cluster, true, hub.clock.now());
    let hold = PeerHold(Some((Arc::clone(hub), cluster.to_owned())));
    let unknown = |catalogue: &Catalogue, _| {
        catalogue.resources().peers.contains_key(cluster) && catalogue.paths(cluster).is_empty()
    };
    until_not(hub, unknown).await;
    hold
}

/// A sidecar follows `service`. Completes once the peers that may offer it were heard, or cannot be reached, or had their time; at
/// once if this cluster has the service itself.
pub(crate) async fn follow(hub: &Hub, service: &ServiceName) {
    want(hub, [service.clone()]);
    until_not(hub, |catalogue, now| {
        let peers = &catalogue.resources().peers;
        let here = catalogue.view(service, now).is_some_and(|view| !view.endpoints.is_empty());
        !here
            && peers
                .iter()
                .any(|(cluster, policy)| policy.peer.imports_service(service) && is_awaited(catalogue, cluster))
    })
    .await;
}

/// Whether the peer may still be heard soon.
fn is_awaited(catalogue: &Catalogue, cluster: &str) -> bool {
    let paths = catalogue.paths(cluster);
    let unreachable = !paths.is_empty() && paths.iter().all(|(_, facts)| facts.state == PathState::Down);
    catalogue.peer_staleness(cluster) != Some(Staleness::Fresh) && !unreachable
}

async fn until_not(hub: &Hub, such: impl Fn(&Catalogue, Timestamp) -> bool) {
    let (mut paths, mut mesh) = (hub.paths.subscribe(), hub.mesh.subscribe());
    let waiting = async {
        while hub.read(&such) {
            // They fail only if the hub is gone, and with it everything to wait for.
            let changed = tokio::select! {
                changed = paths.changed() => changed,
                changed = mesh.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    };
    // What has not come by then comes as a change.
    let _ = timeout(hub.options.peering.patience, waiting).await;
}

/// Wants what is followed, and lets go of what nobody has wanted for long.
pub(super) fn review(hub: &Hub) {
    if hub.demand.is_heeded() {
        want(hub, hub.followed());
        hub.demand.let_go(hub.clock.now());
    }
}

/// How often to [`review`] what is wanted.
pub(super) fn review_every(hub: &Hub) -> Duration {
    hub.demand.idle.map_or(Duration::MAX, |idle| idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(60))
}

/// The peers that may offer one of the services are wanted.
fn want(hub: &Hub, services: impl IntoIterator<Item = ServiceName>) {
    let services: Vec<ServiceName> = services.into_iter().collect();
    let clusters: Vec<String> = hub.read(|catalogue, _| {
        let peers = catalogue.resources().peers.iter();
        let wanted = peers.filter(|(_, policy)| services.iter().any(|service| policy.peer.imports_service(service)));
        wanted.map(|(cluster, _)| cluster.clone()).collect()
    });
    hub.demand.want(clusters, hub.clock.now());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_peer_is_let_go_once_nothing_of_it_was_wanted_for_long() {
        let demand = Demand::new(Some(Duration::from_secs(10)));
        let changes = demand.changes();
        assert!(!demand.wants("eu-west"));
        demand.want(["eu-west".to_owned()], at(0));
        demand.want(["eu-west".to_owned()], at(5));
        demand.let_go(at(14));
        assert!(demand.wants("eu-west") && !demand.wants("ap-south"));
        assert_eq!(*changes.borrow(), 1, "once for two that want it");
        demand.let_go(at(15));
        assert!(!demand.wants("eu-west"));
        assert_eq!(*changes.borrow(), 2);
    }

    #[test]
    fn a_peer_to_which_a_stream_is_open_is_wanted_until_long_after_its_end() {
        let demand = Demand::new(Some(Duration::from_secs(10)));
        demand.count("eu-west", true, at(0));
        demand.count("eu-west", true, at(0));
        demand.count("eu-west", false, at(1));
        demand.let_go(at(100));
        assert!(demand.wants("eu-west"));
        demand.count("eu-west", false, at(100));
        demand.let_go(at(109));
        assert!(demand.wants("eu-west"));
        demand.let_go(at(110));
        assert!(!demand.wants("eu-west"));
    }

    #[test]
    fn without_a_limit_all_are_wanted() {
        assert!(Demand::new(None).wants("eu-west"));
    }
}
