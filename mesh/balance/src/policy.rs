//! Every number of the decision core in one place, with its default.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::policy::{Algorithm, Balancing, BreakerTrigger, Breakers, Mode, ServicePolicy};
use eastway_resilience::{BreakerConfig, Trigger};

use crate::shares::Options;

/// How a service is balanced by one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which formulas divide traffic. Default: the native ones.
    pub mode: Mode,
    /// How an endpoint is chosen within a locality. Default: two choices by reported load.
    pub algorithm: Algorithm,
    /// A priority keeps all of its traffic while at least 1 / this of it is healthy. Default 1.4.
    pub overprovisioning: f64,
    /// Below this availability, in percent, soft marks of a priority are ignored if all priorities together lack capacity.
    /// Default 50.
    pub panic_threshold: f64,
    /// Utilisation above this spills. Default 0.8.
    pub target_utilisation: f64,
    /// Time constant of the smoothing of utilisation. Default 5 s.
    pub utilisation_smoothing: Duration,
    /// Ceilings of the rings of distance, in ms, ascending. Default 2, 10, 40, 100, 250.
    pub rings: Vec<f64>,
    /// A zone changes its ring only after so much time of evidence. Default 60 s.
    pub ring_evidence: Duration,
    /// The regions that traffic may go to; `None`: all. A hard fence, also in a panic and on retries.
    pub regions: Option<BTreeSet<Arc<str>>>,
    /// A locality that returns from failure takes its full share after so long. Default 30 s.
    pub ramp: Duration,
    /// Each node delays a ramp by up to so much. Default 5 s.
    pub ramp_jitter: Duration,
    /// Damping of localities that come and go.
    pub damping: Damping,
    /// Breaker of each endpoint.
    pub endpoint_breaker: BreakerConfig,
    /// Breaker of each locality.
    pub locality_breaker: BreakerConfig,
    /// Breaker of the path to each cluster.
    pub path_breaker: BreakerConfig,
    /// At most this part of a locality's weight is ejected by statistics. Default 0.5.
    pub ejection_cap: f64,
    /// So many distinct endpoints must fail before their failures can trip their locality. Default 3 (or all, if fewer).
    pub locality_contributors: usize,
    /// A latency above this multiple of the locality's median loses a comparison. Default 3.
    pub latency_veto: f32,
    /// What others have in flight, as reported, decays towards the locality's mean with this time constant. Default 1 s.
    pub load_decay: Duration,
    /// At least so much time lies between the starts of two probes. Default 20 ms.
    pub probe_interval: Duration,
    /// A half-open breaker that saw no idempotent request for so long lets any other probe. Default 5 s.
    pub probe_any_after: Duration,
    /// Retries allowed, as a part of first attempts. Default 0.1; across regions the same again.
    pub retry_ratio: f64,
    /// Retries always allowed, per second. Default 1.
    pub retry_min_per_second: u32,
    /// Seed of the jitter of ramps and breakers. Each process sets its own random number here; equal seeds give
    /// equal decisions, which is what simulations want and production does not.
    pub seed: u64,
}

/// A policy as the parts of a service share it, with the breakers' configurations as the breakers share them.
#[derive(Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) endpoint: Arc<BreakerConfig>,
    pub(crate) locality: Arc<BreakerConfig>,
    pub(crate) path: Arc<BreakerConfig>,
}

impl Rules {
    pub(crate) fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            endpoint: Arc::new(policy.endpoint_breaker),
            locality: Arc::new(policy.locality_breaker),
            path: Arc::new(policy.path_breaker),
            policy,
        })
    }
}

/// When a locality that comes and goes is kept out for a while. Never the last locality that can serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// Each failure counts 1; the count halves over this. Default 60 s.
    pub half_life: Duration,
    /// A locality that returns with at least this count is kept out. Default 2.
    pub suppress: f64,
    /// Until the count has fallen to this. Default 0.75.
    pub release: f64,
    /// But never longer than this. Default 5 min.
    pub max: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self { half_life: Duration::from_secs(60), suppress: 2.0, release: 0.75, max: Duration::from_secs(300) }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            algorithm: Algorithm::default(),
            overprovisioning: 1.4,
            panic_threshold: 50.0,
            target_utilisation: 0.8,
            utilisation_smoothing: Duration::from_secs(5),
            rings: vec![2.0, 10.0, 40.0, 100.0, 250.0],
            ring_evidence: Duration::from_secs(60),
            regions: None,
            ramp: Duration::from_secs(30),
            ramp_jitter: Duration::from_secs(5),
            damping: Damping::default(),
            endpoint_breaker: BreakerConfig::endpoint(),
            locality_breaker: BreakerConfig::locality(),
            path_breaker: BreakerConfig::endpoint(),
            ejection_cap: 0.5,
            locality_contributors: 3,
            latency_veto: 3.0,
            load_decay: Duration::from_secs(1),
            probe_interval: Duration::from_millis(20),
            probe_any_after: Duration::from_secs(5),
            retry_ratio: 0.1,
            retry_min_per_second: 1,
            seed: 0,
        }
    }
}

impl Policy {
    /// The parameters of the formulas.
    pub fn options(&self) -> Options {
        Options {
            overprovisioning: self.overprovisioning,
            panic_threshold: self.panic_threshold,
            target_utilisation: self.target_utilisation,
        }
    }

