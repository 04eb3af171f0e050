//! What is checked of a `Service`.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::ServiceName;
use eastway_core::name::is_label;
use eastway_core::policy::ServicePolicy;
use eastway_core::resource::{Mesh, Protocol, Service};
use eastway_documents::yaml::join;
use eastway_documents::{Checks, Severity};

use crate::cluster::LiveService;
use crate::common::repeated;
use crate::policy::inert::UNSENT_ATTEMPTS;
use crate::policy::{self, Said};
use crate::world::{World, list, not_imported, outside};
use crate::{residency, weights};

/// Ports and accounts of a service: as many as a gateway takes of what a peer exports.
const MAX_PORTS: usize = 64;
const MAX_ACCOUNTS: usize = 32;

pub(crate) fn alone(checks: &mut Checks<'_>, service: &Service) {
    for (path, most, found) in
        [("spec.ports", MAX_PORTS, service.ports.len()), ("spec.accounts", MAX_ACCOUNTS, service.accounts.len())]
    {
        if found > most {
            checks.problem(path, format!("at most {most} expected, found {found}: peers take no more"));
        }
    }
    let mut ports = BTreeSet::new();
    for (index, port) in service.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}].port");
        if port.port == 0 {
            checks.problem(&path, "0 is no port");
        } else if !ports.insert(port.port) {
            checks.problem(&path, format!("port {} is listed twice", port.port));
        }
    }
    for (index, account) in service.accounts.iter().enumerate() {
        checks.label(&format!("spec.accounts[{index}]"), account);
    }
    repeated(checks, "spec.accounts", &service.accounts);
    for (index, cluster) in service.export.iter().enumerate() {
        let path = format!("spec.export[{index}]");
        if cluster == "*" {
            continue;
        }
        checks.label(&path, cluster);
        if service.export.iter().any(|other| other == "*") {
            let cause = format!("`*` offers it to `{cluster}` already");
            checks.advise(Severity::Error, &path, cause, "remove it, or `*` if not all peers are meant");
        }
    }
    repeated(checks, "spec.export", &service.export);
    for (index, cluster) in service.failover.iter().enumerate() {
        checks.label(&format!("spec.failover[{index}]"), cluster);
    }
    repeated(checks, "spec.failover", &service.failover);
    for (zone, weight) in &service.locality_weights {
        let path = join("spec.localityWeights", zone);
        if !zone.split_once('/').is_some_and(|(cluster, zone)| is_label(cluster) && is_label(zone)) {
            checks.problem(&path, format!("`{zone}` is not CLUSTER/ZONE"));
        }
        if !(weight.is_finite() && *weight >= 0.0) {
            checks.problem(&path, format!("{weight} is not a weight: it must not be negative"));
        }
    }
    weights::alone(checks, &service.locality_weights);
    let Service { balancing, breaker, limits, retries, timeouts, .. } = service;
    policy::check(checks, Said { balancing, breaker, limits, retries, timeouts });
    let own = service.policy(&Mesh::default());
    weighted(checks, service, &own, &own);
}

fn weighted(checks: &mut Checks<'_>, service: &Service, own: &ServicePolicy, all: &ServicePolicy) {
    if !service.locality_weights.is_empty() {
        policy::inert::weights(checks, own, all, !service.export.is_empty());
    }
}

/// What concerns the cluster, its peers and its Mesh.
pub(crate) fn among(checks: &mut Checks<'_>, name: &ServiceName, service: &Service, world: &World<'_>) {
    let (own, all) = (service.policy(&Mesh::default()), world.policy(service));
    policy::inert::check(checks, &own, &all);
    weighted(checks, service, &own, &all);
    bytes_alone(checks, service, &own);
    if service.accounts == [&*name.service] {
        let cause = format!("`{}` may serve it anyway: it is the account of the service's own name", name.service);
        checks.advise(Severity::Warning, "spec.accounts", cause, "remove it, or name further accounts beside it");
    }
    exports(checks, service, world);
    failover(checks, name, service, all.balancing.residency.as_deref(), world);
    weights::among(checks, name, service, world);
    if let Some(regions) = &own.balancing.residency {
        let peers: Vec<&str> = world.importing(name).map(|(peer, _)| peer).collect();
        residency::check(checks, regions, &peers, world);
    }
    if world.live.is_some() {
        now(checks, name, service, world);
    }
}

