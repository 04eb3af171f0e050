//! Every number of the decision core in one place, with its default.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_resilience::BreakerConfig;

/// How a service is balanced by one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How an endpoint is chosen within a lane. Default: two choices by reported load.
    pub algorithm: Algorithm,
    /// A tier keeps all of its traffic while at least 1 / this of it is healthy. Default 1.4.
    pub overprovisioning: f64,
    /// Below this availability, in percent, soft marks of a tier are ignored if all tiers together lack capacity. Default 50.
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
    /// A lane that returns from failure takes its full share after so long. Default 30 s.
    pub ramp: Duration,
    /// Each node delays a ramp by up to so much. Default 5 s.
    pub ramp_jitter: Duration,
    /// Damping of lanes that come and go.
    pub damping: Damping,
    /// Breaker of each endpoint.
    pub endpoint_breaker: BreakerConfig,
    /// Breaker of each lane.
    pub lane_breaker: BreakerConfig,
    /// Breaker of the path to each cluster.
    pub path_breaker: BreakerConfig,
    /// At most this part of a lane's weight is ejected by statistics. Default 0.5.
    pub ejection_cap: f64,
    /// So many distinct endpoints must fail before their failures can trip their lane. Default 3 (or all, if fewer).
    pub lane_contributors: usize,
    /// A latency above this multiple of the lane's median loses a comparison. Default 3.
    pub latency_veto: f32,
    /// What others have in flight, as reported, decays towards the lane's mean with this time constant. Default 1 s.
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

/// How an endpoint of a lane is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Two draws by weight; the one with the lower reported load per weight wins.
    #[default]
    TwoChoices,
    /// Two draws by weight; the one with fewer of this node's own requests in flight wins.
    LeastRequest,
    /// As `LeastRequest`, for TCP: a pick is held for as long as its connection, so connections are what is counted.
    LeastConnections,
    /// One draw by weight.
    Random,
    /// In turn; endpoints of greater weight come more often.
    RoundRobin,
}

/// When a lane that comes and goes is kept out for a while. Never the last lane that can serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// Each failure counts 1; the count halves over this. Default 60 s.
    pub half_life: Duration,
    /// A lane that returns with at least this count is kept out. Default 2.
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
            lane_breaker: BreakerConfig::lane(),
            path_breaker: BreakerConfig::endpoint(),
            ejection_cap: 0.5,
            lane_contributors: 3,
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
