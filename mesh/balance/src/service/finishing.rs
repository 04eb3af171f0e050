//! How an attempt ended: who is charged, what trips, what is down.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{Attribution, Timestamp};
use eastway_resilience::attribution::Charge;
use eastway_resilience::breaker::Trigger;
use eastway_resilience::{BreakerConfig, ChargedFailure, Class, Outcome};

use super::Service;
use super::control::{Control, LocalityControl};
use crate::endpoint::{Endpoint, HealthClass};
use crate::locality::{CircuitBreaker, LocalityEndpoints};
use crate::pick::Pick;
use crate::policy::Policy;

/// What became of an attempt, for the probe that it may have been.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeVerdict {
    Good,
    Bad,
    /// It says nothing.
    Open,
}

impl Service {
    /// Reports how an attempt ended. What an answer said of loads is not taken here but when it began:
    /// [`Service::answered`]. Only the first report of a pick counts; a pick that is dropped without one ended for reasons
    /// of its caller.
    pub fn finish(&self, pick: &Pick, outcome: Outcome, now: Timestamp) {
        if !pick.finish() {
            return;
        }
        self.wake();
        let endpoint = pick.endpoint();
        if pick.settle() {
            self.finish_probe(pick, &outcome, now);
        }
        match outcome.class {
            Class::Success => self.succeeded(&pick.locality, endpoint, outcome.latency, now),
            Class::RateLimited => {
                let median = Duration::from_secs_f32(pick.locality.state.median().max(0.0) / 1e6);
                let penalty = outcome.latency.unwrap_or_default().max(median * 4).max(Duration::from_millis(1));
                self.succeeded(&pick.locality, endpoint, Some(penalty), now);
            }
            Class::Failure(failure) => self.failed(pick, failure, now),
            Class::Cancelled => {}
        }
    }

    /// A response has begun, and may go on for long. What it says of its endpoint's load is as of now, and if it is no
    /// failure, what the pick was to try is settled. The attempt itself still ends with [`Service::finish`].
    pub fn answered(&self, pick: &Pick, outcome: &Outcome, now: Timestamp) {
        if let (Some(endpoint), Some(load)) = (pick.endpoint(), &outcome.load) {
            endpoint.report(load, now);
            self.wake();
        }
        if outcome.failure().is_none() && pick.settle() {
            self.finish_probe(pick, &Outcome::success(Duration::ZERO), now);
        }
    }

    /// Hard evidence of this caller against an endpoint: it is down, and its locality's share moves before this returns.
    pub fn mark_down(&self, endpoint: &Arc<Endpoint>, now: Timestamp) {
        self.wake();
        let mut control = self.state.control.lock();
        let control = &mut *control;
        let mut cold = endpoint.cold.lock();
        // What is half-open already is judged by its probe alone.
        if cold.breaker.is_down() {
            return;
        }
        cold.breaker.trip(true, now, &mut control.rng);
        self.settle(control, endpoint, cold, now);
    }

    /// A fresh connection to an endpoint succeeded, which shows a down one to be up again.
    pub fn revive(&self, endpoint: &Arc<Endpoint>, now: Timestamp) {
        if endpoint.is_reachable() {
            return;
        }
        self.wake();
        let mut control = self.state.control.lock();
        let mut cold = endpoint.cold.lock();
        if cold.breaker.is_down() {
            cold.breaker.close(now);
            self.settle(&mut control, endpoint, cold, now);
        }
    }

    /// After a change of an endpoint's breaker: its marks, its locality's tally and the plan follow.
    fn settle(
        &self,
        control: &mut Control,
        endpoint: &Arc<Endpoint>,
        mut cold: crate::sync::MutexGuard<'_, crate::endpoint::Cold>,
        now: Timestamp,
    ) {
        endpoint.set_alert(&cold, true);
        let Some(locality) = control.locality_mut(&endpoint.zone) else {
            endpoint.regate(&cold, now);
            return;
        };
        let moved = locality.recount(endpoint, &mut cold, now);
        drop(cold);
        if moved {
            self.replan(control, now);
        }
    }