    /// These numbers, with those that the operator set for a service.
    #[must_use]
    pub fn with(&self, set: &ServicePolicy) -> Self {
        let mut policy = self.clone();
        policy.balance(&set.balancing);
        policy.break_by(&set.breaker);
        policy.retry_ratio = set.retries.budget.unwrap_or(policy.retry_ratio);
        policy.retry_min_per_second = set.retries.min_per_second.unwrap_or(policy.retry_min_per_second);
        policy
    }

    fn balance(&mut self, set: &Balancing<Duration>) {
        self.mode = set.mode.unwrap_or(self.mode);
        self.algorithm = set.algorithm.unwrap_or(self.algorithm);
        self.overprovisioning = set.overprovisioning.unwrap_or(self.overprovisioning);
        self.panic_threshold = set.panic_threshold.unwrap_or(self.panic_threshold);
        self.target_utilisation = set.target_utilisation.unwrap_or(self.target_utilisation);
        self.ramp = set.ramp.unwrap_or(self.ramp);
        self.endpoint_breaker.recovery = set.slow_start.unwrap_or(self.endpoint_breaker.recovery);
        self.latency_veto = set.latency_veto.map_or(self.latency_veto, |veto| veto as f32);
        if let Some(regions) = &set.residency {
            self.regions = Some(regions.iter().map(|region| region.as_str().into()).collect());
        }
    }

    fn break_by(&mut self, set: &Breakers<Duration>) {
        for breaker in [&mut self.endpoint_breaker, &mut self.locality_breaker, &mut self.path_breaker] {
            breaker.base = set.base_ejection.unwrap_or(breaker.base);
            // One bound alone may cross the other's default.
            breaker.max = set.max_ejection.unwrap_or(breaker.max).max(breaker.base);
        }
        self.ejection_cap = set.max_ejected.unwrap_or(self.ejection_cap);
        if let Some(rule) = &set.endpoint {
            self.endpoint_breaker.trigger = trigger(rule, self.endpoint_breaker.trigger);
        }
        if let Some(rule) = &set.locality {
            self.locality_breaker.trigger = trigger(rule, self.locality_breaker.trigger);
        }
    }
}

fn trigger(rule: &BreakerTrigger<Duration>, default: Trigger) -> Trigger {
    match *rule {
        BreakerTrigger::Cusum { error_rate, threshold } => {
            let (p1, h) = match default {
                Trigger::Cusum { p1, threshold } => (p1, threshold),
                _ => (DEFAULT_P1, eastway_resilience::breaker::ENDPOINT_THRESHOLD),
            };
            Trigger::Cusum { p1: error_rate.unwrap_or(p1), threshold: threshold.unwrap_or(h) }
        }
        BreakerTrigger::Consecutive { failures } => Trigger::Consecutive { failures },
        BreakerTrigger::ErrorRate { ratio, window, min_requests } => Trigger::ErrorRate { ratio, window, min_requests },
        BreakerTrigger::Latency { quantile, limit, window, min_requests } => {
            Trigger::Latency { quantile, limit, window, min_requests }
        }
    }
}

/// The error rate that a CUSUM looks for.
const DEFAULT_P1: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formulas_get_the_numbers_of_the_policy() {
        let (overprovisioning, panic_threshold, target_utilisation) = (2.0, 10.0, 0.5);
        let policy = Policy { overprovisioning, panic_threshold, target_utilisation, ..Policy::default() };
        assert_eq!(policy.options(), Options { overprovisioning, panic_threshold, target_utilisation });
    }

    #[test]
    fn what_an_operator_sets_replaces_the_default_and_nothing_else() {
        let defaults = Policy::default();
        assert_eq!(defaults.with(&ServicePolicy::default()), defaults);
        let balancing = Balancing {
            algorithm: Some(Algorithm::Random),
            slow_start: Some(Duration::from_secs(3)),
            residency: Some(vec!["eu".to_owned()]),
            ..Balancing::default()
        };
        let breaker = Breakers {
            endpoint: Some(BreakerTrigger::Consecutive { failures: 5 }),
            locality: Some(BreakerTrigger::Cusum { error_rate: Some(0.3), threshold: None }),
            base_ejection: Some(Duration::from_secs(90)),
            ..Breakers::default()
        };
        let set = defaults.with(&ServicePolicy { balancing, breaker, ..ServicePolicy::default() });
        assert_eq!((set.algorithm, set.overprovisioning), (Algorithm::Random, 1.4));
        assert_eq!(set.endpoint_breaker.recovery, Duration::from_secs(3));
        assert_eq!(set.locality_breaker.recovery, defaults.locality_breaker.recovery);
        assert_eq!(set.endpoint_breaker.trigger, Trigger::Consecutive { failures: 5 });
        assert_eq!(
            set.locality_breaker.trigger,
            Trigger::Cusum { p1: 0.3, threshold: eastway_resilience::breaker::LANE_THRESHOLD }
        );
        assert_eq!(
            (set.locality_breaker.base, set.locality_breaker.max),
            (Duration::from_secs(90), Duration::from_secs(90))
        );
        assert_eq!(set.regions, Some(BTreeSet::from(["eu".into()])));
    }
}
