//! The explanation of a service's allocation.

use std::sync::Arc;

use eastway_core::policy::Mode;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{Health, Timestamp};
use eastway_resilience::Phase;

use super::Service;
use super::control::LocalityControl;
use crate::allocation::ShownShare;
use crate::endpoint::Endpoint;
use crate::explain::{EndpointExplanation, Explanation, LocalityExplanation, PriorityExplanation};
use crate::locality::CircuitBreaker;
use crate::policy::Policy;
use crate::situation::Percent;

impl Service {
    /// Everything that a pick depends on now, and why each part of it is or is not used.
    pub fn explain(&self, now: Timestamp) -> Explanation {
        let control = self.state.control.lock();
        let arranged = control.arranged_for(&self.view);
        let plan = self.view.plan.load();
        let policy = &control.rules.policy;
        let mode = policy.mode;
        let divided = plan.allocation.told(mode);
        let mut priorities = Vec::new();
        for (priority, range) in arranged.priorities().into_iter().enumerate() {
            let shares = plan.allocation.target.priorities.get(priority).cloned().unwrap_or_default();
            let known = range.clone().any(|i| arranged.locality(i).utilisation.get().is_some());
            priorities.push(PriorityExplanation {
                level: arranged.view.places[range.start].level,
                healthy_load: Percent(shares.healthy_load),
                degraded_load: Percent(shares.degraded_load),
                panic: shares.panic,
                utilisation_factor: (known && mode == Mode::Native).then(|| arranged.view.factors[priority].get()),
                localities: range
                    .clone()
                    .map(|i| {
                        let distance = arranged.view.places[i].ring.cost_ms();
                        let divided = divided.get(i).copied().unwrap_or_default();
                        locality(arranged.locality(i), distance, divided, policy, now)
                    })
                    .collect(),
            });
        }
        Explanation {
            service: self.state.name.to_string(),
            from: self.view.caller.zone.clone(),
            mode,
            residency: policy.regions.as_ref().map(|regions| regions.iter().map(ToString::to_string).collect()),
            normalized_total_availability: Percent(plan.allocation.target.normalized_total_availability),
            priorities,
        }
    }
}

fn locality(
    locality: &LocalityControl,
    distance_ms: Option<f64>,
    divided: ShownShare,
    policy: &Policy,
    now: Timestamp,
) -> LocalityExplanation {
    let input = locality.input(false);
    let endpoints = if locality.remote { locality.state.known() } else { locality.roster.endpoints.to_vec() };
    let (breaker, pressure) = {
        let guard = locality.state.circuit.guard.lock();
        (phase(guard.breaker.phase()), guard.breaker.pressure(now))
    };
    LocalityExplanation {
        name: locality.zone.clone(),
        share: Percent(divided.share),
        target: Percent(divided.target),
        region: locality.region.to_string(),
        remote: locality.remote,
        hosts: locality.tally.count,
        healthy: input.healthy / 1000.0,
        degraded: input.degraded / 1000.0,
        soft: input.soft / 1000.0,
        total: input.total / 1000.0,
        weight: locality.weight,
        capacity: input.capacity,
        utilisation: input.utilisation,
        distance_ms,
        path: locality.remote.then_some(locality.path_state),
        staleness: locality.remote.then_some(locality.staleness),
        breaker,
        pressure,
        stage: locality.failback.as_str(),
        cap: cap(locality, policy, now).map(Percent),
        why: why(locality, divided, policy, now),
        endpoints: endpoints.iter().map(|e| endpoint(e, locality.remote, divided, now)).collect(),
    }
}

/// Whether the operator's residency fence keeps all traffic out of the locality. The view has lost it then; it is remembered
/// for a while.
pub(super) fn is_outside(locality: &LocalityControl, policy: &Policy) -> bool {
    policy.regions.as_ref().is_some_and(|regions| !regions.contains(&locality.region))
}

/// The regions inside of the residency fence, if there is one.
pub(super) fn fence(policy: &Policy) -> Option<String> {
    policy.regions.as_ref().map(|regions| regions.iter().map(|region| &**region).collect::<Vec<_>>().join(", "))
}

