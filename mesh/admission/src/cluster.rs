//! What is known of a cluster beside what is declared in it: facts, gathered by whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::ServiceName;

/// What a cluster is, whatever is declared in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The region it lies in.
    pub region: String,
    /// Its zones.
    pub zones: BTreeSet<String>,
    /// The trust domain of its identities.
    pub trust_domain: String,
}

/// What there is in the mesh at a moment, as one gateway knows it. What is not there now may come, so that what is found by
/// it is a warning.
///
/// A gateway that has just started knows nobody yet: it is to be handed in once workloads and peers have had the time to speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The services that have endpoints in this cluster.
    pub services: BTreeMap<ServiceName, LiveService>,
    /// The peers that have spoken, by the name of their cluster. A declared peer that is not among them never has.
    pub peers: BTreeMap<String, LivePeer>,
}

/// A service of this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveService {
    /// Its endpoints by zone, whether they are ready or not.
    pub zones: BTreeMap<String, u32>,
    /// The accounts that these endpoints are registered under; empty if nobody knows.
    pub accounts: BTreeSet<String>,
    /// Of these endpoints, those that say how utilised they are: by a capacity, by a word of the application, or by the
    /// processor time of their control group. `None` if nobody knows.
    pub measured: Option<u32>,
}

impl LiveService {
    /// Its endpoints in this cluster.
    pub fn endpoints(&self) -> u32 {
        self.zones.values().sum()
    }
}

/// A peer cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePeer {
    /// The region that it is held to lie in: as its `Peer` declares, else as it says of itself within what it may say.
    pub region: String,
    /// Its zones.
    pub zones: BTreeSet<String>,
    /// The services that it offers to this cluster, imported or not.
    pub exports: BTreeSet<ServiceName>,
}
