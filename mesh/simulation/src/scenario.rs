//! What a scenario can state: the shape of the file, its defaults, and what no shape can say.
//!
//! Lengths of time carry their unit in their name (`_s`, `_ms`), ratios lie between 0 and 1, and zones are written
//! `CLUSTER/ZONE`. What has no effect is a mistake, not a comment.

mod check;

use eastway_core::ZoneId;
use eastway_core::policy::Algorithm;
use schemars::JsonSchema;
use serde::Deserialize;

/// A simulation: who calls whom, how long things take, and what goes wrong when.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Seed of all randomness. Default 1; `--seed` replaces it.
    #[serde(default = "one")]
    pub seed: u64,
    /// Simulated time, in seconds.
    pub duration_s: f64,
    /// Requests per second, all callers together. They arrive independently of one another.
    pub rate: f64,
    /// Who calls. Each caller decides for itself.
    pub callers: Vec<Callers>,
    /// Where the endpoints are.
    pub zones: Vec<Zone>,
    /// How long an endpoint works on a request.
    #[serde(default)]
    pub service: ServiceTime,
    /// Requests that an endpoint works on at once. Default 0: any number, and utilisation is unknown.
    #[serde(default)]
    pub concurrency: u32,
    /// Requests that wait at an endpoint; more are answered with 503. Default 0: any number.
    #[serde(default)]
    pub queue_limit: u32,
    /// Round trips.
    #[serde(default)]
    pub rtt: Rtt,
    /// How often endpoints report their load to all callers of their cluster, in ms. Default 100; 0: with responses only.
    #[serde(default = "hundred")]
    pub report_ms: f64,
    /// Endpoints that a caller asks for their load with each request, instead of or beside reports. Default 0.
    #[serde(default)]
    pub probes: u32,
    /// Whether requests may be repeated without harm. Default true.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// What a caller waits for a response, in seconds. Default 15.
    #[serde(default = "fifteen")]
    pub timeout_s: f64,
    /// From the start of a returning endpoint until it serves, in ms. Default 500.
    #[serde(default = "half_second")]
    pub warm_ms: f64,
    /// How often shares are noted, in seconds. Default 1.
    #[serde(default = "second")]
    pub sample_s: f64,
    /// Numbers of the decision core that differ from their defaults.
    #[serde(default)]
    pub policy: Overrides,
    /// What goes wrong. Where faults overlap, their factors multiply, and what any of them holds dead or deaf stays so.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Callers of one zone.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callers {
    /// Their zone, `CLUSTER/ZONE`, which must be one of `zones`.
    #[schemars(with = "String", extend("format" = "zone"))]
    pub zone: ZoneId,
    /// How many.
    pub count: u32,
}

/// A zone with endpoints of the service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// `CLUSTER/ZONE`.
    #[schemars(with = "String", extend("format" = "zone"))]
    pub zone: ZoneId,
    /// The region of its cluster. Default: the cluster's name.
    pub region: Option<String>,
    /// How many endpoints. 0 for a zone that only calls.
    pub endpoints: u32,
}

/// How long an endpoint works on one request.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(tag = "distribution", rename_all = "lowercase", deny_unknown_fields)]
pub enum ServiceTime {
    /// Always the same.
    Constant {
        /// In ms.
        mean_ms: f64,
    },
    /// Without memory.
    Exponential {
        /// In ms.
        mean_ms: f64,
    },
    /// With a heavy tail.
    Lognormal {
        /// In ms.
        mean_ms: f64,
        /// Deviation of the logarithm.
        sigma: f64,
    },
}

/// Round trips between a caller and an endpoint, in ms.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rtt {
    /// In one zone. Default 0.5.
    pub zone_ms: f64,
    /// Between zones of a region. Default 1.
    pub region_ms: f64,
    /// Between regions. Default 80.
    pub remote_ms: f64,
}

