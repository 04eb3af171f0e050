//! What is said of calls and has no effect, or hardly any, beside what else is said of them.
//!
//! A document is told of what itself says in vain. What the Mesh says and a service goes beyond is no mistake: the Mesh speaks
//! of all services, and of those that nobody declared. Each rule here follows from the code that reads the setting, which its
//! comment names.

use std::time::Duration;

use eastway_core::policy::{Algorithm, BreakerTrigger, Mode, ServicePolicy};
use eastway_documents::{Checks, Severity};

/// Compares what a document says of calls (`own`) with what then holds (`all`: its own word, else that of the Mesh).
pub(crate) fn check(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy) {
    balancing(checks, own, all);
    ejections(checks, own, all);
    for (path, rule) in
        [("spec.breaker.endpoint", &own.breaker.endpoint), ("spec.breaker.locality", &own.breaker.locality)]
    {
        if let Some(rule) = rule {
            trigger(checks, path, rule, all);
        }
    }
    limits(checks, own, all);
    retries(checks, own, all);
}

/// Why something is refused beside `mode: envoy`.
const UNKNOWN_TO_ENVOY: &str = "it has no effect with `mode: envoy`, which knows hosts and their health only";

/// Weights of localities beside `mode: envoy`, whoever set that. The mode is for the callers of this cluster alone: if the
/// service is `exported`, weights still say where those of peers go on to from a zone that fails (`gateway/src/services.rs`).
pub(crate) fn weights(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy, exported: bool) {
    if all.balancing.mode == Some(Mode::Envoy) {
        let severity = if exported { Severity::Warning } else { Severity::Error };
        unknown_to_envoy(checks, severity, "spec.localityWeights", own);
    }
}

fn unknown_to_envoy(checks: &mut Checks<'_>, severity: Severity, path: &str, own: &ServicePolicy) {
    let suggestion = match own.balancing.mode {
        Some(_) => "remove it, or `mode: envoy`",
        None => "remove it, or set `mode: native` here: it is the Mesh that sets the other",
    };
    checks.advise(severity, path, UNKNOWN_TO_ENVOY, suggestion);
}

/// `mesh/balance/src/allocation.rs`: Envoy mode reads neither caps nor factors. `locality.rs`: only two draws are compared.
fn balancing(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy) {
    for (path, given) in [
        ("spec.balancing.ramp", own.balancing.ramp.is_some()),
        ("spec.balancing.targetUtilisation", own.balancing.target_utilisation.is_some()),
    ] {
        if given && all.balancing.mode == Some(Mode::Envoy) {
            unknown_to_envoy(checks, Severity::Error, path, own);
        }
    }
    let compares_nothing = matches!(all.balancing.algorithm, Some(Algorithm::Random | Algorithm::RoundRobin));
    if own.balancing.latency_veto.is_some() && compares_nothing {
        let cause = "it has no effect with an algorithm that compares nothing";
        let suggestion = match own.balancing.algorithm {
            Some(_) => "remove it, or take another `algorithm`, such as `twoChoices`",
            None => "remove it, or set another `algorithm` here than the Mesh does, such as `twoChoices`",
        };
        checks.advise(Severity::Error, "spec.balancing.latencyVeto", cause, suggestion);
    }
}

/// The first ejection where nobody says how long it lasts.
const BASE_EJECTION: Duration = Duration::from_secs(1);

/// `mesh/balance/src/policy.rs` raises the longest ejection to the first one; `service/finishing.rs` (`can_spare`) lets an
/// endpoint go only within `maxEjected`, but for one that is alone and for zones that have tripped.
fn ejections(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy) {
    if let (Some(max), None) = (own.breaker.max_ejection, own.breaker.base_ejection) {
        let base = all.breaker.base_ejection.unwrap_or(BASE_EJECTION);
        if max < base {
            let cause = format!("no ejection is so short: the first one lasts {base:?} already");
            let suggestion = format!("set `baseEjection` as well, to {max:?} or less");
            checks.advise(Severity::Warning, "spec.breaker.maxEjection", cause, suggestion);
        }
    }
    if own.breaker.endpoint.is_some() && all.breaker.max_ejected == Some(0.0) {
        let cause =
            "with `maxEjected: 0` it ejects nothing, but what is alone in its zone or in a zone that has tripped";
        let suggestion = "remove it, or let a part be ejected, such as `maxEjected: 0.5`";
        checks.advise(Severity::Warning, "spec.breaker.endpoint", cause, suggestion);
    }
}

