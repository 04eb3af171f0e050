//! What a document is judged against: the cluster, everything that is declared with it, and what there is.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::ServiceName;
use eastway_core::policy::ServicePolicy;
use eastway_core::resource::{Mesh, Metadata, Peer, Resource, Service};
use eastway_documents::nearest;

use crate::Declared;
use crate::cluster::{Cluster, Live, LivePeer};

/// The set of what is declared, looked up by name, and the facts beside it.
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) live: Option<&'a Live>,
    /// Without one that bears this cluster's own name, which is refused.
    pub(crate) peers: BTreeMap<&'a str, &'a Peer>,
    pub(crate) services: BTreeMap<ServiceName, &'a Service>,
    pub(crate) mesh: Mesh,
}

impl<'a> World<'a> {
    pub(crate) fn new(declared: &'a [Declared], cluster: &'a Cluster, live: Option<&'a Live>) -> Self {
        let mut world =
            Self { cluster, live, peers: BTreeMap::new(), services: BTreeMap::new(), mesh: Mesh::default() };
        for Declared { resource, .. } in declared {
            match resource {
                Resource::Peer(document) if document.metadata.name != cluster.name => {
                    world.peers.insert(&document.metadata.name, &document.spec);
                }
                Resource::Service(document) => {
                    world.services.insert(named(&document.metadata), &document.spec);
                }
                Resource::Mesh(document) => world.mesh = document.spec.clone(),
                _ => {}
            }
        }
        world
    }

    /// How callers in this cluster treat `service`.
    pub(crate) fn policy(&self, service: &Service) -> ServicePolicy {
        service.policy(&self.mesh)
    }

    /// What the peer `name` said, if it ever did.
    pub(crate) fn live_peer(&self, name: &str) -> Option<&'a LivePeer> {
        self.live.and_then(|live| live.peers.get(name))
    }

    /// Whether the peer `name` may lie in one of `regions`.
    ///
    /// One whose `Peer` declares no region lies where it says, but never by its own word in this cluster's region: then its
    /// name stands for its region. So the federation has it.
    pub(crate) fn may_lie_in(&self, name: &str, regions: &[String]) -> bool {
        match self.peers.get(name).and_then(|peer| peer.region.as_ref()) {
            Some(declared) => regions.contains(declared),
            None => regions.iter().any(|region| *region != self.cluster.region || region == name),
        }
    }

    /// The regions that something is known to lie in.
    pub(crate) fn regions(&self) -> BTreeSet<&str> {
        let declared = self.peers.values().filter_map(|peer| peer.region.as_deref());
        let said = self.live.iter().flat_map(|live| live.peers.values()).map(|peer| peer.region.as_str());
        declared.chain(said).chain([self.cluster.region.as_str()]).collect()
    }

    /// The peers that `service` is imported from, if they offer it.
    pub(crate) fn importing(&self, service: &ServiceName) -> impl Iterator<Item = (&'a str, &'a Peer)> {
        self.peers.iter().map(|(name, peer)| (*name, *peer)).filter(|(_, peer)| peer.imports_service(service))
    }

    /// What to do about `name`, which is no declared peer.
    pub(crate) fn instead_of_peer(&self, name: &str, otherwise: &str) -> String {
        instead(name, self.peers.keys().copied(), otherwise)
    }
}

/// The name of a service by its document.
pub(crate) fn named(metadata: &Metadata) -> ServiceName {
    ServiceName::new(metadata.namespace.as_str(), metadata.name.as_str())
}

/// "Did you mean", and what to do otherwise.
pub(crate) fn instead<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    nearest(word, known)
        .map_or_else(|| otherwise.to_owned(), |meant| format!("did you mean `{meant}`? if not, {otherwise}"))
}

/// Names as a list in a sentence.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What is said of a peer that a service is not imported from.
pub(crate) fn not_imported(name: &ServiceName, peer: &str) -> (String, String) {
    let cause = format!("nothing of it comes from `{peer}`, whose Peer does not import it");
    (cause, format!("add `{name}` to the `imports` of the Peer `{peer}`, or remove it here"))
}

/// What is said of a peer outside of a service's residency fence.
pub(crate) fn outside(peer: &str) -> (String, String) {
    let cause = format!("no request goes to `{peer}`, which lies outside of the residency fence");
    (cause, "remove it, or add the peer's region to `balancing.residency`".to_owned())
}