/// Numbers of the decision core to compare. What is not named keeps its default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// How an endpoint is chosen within a locality. Default `twoChoices`.
    pub algorithm: Option<Algorithm>,
    /// A priority keeps all of its traffic while at least 1 / this of it is healthy. Default 1.4.
    pub overprovisioning: Option<f64>,
    /// In percent: below this availability of a priority its soft marks are ignored, if all priorities together lack
    /// capacity. Default 50.
    pub panic_threshold: Option<f64>,
    /// Utilisation of a priority above this moves traffic to the next one. Default 0.8.
    pub target_utilisation: Option<f64>,
    /// A locality that returns from failure has its full share after so long, in seconds. Default 30.
    pub ramp_s: Option<f64>,
    /// Each caller delays the return of a locality by up to so much, in seconds. Default 5.
    pub ramp_jitter_s: Option<f64>,
    /// At most this part of a locality's weight is ejected for what its answers say. Default 0.5.
    pub ejection_cap: Option<f64>,
    /// A latency above this multiple of the locality's median loses. Default 3; 0: never.
    pub latency_veto: Option<f32>,
    /// Time constant with which reports of load that grow old are forgotten, in ms. Default 1000.
    pub load_decay_ms: Option<f64>,
    /// Retries as a part of first attempts. Default 0.1.
    pub retry_ratio: Option<f64>,
    /// Attempts of which something was sent. Default 2.
    pub attempts: Option<u32>,
}

/// Something that goes wrong. `zone` and `endpoints` say where: all endpoints of a zone, or its first ones; without a zone,
/// those of all zones. Without `until_s` it lasts to the end.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Fault {
    /// Endpoints die, and return as new incarnations.
    Kill {
        /// Where. Default: in every zone.
        #[schemars(with = "Option<String>", extend("format" = "zone"))]
        zone: Option<ZoneId>,
        /// Only so many, the first ones. Default: all.
        endpoints: Option<u32>,
        /// When, in seconds.
        at_s: f64,
        /// When they are started again. Default: never.
        until_s: Option<f64>,
        /// Packets to them vanish; else connections are refused. Default false.
        #[serde(default)]
        silent: bool,
        /// So long after their return they are slow, in seconds. Default 0.
        #[serde(default)]
        cold_s: f64,
        /// By this factor. Default 3.
        #[serde(default = "three")]
        cold_factor: f64,
    },
    /// A zone dies and returns again and again.
    Flap {
        /// Which.
        #[schemars(with = "String", extend("format" = "zone"))]
        zone: ZoneId,
        /// When it begins, in seconds.
        at_s: f64,
        /// When it has ended.
        until_s: f64,
        /// From one death to the next, in seconds.
        period_s: f64,
        /// How long it is dead each time.
        down_s: f64,
    },
    /// Endpoints answer with 503 after their normal service time.
    Errors {
        /// Where. Default: in every zone.
        #[schemars(with = "Option<String>", extend("format" = "zone"))]
        zone: Option<ZoneId>,
        /// Only so many, the first ones. Default: all.
        endpoints: Option<u32>,
        /// When, in seconds.
        at_s: f64,
        /// Until when.
        until_s: Option<f64>,
        /// The part of requests.
        ratio: f64,
    },
    /// Endpoints take longer.
    Slow {
        /// Where. Default: in every zone.
        #[schemars(with = "Option<String>", extend("format" = "zone"))]
        zone: Option<ZoneId>,
        /// Only so many, the first ones. Default: all.
        endpoints: Option<u32>,
        /// When, in seconds.
        at_s: f64,
        /// Until when.
        until_s: Option<f64>,
        /// So many times as long.
        factor: f64,
    },
    /// A cluster hears nothing of its peers, though its streams still reach them.
    Stale {
        /// Which; without it, all clusters.
        cluster: Option<String>,
        /// When, in seconds.
        at_s: f64,
        /// Until when.
        until_s: Option<f64>,
    },
    /// More or fewer requests.
    Load {
        /// When, in seconds.
        at_s: f64,
        /// Until when.
        until_s: Option<f64>,
        /// Of the rate.
        factor: f64,
    },
}

/// Something that makes a scenario unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Mistake {
    /// Where, such as `faults[0].zone`.
    pub path: String,
    /// What, and how to put it right.
    pub message: String,
}

impl Scenario {
    /// What is wrong with it, all of it.
    pub fn mistakes(&self) -> Vec<Mistake> {
        check::mistakes(self)
    }

    /// The mean service time in seconds.
    pub fn mean_service_s(&self) -> f64 {
        self.service.mean_ms() / 1000.0
    }