/// What is said of requests to a service that has no port for any. Streams have no deadline, their attempts no time limit, and none
/// of these counts as sent (`mesh/request/src/outbound`). It is no error: who sends a request to such a port all the same is
/// not turned away.
fn bytes_alone(checks: &mut Checks<'_>, service: &Service, own: &ServicePolicy) {
    if service.ports.is_empty() || service.ports.iter().any(|port| port.protocol != Protocol::Tcp) {
        return;
    }
    for (path, given) in [
        ("spec.timeouts.request", own.timeouts.request.is_some()),
        ("spec.retries.perTry", own.retries.per_try.is_some()),
        ("spec.retries.attempts", own.retries.attempts.is_some_and(|attempts| attempts <= UNSENT_ATTEMPTS)),
    ] {
        if given {
            let cause = "it is about requests and not about streams, and all ports of the service are `tcp`";
            let suggestion = "remove it, or give a port another `protocol`: `http` or `grpc`";
            checks.advise(Severity::Warning, path, cause, suggestion);
        }
    }
}

fn exports(checks: &mut Checks<'_>, service: &Service, world: &World<'_>) {
    for (index, cluster) in service.export.iter().enumerate() {
        let path = format!("spec.export[{index}]");
        if *cluster == world.cluster.name {
            let cause = format!("`{cluster}` is this cluster, whose workloads may call it anyway");
            checks.advise(Severity::Error, &path, cause, "remove it");
        } else if cluster == "*" && world.peers.is_empty() {
            let cause = "it is offered to nobody: no Peer is declared";
            checks.advise(Severity::Warning, &path, cause, "declare the Peer that it is meant for");
        } else if cluster != "*" && !world.peers.contains_key(cluster.as_str()) {
            let cause = format!("it is offered to nobody: no Peer `{cluster}` is declared");
            let suggestion = world.instead_of_peer(cluster, &format!("declare the Peer `{cluster}`, or remove it"));
            checks.advise(Severity::Warning, &path, cause, suggestion);
        }
    }
}

fn failover(
    checks: &mut Checks<'_>,
    name: &ServiceName,
    service: &Service,
    fence: Option<&[String]>,
    world: &World<'_>,
) {
    for (index, cluster) in service.failover.iter().enumerate() {
        let path = format!("spec.failover[{index}]");
        if *cluster == world.cluster.name {
            let cause = format!("`{cluster}` is this cluster, which always comes first");
            checks.advise(Severity::Error, &path, cause, "remove it");
            continue;
        }
        let (cause, suggestion) = match world.peers.get(cluster.as_str()) {
            None => {
                let otherwise = format!("declare the Peer `{cluster}`, or remove it");
                (format!("`{cluster}` is no declared peer"), world.instead_of_peer(cluster, &otherwise))
            }
            Some(peer) if !peer.imports_service(name) => not_imported(name, cluster),
            Some(_) if fence.is_some_and(|fence| !world.may_lie_in(cluster, fence)) => outside(cluster),
            Some(_) => continue,
        };
        // The Peer may be declared elsewhere, or change.
        checks.advise(Severity::Warning, &path, cause, suggestion);
    }
}

/// What there is of it now.
fn now(checks: &mut Checks<'_>, name: &ServiceName, service: &Service, world: &World<'_>) {
    weights::now(checks, name, service, world);
    let offers = |peer: &str| world.live_peer(peer).is_some_and(|live| live.exports.contains(name));
    let offering: Vec<&str> = world.importing(name).map(|(peer, _)| peer).filter(|peer| offers(peer)).collect();
    for (index, cluster) in service.failover.iter().enumerate() {
        // What is said of one that is no peer, or never spoke, is said elsewhere.
        let spoken = world.peers.contains_key(cluster.as_str()) && world.live_peer(cluster).is_some();
        if spoken && !offers(cluster) {
            let others = if offering.is_empty() { "nobody else".to_owned() } else { list(offering.clone()) };
            let cause = format!("`{cluster}` does not offer {name}");
            let suggestion = format!("export it there to `{}`, or remove it: {others} does", world.cluster.name);
            checks.advise(Severity::Warning, &format!("spec.failover[{index}]"), cause, suggestion);
        }
    }
    let served = world.live.and_then(|live| live.services.get(name)).filter(|served| served.endpoints() > 0);
    match served {
        Some(served) => served_now(checks, service, served, offering.is_empty()),
        None => unserved(checks, service, offering.is_empty()),
    }
    shut_out(checks, service, served.is_some(), &offering, world);
}

