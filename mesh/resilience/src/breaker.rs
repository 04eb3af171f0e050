//! The circuit breaker of an endpoint, a locality or a path.
//!
//! A [`Breaker`] is told how attempts end and says when it wants to trip; its owner decides whether it may (a locality must
//! keep half of its endpoints) and calls [`Breaker::trip`]. It never counts traffic of its own, knows nothing of other
//! breakers, and holds no lock: `mesh/balance` keeps it behind one, away from the path of picks.
//!
//! ```text
//!            trip                      poll, after the open time
//!  Closed ──────────► Open ─────────────────────────────────────► HalfOpen
//!    ▲ acceptance       ▲                probe fails                 │
//!    │ 10 → 100 %       └────────────────────────────────────────────┤
//!    └───────────────────────────────────────────────────────────────┘
//!                                        probe succeeds
//! ```

pub mod detector;
pub mod permit;

use std::sync::Arc;
use std::time::Duration;

use eastway_core::Timestamp;

use detector::Detector;

pub use detector::Trigger;
pub use permit::ProbePermit;

/// The threshold of an endpoint's CUSUM: at p0 = 1 % four failures in a row.
pub const ENDPOINT_THRESHOLD: f64 = 13.8;
/// The threshold of a locality's CUSUM: at p0 = 1 % seven failures in a row.
pub const LANE_THRESHOLD: f64 = 25.5;

/// When a breaker opens, for how long, and how gently it closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerConfig {
    /// What makes it want to trip. Default: CUSUM with the threshold of an endpoint.
    pub trigger: Trigger,
    /// First open time. Default 1 s; doubles with each trip.
    pub base: Duration,
    /// Longest open time before jitter. Default 60 s.
    pub max: Duration,
    /// Open times are multiplied by a random factor in 1 ± this. Default 0.5.
    pub jitter: f64,
    /// So much time closed takes one doubling back. Default 10 s.
    pub heal: Duration,
    /// After a successful probe, or for a new incarnation, acceptance rises from `floor` to 1 over this. Default 10 s.
    pub recovery: Duration,
    /// Where acceptance starts. Default 0.1.
    pub floor: f32,
}

impl BreakerConfig {
    /// The default for endpoints and paths.
    pub const fn endpoint() -> Self {
        Self {
            trigger: Trigger::Cusum { p1: 0.5, threshold: ENDPOINT_THRESHOLD },
            base: Duration::from_secs(1),
            max: Duration::from_secs(60),
            jitter: 0.5,
            heal: Duration::from_secs(10),
            recovery: Duration::from_secs(10),
            floor: 0.1,
        }
    }

    /// The default for localities.
    pub const fn locality() -> Self {
        Self { trigger: Trigger::Cusum { p1: 0.5, threshold: LANE_THRESHOLD }, ..Self::endpoint() }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self::endpoint()
    }
}

/// What a breaker lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything, short of its acceptance.
    Closed,
    /// Nothing until then.
    Open {
        /// When it becomes half-open.
        until: Timestamp,
        /// Hard evidence, not statistics: see [`crate::ChargedFailure::down`].
        down: bool,
    },
    /// One probe at a time.
    HalfOpen {
        /// Since when.
        since: Timestamp,
        /// As it was when open.
        down: bool,
    },
}

/// One circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: Arc<BreakerConfig>,
    detector: Detector,
    phase: Phase,
    /// How often the next open time is doubled.
    level: u32,
    /// When it was last closed; the time healthy counts from here.
    closed_at: Timestamp,
    /// Start of the rise of acceptance, while it rises.
    recovering: Option<Timestamp>,
}

impl Breaker {
    /// A closed breaker that accepts everything.
    pub fn new(config: Arc<BreakerConfig>, now: Timestamp) -> Self {
        let detector = Detector::new(&config.trigger);
        Self { config, detector, phase: Phase::Closed, level: 0, closed_at: now, recovering: None }
    }

    /// A closed breaker whose acceptance rises from the floor: the slow start of a new incarnation.
    pub fn starting(config: Arc<BreakerConfig>, now: Timestamp) -> Self {
        Self { recovering: Some(now), ..Self::new(config, now) }
    }

    /// Goes on with other numbers. What it knows is kept, unless another trigger would read it in another way.
    pub fn configure(&mut self, config: &Arc<BreakerConfig>) {
        if config.trigger != self.config.trigger {
            self.detector = Detector::new(&config.trigger);
        }
        self.config = Arc::clone(config);
    }

