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
use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_core::view::{PathState, Transport};
use eastway_documents::check::is_host_and_port;
use eastway_proto::federation::v1::GatewayAddresses;
use eastway_registry::{GatewayReport, PathFacts};
use eastway_runtime::tasks::TaskGroup;
use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::interval;

use crate::dialer::Dialer;
use crate::hub::Hub;

mod demand;
mod incoming;
mod outgoing;
mod path;
mod ping;
mod publish;
mod status;
mod subscribe;

#[cfg(test)]
mod tests;

pub use demand::PeerHold;
pub(crate) use demand::{follow, hold};
pub(crate) use incoming::serve;
pub(crate) use status::status;
pub use status::{BundleStatus, PeerStatus};

/// A way to a peer cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerPath {
    /// The gateway's address, as declared.
    pub address: String,
    /// The gateway's id, once it said it.
    pub gateway: Option<String>,
    /// Whether it answers.
    pub state: PathState,
    /// Least round-trip time of the last minute, in milliseconds; through an outage, of the minute before it.
    pub min_rtt_ms: Option<f64>,
    /// It announced its end.
    pub draining: bool,
    /// It answers, and does not take this cluster for its peer.
    pub refuses: bool,
    /// Smoothed round-trip time of the pings, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Share of the last 240 pings of this connection that were not answered in time, 0 to 1.
    pub loss: Option<f64>,
    /// What carries what goes there, `quic` or `tcp`; none before anything does.
    pub transport: Option<Transport>,
    /// Why that is not the preferred one: `blocked`, because that does not answer, or `lossy`, because it loses more, or
    /// `recovering`, because it has answered again only for a while.
    pub transport_cause: Option<&'static str>,
    /// How often the path has gone over to another transport.
    pub transport_changes: u64,
    /// Which life of the gateway spoke last; none before it stated everything once.
    pub epoch: Option<u64>,
    /// The number of its latest statement that was taken, within that life.
    pub seq: Option<u64>,
    /// Seconds since the gateway was last heard.
    pub age_seconds: Option<f64>,
    /// The services that it offers to this cluster.
    pub offered: Option<usize>,
}

/// How a raw stream of a control connection begins: what it carries.
const STATEMENTS: u8 = b'S';
const PINGS: u8 = b'P';

/// The ways to `cluster`, best first: those that are up before those not known, those of gateways that drain last.
pub(crate) fn paths(hub: &Hub, cluster: &str) -> Vec<PeerPath> {
    hub.read(|catalogue, _| sorted(catalogue.paths(cluster), &BTreeMap::new()))
}

/// The paths, best first, each with what its gateway said by `words`.
fn sorted(mut paths: Vec<(String, PathFacts)>, words: &BTreeMap<String, GatewayReport>) -> Vec<PeerPath> {
    paths.sort_by_key(|(address, path)| (path.draining, rank(path.state), path.min_rtt, address.clone()));
    let word = |facts: &PathFacts| facts.gateway.as_ref().and_then(|gateway| words.get(gateway)).copied();
    paths.into_iter().map(|(address, facts)| peer_path(address, word(&facts), facts)).collect()
}

const fn rank(state: PathState) -> u8 {
    match state {
        PathState::Up => 0,
        PathState::Unknown => 1,
        PathState::Suspect => 2,
        PathState::Down => 3,
    }
}

fn peer_path(address: String, word: Option<GatewayReport>, facts: PathFacts) -> PeerPath {
    let millis = |rtt: Duration| rtt.as_secs_f64() * 1e3;
    PeerPath {
        address,
        gateway: facts.gateway,
        state: facts.state,
        min_rtt_ms: facts.min_rtt.map(millis),
        draining: facts.draining,
        refuses: facts.refuses,
        rtt_ms: facts.rtt.map(millis),
        loss: facts.loss,
        transport: facts.transport,
        transport_cause: facts.transport_cause,
        transport_changes: facts.transport_changes,
        epoch: word.map(|word| word.version.epoch),
        seq: word.map(|word| word.version.seq),
        age_seconds: word.map(|word| word.age.as_secs_f64()),
        offered: word.map(|word| word.offered),
    }
}

/// Keeps a connection to every gateway of every peer that is wanted, declared or stated and followed, and to every sibling. Runs
/// until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, dialer: Arc<dyn Dialer>, tasks: TaskGroup) {
    let mut running: BTreeMap<(String, String), AbortHandle> = BTreeMap::new();
    let mut resources = hub.resources.subscribe();
    let mut siblings = hub.siblings.subscribe();
    let (mut addresses, mut paths) = (hub.addresses.subscribe(), hub.paths.subscribe());
    let (mut demand, mut reviews) = (hub.demand.changes(), interval(hub.demand.look_every()));
    loop {
        demand::review(&hub);
        demand.mark_unchanged();
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
            changed = addresses.changed() => changed,
            // Which addresses are wanted depends on which of them answer.
            changed = paths.changed() => changed,
            changed = demand.changed() => changed,
            _ = reviews.tick(), if hub.demand.is_heeded() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Where the gateways of this cluster are reached, for peers.
fn stated(hub: &Hub) -> GatewayAddresses {
    GatewayAddresses { addresses: hub.gateways() }
}

/// Addresses that one message may state.
const MAX_ADDRESSES: usize = 256;

/// What a gateway of the peer `cluster` states of where those of its cluster are reached.
fn hear_addresses(hub: &Hub, cluster: &str, stated: GatewayAddresses) {
    let mut addresses = stated.addresses;
    addresses.retain(|address| is_host_and_port(address));
    addresses.truncate(MAX_ADDRESSES);
    hub.change(|catalogue, now| catalogue.state_addresses(cluster, &addresses, now));
}

/// The clusters and addresses to be connected to: peers that are wanted, and siblings.
fn declared(hub: &Hub, siblings: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    hub.read(|catalogue, _| {
        let peers = catalogue.addresses().filter(|(cluster, _)| hub.demand.wants(cluster));
        let peers = peers.flat_map(|(c, addresses)| addresses.into_iter().map(move |a| (c.clone(), a)));
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
