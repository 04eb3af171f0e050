//! How callers treat a service: balancing, breakers, limits, retries and time limits, as far as an operator says.
//!
//! What is left out keeps the default of the code that uses it (`mesh/balance`, `mesh/resilience`, the sidecar's own
//! configuration). The types are generic over how a length of time is written: [`DurationText`] in a file,
//! [`Duration`] once it was checked.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::DurationText;

/// How callers in this cluster treat a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePolicy {
    /// Where requests go.
    pub balancing: Balancing<Duration>,
    /// When something is left out, and for how long.
    pub breaker: Breakers<Duration>,
    /// How much at once.
    pub limits: ServiceLimits,
    /// When an attempt is repeated.
    pub retries: RetryRules<Duration>,
    /// How long things may take.
    pub timeouts: ServiceTimeouts<Duration>,
}

/// Which formulas divide traffic among priorities and localities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Eastway's own: by weight, capacity and utilisation, with ramps.
    #[default]
    Native,
    /// Envoy's integers, for operators who must get the same numbers as before. They know hosts and their health only.
    #[serde(alias = "compatible")]
    #[schemars(extend("x-formerly" = "compatible"))]
    Envoy,
}

impl Mode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
        }
    }
}

/// How an endpoint of a locality is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// Two draws by weight; the one with the lower reported load per weight wins.
    #[default]
    TwoChoices,
    /// Two draws by weight; the one with fewer of this node's own requests in flight wins.
    LeastRequest,
    /// As `leastRequest`, for TCP: a connection counts for as long as it is open.
    LeastConnections,
    /// One draw by weight.
    Random,
    /// In turn; endpoints of greater weight come more often.
    RoundRobin,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Balancing", bound = "D: JsonSchema + Default + Serialize")]
pub struct Balancing<D> {
    /// Which formulas divide traffic. `native` if not given.
    pub mode: Option<Mode>,
    /// How an endpoint is chosen within a zone. `twoChoices` if not given.
    pub algorithm: Option<Algorithm>,
    /// A priority keeps all of its traffic while at least 1 / this of it is healthy. 1.4 if not given.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub overprovisioning: Option<f64>,
    /// In percent: below this availability of a priority its ejected endpoints are used again, if all priorities together
    /// lack capacity. 50 if not given.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub panic_threshold: Option<f64>,
    /// Utilisation above this moves traffic to the next priority. 0.8 if not given.
    #[schemars(range(min = 0.1, max = 1.0))]
    pub target_utilisation: Option<f64>,
    /// A zone that returns from failure takes its full share after so long. `30s` if not given.
    pub ramp: Option<D>,
    /// An endpoint that starts or recovers takes its full share after so long. `10s` if not given.
    pub slow_start: Option<D>,
    /// A latency above this multiple of the zone's median loses a comparison. 3 if not given.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub latency_veto: Option<f64>,
    /// The regions that requests may go to, as a hard fence: also in a panic, and on retries. All if not given.
    #[schemars(length(min = 1))]
    pub residency: Option<Vec<String>>,
}

/// When an endpoint or a zone is left out, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Breakers", bound = "D: JsonSchema + Default + Serialize")]
pub struct Breakers<D> {
    /// What ejects an endpoint. `cusum` with a threshold of 13.8 if not given.
    pub endpoint: Option<BreakerTrigger<D>>,
    /// What trips a zone. `cusum` with a threshold of 25.5 if not given.
    #[serde(alias = "lane")] // its former name
    #[schemars(extend("x-formerly" = "lane"))]
    pub locality: Option<BreakerTrigger<D>>,
    /// How long the first ejection lasts; each further one lasts twice as long. `1s` if not given.
    pub base_ejection: Option<D>,
    /// The longest ejection. `60s` if not given.
    pub max_ejection: Option<D>,
    /// The part of a zone of two endpoints or more that is ejected at most. 0.5 if not given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_ejected: Option<f64>,
}

