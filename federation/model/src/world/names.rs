//! Who and what there is: clusters, zones, services, gateways and where they stand.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use eastway_core::ServiceName;
use eastway_core::resource::{Peer, Service};
use eastway_registry::{PeerPolicy, Resources};

/// The clusters, by number.
pub(crate) const CLUSTERS: [&str; 2] = ["eu-west", "us-east"];
/// The zones of each cluster.
pub(crate) const ZONES: [&str; 2] = ["a", "b"];
const SERVICES: [&str; 2] = ["cart", "payments"];

/// A machine, as far as the network is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    /// The store of a cluster.
    Store(usize),
    /// A gateway's place: its id and address, whatever process runs there.
    Gateway(usize),
    /// A sidecar.
    Sidecar(usize),
}

/// Where a gateway stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) cluster: usize,
    pub(crate) id: String,
}

pub(crate) fn services() -> [ServiceName; 2] {
    SERVICES.map(|service| ServiceName::new("shop", service))
}

pub(crate) fn cluster_name(cluster: usize) -> String {
    CLUSTERS[cluster].to_owned()
}

pub(crate) fn trust_domain(cluster: usize) -> String {
    format!("{}.example", CLUSTERS[cluster])
}

/// Where the sidecar `number` takes its callers.
pub(crate) fn address(number: usize) -> SocketAddr {
    ([10, 0, 0, 1], 10_000 + number as u16).into()
}

/// What the operators of a cluster declare: both services are offered to the other cluster, and imported from there.
pub(crate) fn resources(cluster: usize) -> Resources {
    let service = Service { export: vec!["*".to_owned()], ..Service::default() };
    let other = 1 - cluster;
    let peer = Peer { imports: vec!["*".to_owned()], ..Peer::default() };
    let policy = PeerPolicy { peer, trust_domain: trust_domain(other), trust_bundle: vec![vec![1]] };
    Resources {
        services: services().map(|name| (name, service.clone())).into(),
        peers: BTreeMap::from([(cluster_name(other), policy)]),
        ..Resources::default()
    }
}