/// What holds the locality back. The Envoy mode knows no ramps.
fn cap(locality: &LocalityControl, policy: &Policy, now: Timestamp) -> Option<u32> {
    locality.cap(policy, now).filter(|_| policy.mode == Mode::Native)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Closed => "closed",
        Phase::Open { .. } => "open",
        Phase::HalfOpen { .. } => "half-open",
    }
}

fn why(locality: &LocalityControl, divided: ShownShare, policy: &Policy, now: Timestamp) -> String {
    let ShownShare { share, target, panic } = divided;
    let open = |circuit: &CircuitBreaker| !circuit.guard.lock().breaker.is_closed();
    let input = locality.input(false);
    let mut ignored = false;
    let mut soft = |text| {
        ignored = panic && share > 0;
        text
    };
    let text = match share {
        _ if is_outside(locality, policy) => {
            return format!("it is outside of the residency fence: {}", fence(policy).unwrap_or_default());
        }
        _ if locality.tally.count == 0 => "it has no endpoint that counts",
        _ if locality.path_state == PathState::Down => "the path to its cluster is down",
        _ if !locality.conceivable() => "all of its endpoints are unready or down",
        _ if locality.path.as_deref().is_some_and(open) => "the path to its cluster fails as seen from here",
        _ if open(&locality.state.circuit) => {
            soft("its breaker is open: too many of its answers fail as seen from here")
        }
        _ if locality.staleness == Staleness::Stale3 => "its cluster is silent for more than 15 minutes: last resort",
        _ if locality.staleness == Staleness::Stale2 => "its cluster is silent for more than 30 seconds: second choice",
        _ if input.healthy + input.degraded == 0.0 => soft("all of its endpoints that could serve are ejected"),
        // Before what holds it back: from nothing, nothing is held back.
        0 if target == 0 => "nearer priorities have enough capacity",
        _ if cap(locality, policy, now).is_some() => {
            return format!("it returned from failure and is {}", locality.failback.as_str());
        }
        0 => "nearer priorities have enough capacity",
        _ => "it serves",
    };
    if ignored { format!("{text}; used all the same: its priority panics") } else { text.to_owned() }
}

fn endpoint(endpoint: &Arc<Endpoint>, remote: bool, divided: ShownShare, now: Timestamp) -> EndpointExplanation {
    let ShownShare { share, panic, .. } = divided;
    // Of sessions to another cluster an ejected one is never chosen: the gateway there is asked for another endpoint.
    let panic = panic && share > 0 && !remote;
    let cold = endpoint.cold.lock();
    let (used, why) = match (cold.health, cold.breaker.phase()) {
        (Health::Warming, _) => (false, "it was never ready in this incarnation"),
        (Health::Unready, _) => (false, "its application's probe fails"),
        (Health::Down, _) => (false, "its host or sidecar is gone, by positive evidence"),
        (_, Phase::Open { down: true, .. }) => (false, "it refused or reset a fresh connection from here"),
        (_, Phase::Open { down: false, .. } | Phase::HalfOpen { down: false, .. }) if panic => {
            (true, "it is ejected, but used: its priority panics, so what its answers say is ignored")
        }
        (_, Phase::Open { .. }) => (false, "it is ejected: too many of its answers fail as seen from here"),
        (_, Phase::HalfOpen { .. }) => (false, "it waits for one request to try it"),
        // Of a locality without a share nobody is used, whatever is last known of each.
        _ if share == 0 => (false, "its locality gets no traffic now"),
        (Health::Draining, _) => (true, "it goes away: second choice"),
        (Health::Degraded, _) => (true, "it is degraded: second choice"),
        (Health::Ready, _) if cold.breaker.acceptance(now) < 1.0 => (true, "it starts slowly"),
        (Health::Ready, _) => (true, "it serves"),
    };
    let latency = endpoint.latency_us();
    EndpointExplanation {
        id: endpoint.id.clone(),
        address: endpoint.address,
        health: cold.health,
        incarnation: endpoint.incarnation,
        weight: cold.weight,
        active_requests: endpoint.active_requests(),
        others: f64::from(endpoint.others()),
        latency_ms: (latency > 0.0).then(|| f64::from(latency) / 1000.0),
        utilisation: endpoint.utilisation().map(f64::from),
        acceptance: f64::from(endpoint.acceptance()),
        breaker: phase(cold.breaker.phase()),
        statistic: cold.breaker.statistic(now),
        used,
        why,
    }
}