/// The rule by which failures become evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "trigger", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[schemars(rename = "BreakerTrigger")]
pub enum BreakerTrigger<D> {
    /// A cumulative sum of evidence: quick on many failures, patient with few, quiet at the usual rate.
    Cusum {
        /// The error rate that is to be found. 0.5 if not given.
        #[schemars(range(min = 0.05, max = 0.95))]
        error_rate: Option<f64>,
        /// The sum at which it trips. 13.8 for endpoints and 25.5 for zones if not given.
        #[schemars(range(min = 1.0, max = 1000.0))]
        threshold: Option<f64>,
    },
    /// Failures in a row.
    Consecutive {
        /// So many.
        #[schemars(range(min = 1, max = 100_000))]
        failures: u32,
    },
    /// A part of the requests in a window.
    ErrorRate {
        /// The part that trips it, 0 to 1.
        #[schemars(range(min = 0.001, max = 1.0))]
        ratio: f64,
        /// The width of the window.
        window: D,
        /// Fewer requests in the window say nothing.
        #[schemars(range(min = 1, max = 1_000_000))]
        min_requests: u32,
    },
    /// A quantile of the time to the first byte in a window. Failures count as slow.
    Latency {
        /// Which quantile, for example 0.9.
        #[schemars(range(min = 0.01, max = 0.9999))]
        quantile: f64,
        /// The quantile above this trips it.
        limit: D,
        /// The width of the window.
        window: D,
        /// Fewer requests in the window say nothing.
        #[schemars(range(min = 1, max = 1_000_000))]
        min_requests: u32,
    },
}

/// How much at once, from one sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceLimits {
    /// Requests in flight to the service, and as many opaque streams. The sidecar's `limits.requests` and
    /// `limits.opaqueStreams` if not given.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
    /// Requests that wait for a connection to be made. The sidecar's `limits.pending` if not given.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pending: Option<u32>,
    /// Connections of one worker to one endpoint. The sidecar's `limits.endpointConnections` if not given.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
}

/// When an attempt is repeated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RetryRules", bound = "D: JsonSchema + Default + Serialize")]
pub struct RetryRules<D> {
    /// Attempts for a request, the first included, those not counted in which nothing was sent. The sidecar's
    /// `limits.attempts` if not given.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// For the first byte of one attempt's response; then it is given up, and repeated if that is safe. No limit of its own
    /// if not given.
    pub per_try: Option<D>,
    /// Retries allowed, as a part of first attempts over ten seconds; across regions the same again. 0.1 if not given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub budget: Option<f64>,
    /// Retries always allowed, per second. 1 if not given.
    #[schemars(range(min = 0, max = 100_000))]
    pub min_per_second: Option<u32>,
    /// The ceiling of the first wait between attempts; it doubles. `25ms` if not given.
    pub backoff: Option<D>,
}

/// How long things may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ServiceTimeouts", bound = "D: JsonSchema + Default + Serialize")]
pub struct ServiceTimeouts<D> {
    /// From the end of a request to the first byte of its response, over all attempts. The sidecar's `timeouts.request` if
    /// not given.
    pub request: Option<D>,
}

impl ServicePolicy {
    /// What holds for most services: the operator says nothing. There is one, for all of them.
    pub fn unset() -> Arc<Self> {
        static UNSET: LazyLock<Arc<ServicePolicy>> = LazyLock::new(Arc::default);
        Arc::clone(&UNSET)
    }

    /// The same, kept together with all others that say nothing.
    pub fn shared(self) -> Arc<Self> {
        let unset = Self::unset();
        if self == *unset { unset } else { Arc::new(self) }
    }

    /// What a document says, with its texts read.
    pub(crate) fn parsed(
        (balancing, breaker): (&Balancing<DurationText>, &Breakers<DurationText>),
        limits: ServiceLimits,
        (retries, timeouts): (&RetryRules<DurationText>, &ServiceTimeouts<DurationText>),
    ) -> Self {
        Self {
            balancing: balancing.parsed(),
            breaker: breaker.parsed(),
            limits,
            retries: retries.parsed(),
            timeouts: timeouts.parsed(),
        }
    }

