//! What a view says of each locality, before it meets what the node itself knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{EndpointView, MeshView, PeerView, RemoteZone, ServiceView};
use eastway_core::{Coordinates, Locality, ZoneId};

use crate::distance::cost_ms;
use crate::policy::Policy;

/// The facts of one locality.
#[derive(Debug)]
pub(super) struct LocalityFacts<'a> {
    pub(super) zone: ZoneId,
    pub(super) region: Arc<str>,
    pub(super) weight: f64,
    pub(super) members: Vec<&'a Arc<EndpointView>>,
    /// How long ago it returned from failure, if its owner says so.
    pub(super) returned_ago: Option<Duration>,
    pub(super) remote: Option<RemoteFacts<'a>>,
}

/// The facts of one remote locality.
#[derive(Debug)]
pub(super) struct RemoteFacts<'a> {
    pub(super) zone: &'a RemoteZone,
    pub(super) peer: &'a PeerView,
}

impl RemoteFacts<'_> {
    /// What it costs callers to go there, in milliseconds. `measured` has the round trips to peers.
    pub(super) fn cost_ms(
        &self,
        caller: &Locality,
        mesh: &MeshView,
        measured: &BTreeMap<Arc<str>, Duration>,
    ) -> Option<f64> {
        let coordinates =
            |zones: &BTreeMap<String, Option<Coordinates>>, zone: &str| zones.get(zone).copied().flatten();
        let from = coordinates(&mesh.cluster.zones, &caller.zone.zone);
        let ZoneId { cluster, zone } = &self.zone.zone;
        cost_ms(measured.get(cluster).copied(), from, coordinates(&self.peer.cluster.zones, zone))
    }
}

/// The localities of a view, by zone, without those outside of the residency fence. `endpoints` are ordered by id.
pub(super) fn localities<'a>(
    caller: &Locality,
    policy: &Policy,
    mesh: &'a MeshView,
    view: &'a ServiceView,
    endpoints: &[&'a Arc<EndpointView>],
) -> Vec<LocalityFacts<'a>> {
    let weight = |zone: &ZoneId| view.spec.locality_weights.get(&zone.to_string()).copied().unwrap_or(1.0);
    let own = &caller.zone.cluster;
    let local = by_zone(endpoints).into_iter().map(|(zone, members)| {
        let zone = ZoneId::new(Arc::clone(own), zone);
        let returned_ago = view.returned.get(&zone.zone).copied();
        let (weight, region) = (weight(&zone), Arc::clone(&caller.region));
        LocalityFacts { zone, region, weight, members, returned_ago, remote: None }
    });
    let remote = view.remote.iter().filter_map(|remote| {
        // A summary of a cluster that is no peer (any more) leads nowhere.
        let peer = mesh.peers.iter().find(|peer| *peer.cluster.name == *remote.zone.cluster)?;
        Some(LocalityFacts {
            weight: weight(&remote.zone),
            region: peer.cluster.region.as_str().into(),
            members: Vec::new(),
            returned_ago: remote.summary.returned_ago,
            zone: remote.zone.clone(),
            remote: Some(RemoteFacts { zone: remote, peer }),
        })
    });
    let inside =
        |locality: &LocalityFacts<'_>| policy.regions.as_ref().is_none_or(|regions| regions.contains(&locality.region));
    local.chain(remote).filter(inside).collect()
}

/// The endpoints of each zone, ordered by id within it. Zones are few, and neighbours often share one.
fn by_zone<'a>(endpoints: &[&'a Arc<EndpointView>]) -> Vec<(&'a str, Vec<&'a Arc<EndpointView>>)> {
    let mut zones: Vec<(&str, Vec<&Arc<EndpointView>>)> = Vec::new();
    let mut last = 0;
    for endpoint in endpoints {
        let is_its = |(zone, _): &(&str, Vec<_>)| **zone == *endpoint.zone;
        if !zones.get(last).is_some_and(is_its) {
            last = zones.iter().position(is_its).unwrap_or_else(|| {
                zones.push((&endpoint.zone, Vec::with_capacity(endpoints.len() / (zones.len() + 1))));
                zones.len() - 1
            });
        }
        zones[last].1.push(endpoint);
    }
    zones
}
