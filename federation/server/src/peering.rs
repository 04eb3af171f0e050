//! Other gateways: a control connection to each of other clusters and of this one, what they state, and whether they answer.
//!
//! Each side connects and subscribes for itself, so two gateways share two control connections, one in each direction.
//! On each, one raw stream carries gRPC (the statements), another the pings. Path and peer are separate facts: a path
//! that is down stops carrying traffic at once, while the peer's statements merely age.
//!
//! Gateways of this cluster (siblings) tell one another how each endpoint does; those of other clusters, what they export.
//!
//! Never: carrying requests; the data connections are the gateway role's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eastway_core::SpiffeId;
use eastway_core::view::{PathState, Staleness};
use eastway_registry::PathFacts;
use eastway_runtime::tasks::TaskGroup;
use serde::Serialize;
use tokio::task::AbortHandle;

use crate::dialer::Dialer;
use crate::hub::Hub;

mod incoming;
mod outgoing;
mod path;
mod ping;
mod publish;
mod subscribe;

#[cfg(test)]
mod tests;

pub(crate) use incoming::serve;

/// A way to a peer cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerPath {
    /// The gateway's address, as declared.
    pub address: String,
    /// The gateway's id, once it said it.
    pub gateway: Option<String>,
    /// Whether it answers.
    pub state: PathState,
    /// Least round-trip time of the last minute, in milliseconds.
    pub min_rtt_ms: Option<f64>,
    /// It announced its end.
    pub draining: bool,
}

/// A peer cluster, for operators and for admitting streams.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// How old its statements are; none before the first were complete.
    pub staleness: Option<Staleness>,
    /// The ways to it, best first.
    pub paths: Vec<PeerPath>,
    /// What exceeded the bounds on what a peer may say and was left out or replaced, and how often.
    pub cut: BTreeMap<&'static str, u64>,
}

/// How a raw stream of a control connection begins: what it carries.
const STATEMENTS: u8 = b'S';
const PINGS: u8 = b'P';

/// The ways to `cluster`, best first: those that are up before those not known, those of gateways that drain last.
pub(crate) fn paths(hub: &Hub, cluster: &str) -> Vec<PeerPath> {
    let mut paths = hub.read(|catalogue, _| catalogue.paths(cluster));
    paths.sort_by_key(|(address, path)| (path.draining, rank(path.state), path.min_rtt, address.clone()));
    paths.into_iter().map(|(address, facts)| peer_path(address, facts)).collect()
}

const fn rank(state: PathState) -> u8 {
    match state {
        PathState::Up => 0,
        PathState::Unknown => 1,
        PathState::Suspect => 2,
        PathState::Down => 3,
    }
}

fn peer_path(address: String, facts: PathFacts) -> PeerPath {
    PeerPath {
        address,
        gateway: facts.gateway,
        state: facts.state,
        min_rtt_ms: facts.min_rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        draining: facts.draining,
    }
}

/// Keeps a connection to every declared address of every peer, and to every sibling. Runs until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, dialer: Arc<dyn Dialer>, tasks: TaskGroup) {
    let mut running: BTreeMap<(String, String), AbortHandle> = BTreeMap::new();
    let mut resources = hub.resources.subscribe();
    let mut siblings = hub.siblings.subscribe();
    loop {
        let declared = declared(&hub, &siblings.borrow_and_update());
        running.retain(|key, task| {
            let kept = declared.contains(key);
            if !kept {
                task.abort();
                hub.change(|catalogue, _| catalogue.remove_path(&key.0, &key.1));
                hub.paths.send_modify(|version| *version += 1);
            }
            kept
        });
        for (cluster, address) in declared {
            running.entry((cluster.clone(), address.clone())).or_insert_with(|| {
                let name = format!("control connection to {cluster} at {address}");
                let run = outgoing::run(Arc::clone(&hub), Arc::clone(&dialer), cluster, address);
                tasks.spawn_loop(name, run).abort_handle()
            });
        }
        let changed = tokio::select! {
            changed = resources.changed() => changed,
            changed = siblings.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The clusters and addresses to be connected to.
fn declared(hub: &Hub, siblings: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    hub.read(|catalogue, _| {
        let peers = catalogue.resources().peers.iter();
        let peers = peers.flat_map(|(c, policy)| policy.peer.gateways.iter().map(move |a| (c.clone(), a.clone())));
        let own = &catalogue.meta().name;
        peers.chain(siblings.values().map(|address| (own.clone(), address.clone()))).collect()
    })
}

/// The cluster that the identity is a gateway of: this one, or the declared peer whose trust domain it lies in.
fn cluster_of(hub: &Hub, peer: &SpiffeId) -> Option<String> {
    hub.read(|catalogue, _| {
        if peer.is_gateway() && peer.trust_domain == hub.trust_domain {
            return Some(catalogue.meta().name.clone());
        }
        let mut peers = catalogue.resources().peers.iter().filter(|_| peer.is_gateway());
        peers.find(|(_, policy)| policy.trust_domain == peer.trust_domain).map(|(cluster, _)| cluster.clone())
    })
}
