//! Time passing: open becomes half-open, ramps rise, reports age, targets move. Called ten times a second.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::Timestamp;

use super::Service;
use super::control::{Control, LocalityControl};
use super::views::ViewControl;
use crate::distance::{Move, RingKeeper, apply};
use crate::endpoint::Endpoint;
use crate::locality::{CircuitBreaker, RATE_BUCKETS};
use crate::policy::Policy;
use crate::sync::atomic::Ordering::Relaxed;

/// Latencies of endpoints that nobody asked for so long are forgotten step by step.
const IDLE: Duration = Duration::from_secs(5);
/// A utilisation reported longer ago than this is unknown.
const REPORT_LIFE: Duration = Duration::from_secs(30);
/// Penalties halve over this.
const PENALTY_HALF_LIFE: Duration = Duration::from_secs(1);

impl Service {
    /// Lets time pass. The control runtime calls it every 100 ms; where nothing has happened for long and nothing moves, it
    /// costs next to nothing.
    pub fn tick(&self, now: Timestamp) {
        let mut control = self.state.control.lock();
        let control = &mut *control;
        if self.state.awake.swap(false, Relaxed) {
            (control.woken, control.asleep) = (now, false);
        }
        if control.asleep {
            return;
        }
        control.asleep = now - control.woken >= control.rules.policy.ring_evidence * 2 && !control.is_tense(now);
        let rules = Arc::clone(&control.rules);
        let policy = &rules.policy;
        let passed = now - control.ticked;
        control.ticked = now;
        let mut moved = false;
        for locality in &mut control.localities {
            moved |= locality.tick_endpoints(now);
            locality.age_reports(policy.load_decay, passed, now);
            locality.measure(policy.utilisation_smoothing, now);
            moved |= poll(&locality.state.circuit, now);
            if let Some(path) = &locality.path {
                moved |= poll(path, now);
            }
            let pressure = locality.state.circuit.guard.lock().breaker.pressure(now);
            moved |= locality.failback.halve(pressure, now) || locality.failback.moves();
        }
        for view in 0..control.views.len() {
            moved |= control.move_factors(view, now);
        }
        if control.second.is_none_or(|at| now - at >= Duration::from_secs(1)) {
            control.second = Some(now);
            self.each_second(control, now);
        }
        if control.rings_moved(now) {
            control.arrange();
            self.rebuild(control, now);
        } else if moved {
            self.replan(control, now);
        }
    }

    fn each_second(&self, control: &mut Control, now: Timestamp) {
        for locality in &mut control.localities {
            locality.find_median(now);
        }
        control.learn_usual_errors(now);
    }
}

/// Lets a circuit's open time end. Returns whether its share moves.
fn poll(circuit: &CircuitBreaker, now: Timestamp) -> bool {
    let breaker = &mut circuit.guard.lock().breaker;
    breaker.poll(now) || breaker.settle_rise(now)
}

impl LocalityControl {
    /// Open times end and acceptances rise. Returns whether an endpoint counts differently or waits to be tried.
    fn tick_endpoints(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        let mut alert: Vec<Arc<Endpoint>> = Vec::new();
        self.each_endpoint(|endpoint| {
            if endpoint.is_alert() {
                alert.push(Arc::clone(endpoint));
            }
        });
        for endpoint in alert {
            let mut cold = endpoint.cold.lock();
            moved |= cold.breaker.poll(now);
            cold.breaker.settle_rise(now);
            moved |= self.recount(&endpoint, &mut cold, now);
            if !cold.breaker.is_rising() && cold.breaker.is_closed() && cold.breaker.statistic(now) == 0.0 {
                endpoint.set_alert(&cold, false);
            }
        }
        moved
    }

    /// The endpoints known: the members of a local locality, those that sessions led to of a remote one.
    pub(super) fn each_endpoint(&self, mut each: impl FnMut(&Arc<Endpoint>)) {
        if self.remote { self.state.each_session(each) } else { self.roster.endpoints.iter().for_each(&mut each) }
    }

    fn age_reports(&self, constant: Duration, passed: Duration, now: Timestamp) {
        let (mut sum, mut count) = (0.0, 0u32);
        self.each_endpoint(|endpoint| {
            if let Some(reported) = endpoint.reported() {
                (sum, count) = (sum + reported, count + 1);
            }
        });
        let mean = if count > 0 { sum / count as f32 } else { 0.0 };
        let left = (-(passed.as_secs_f32() / PENALTY_HALF_LIFE.as_secs_f32())).exp2();
        self.each_endpoint(|endpoint| endpoint.age(mean, constant, left, now));
    }

