//! What is declared against the cluster that it is declared in.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::ServiceName;
use eastway_core::resource::{Peer, Resource, Service};
use eastway_documents::yaml::join;
use eastway_documents::{Checks, Problems, Severity};

use crate::Declared;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The services that have endpoints in this cluster.
    pub services: BTreeMap<ServiceName, LiveService>,
    /// The peers that have spoken.
    pub peers: BTreeMap<String, LivePeer>,
}

/// A service of this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveService {
    /// Its endpoints by zone, whether they are ready or not.
    pub zones: BTreeMap<String, u32>,
}

/// A peer cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePeer {
    /// The region it lies in.
    pub region: String,
    /// Its zones.
    pub zones: BTreeSet<String>,
    /// The services that it offers to this cluster, imported or not.
    pub exports: BTreeSet<ServiceName>,
}

/// Compares what is declared with the cluster, and with what there is `live` if that is known. Warnings are among the problems.
pub fn judge(declared: &[Declared], cluster: &Cluster, live: Option<&Live>) -> Problems {
    let _ = live;
    let mut problems = Problems::default();
    for Declared { resource, source } in declared {
        let mut checks = Checks::new(source);
        match resource {
            Resource::Peer(document) => peer(&mut checks, &document.metadata.name, &document.spec, cluster),
            Resource::Service(document) => service(&mut checks, &document.spec, cluster),
            _ => {}
        }
        problems.extend(checks.found());
    }
    problems
}

fn peer(checks: &mut Checks<'_>, name: &str, peer: &Peer, cluster: &Cluster) {
    if *name == cluster.name {
        checks.problem("metadata.name", format!("`{name}` is this cluster, not a peer of it"));
        return;
    }
    let domain = peer.trust_domain.clone().unwrap_or_else(|| format!("{name}.mesh.internal"));
    if domain == cluster.trust_domain {
        checks.problem("spec.trustDomain", format!("`{domain}` is the trust domain of this cluster itself"));
    }
}

fn service(checks: &mut Checks<'_>, service: &Service, cluster: &Cluster) {
    for (index, name) in service.failover.iter().enumerate().filter(|(_, name)| **name == cluster.name) {
        let message = format!("`{name}` is this cluster, which always comes first: remove it");
        checks.problem(&format!("spec.failover[{index}]"), message);
    }
    for place in service.locality_weights.keys() {
        let own = place.split_once('/').filter(|(name, _)| *name == cluster.name);
        if own.is_some_and(|(_, zone)| !cluster.zones.contains(zone)) {
            let zones: Vec<_> = cluster.zones.iter().map(String::as_str).collect();
            let suggestion = format!("it has {}", zones.join(", "));
            let path = join("spec.localityWeights", place);
            checks.advise(Severity::Error, &path, format!("`{place}` is no zone of this cluster"), suggestion);
        }
    }
}