/// A service that has endpoints in this cluster; `alone` says that it has them nowhere else.
fn served_now(checks: &mut Checks<'_>, service: &Service, served: &LiveService, alone: bool) {
    for (index, account) in service.accounts.iter().enumerate() {
        if !served.accounts.is_empty() && !served.accounts.contains(account) {
            let cause = format!("no endpoint of it runs under `{account}` now");
            let serving = list(served.accounts.iter().map(String::as_str));
            let suggestion = format!("remove it once nothing is to run under it: endpoints run under {serving}");
            checks.advise(Severity::Warning, &format!("spec.accounts[{index}]"), cause, suggestion);
        }
    }
    if service.balancing.target_utilisation.is_some() && served.measured == Some(0) && alone {
        let cause = "no endpoint of it says how utilised it is, so that no load moves any traffic";
        let suggestion = "give `workload.capacity` or `workload.cgroup` in the configuration of its sidecars";
        checks.advise(Severity::Warning, "spec.balancing.targetUtilisation", cause, suggestion);
    }
    if let Some(cap) = service.breaker.max_ejected.filter(|_| alone) {
        never_ejected(checks, cap, &served.zones);
    }
}

/// A service that has no endpoint in this cluster; `alone` says that it has none elsewhere either.
fn unserved(checks: &mut Checks<'_>, service: &Service, alone: bool) {
    if !service.export.is_empty() {
        let cause = "nothing is offered: the service has no endpoint in this cluster now";
        checks.advise(Severity::Warning, "spec.export", cause, "start a workload that serves it, or remove it");
    } else if alone {
        let cause = "nobody serves it now, neither in this cluster nor at a peer that it is imported from";
        let suggestion = "start a workload that serves it, or import it from a peer that offers it";
        checks.advise(Severity::Warning, "metadata.name", cause, suggestion);
    }
}

/// A fence that leaves out every region where the service has endpoints.
fn shut_out(checks: &mut Checks<'_>, service: &Service, here: bool, offering: &[&str], world: &World<'_>) {
    let Some(fence) = &service.balancing.residency else { return };
    let there = offering.iter().filter_map(|peer| world.live_peer(peer)).map(|live| live.region.as_str());
    let regions: BTreeSet<&str> = there.chain(here.then_some(world.cluster.region.as_str())).collect();
    if !regions.is_empty() && !fence.iter().any(|region| regions.contains(region.as_str())) {
        let cause = format!("it leaves out every endpoint that there is now: they are in {}", list(regions.clone()));
        let suggestion = format!("add one of {}", list(regions));
        checks.advise(Severity::Warning, "spec.balancing.residency", cause, suggestion);
    }
}

/// `mesh/balance/src/service/finishing.rs`, `can_spare`: the ejected part of a zone must not exceed the cap with the next one.
fn never_ejected(checks: &mut Checks<'_>, cap: f64, zones: &BTreeMap<String, u32>) {
    let serving = || zones.values().filter(|endpoints| **endpoints > 0);
    // One that is alone in its zone is ejected whatever the cap is, as long as another zone serves.
    if cap > 0.0 && serving().all(|endpoints| *endpoints > 1 && cap * f64::from(*endpoints) < 1.0) {
        let most = serving().max().copied().unwrap_or_default();
        let cause = format!(
            "no endpoint can be ejected: of the {most} in the largest zone one is more, unless their weights differ"
        );
        let suggestion = format!("raise it to {:.2} or more", (100.0 / f64::from(most)).ceil() / 100.0);
        checks.advise(Severity::Warning, "spec.breaker.maxEjected", cause, suggestion);
    }
}
