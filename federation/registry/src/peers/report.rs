//! What is known of a peer, for operators: how old its word is, gateway by gateway, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::view::Staleness;
use eastway_core::{ServiceName, Timestamp, Version};

use super::source::Hearing;
use super::{Peers, Source};
use crate::resources::PeerPolicy;

/// What is known of a peer cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerReport {
    /// Its uid, once it was heard.
    pub uid: Option<String>,
    /// The region that it is taken to lie in, once it was heard.
    pub region: Option<String>,
    /// The rung of its statements; `None` before the first were complete.
    pub staleness: Option<Staleness>,
    /// How long ago any of its gateways was last heard.
    pub age: Option<Duration>,
    /// Its gateways that have stated everything once, by their ids.
    pub gateways: BTreeMap<String, GatewayReport>,
    /// The services that it offers to this cluster.
    pub offered: usize,
    /// Of them, those that the operator imports.
    pub imported: usize,
    /// The operator's rules of import that none of them matches; empty before the peer was heard.
    pub unmatched: Vec<String>,
}

/// What is known of one gateway of a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatewayReport {
    /// Which life of it, and which statement of that, is the latest that was taken.
    pub version: Version,
    /// How long ago it was last heard.
    pub age: Duration,
    /// The services that it offers.
    pub offered: usize,
    /// It fell silent while others of its cluster speak: it counts only where they say nothing.
    pub silent: bool,
}

impl Peers {
    /// What is known of the peer `cluster`, which is declared by `policy`.
    pub(crate) fn report(&self, cluster: &str, policy: &PeerPolicy, now: Timestamp) -> PeerReport {
        let Some(peer) = self.peers.get(cluster) else { return PeerReport::default() };
        let offered = peer.services();
        let imported = |name: &&ServiceName| policy.peer.imports_service(name);
        let report = |(gateway, source): (&String, &Source)| {
            let (version, age) = (source.mirror.version()?, now.since(source.heard));
            let offered = source.services().count();
            Some((gateway.clone(), GatewayReport { version, age, offered, silent: source.hearing == Hearing::Silent }))
        };
        PeerReport {
            uid: peer.meta.as_ref().map(|meta| meta.uid.clone()),
            region: peer.meta.as_ref().map(|meta| meta.region.clone()),
            staleness: self.staleness(cluster),
            age: peer.sources.values().map(|source| now.since(source.heard)).min(),
            gateways: peer.sources.iter().filter_map(report).collect(),
            imported: offered.iter().filter(imported).count(),
            unmatched: if peer.meta.is_some() { policy.peer.unmatched_imports(&offered) } else { Vec::new() },
            offered: offered.len(),
        }
    }
}
