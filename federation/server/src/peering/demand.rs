//! What makes a peer wanted: a service that a sidecar follows and it may offer, or a stream that is open to it.
//!
//! What a peer offers is not known before it was heard, so what may be imported of it is what it may offer.

use std::sync::Arc;

use eastway_core::view::{PathState, Staleness};
use eastway_core::{ServiceName, Timestamp};
use eastway_registry::Catalogue;
use tokio::time::timeout;

use crate::hub::Hub;

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
    // Whoever opens a stream may name any cluster.
    if !hub.demand.is_heeded() || !hub.read(|catalogue, _| catalogue.resources().peers.contains_key(cluster)) {
        return PeerHold(None);
    }
    hub.demand.count(cluster, true, hub.clock.now());
    let hold = PeerHold(Some((Arc::clone(hub), cluster.to_owned())));
    until_not(hub, |catalogue, _| catalogue.paths(cluster).is_empty()).await;
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
        want(hub, hub.called());
        hub.demand.let_go(hub.clock.now());
    }
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
