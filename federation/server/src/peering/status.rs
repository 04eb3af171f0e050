//! What operators are told of a peer.

use std::collections::BTreeMap;

use eastway_core::Timestamp;
use eastway_core::view::Staleness;
use eastway_identity::Lifetime;
use eastway_registry::{Catalogue, PeerPolicy, PeerReport};
use serde::Serialize;

use super::{PeerPath, sorted};
use crate::hub::Hub;

/// A peer cluster, for operators and for admitting streams.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// How old its statements are; none before the first were complete.
    pub staleness: Option<Staleness>,
    /// It is not connected to, because nothing of it is wanted.
    pub idle: bool,
    /// The ways to it, best first.
    pub paths: Vec<PeerPath>,
    /// What exceeded the bounds on what a peer may say and was left out or replaced, and how often.
    pub cut: BTreeMap<&'static str, u64>,
    /// Its uid, once it was heard.
    pub uid: Option<String>,
    /// The region that it is taken to lie in, once it was heard.
    pub region: Option<String>,
    /// Seconds since any of its gateways was last heard.
    pub age_seconds: Option<f64>,
    /// Its pinned CA certificates.
    pub bundle: BundleStatus,
    /// The services of this cluster that are offered to it.
    pub exported: usize,
    /// The services that it offers to this cluster.
    pub offered: usize,
    /// Of them, those that are imported.
    pub imported: usize,
    /// The rules of import that match nothing that it offers; empty before it was heard.
    pub unmatched_imports: Vec<String>,
}

/// The pinned CA certificates of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BundleStatus {
    /// How many there are.
    pub certificates: usize,
    /// Days until the last of them expires; negative once it has. While roots rotate there are several, and those of the
    /// peer's workloads are issued by the newest.
    pub days_left: Option<f64>,
    /// For how many days that one is valid in all.
    pub days: Option<f64>,
}

impl BundleStatus {
    fn of(bundle: &[Vec<u8>]) -> Self {
        let lasts = bundle.iter().filter_map(|der| Lifetime::of(der)).max_by_key(|lifetime| lifetime.not_after);
        Self {
            certificates: bundle.len(),
            days_left: lasts.map(|lifetime| lifetime.days_left()),
            days: lasts.map(|lifetime| lifetime.days()),
        }
    }
}

/// The peers, by name.
pub(crate) fn status(hub: &Hub) -> Vec<PeerStatus> {
    hub.read(|catalogue, now| {
        let peers = catalogue.resources().peers.iter();
        let status =
            |(cluster, policy): (&String, _)| peer(catalogue, cluster, policy, !hub.demand.wants(cluster), now);
        peers.map(status).collect()
    })
}

fn peer(catalogue: &Catalogue, cluster: &str, policy: &PeerPolicy, idle: bool, now: Timestamp) -> PeerStatus {
    // It is declared: it was just found among the resources.
    let PeerReport { uid, region, staleness, age, gateways, offered, imported, unmatched } =
        catalogue.peer_report(cluster, now).unwrap_or_default();
    PeerStatus {
        staleness,
        idle,
        trust_domain: policy.trust_domain.clone(),
        paths: sorted(catalogue.paths(cluster), &gateways),
        cut: catalogue.cut(cluster).iter().collect(),
        uid,
        region,
        age_seconds: age.map(|age| age.as_secs_f64()),
        bundle: BundleStatus::of(&policy.trust_bundle),
        exported: catalogue.exports_for(cluster).len(),
        offered,
        imported,
        unmatched_imports: unmatched,
        cluster: cluster.to_owned(),
    }
}