    /// The locality's utilisation: of its endpoints, or of the summary.
    fn measure(&mut self, smoothing: Duration, now: Timestamp) {
        let reading =
            if self.remote { self.reported_utilisation } else { mean_utilisation(&self.roster.endpoints, now) };
        self.latest_utilisation = reading;
        self.utilisation.update(reading, smoothing, now);
    }

    fn find_median(&self, now: Timestamp) {
        let mut latencies: Vec<f32> = Vec::new();
        self.each_endpoint(|endpoint| latencies.push(endpoint.latency_us()));
        latencies.retain(|us| *us > 0.0);
        if latencies.is_empty() {
            return;
        }
        let middle = (latencies.len() - 1) / 2;
        let (_, median, _) = latencies.select_nth_unstable_by(middle, f32::total_cmp);
        self.state.set_median(*median);
        let median = *median;
        self.each_endpoint(|endpoint| endpoint.forget_latency(median, IDLE, now));
    }
}

fn mean_utilisation(members: &[Arc<Endpoint>], now: Timestamp) -> Option<f64> {
    let recent = |e: &&Arc<Endpoint>| e.is_reachable() && e.report_age(now).is_some_and(|age| age < REPORT_LIFE);
    let known = members.iter().filter(recent).filter_map(|e| e.utilisation());
    let (sum, count) = known.fold((0.0, 0u32), |(sum, n), u| (sum + f64::from(u), n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

impl Control {
    /// Whether time alone goes on to change what is picked: a breaker is open or remembers failures, or a share rises.
    fn is_tense(&self, now: Timestamp) -> bool {
        let tense = |circuit: &CircuitBreaker| {
            let breaker = &circuit.guard.lock().breaker;
            !breaker.is_closed() || breaker.is_rising() || breaker.statistic(now) > 0.0
        };
        self.localities.iter().any(|locality| {
            let mut alert = locality.failback.moves() || tense(&locality.state.circuit);
            alert |= locality.absent.is_some() || locality.path.as_deref().is_some_and(tense);
            locality.each_endpoint(|endpoint| alert |= endpoint.is_alert());
            alert
        })
    }

    /// Whether a zone changes its ring in any view, for which it needs evidence over time.
    pub(super) fn rings_moved(&mut self, now: Timestamp) -> bool {
        let Policy { rings, ring_evidence, .. } = &self.rules.policy;
        let localities = &self.localities;
        self.views.iter_mut().fold(false, |any, ViewControl { places, .. }| {
            let remote = places.iter_mut().enumerate().filter(|(_, place)| localities[place.at].remote);
            let moves: Vec<(usize, Move)> =
                remote.filter_map(|(i, place)| Some((i, place.ring.observe(rings, *ring_evidence, now)?))).collect();
            if moves.is_empty() {
                return any;
            }
            let mut keepers: Vec<&mut RingKeeper> = places.iter_mut().map(|place| &mut place.ring).collect();
            apply(&moves, &mut keepers);
            true
        })
    }

    /// The usual error rate for each locality is that of the others over the last minute, unless something is wrong now.
    fn learn_usual_errors(&self, now: Timestamp) {
        if self.localities.iter().any(|locality| locality.alarmed(now)) {
            return;
        }
        let counts: Vec<(u64, u64)> = self
            .localities
            .iter()
            .map(|locality| {
                let failed = locality.state.failed.count(now, RATE_BUCKETS);
                (failed, failed + locality.state.succeeded.count(now, RATE_BUCKETS))
            })
            .collect();
        let (failed, all) = counts.iter().fold((0, 0), |(f, a), (failed, all)| (f + failed, a + all));
        for (locality, (own_failed, own)) in self.localities.iter().zip(&counts) {
            let others = all - own;
            let rate = if others == 0 { 0.0 } else { (failed - own_failed) as f32 / others as f32 };
            locality.state.set_p0(rate);
        }
    }
}

impl LocalityControl {
    /// Whether any statistic of it exceeds half of its threshold.
    fn alarmed(&self, now: Timestamp) -> bool {
        let high = |circuit: &CircuitBreaker| circuit.guard.lock().breaker.pressure(now) > 0.5;
        let mut alarmed = high(&self.state.circuit) || self.path.as_deref().is_some_and(high);
        self.each_endpoint(|e| alarmed |= e.is_alert() && e.cold.lock().breaker.pressure(now) > 0.5);
        alarmed
    }
}