    fn succeeded(
        &self,
        locality: &Arc<LocalityEndpoints>,
        endpoint: Option<&Arc<Endpoint>>,
        latency: Option<Duration>,
        now: Timestamp,
    ) {
        let p0 = locality.state.p0();
        locality.state.succeeded.record(now);
        let every = needs_every(&locality.rules.locality);
        if locality.state.circuit.succeeded(every, latency, p0, now) {
            self.trip_locality(locality, now);
        }
        if let Some(path) = &locality.path {
            path.succeeded(false, latency, p0, now);
        }
        let Some(endpoint) = endpoint else { return };
        if let Some(latency) = latency {
            endpoint.observe_latency(latency, now);
        }
        if !endpoint.is_alert() && !needs_every(&locality.rules.endpoint) {
            return;
        }
        let mut cold = endpoint.cold.lock();
        let wants = cold.breaker.on_success(latency, p0, now);
        if cold.breaker.is_closed() && cold.breaker.statistic(now) == 0.0 && !cold.breaker.is_rising() {
            endpoint.set_alert(&cold, false);
        }
        drop(cold);
        if wants {
            self.eject(endpoint, now);
        }
    }

    fn failed(&self, pick: &Pick, failure: ChargedFailure, now: Timestamp) {
        let (locality, endpoint) = (&pick.locality, pick.endpoint());
        let charge = Charge::of(failure.attribution);
        if charge.path > 0 {
            match &locality.path {
                Some(path) if path.failed(None, 1, LEAST_P0, now) => self.trip_path(path, now),
                _ => {}
            }
            return;
        }
        if let Some(endpoint) = endpoint.filter(|_| failure.down) {
            // What is down is out of the locality's sums at once: its breaker has nothing to find out.
            self.mark_down(endpoint, now);
            return;
        }
        let p0 = locality.state.p0();
        // A probe that fails says of its locality only what was known before.
        if charge.locality + charge.endpoint > 0 && !pick.permits().endpoint {
            locality.state.failed.record(now);
            let contributor = endpoint.filter(|_| charge.locality == 0).map(|e| hash(e));
            let needed = contributors(locality);
            if locality.state.circuit.failed(contributor, needed, p0, now) {
                self.trip_locality(locality, now);
            }
        }
        let Some(endpoint) = endpoint.filter(|_| charge.endpoint > 0) else { return };
        endpoint.punish();
        let mut cold = endpoint.cold.lock();
        endpoint.set_alert(&cold, true);
        let wants = cold.breaker.on_failure(charge.endpoint, p0, 1.0, now);
        drop(cold);
        if wants {
            self.eject(endpoint, now);
        }
    }

    /// Ejects an endpoint by statistics, if its locality can spare it.
    fn eject(&self, endpoint: &Arc<Endpoint>, now: Timestamp) {
        let mut control = self.state.control.lock();
        let control = &mut *control;
        let elsewhere = control
            .localities
            .iter()
            .any(|locality| locality.zone != endpoint.zone && locality.input(false).healthy > 0.0);
        let cap = control.rules.policy.ejection_cap;
        let mut cold = endpoint.cold.lock();
        if !cold.breaker.is_closed() {
            return;
        }
        let spared = control
            .locality_mut(&endpoint.zone)
            .is_none_or(|locality| locality.can_spare(&cold, endpoint, cap, elsewhere));
        if spared {
            cold.breaker.trip(false, now, &mut control.rng);
            self.settle(control, endpoint, cold, now);
        }
    }

    fn trip_locality(&self, locality: &Arc<LocalityEndpoints>, now: Timestamp) {
        let mut control = self.state.control.lock();
        let control = &mut *control;
        trip_once(&locality.state.circuit, now, &mut control.rng);
        self.replan(control, now);
    }

    fn trip_path(&self, path: &CircuitBreaker, now: Timestamp) {
        let mut control = self.state.control.lock();
        let control = &mut *control;
        trip_once(path, now, &mut control.rng);
        self.replan(control, now);
    }