/// A request at a time comes to no more than this in a second, through two sidecars.
const MOST_OF_ONE: f64 = 40_000.0;
/// Nor do all requests of a sidecar together.
const MOST_OF_ALL: f64 = 1_000_000.0;

/// `mesh/resilience/src/breaker/detector.rs`: fewer than `minRequests` in the window are no evidence; of a latency counts
/// whether it is above the limit, and each failure as if it were.
fn trigger(checks: &mut Checks<'_>, path: &str, rule: &BreakerTrigger<Duration>, all: &ServicePolicy) {
    let (window, min_requests) = match rule {
        BreakerTrigger::Cusum { .. } | BreakerTrigger::Consecutive { .. } => return,
        BreakerTrigger::ErrorRate { window, min_requests, .. } => (window, *min_requests),
        BreakerTrigger::Latency { limit, window, min_requests, .. } => {
            slower_than_allowed(checks, &format!("{path}.limit"), *limit, all);
            (window, *min_requests)
        }
    };
    let at_once = all.limits.max_requests;
    let rate = at_once.map_or(MOST_OF_ALL, |requests| (f64::from(requests) * MOST_OF_ONE).min(MOST_OF_ALL));
    let most = rate * window.as_secs_f64();
    if f64::from(min_requests) > most {
        let with = at_once.map_or_else(String::new, |requests| format!(" with `maxRequests: {requests}`"));
        let cause = format!("a sidecar never sends so many in {window:?}{with}: it cannot trip");
        checks.advise(
            Severity::Warning,
            &format!("{path}.minRequests"),
            cause,
            format!("ask for less than {most:.0}, or for a longer `window`"),
        );
    }
}

fn slower_than_allowed(checks: &mut Checks<'_>, path: &str, limit: Duration, all: &ServicePolicy) {
    let limits = [("retries.perTry", all.retries.per_try), ("timeouts.request", all.timeouts.request)];
    let shortest = limits.iter().filter_map(|(name, time)| time.map(|time| (time, *name))).min();
    if let Some((time, name)) = shortest.filter(|(time, _)| limit >= *time) {
        let cause = format!("no answer is so slow: `{name}` gives up after {time:?}, so that only failures count");
        let suggestion = format!("make it shorter than {time:?}, or take `trigger: errorRate`");
        checks.advise(Severity::Warning, path, cause, suggestion);
    }
}

/// `sidecar/src/upstream.rs`: who waits for a connection is a request or a stream that has its place already.
fn limits(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy) {
    if let (Some(pending), Some(requests)) = (own.limits.max_pending, all.limits.max_requests)
        && pending > requests.saturating_mul(2)
    {
        let cause = format!(
            "so many never wait: `maxRequests: {requests}` lets in {requests} requests and as many streams at once"
        );
        let suggestion = format!("lower it to {requests} or less, or raise `maxRequests`");
        checks.advise(Severity::Warning, "spec.limits.maxPending", cause, suggestion);
    }
}

/// A sidecar's own number of attempts of which nothing need have been sent. A service that gives more `attempts` raises it.
pub(crate) const UNSENT_ATTEMPTS: u32 = 4;

/// `mesh/resilience/src/patience.rs` takes the shorter of both limits; `attempts.rs` asks the budget for every attempt after
/// one of which something was sent.
fn retries(checks: &mut Checks<'_>, own: &ServicePolicy, all: &ServicePolicy) {
    if let (Some(per_try), Some(request)) = (own.retries.per_try, all.timeouts.request)
        && per_try >= request
    {
        let whose = if own.timeouts.request.is_some() { "" } else { " of the Mesh" };
        let cause = format!(
            "it ends no attempt: `timeouts.request`{whose} ends the request after {request:?}, no later than this"
        );
        checks.advise(
            Severity::Error,
            "spec.retries.perTry",
            cause,
            format!("make it shorter than {request:?}, or remove it"),
        );
    }
    let nothing_left = all.retries.budget == Some(0.0) && all.retries.min_per_second == Some(0);
    if own.retries.attempts.is_some_and(|attempts| (2..=UNSENT_ATTEMPTS).contains(&attempts)) && nothing_left {
        let cause = "nothing is repeated once it was sent: `budget: 0` and `minPerSecond: 0` allow no retry";
        let suggestion = "give one of them more than 0, or set `attempts: 1`";
        checks.advise(Severity::Warning, "spec.retries.attempts", cause, suggestion);
    }
}
