//! What is checked of how callers treat services: lengths of time, and, in `policy/inert.rs`, nothing without effect.

pub(crate) mod inert;

use std::time::Duration;

use eastway_core::policy::{
    Balancing, BreakerTrigger, Breakers, RetryRules, ServiceLimits, ServicePolicy, ServiceTimeouts,
};
use eastway_documents::{Checks, DurationText, Severity};

use crate::common::{HOUR, MILLISECOND, MINUTE, repeated, time};

/// What `Mesh` and `Service` say of it.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) balancing: &'a Balancing<DurationText>,
    pub(crate) breaker: &'a Breakers<DurationText>,
    pub(crate) limits: &'a ServiceLimits,
    pub(crate) retries: &'a RetryRules<DurationText>,
    pub(crate) timeouts: &'a ServiceTimeouts<DurationText>,
}

impl Said<'_> {
    /// With its texts read.
    pub(crate) fn parsed(self) -> ServicePolicy {
        ServicePolicy {
            balancing: self.balancing.parsed(),
            breaker: self.breaker.parsed(),
            limits: *self.limits,
            retries: self.retries.parsed(),
            timeouts: self.timeouts.parsed(),
        }
    }
}

/// What is said of calls: lengths of time, and nothing that can have no effect whatever else is declared.
pub(crate) fn check(checks: &mut Checks<'_>, said: Said<'_>) {
    balancing(checks, said.balancing);
    let Breakers { endpoint, locality, base_ejection, max_ejection, .. } = said.breaker;
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
        let cause = "it is shorter than `baseEjection`, the first ejection";
        checks.advise(Severity::Error, "spec.breaker.maxEjection", cause, format!("set it to {base:?} or more"));
    }
    time(checks, "spec.retries.perTry", said.retries.per_try.as_ref(), MILLISECOND..=HOUR);
    time(checks, "spec.retries.backoff", said.retries.backoff.as_ref(), Duration::ZERO..=MINUTE);
    time(checks, "spec.timeouts.request", said.timeouts.request.as_ref(), MILLISECOND..=HOUR * 24);
    let own = said.parsed();
    inert::check(checks, &own, &own);
}

fn balancing(checks: &mut Checks<'_>, set: &Balancing<DurationText>) {
    time(checks, "spec.balancing.ramp", set.ramp.as_ref(), Duration::ZERO..=MINUTE * 10);
    time(checks, "spec.balancing.slowStart", set.slow_start.as_ref(), Duration::ZERO..=MINUTE * 10);
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
