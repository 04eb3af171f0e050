//! What makes a breaker want to trip: four detectors with one face.

use std::time::Duration;

use eastway_core::Timestamp;

/// The rule by which failures become evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    /// A cumulative sum of log-likelihood ratios: the usual error rate p0 against `p1`. It finds 50 % in a few
    /// requests and 10 % in a few hundred, and stays quiet at p0.
    Cusum {
        /// The error rate that is to be found. Default 0.5.
        p1: f64,
        /// The sum at which it trips.
        threshold: f64,
    },
    /// Failures in a row.
    Consecutive {
        /// So many trip it.
        failures: u32,
    },
    /// A share of failures over a window.
    ErrorRate {
        /// The share, 0 to 1, at which it trips.
        ratio: f64,
        /// The width of the window.
        window: Duration,
        /// Fewer requests than this say nothing.
        min_requests: u32,
    },
    /// A quantile of the latency over a window. Failures count as slow.
    Latency {
        /// Which quantile, for example 0.9.
        quantile: f64,
        /// It trips when the quantile lies above this.
        limit: Duration,
        /// The width of the window.
        window: Duration,
        /// Fewer requests than this say nothing.
        min_requests: u32,
    },
}

/// The state behind a [`Trigger`].
#[derive(Clone, Debug)]
pub(crate) enum Detector {
    Cusum { p1: f64, threshold: f64, sum: f64 },
    Consecutive { limit: u32, run: u32 },
    Rate { ratio: f64, slow: Option<Duration>, min_requests: u32, counts: Box<Counts> },
}

impl Detector {
    pub(crate) fn new(trigger: &Trigger) -> Self {
        match *trigger {
            Trigger::Cusum { p1, threshold } => Self::Cusum { p1, threshold, sum: 0.0 },
            Trigger::Consecutive { failures } => Self::Consecutive { limit: failures.max(1), run: 0 },
            Trigger::ErrorRate { ratio, window, min_requests } => {
                Self::Rate { ratio, slow: None, min_requests, counts: Box::new(Counts::new(window)) }
            }
            // The q-quantile lies above the limit when more than 1 - q of the requests do: no histogram is needed.
            Trigger::Latency { quantile, limit, window, min_requests } => Self::Rate {
                ratio: 1.0 - quantile,
                slow: Some(limit),
                min_requests,
                counts: Box::new(Counts::new(window)),
            },
        }
    }

    /// Records a success. Returns whether it is evidence enough to trip, which only latency can be.
    pub(crate) fn success(&mut self, latency: Option<Duration>, p0: f64, now: Timestamp) -> bool {
        match self {
            Self::Cusum { p1, sum, .. } => {
                let p0 = p0.clamp(MIN_RATE, *p1 * 0.99);
                *sum = (*sum + ((1.0 - *p1) / (1.0 - p0)).ln()).max(0.0);
                false
            }
            Self::Consecutive { run, .. } => {
                *run = 0;
                false
            }
            Self::Rate { slow, counts, .. } => {
                let too_slow = slow.is_some_and(|limit| latency.is_some_and(|latency| latency > limit));
                counts.add(too_slow, 1, now);
                too_slow && self.pressure(now) >= 1.0
            }
        }
    }

    pub(crate) fn failure(&mut self, charge: u32, p0: f64, now: Timestamp) {
        match self {
            Self::Cusum { p1, sum, .. } => {
                let p0 = p0.clamp(MIN_RATE, *p1 * 0.99);
                *sum += f64::from(charge) * (*p1 / p0).ln();
            }
            Self::Consecutive { run, .. } => *run = run.saturating_add(charge),
            Self::Rate { counts, .. } => counts.add(true, charge, now),
        }
    }

    /// Bounds the statistic to `share` of the threshold. Rates are not bounded: they judge their whole window.
    pub(crate) fn bound(&mut self, share: f64) {
        match self {
            Self::Cusum { threshold, sum, .. } => *sum = sum.min(share * *threshold),
            Self::Consecutive { limit, run } => *run = (*run).min((share * f64::from(*limit)) as u32),
            Self::Rate { .. } => {}
        }
    }

    pub(crate) fn statistic(&self, now: Timestamp) -> f64 {
        match self {
            Self::Cusum { sum, .. } => *sum,
            Self::Consecutive { run, .. } => f64::from(*run),
            Self::Rate { counts, .. } => counts.ratio(now).1,
        }
    }

    pub(crate) fn pressure(&self, now: Timestamp) -> f64 {
        match self {
            Self::Cusum { threshold, sum, .. } => *sum / *threshold,
            Self::Consecutive { limit, run } => f64::from(*run) / f64::from(*limit),
            Self::Rate { ratio, slow, min_requests, counts } => {
                let (total, bad) = counts.ratio(now);
                if total < u64::from(*min_requests).max(1) {
                    return 0.0;
                }
                // "More than 1 - q" for a quantile, "at least the ratio" for errors.
                let bad = if slow.is_some() { bad - f64::EPSILON } else { bad };
                bad / ratio.max(f64::EPSILON)
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        match self {
            Self::Cusum { sum, .. } => *sum = 0.0,
            Self::Consecutive { run, .. } => *run = 0,
            Self::Rate { counts, .. } => counts.clear(),
        }
    }
}

/// Error rates below this are not told from none, and keep the logarithms finite.
const MIN_RATE: f64 = 1e-4;

/// Good and bad results over a window of ten buckets.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    width: u64,
    buckets: [Bucket; BUCKETS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    period: u64,
    total: u32,
    bad: u32,
}

const BUCKETS: u64 = 10;

impl Counts {
    fn new(window: Duration) -> Self {
        let width = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / BUCKETS;
        Self { width: width.max(1), buckets: Default::default() }
    }

    fn add(&mut self, bad: bool, times: u32, now: Timestamp) {
        let period = now.as_nanos() / self.width;
        let bucket = &mut self.buckets[(period % BUCKETS) as usize];
        if bucket.period != period {
            *bucket = Bucket { period, ..Bucket::default() };
        }
        bucket.total = bucket.total.saturating_add(times);
        bucket.bad = bucket.bad.saturating_add(if bad { times } else { 0 });
    }

    /// How many requests, and the share of bad ones.
    fn ratio(&self, now: Timestamp) -> (u64, f64) {
        let period = now.as_nanos() / self.width;
        let recent = self.buckets.iter().filter(|b| b.period <= period && b.period + BUCKETS > period);
        let (total, bad) =
            recent.fold((0u64, 0u64), |(total, bad), b| (total + u64::from(b.total), bad + u64::from(b.bad)));
        (total, if total == 0 { 0.0 } else { bad as f64 / total as f64 })
    }

    fn clear(&mut self) {
        self.buckets = Default::default();
    }
}