    /// The largest factor of the rate that it reaches: of those that are active at once, the product.
    pub(crate) fn peak(&self) -> f64 {
        self.greatest(|fault| if let Fault::Load { factor, .. } = fault { Some(*factor) } else { None })
    }

    /// The largest factor of the service time that an endpoint may reach.
    fn slowest(&self) -> f64 {
        let slow = |fault: &Fault| if let Fault::Slow { factor, .. } = fault { Some(*factor) } else { None };
        let cold = |fault: &Fault| if let Fault::Kill { cold_factor, .. } = fault { *cold_factor } else { 1.0 };
        self.greatest(slow) * self.faults.iter().map(cold).fold(1.0, f64::max)
    }

    /// The greatest product of factors that are active at once. It is reached where one begins.
    fn greatest(&self, factor: impl Fn(&Fault) -> Option<f64>) -> f64 {
        let factors: Vec<(f64, f64, f64)> = self
            .faults
            .iter()
            .filter_map(|fault| {
                let (from, until) = fault.span();
                factor(fault).map(|factor| (from, until.unwrap_or(f64::INFINITY), factor))
            })
            .collect();
        let at = |moment: f64| {
            let active = factors.iter().filter(|(from, until, _)| (*from..*until).contains(&moment));
            active.map(|(_, _, factor)| factor).product::<f64>()
        };
        // Also where one ends that made it less.
        let moments = factors.iter().flat_map(|(from, until, _)| [*from, *until]);
        moments.map(at).fold(1.0, f64::max)
    }
}

impl ServiceTime {
    /// Its mean, in ms.
    pub fn mean_ms(&self) -> f64 {
        match *self {
            Self::Constant { mean_ms } | Self::Exponential { mean_ms } | Self::Lognormal { mean_ms, .. } => mean_ms,
        }
    }

    /// One time, in ms.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> f64 {
        match *self {
            Self::Constant { mean_ms } => mean_ms,
            Self::Exponential { mean_ms } => exponential(rng) * mean_ms,
            Self::Lognormal { mean_ms, sigma } => mean_ms * (sigma * normal(rng) - sigma * sigma / 2.0).exp(),
        }
    }
}

/// A draw from the exponential distribution with mean 1.
pub(crate) fn exponential(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

/// A draw from the standard normal distribution.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

impl Fault {
    /// When it begins and ends, in seconds.
    pub fn span(&self) -> (f64, Option<f64>) {
        match *self {
            Self::Kill { at_s, until_s, .. }
            | Self::Errors { at_s, until_s, .. }
            | Self::Slow { at_s, until_s, .. }
            | Self::Stale { at_s, until_s, .. }
            | Self::Load { at_s, until_s, .. } => (at_s, until_s),
            Self::Flap { at_s, until_s, .. } => (at_s, Some(until_s)),
        }
    }

    /// The zone that it is about, and how many of its endpoints.
    pub(crate) fn place(&self) -> (Option<&ZoneId>, Option<u32>) {
        match self {
            Self::Kill { zone, endpoints, .. }
            | Self::Errors { zone, endpoints, .. }
            | Self::Slow { zone, endpoints, .. } => (zone.as_ref(), *endpoints),
            Self::Flap { zone, .. } => (Some(zone), None),
            Self::Stale { .. } | Self::Load { .. } => (None, None),
        }
    }

    /// The zone that traffic should leave while it lasts, if it is one.
    pub(crate) fn affected(&self) -> Option<&ZoneId> {
        match self {
            Self::Kill { zone, endpoints: None, .. } | Self::Errors { zone, endpoints: None, .. } => zone.as_ref(),
            Self::Flap { zone, .. } => Some(zone),
            _ => None,
        }
    }
}

impl Default for ServiceTime {
    fn default() -> Self {
        Self::Exponential { mean_ms: 100.0 }
    }
}

impl Default for Rtt {
    fn default() -> Self {
        Self { zone_ms: 0.5, region_ms: 1.0, remote_ms: 80.0 }
    }
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

fn second() -> f64 {
    1.0
}

fn three() -> f64 {
    3.0
}

fn fifteen() -> f64 {
    15.0
}

fn hundred() -> f64 {
    100.0
}

fn half_second() -> f64 {
    500.0
}

#[cfg(test)]
mod tests;