    /// With what it leaves out as `defaults` say.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        let (balancing, breaker) = (defaults.balancing, defaults.breaker);
        let (limits, retries, timeouts) = (defaults.limits, defaults.retries, defaults.timeouts);
        Self {
            balancing: Balancing {
                mode: self.balancing.mode.or(balancing.mode),
                algorithm: self.balancing.algorithm.or(balancing.algorithm),
                overprovisioning: self.balancing.overprovisioning.or(balancing.overprovisioning),
                panic_threshold: self.balancing.panic_threshold.or(balancing.panic_threshold),
                target_utilisation: self.balancing.target_utilisation.or(balancing.target_utilisation),
                ramp: self.balancing.ramp.or(balancing.ramp),
                slow_start: self.balancing.slow_start.or(balancing.slow_start),
                latency_veto: self.balancing.latency_veto.or(balancing.latency_veto),
                residency: self.balancing.residency.or(balancing.residency),
            },
            breaker: Breakers {
                endpoint: self.breaker.endpoint.or(breaker.endpoint),
                locality: self.breaker.locality.or(breaker.locality),
                base_ejection: self.breaker.base_ejection.or(breaker.base_ejection),
                max_ejection: self.breaker.max_ejection.or(breaker.max_ejection),
                max_ejected: self.breaker.max_ejected.or(breaker.max_ejected),
            },
            limits: ServiceLimits {
                max_requests: self.limits.max_requests.or(limits.max_requests),
                max_pending: self.limits.max_pending.or(limits.max_pending),
                max_connections: self.limits.max_connections.or(limits.max_connections),
            },
            retries: RetryRules {
                attempts: self.retries.attempts.or(retries.attempts),
                per_try: self.retries.per_try.or(retries.per_try),
                budget: self.retries.budget.or(retries.budget),
                min_per_second: self.retries.min_per_second.or(retries.min_per_second),
                backoff: self.retries.backoff.or(retries.backoff),
            },
            timeouts: ServiceTimeouts { request: self.timeouts.request.or(timeouts.request) },
        }
    }
}

/// A text that was checked when it was loaded; one that nobody checked counts as left out.
fn read(text: &DurationText) -> Option<Duration> {
    text.duration().ok()
}

impl Balancing<DurationText> {
    /// With its texts read.
    pub fn parsed(&self) -> Balancing<Duration> {
        Balancing {
            mode: self.mode,
            algorithm: self.algorithm,
            overprovisioning: self.overprovisioning,
            panic_threshold: self.panic_threshold,
            target_utilisation: self.target_utilisation,
            ramp: self.ramp.as_ref().and_then(read),
            slow_start: self.slow_start.as_ref().and_then(read),
            latency_veto: self.latency_veto,
            residency: self.residency.clone(),
        }
    }
}

impl Breakers<DurationText> {
    /// With its texts read.
    pub fn parsed(&self) -> Breakers<Duration> {
        Breakers {
            endpoint: self.endpoint.as_ref().and_then(BreakerTrigger::parsed),
            locality: self.locality.as_ref().and_then(BreakerTrigger::parsed),
            base_ejection: self.base_ejection.as_ref().and_then(read),
            max_ejection: self.max_ejection.as_ref().and_then(read),
            max_ejected: self.max_ejected,
        }
    }
}

impl BreakerTrigger<DurationText> {
    fn parsed(&self) -> Option<BreakerTrigger<Duration>> {
        Some(match self {
            Self::Cusum { error_rate, threshold } => {
                BreakerTrigger::Cusum { error_rate: *error_rate, threshold: *threshold }
            }
            Self::Consecutive { failures } => BreakerTrigger::Consecutive { failures: *failures },
            Self::ErrorRate { ratio, window, min_requests } => {
                BreakerTrigger::ErrorRate { ratio: *ratio, window: read(window)?, min_requests: *min_requests }
            }
            Self::Latency { quantile, limit, window, min_requests } => BreakerTrigger::Latency {
                quantile: *quantile,
                limit: read(limit)?,
                window: read(window)?,
                min_requests: *min_requests,
            },
        })
    }
}

impl RetryRules<DurationText> {
    /// With its texts read.
    pub fn parsed(&self) -> RetryRules<Duration> {
        RetryRules {
            attempts: self.attempts,
            per_try: self.per_try.as_ref().and_then(read),
            budget: self.budget,
            min_per_second: self.min_per_second,
            backoff: self.backoff.as_ref().and_then(read),
        }
    }
}

impl ServiceTimeouts<DurationText> {
    /// With its texts read.
    pub fn parsed(&self) -> ServiceTimeouts<Duration> {
        ServiceTimeouts { request: self.request.as_ref().and_then(read) }
    }
}