    /// Settles what the probe was sent to find out, and gives its permits back.
    fn finish_probe(&self, pick: &Pick, outcome: &Outcome, now: Timestamp) {
        let permits = pick.permits();
        let mut control = self.state.control.lock();
        let control = &mut *control;
        if let (true, Some(endpoint)) = (permits.endpoint, pick.endpoint()) {
            let verdict = verdict(outcome, |charge| charge.endpoint > 0);
            if verdict != ProbeVerdict::Open {
                let mut cold = endpoint.cold.lock();
                match outcome.failure() {
                    Some(ChargedFailure { down: true, .. }) => cold.breaker.trip(true, now, &mut control.rng),
                    _ => cold.breaker.probe_ended(verdict == ProbeVerdict::Good, now, &mut control.rng),
                }
                self.settle(control, endpoint, cold, now);
            }
        }
        if permits.locality {
            let verdict = verdict(outcome, |charge| charge.endpoint + charge.locality > 0);
            settle_circuit(&pick.locality.state.circuit, verdict, now, &mut control.rng);
        }
        if let (true, Some(path)) = (permits.path, &pick.locality.path) {
            settle_circuit(path, path_verdict(outcome), now, &mut control.rng);
        }
        pick.release_permits();
        self.replan(control, now);
    }
}

impl LocalityControl {
    /// Whether the endpoint may be ejected by statistics: half of the locality's weight must stay, unless the whole locality
    /// is tripped; a single endpoint only if another locality can serve.
    fn can_spare(&self, cold: &crate::endpoint::Cold, endpoint: &Endpoint, cap: f64, elsewhere: bool) -> bool {
        if self.tripped() {
            return true;
        }
        if self.tally.count < 2 {
            return elsewhere;
        }
        if self.remote {
            // Only the endpoints that sessions led to are known; the locality's number of them is. Those that are down are
            // not ejected: the owner's numbers tell of them.
            let out = |e: &&Arc<Endpoint>| e.id != endpoint.id && e.is_reachable() && e.acceptance() == 0.0;
            let ejected = self.state.known().iter().filter(out).count();
            return (ejected + 1) as f64 <= cap * f64::from(self.tally.count);
        }
        let more = if cold.class == HealthClass::Hard { 0 } else { cold.units() };
        (self.tally.soft + more) as f64 <= cap * self.tally.total() as f64
    }
}

/// Two workers may both see the failure that trips it.
fn trip_once(circuit: &CircuitBreaker, now: Timestamp, rng: &mut fastrand::Rng) {
    let breaker = &mut circuit.guard.lock().breaker;
    if breaker.is_closed() {
        breaker.trip(false, now, rng);
    }
}

/// Tells the breaker how its probe ended, unless that says nothing.
fn settle_circuit(circuit: &CircuitBreaker, verdict: ProbeVerdict, now: Timestamp, rng: &mut fastrand::Rng) {
    if verdict != ProbeVerdict::Open {
        circuit.guard.lock().breaker.probe_ended(verdict == ProbeVerdict::Good, now, rng);
    }
}

fn verdict(outcome: &Outcome, blames: impl Fn(Charge) -> bool) -> ProbeVerdict {
    match outcome.class {
        Class::Success | Class::RateLimited => ProbeVerdict::Good,
        Class::Failure(failure) if failure.down || blames(Charge::of(failure.attribution)) => ProbeVerdict::Bad,
        Class::Failure(_) | Class::Cancelled => ProbeVerdict::Open,
    }
}

/// Any answer from beyond the path shows that it works, also a failure there.
fn path_verdict(outcome: &Outcome) -> ProbeVerdict {
    match outcome.class {
        Class::Success | Class::RateLimited => ProbeVerdict::Good,
        Class::Failure(ChargedFailure { attribution: Attribution::Tunnel | Attribution::GatewayOverload, .. }) => {
            ProbeVerdict::Bad
        }
        Class::Failure(_) => ProbeVerdict::Good,
        Class::Cancelled => ProbeVerdict::Open,
    }
}

/// Rates need every success; sums only those that follow a failure.
fn needs_every(config: &BreakerConfig) -> bool {
    matches!(config.trigger, Trigger::ErrorRate { .. } | Trigger::Latency { .. })
}

/// How many distinct endpoints must have failed before a failure of one is charged to its locality in full. In a remote
/// locality no more can be seen to fail than may be ejected, and the one after: its sessions stay with that.
fn contributors(locality: &LocalityEndpoints) -> usize {
    let Policy { locality_contributors, ejection_cap, .. } = locality.rules.policy;
    let seen = if locality.remote { (ejection_cap * locality.total as f64) as usize + 1 } else { locality.total };
    locality_contributors.min(seen.min(locality.total)).max(1)
}

fn hash(endpoint: &Endpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    endpoint.id.hash(&mut hasher);
    hasher.finish()
}

/// Paths have no other paths to compare with.
const LEAST_P0: f64 = 0.01;
