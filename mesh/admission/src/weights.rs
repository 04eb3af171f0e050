//! What is checked of the weights of localities: each a zone that requests may go to, and some of them unlike others.
//!
//! Weights divide traffic within a priority (`mesh/balance/src/shares.rs`), and `priorities.rs` there says what shares one:
//! the caller's own zone has the first to itself; the cluster's other zones have the next, with those of peers in its region
//! unless an order of clusters is set; clusters further away follow by distance, which nobody knows here.

use std::collections::BTreeMap;

use eastway_core::ServiceName;
use eastway_core::resource::Service;
use eastway_documents::yaml::join;
use eastway_documents::{Checks, Severity};

use crate::world::{World, instead, list, not_imported, outside};

const PATH: &str = "spec.localityWeights";

/// Weights that say what holds without them.
pub(crate) fn alone(checks: &mut Checks<'_>, weights: &BTreeMap<String, f64>) {
    if !weights.is_empty() && weights.values().all(|weight| *weight == 1.0) {
        let cause = "they change nothing: a locality that is not named weighs 1, too";
        checks.advise(Severity::Error, PATH, cause, "remove them, or weigh a locality more or less than the others");
    }
}

pub(crate) fn among(checks: &mut Checks<'_>, name: &ServiceName, service: &Service, world: &World<'_>) {
    let fence = world.policy(service).balancing.residency;
    let mut in_vain = false;
    for place in service.locality_weights.keys() {
        let Some((cluster, zone)) = place.split_once('/') else { continue };
        let (severity, problem) = if cluster == world.cluster.name {
            (Severity::Error, own(zone, fence.as_deref().filter(|_| service.export.is_empty()), world))
        } else {
            // The Peer may be declared elsewhere, or change.
            (Severity::Warning, of_peer(name, cluster, fence.as_deref(), world))
        };
        if let Some((cause, suggestion)) = problem {
            in_vain = true;
            checks.advise(severity, &join(PATH, place), cause, suggestion);
        }
    }
    if !in_vain {
        alike(checks, name, service, world);
    }
}

/// Why a weight of a zone of this cluster is in vain, and what to do. `fence` is that of callers here: where a service is
/// exported, weights lead the callers of peers as well, whom no fence of this cluster concerns (`gateway/src/services.rs`).
fn own(zone: &str, fence: Option<&[String]>, world: &World<'_>) -> Option<(String, String)> {
    let zones = || world.cluster.zones.iter().map(String::as_str);
    if !world.cluster.zones.contains(zone) {
        let place = format!("{}/{zone}", world.cluster.name);
        let cause = format!("`{place}` is no zone of this cluster");
        return Some((cause, format!("it has {}", zones().collect::<Vec<_>>().join(", "))));
    }
    let region = &world.cluster.region;
    let shut_out = fence.is_some_and(|fence| !fence.contains(region));
    let cause = format!("no request stays in this cluster: it lies in `{region}`, outside of the residency fence");
    shut_out.then(|| (cause, format!("remove it, or add `{region}` to `balancing.residency`")))
}

/// Why a weight of a zone of another cluster is in vain, and what to do.
fn of_peer(name: &ServiceName, cluster: &str, fence: Option<&[String]>, world: &World<'_>) -> Option<(String, String)> {
    let Some(peer) = world.peers.get(cluster) else {
        let cause = format!("`{cluster}` is neither this cluster nor a declared peer");
        let known = world.peers.keys().copied().chain([world.cluster.name.as_str()]);
        return Some((cause, instead(cluster, known, &format!("declare the Peer `{cluster}`, or remove it"))));
    };
    if !peer.imports_service(name) {
        return Some(not_imported(name, cluster));
    }
    fence.filter(|fence| !world.may_lie_in(cluster, fence)).map(|_| outside(cluster))
}

/// Whether weights of this cluster's zones meet others in a priority. Zones of peers are not known here.
fn alike(checks: &mut Checks<'_>, name: &ServiceName, service: &Service, world: &World<'_>) {
    let weights = &service.locality_weights;
    let mine: Vec<&String> = weights.keys().filter(|place| is_of(place, &world.cluster.name)).collect();
    let priorities = priorities(name, service, world);
    let differ = |priority: &Vec<f64>| priority.iter().any(|weight| *weight != priority[0]);
    if mine.is_empty() || weights.values().all(|weight| *weight == 1.0) || priorities.iter().any(differ) {
        return;
    }
    let path = match mine[..] {
        [place] => join(PATH, place),
        _ => PATH.to_owned(),
    };
    let (cause, suggestion) = if priorities.iter().any(|priority| priority.len() > 1) {
        let cause = "it divides nothing: a caller's own zone comes first, and those after it all weigh the same";
        (cause, "remove it, or weigh one zone unlike another")
    } else {
        let cause = "it divides nothing: a caller's own zone comes first, and after it no two zones are as near";
        (cause, "remove it: weights are for clusters of three zones or more, or with a peer in their region")
    };
    checks.advise(Severity::Warning, &path, cause, suggestion);
}

/// The weights in the priority after the own zone, for callers in each zone of this cluster, if a zone of it is among them.
fn priorities(name: &ServiceName, service: &Service, world: &World<'_>) -> Vec<Vec<f64>> {
    let cluster = &world.cluster;
    let mut beside: Vec<f64> = Vec::new();
    // An order of clusters takes peers out of the region's priority.
    for (peer, declared) in world.importing(name).filter(|_| service.failover.is_empty()) {
        if declared.region.as_ref() == Some(&cluster.region) {
            let named = service.locality_weights.iter().filter(|(place, _)| is_of(place, peer));
            beside.extend(named.map(|(_, weight)| *weight));
            // It may have a zone that is not named.
            beside.push(1.0);
        }
    }
    let weight =
        |zone: &String| service.locality_weights.get(&format!("{}/{zone}", cluster.name)).copied().unwrap_or(1.0);
    let after = |caller: &String| {
        let others: Vec<f64> = cluster.zones.iter().filter(|zone| *zone != caller).map(weight).collect();
        (!others.is_empty()).then(|| [&others[..], &beside].concat())
    };
    cluster.zones.iter().filter_map(after).collect()
}

fn is_of(place: &str, cluster: &str) -> bool {
    place.split_once('/').is_some_and(|(of, _)| of == cluster)
}

/// Weights of zones that are not there now.
pub(crate) fn now(checks: &mut Checks<'_>, name: &ServiceName, service: &Service, world: &World<'_>) {
    for place in service.locality_weights.keys() {
        let Some((cluster, zone)) = place.split_once('/') else { continue };
        let path = join(PATH, place);
        if let Some(peer) = world.live_peer(cluster).filter(|_| world.peers.contains_key(cluster)) {
            if !peer.zones.contains(zone) {
                let zones = || peer.zones.iter().map(String::as_str);
                let otherwise = format!("it has {}", list(zones()));
                let suggestion = instead(zone, zones(), &otherwise);
                checks.advise(Severity::Warning, &path, format!("`{cluster}` has no zone `{zone}`"), suggestion);
            }
        } else if let Some(served) = world.live.and_then(|live| live.services.get(name))
            && cluster == world.cluster.name
            && served.zones.get(zone).is_none_or(|endpoints| *endpoints == 0)
        {
            let serving = served.zones.iter().filter(|(_, endpoints)| **endpoints > 0).map(|(zone, _)| zone.as_str());
            let cause = format!("the service has no endpoint in `{place}` now");
            checks.advise(
                Severity::Warning,
                &path,
                cause,
                format!("remove it, or start one there; there are some in {}", list(serving)),
            );
        }
    }
}
