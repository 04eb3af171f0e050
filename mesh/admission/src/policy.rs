//! What is checked of how callers treat services: lengths of time, and nothing that would have no effect.

use std::time::Duration;

use eastway_core::policy::{Algorithm, Balancing, BreakerTrigger, Breakers, Mode, RetryRules, ServiceTimeouts};
use eastway_documents::{Checks, DurationText};

use crate::common::{HOUR, MILLISECOND, MINUTE, repeated, time};

/// What `Mesh` and `Service` say of it.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) balancing: &'a Balancing<DurationText>,
    pub(crate) breaker: &'a Breakers<DurationText>,
    pub(crate) retries: &'a RetryRules<DurationText>,
    pub(crate) timeouts: &'a ServiceTimeouts<DurationText>,
}

/// Why something is refused beside `mode: envoy`.
pub(crate) const UNKNOWN_TO_ENVOY: &str =
    "it has no effect with `mode: envoy`, which knows hosts and their health only";

/// What is said of calls: lengths of time, and nothing that would have no effect.
pub(crate) fn check(checks: &mut Checks<'_>, said: Said<'_>) {
    let Said { balancing: set, breaker, retries, timeouts } = said;
    balancing(checks, set);
    let Breakers { endpoint, locality, base_ejection, max_ejection, .. } = breaker;
    for (path, rule) in [("spec.breaker.endpoint", endpoint), ("spec.breaker.locality", locality)] {
        if let Some(rule) = rule {
            trigger(checks, path, rule);
        }
    }
    let base = time(checks, "spec.breaker.baseEjection", base_ejection.as_ref(), MILLISECOND * 10..=HOUR);
    let max = time(checks, "spec.breaker.maxEjection", max_ejection.as_ref(), MILLISECOND * 10..=HOUR);
    if let (Some(base), Some(max)) = (base, max)
        && max < base
    {
        checks.problem("spec.breaker.maxEjection", "it is shorter than `baseEjection`, the first ejection");
    }
    time(checks, "spec.retries.perTry", retries.per_try.as_ref(), MILLISECOND..=HOUR);
    time(checks, "spec.retries.backoff", retries.backoff.as_ref(), Duration::ZERO..=MINUTE);
    time(checks, "spec.timeouts.request", timeouts.request.as_ref(), MILLISECOND..=HOUR * 24);
    if retries.attempts == Some(1) && retries.backoff.is_some() {
        let message = "it has no effect with `attempts: 1`: nothing is repeated once it was sent";
        checks.problem("spec.retries.backoff", message);
    }
}

fn balancing(checks: &mut Checks<'_>, set: &Balancing<DurationText>) {
    time(checks, "spec.balancing.ramp", set.ramp.as_ref(), Duration::ZERO..=MINUTE * 10);
    time(checks, "spec.balancing.slowStart", set.slow_start.as_ref(), Duration::ZERO..=MINUTE * 10);
    let is_envoy = set.mode == Some(Mode::Envoy);
    for (path, given) in [
        ("spec.balancing.ramp", set.ramp.is_some()),
        ("spec.balancing.targetUtilisation", set.target_utilisation.is_some()),
    ] {
        if is_envoy && given {
            checks.problem(path, UNKNOWN_TO_ENVOY);
        }
    }
    if matches!(set.algorithm, Some(Algorithm::Random | Algorithm::RoundRobin)) && set.latency_veto.is_some() {
        checks.problem("spec.balancing.latencyVeto", "it has no effect with an algorithm that compares nothing");
    }
    let regions = set.residency.as_deref().unwrap_or_default();
    for (index, region) in regions.iter().enumerate() {
        checks.label(&format!("spec.balancing.residency[{index}]"), region);
    }
    repeated(checks, "spec.balancing.residency", regions);
}

fn trigger(checks: &mut Checks<'_>, path: &str, rule: &BreakerTrigger<DurationText>) {
    let windows = MILLISECOND * 100..=MINUTE * 10;
    match rule {
        BreakerTrigger::Cusum { .. } | BreakerTrigger::Consecutive { .. } => {}
        BreakerTrigger::ErrorRate { window, .. } => {
            time(checks, &format!("{path}.window"), Some(window), windows);
        }
        BreakerTrigger::Latency { limit, window, .. } => {
            time(checks, &format!("{path}.window"), Some(window), windows);
            time(checks, &format!("{path}.limit"), Some(limit), MILLISECOND..=MINUTE * 10);
        }
    }
}