    /// What it lets pass.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether it is open or half-open by hard evidence.
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Open { down: true, .. } | Phase::HalfOpen { down: true, .. })
    }

    /// The detector's statistic as a fraction of its threshold. It is kept while open, and 0 once closed again.
    pub fn pressure(&self, now: Timestamp) -> f64 {
        self.detector.pressure(now)
    }

    /// The raw statistic: CUSUM's sum, failures in a row, or a share of failures.
    pub fn statistic(&self, now: Timestamp) -> f64 {
        self.detector.statistic(now)
    }

    /// The share of draws to accept: 1 when closed, rising after a recovery, 0 otherwise.
    pub fn acceptance(&self, now: Timestamp) -> f32 {
        match (self.phase, self.recovering) {
            (Phase::Closed, None) => 1.0,
            (Phase::Closed, Some(since)) => {
                let elapsed = (now - since).as_secs_f32() / self.config.recovery.as_secs_f32().max(1e-9);
                (self.config.floor + (1.0 - self.config.floor) * elapsed).min(1.0)
            }
            _ => 0.0,
        }
    }

    /// An attempt succeeded. Returns whether the breaker wants to trip, which only a latency trigger does here.
    ///
    /// Results of attempts that began before it opened change nothing.
    pub fn on_success(&mut self, latency: Option<Duration>, p0: f64, now: Timestamp) -> bool {
        self.is_closed() && self.detector.success(latency, p0, now)
    }

    /// An attempt failed, and is charged `charge` times. Returns whether the breaker wants to trip.
    ///
    /// `share` in 0 to 1 bounds the statistic to that part of the threshold: a locality passes the share of the endpoints
    /// needed that contributed so far, so that one bad endpoint cannot trip it alone. 1 does not bound it.
    pub fn on_failure(&mut self, charge: u32, p0: f64, share: f64, now: Timestamp) -> bool {
        if !self.is_closed() {
            return false;
        }
        self.detector.failure(charge, p0, now);
        if share < 1.0 {
            self.detector.bound(share);
            return false;
        }
        self.detector.pressure(now) >= 1.0
    }

    /// Opens it, or opens it again: by hard evidence if `down`, else by statistics.
    pub fn trip(&mut self, down: bool, now: Timestamp, rng: &mut fastrand::Rng) {
        if self.is_closed() {
            let healed = (now - self.closed_at).as_secs_f64() / self.config.heal.as_secs_f64().max(1e-9);
            self.level = self.level.saturating_sub(healed as u32);
        }
        let jitter = 1.0 + self.config.jitter * (2.0 * rng.f64() - 1.0);
        let until = now + self.open_time(self.level).mul_f64(jitter);
        self.level = (self.level + 1).min(MAX_LEVEL);
        self.recovering = None;
        self.phase = Phase::Open { until, down: down || self.is_down() };
    }

    /// The open time at level `level`, before jitter.
    pub fn open_time(&self, level: u32) -> Duration {
        self.config.base.saturating_mul(1 << level.min(MAX_LEVEL)).min(self.config.max)
    }

    /// Lets time pass: open becomes half-open. Returns whether it did.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Open { until, down } if until <= now => {
                self.phase = Phase::HalfOpen { since: now, down };
                true
            }
            _ => false,
        }
    }

    /// The probe of the half-open breaker ended.
    pub fn probe_ended(&mut self, success: bool, now: Timestamp, rng: &mut fastrand::Rng) {
        if !matches!(self.phase, Phase::HalfOpen { .. }) {
            return;
        }
        if success { self.close(now) } else { self.trip(self.is_down(), now, rng) }
    }

    /// Closes it with an empty statistic and a rising acceptance.
    pub fn close(&mut self, now: Timestamp) {
        self.phase = Phase::Closed;
        self.closed_at = now;
        self.recovering = Some(now);
        self.detector.reset();
    }

    /// Whether acceptance rises, as far as [`Breaker::settle_rise`] was told.
    pub fn is_rising(&self) -> bool {
        self.recovering.is_some()
    }

    /// Ends the rise of acceptance once it is complete. Returns whether it rose until now: after a true answer,
    /// acceptance must be read once more.
    pub fn settle_rise(&mut self, now: Timestamp) -> bool {
        let rose = self.is_rising();
        if self.recovering.is_some_and(|since| now - since >= self.config.recovery) {
            self.recovering = None;
        }
        rose
    }
}

/// 2^6 s exceeds every sensible maximum; the bound keeps the shift defined.
const MAX_LEVEL: u32 = 20;

#[cfg(test)]
mod tests;
