//! How callers treat a service, to and from the wire. Numbers out of their range are refused, never bent: what a gateway
//! sends was checked where it was declared.

use std::time::Duration;

use eastway_core::policy::{
    Algorithm, Balancing, BreakerTrigger, Breakers, Mode, RetryRules, ServiceLimits, ServicePolicy, ServiceTimeouts,
};
use eastway_proto::discovery::v1 as wire;
use wire::breaker_trigger::{Consecutive, Cusum, ErrorRate, Latency, Trigger};

use super::ConvertError;

pub(super) fn from_wire(message: wire::ServicePolicy) -> Result<ServicePolicy, ConvertError> {
    let retries = message.retries.unwrap_or_default();
    let limits = message.limits.unwrap_or_default();
    Ok(ServicePolicy {
        balancing: balancing_from_wire(message.balancing.unwrap_or_default())?,
        breaker: breakers_from_wire(message.breaker.unwrap_or_default())?,
        limits: ServiceLimits {
            max_requests: limits.max_requests.filter(|most| *most > 0),
            max_pending: limits.max_pending.filter(|most| *most > 0),
            max_connections: limits.max_connections.filter(|most| *most > 0),
        },
        retries: RetryRules {
            attempts: retries.attempts.filter(|attempts| *attempts > 0),
            per_try: retries.per_try_ms.map(Duration::from_millis),
            budget: within("retries.budget", retries.budget, 0.0, 1.0)?,
            min_per_second: retries.min_per_second,
            backoff: retries.backoff_ms.map(Duration::from_millis),
        },
        timeouts: ServiceTimeouts {
            request: message.timeouts.unwrap_or_default().request_ms.map(Duration::from_millis),
        },
    })
}

pub(super) fn to_wire(policy: &ServicePolicy) -> wire::ServicePolicy {
    let ServicePolicy { balancing, breaker, limits, retries, timeouts } = policy;
    let breaker = wire::Breakers {
        endpoint: breaker.endpoint.as_ref().map(trigger_to_wire),
        locality: breaker.locality.as_ref().map(trigger_to_wire),
        base_ejection_ms: breaker.base_ejection.map(millis),
        max_ejection_ms: breaker.max_ejection.map(millis),
        max_ejected: breaker.max_ejected,
    };
    let limits = wire::Limits {
        max_requests: limits.max_requests,
        max_pending: limits.max_pending,
        max_connections: limits.max_connections,
    };
    let retries = wire::Retries {
        attempts: retries.attempts,
        per_try_ms: retries.per_try.map(millis),
        budget: retries.budget,
        min_per_second: retries.min_per_second,
        backoff_ms: retries.backoff.map(millis),
    };
    let timeouts = wire::Timeouts { request_ms: timeouts.request.map(millis) };
    wire::ServicePolicy {
        balancing: stated(balancing_to_wire(balancing)),
        breaker: stated(breaker),
        limits: stated(limits),
        retries: stated(retries),
        timeouts: stated(timeouts),
    }
}

/// Nothing is sent of a group that says nothing.
fn stated<T: Default + PartialEq>(message: T) -> Option<T> {
    Some(message).filter(|message| *message != T::default())
}

fn balancing_from_wire(message: wire::Balancing) -> Result<Balancing<Duration>, ConvertError> {
    let mode = match message.mode() {
        wire::BalancingMode::Unspecified => None,
        wire::BalancingMode::Native => Some(Mode::Native),
        wire::BalancingMode::Envoy => Some(Mode::Envoy),
    };
    let algorithm = match message.algorithm() {
        wire::Algorithm::Unspecified => None,
        wire::Algorithm::TwoChoices => Some(Algorithm::TwoChoices),
        wire::Algorithm::LeastRequest => Some(Algorithm::LeastRequest),
        wire::Algorithm::LeastConnections => Some(Algorithm::LeastConnections),
        wire::Algorithm::Random => Some(Algorithm::Random),
        wire::Algorithm::RoundRobin => Some(Algorithm::RoundRobin),
    };
    Ok(Balancing {
        mode,
        algorithm,
        overprovisioning: within("balancing.overprovisioning", message.overprovisioning, 1.0, 10.0)?,
        panic_threshold: within("balancing.panic_threshold", message.panic_threshold, 0.0, 100.0)?,
        target_utilisation: within("balancing.target_utilisation", message.target_utilisation, 0.1, 1.0)?,
        ramp: message.ramp_ms.map(Duration::from_millis),
        slow_start: message.slow_start_ms.map(Duration::from_millis),
        latency_veto: within("balancing.latency_veto", message.latency_veto, 1.0, 1000.0)?,
        residency: Some(message.residency).filter(|regions| !regions.is_empty()),
    })
}

fn balancing_to_wire(balancing: &Balancing<Duration>) -> wire::Balancing {
    let mode = balancing.mode.map_or(wire::BalancingMode::Unspecified, |mode| match mode {
        Mode::Native => wire::BalancingMode::Native,
        Mode::Envoy => wire::BalancingMode::Envoy,
    });
    let algorithm = balancing.algorithm.map_or(wire::Algorithm::Unspecified, |algorithm| match algorithm {
        Algorithm::TwoChoices => wire::Algorithm::TwoChoices,
        Algorithm::LeastRequest => wire::Algorithm::LeastRequest,
        Algorithm::LeastConnections => wire::Algorithm::LeastConnections,
        Algorithm::Random => wire::Algorithm::Random,
        Algorithm::RoundRobin => wire::Algorithm::RoundRobin,
    });
    wire::Balancing {
        mode: mode.into(),
        algorithm: algorithm.into(),
        overprovisioning: balancing.overprovisioning,
        panic_threshold: balancing.panic_threshold,
        target_utilisation: balancing.target_utilisation,
        ramp_ms: balancing.ramp.map(millis),
        slow_start_ms: balancing.slow_start.map(millis),
        latency_veto: balancing.latency_veto,
        residency: balancing.residency.clone().unwrap_or_default(),
    }
}

