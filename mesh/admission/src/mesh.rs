//! What is checked of a `Mesh`.

use std::collections::BTreeSet;

use eastway_core::ServiceName;
use eastway_core::policy::ServicePolicy;
use eastway_core::resource::Mesh;
use eastway_documents::{Checks, Severity};

use crate::policy::{self, Said};
use crate::residency;
use crate::world::World;

pub(crate) fn alone(checks: &mut Checks<'_>, name: &str, mesh: &Mesh) {
    if name != Mesh::NAME {
        checks.problem("metadata.name", format!("`{name}` is no name for it: there is one Mesh, `{}`", Mesh::NAME));
    }
    policy::check(checks, said(mesh));
}

fn said(mesh: &Mesh) -> Said<'_> {
    let Mesh { balancing, breaker, limits, retries, timeouts } = mesh;
    Said { balancing, breaker, limits, retries, timeouts }
}

pub(crate) fn among(checks: &mut Checks<'_>, mesh: &Mesh, world: &World<'_>) {
    let own = mesh.policy();
    policy::inert::check(checks, &own, &own);
    if own == ServicePolicy::default() {
        checks.advise(
            Severity::Warning,
            "spec",
            "it says nothing of any service",
            "remove it, or give a default in it",
        );
    }
    if let Some(regions) = &own.balancing.residency {
        let peers: Vec<&str> = world.peers.keys().copied().collect();
        residency::check(checks, regions, &peers, world);
    }
    overruled(checks, &own, world);
}

/// What can be said of calls: where it stands, and whether a document says it.
type Setting = (&'static str, fn(&ServicePolicy) -> bool);

const SETTINGS: [Setting; 23] = [
    ("spec.balancing.mode", |said| said.balancing.mode.is_some()),
    ("spec.balancing.algorithm", |said| said.balancing.algorithm.is_some()),
    ("spec.balancing.overprovisioning", |said| said.balancing.overprovisioning.is_some()),
    ("spec.balancing.panicThreshold", |said| said.balancing.panic_threshold.is_some()),
    ("spec.balancing.targetUtilisation", |said| said.balancing.target_utilisation.is_some()),
    ("spec.balancing.ramp", |said| said.balancing.ramp.is_some()),
    ("spec.balancing.slowStart", |said| said.balancing.slow_start.is_some()),
    ("spec.balancing.latencyVeto", |said| said.balancing.latency_veto.is_some()),
    ("spec.balancing.residency", |said| said.balancing.residency.is_some()),
    ("spec.breaker.endpoint", |said| said.breaker.endpoint.is_some()),
    ("spec.breaker.locality", |said| said.breaker.locality.is_some()),
    ("spec.breaker.baseEjection", |said| said.breaker.base_ejection.is_some()),
    ("spec.breaker.maxEjection", |said| said.breaker.max_ejection.is_some()),
    ("spec.breaker.maxEjected", |said| said.breaker.max_ejected.is_some()),
    ("spec.limits.maxRequests", |said| said.limits.max_requests.is_some()),
    ("spec.limits.maxPending", |said| said.limits.max_pending.is_some()),
    ("spec.limits.maxConnections", |said| said.limits.max_connections.is_some()),
    ("spec.retries.attempts", |said| said.retries.attempts.is_some()),
    ("spec.retries.perTry", |said| said.retries.per_try.is_some()),
    ("spec.retries.budget", |said| said.retries.budget.is_some()),
    ("spec.retries.minPerSecond", |said| said.retries.min_per_second.is_some()),
    ("spec.retries.backoff", |said| said.retries.backoff.is_some()),
    ("spec.timeouts.request", |said| said.timeouts.request.is_some()),
];

/// What every service that there is says otherwise. It also holds for services that nobody declares, so that nothing is said
/// while one of those is there, or while nobody knows.
fn overruled(checks: &mut Checks<'_>, own: &ServicePolicy, world: &World<'_>) {
    let Some(live) = world.live else { return };
    let here = live.services.keys();
    let imported = world.peers.iter().filter_map(|(name, peer)| Some((peer, world.live_peer(name)?)));
    let imported =
        imported.flat_map(|(peer, live)| live.exports.iter().filter(|service| peer.imports_service(service)));
    let there_is: BTreeSet<&ServiceName> = here.chain(imported).chain(world.services.keys()).collect();
    let said: Option<Vec<ServicePolicy>> =
        there_is.iter().map(|name| Some(world.services.get(*name)?.policy(&Mesh::default()))).collect();
    let Some(said) = said.filter(|said| !said.is_empty()) else { return };
    for (path, is_said) in SETTINGS {
        if is_said(own) && said.iter().all(is_said) {
            let cause = "it holds for no service that there is: the Service of each says otherwise";
            checks.advise(Severity::Warning, path, cause, "remove it here, or in the Services that it is meant for");
        }
    }
}
