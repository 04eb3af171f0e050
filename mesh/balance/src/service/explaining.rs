//! The explanation of a service's decision.

use std::sync::Arc;

use eastway_core::policy::Mode;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{Health, Timestamp};
use eastway_resilience::Phase;

use super::Service;
use super::control::LaneControl;
use crate::census::Told;
use crate::endpoint::Endpoint;
use crate::explain::{EndpointExplanation, Explanation, LaneExplanation, TierExplanation};
use crate::lane::Circuit;
use crate::policy::Policy;
use crate::situation::Percent;

impl Service {
    /// Everything that a pick depends on now, and why each part of it is or is not used.
    pub fn explain(&self, now: Timestamp) -> Explanation {
        let control = self.control.lock();
        let plan = self.plan.load();
        let policy = &control.rules.policy;
        let mode = policy.mode;
        let divided = plan.decision.told(mode);
        let mut tiers = Vec::new();
        for (tier, range) in control.tiers().into_iter().enumerate() {
            let shares = plan.decision.target.tiers.get(tier).cloned().unwrap_or_default();
            let known = control.lanes[range.clone()].iter().any(|lane| lane.utilisation.get().is_some());
            tiers.push(TierExplanation {
                tier: control.lanes[range.start].level,
                healthy_load: Percent(shares.healthy_load),
                degraded_load: Percent(shares.degraded_load),
                panic: shares.panic,
                utilisation_factor: (known && mode == Mode::Native).then(|| control.factors[tier].get()),
                lanes: range
                    .clone()
                    .map(|i| lane(&control.lanes[i], divided.get(i).copied().unwrap_or_default(), policy, now))
                    .collect(),
            });
        }
        Explanation {
            service: self.name.to_string(),
            from: self.caller.zone.clone(),
            mode,
            residency: policy.regions.as_ref().map(|regions| regions.iter().map(ToString::to_string).collect()),
            normalized_total_availability: Percent(plan.decision.target.normalized_total_availability),
            tiers,
        }
    }
}

fn lane(lane: &LaneControl, divided: Told, policy: &Policy, now: Timestamp) -> LaneExplanation {
    let input = lane.input(false);
    let endpoints = if lane.remote { lane.state.known() } else { lane.roster.endpoints.to_vec() };
    let (breaker, pressure) = {
        let guard = lane.state.circuit.guard.lock();
        (phase(guard.breaker.phase()), guard.breaker.pressure(now))
    };
    LaneExplanation {
        name: lane.zone.clone(),
        share: Percent(divided.share),
        target: Percent(divided.target),
        region: lane.region.to_string(),
        remote: lane.remote,
        hosts: lane.tally.count,
        healthy: input.healthy / 1000.0,
        degraded: input.degraded / 1000.0,
        soft: input.soft / 1000.0,
        total: input.total / 1000.0,
        weight: lane.weight,
        capacity: input.capacity,
        utilisation: input.utilisation,
        distance_ms: lane.cost_ms,
        path: lane.remote.then_some(lane.path_state),
        staleness: lane.remote.then_some(lane.staleness),
        breaker,
        pressure,
        stage: lane.returning.as_str(),
        cap: cap(lane, policy, now).map(Percent),
        why: why(lane, divided, policy, now),
        endpoints: endpoints.iter().map(|e| endpoint(e, lane.remote, divided, now)).collect(),
    }
}

/// Whether the operator's residency fence keeps all traffic out of the lane. The view has lost it then; it is remembered
/// for a while.
pub(super) fn is_outside(lane: &LaneControl, policy: &Policy) -> bool {
    policy.regions.as_ref().is_some_and(|regions| !regions.contains(&lane.region))
}

/// The regions inside of the residency fence, if there is one.
pub(super) fn fence(policy: &Policy) -> Option<String> {
    policy.regions.as_ref().map(|regions| regions.iter().map(|region| &**region).collect::<Vec<_>>().join(", "))
}

/// What holds the lane back. The compatible mode knows no ramps.
fn cap(lane: &LaneControl, policy: &Policy, now: Timestamp) -> Option<u32> {
    lane.cap(policy, now).filter(|_| policy.mode == Mode::Native)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Closed => "closed",
        Phase::Open { .. } => "open",
        Phase::HalfOpen { .. } => "half-open",
    }
}

fn why(lane: &LaneControl, divided: Told, policy: &Policy, now: Timestamp) -> String {
    let Told { share, target, panic } = divided;
    let open = |circuit: &Circuit| !circuit.guard.lock().breaker.is_closed();
    let input = lane.input(false);
    let mut ignored = false;
    let mut soft = |text| {
        ignored = panic && share > 0;
        text
    };
    let text = match share {
        _ if is_outside(lane, policy) => {
            return format!("it is outside of the residency fence: {}", fence(policy).unwrap_or_default());
        }
        _ if lane.tally.count == 0 => "it has no endpoint that counts",
        _ if lane.path_state == PathState::Down => "the path to its cluster is down",
        _ if !lane.conceivable() => "all of its endpoints are unready or down",
        _ if lane.path.as_deref().is_some_and(open) => "the path to its cluster fails as seen from here",
        _ if open(&lane.state.circuit) => soft("its breaker is open: too many of its answers fail as seen from here"),
        _ if lane.staleness == Staleness::Stale3 => "its cluster is silent for more than 15 minutes: last resort",
        _ if lane.staleness == Staleness::Stale2 => "its cluster is silent for more than 30 seconds: second choice",
        _ if input.healthy + input.degraded == 0.0 => soft("all of its endpoints that could serve are ejected"),
        // Before what holds it back: from nothing, nothing is held back.
        0 if target == 0 => "nearer tiers have enough capacity",
        _ if cap(lane, policy, now).is_some() => {
            return format!("it returned from failure and is {}", lane.returning.as_str());
        }
        0 => "nearer tiers have enough capacity",
        _ => "it serves",
    };
    if ignored { format!("{text}; used all the same: its tier panics") } else { text.to_owned() }
}

fn endpoint(endpoint: &Arc<Endpoint>, remote: bool, divided: Told, now: Timestamp) -> EndpointExplanation {
    let Told { share, panic, .. } = divided;
    // Of sessions to another cluster an ejected one is never chosen: the gateway there is asked for another endpoint.
    let panic = panic && share > 0 && !remote;
    let cold = endpoint.cold.lock();
    let (used, why) = match (cold.health, cold.breaker.phase()) {
        (Health::Warming, _) => (false, "it was never ready in this incarnation"),
        (Health::Unready, _) => (false, "its application's probe fails"),
        (Health::Down, _) => (false, "its host or sidecar is gone, by positive evidence"),
        (_, Phase::Open { down: true, .. }) => (false, "it refused or reset a fresh connection from here"),
        (_, Phase::Open { down: false, .. } | Phase::HalfOpen { down: false, .. }) if panic => {
            (true, "it is ejected, but used: its tier panics, so what its answers say is ignored")
        }
        (_, Phase::Open { .. }) => (false, "it is ejected: too many of its answers fail as seen from here"),
        (_, Phase::HalfOpen { .. }) => (false, "it waits for one request to try it"),
        // Of a lane without a share nobody is used, whatever is last known of each.
        _ if share == 0 => (false, "its lane gets no traffic now"),
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
        rif: endpoint.rif(),
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