fn breakers_from_wire(message: wire::Breakers) -> Result<Breakers<Duration>, ConvertError> {
    Ok(Breakers {
        endpoint: message.endpoint.map(trigger_from_wire).transpose()?.flatten(),
        locality: message.locality.map(trigger_from_wire).transpose()?.flatten(),
        base_ejection: message.base_ejection_ms.map(Duration::from_millis),
        max_ejection: message.max_ejection_ms.map(Duration::from_millis),
        max_ejected: within("breaker.max_ejected", message.max_ejected, 0.0, 1.0)?,
    })
}

/// A trigger that this version does not know is none: the default stays in force.
fn trigger_from_wire(message: wire::BreakerTrigger) -> Result<Option<BreakerTrigger<Duration>>, ConvertError> {
    let window = Duration::from_millis;
    Ok(match message.trigger {
        None => None,
        Some(Trigger::Cusum(Cusum { error_rate, threshold })) => Some(BreakerTrigger::Cusum {
            error_rate: within("breaker.error_rate", error_rate, 0.05, 0.95)?,
            threshold: within("breaker.threshold", threshold, 1.0, 1000.0)?,
        }),
        Some(Trigger::Consecutive(Consecutive { failures })) => {
            Some(BreakerTrigger::Consecutive { failures: failures.max(1) })
        }
        Some(Trigger::ErrorRate(ErrorRate { ratio, window_ms, min_requests })) => {
            let ratio = within("breaker.ratio", Some(ratio), 0.0, 1.0)?.unwrap_or_default();
            Some(BreakerTrigger::ErrorRate { ratio, window: window(window_ms), min_requests })
        }
        Some(Trigger::Latency(Latency { quantile, limit_ms, window_ms, min_requests })) => {
            let quantile = within("breaker.quantile", Some(quantile), 0.0, 1.0)?.unwrap_or_default();
            let limit = Duration::from_millis(limit_ms);
            Some(BreakerTrigger::Latency { quantile, limit, window: window(window_ms), min_requests })
        }
    })
}

fn trigger_to_wire(trigger: &BreakerTrigger<Duration>) -> wire::BreakerTrigger {
    let trigger = match *trigger {
        BreakerTrigger::Cusum { error_rate, threshold } => Trigger::Cusum(Cusum { error_rate, threshold }),
        BreakerTrigger::Consecutive { failures } => Trigger::Consecutive(Consecutive { failures }),
        BreakerTrigger::ErrorRate { ratio, window, min_requests } => {
            Trigger::ErrorRate(ErrorRate { ratio, window_ms: millis(window), min_requests })
        }
        BreakerTrigger::Latency { quantile, limit, window, min_requests } => {
            Trigger::Latency(Latency { quantile, limit_ms: millis(limit), window_ms: millis(window), min_requests })
        }
    };
    wire::BreakerTrigger { trigger: Some(trigger) }
}

fn within(field: &'static str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f64>, ConvertError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ConvertError::new(field, format!("{value} is not from {least} to {most}")))
        }
        value => Ok(value),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ServicePolicy {
        let second = Duration::from_secs(1);
        ServicePolicy {
            balancing: Balancing {
                mode: Some(Mode::Envoy),
                algorithm: Some(Algorithm::RoundRobin),
                overprovisioning: Some(2.0),
                panic_threshold: Some(10.0),
                target_utilisation: Some(0.7),
                ramp: Some(60 * second),
                slow_start: Some(5 * second),
                latency_veto: Some(5.0),
                residency: Some(vec!["eu".to_owned()]),
            },
            breaker: Breakers {
                endpoint: Some(BreakerTrigger::Latency {
                    quantile: 0.9,
                    limit: second,
                    window: 10 * second,
                    min_requests: 20,
                }),
                locality: Some(BreakerTrigger::ErrorRate { ratio: 0.5, window: 10 * second, min_requests: 100 }),
                base_ejection: Some(2 * second),
                max_ejection: Some(30 * second),
                max_ejected: Some(0.3),
            },
            limits: ServiceLimits { max_requests: Some(1), max_pending: Some(2), max_connections: Some(3) },
            retries: RetryRules {
                attempts: Some(3),
                per_try: Some(second),
                budget: Some(0.2),
                min_per_second: Some(0),
                backoff: Some(Duration::from_millis(50)),
            },
            timeouts: ServiceTimeouts { request: Some(30 * second) },
        }
    }

    #[test]
    fn a_policy_survives_the_wire_and_an_empty_one_sends_nothing() {
        assert_eq!(from_wire(to_wire(&full())), Ok(full()));
        for trigger in [
            BreakerTrigger::Cusum { error_rate: Some(0.3), threshold: None },
            BreakerTrigger::Consecutive { failures: 5 },
        ] {
            let breaker = Breakers { endpoint: Some(trigger), ..Breakers::default() };
            let policy = ServicePolicy { breaker, ..ServicePolicy::default() };
            assert_eq!(from_wire(to_wire(&policy)), Ok(policy));
        }
        assert_eq!(to_wire(&ServicePolicy::default()), wire::ServicePolicy::default());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for value in [f64::NAN, 0.5, f64::INFINITY] {
            let balancing = wire::Balancing { overprovisioning: Some(value), ..wire::Balancing::default() };
            let message = wire::ServicePolicy { balancing: Some(balancing), ..wire::ServicePolicy::default() };
            let error = from_wire(message).expect_err("refused");
            assert!(error.to_string().contains("balancing.overprovisioning"), "{error}");
        }
    }
}
