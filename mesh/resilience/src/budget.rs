//! How many retries a service may cost: a share of its first attempts, so that retries cannot multiply an outage.
//!
//! One budget for each service and a second one for retries that cross a region. It is shared by the workers and takes
//! no lock. It never decides alone whether an attempt is repeated: `attempts` asks it last.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::window::Window;

/// One second a bucket; one more than the ten of the window, so that a partly expired bucket can be counted in full.
const BUCKETS: usize = 11;
const WINDOW: usize = 10;

/// The retry budget of one service.
#[derive(Debug)]
pub struct RetryBudget {
    /// The bits of an `f64`.
    ratio: AtomicU64,
    min_per_second: AtomicU32,
    first: Window<BUCKETS>,
    retries: Window<BUCKETS>,
    attempts: Window<BUCKETS>,
    failures: Window<BUCKETS>,
}

impl RetryBudget {
    /// Retries may be `ratio` of the first attempts of the last ten seconds (0.1 by default), and always
    /// `min_per_second` a second over that time (1 by default).
    pub fn new(ratio: f64, min_per_second: u32) -> Self {
        let window = || Window::new(Duration::from_secs(1));
        Self {
            ratio: AtomicU64::new(ratio.clamp(0.0, 1.0).to_bits()),
            min_per_second: AtomicU32::new(min_per_second),
            first: window(),
            retries: window(),
            attempts: window(),
            failures: window(),
        }
    }

    /// Goes on with other numbers; what was counted stays.
    pub fn configure(&self, ratio: f64, min_per_second: u32) {
        self.ratio.store(ratio.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
        self.min_per_second.store(min_per_second, Ordering::Relaxed);
    }

    /// A request made its first attempt.
    pub fn record_first(&self, now: Timestamp) {
        self.first.record(now);
    }

    /// An attempt, first or not, ended: `failed` if it is one that a retry could follow.
    pub fn record_end(&self, failed: bool, now: Timestamp) {
        self.attempts.record(now);
        if failed {
            self.failures.record(now);
        }
    }

    /// Takes one retry, if one is left.
    pub fn try_retry(&self, now: Timestamp) -> bool {
        // Counted before it is allowed, so that two threads cannot both take the last one; and retries count eleven
        // buckets where first attempts count ten: the bound then holds over every ten seconds, not only over aligned ones.
        self.retries.record(now);
        if self.retries.count(now, BUCKETS) <= self.allowance(now) {
            return true;
        }
        self.retries.take_back(now);
        false
    }

    /// Gives back a retry that was taken at the same moment and did not happen.
    pub fn give_back(&self, now: Timestamp) {
        self.retries.take_back(now);
    }

    /// How many retries ten seconds allow at this moment.
    pub fn allowance(&self, now: Timestamp) -> u64 {
        let ratio = f64::from_bits(self.ratio.load(Ordering::Relaxed));
        let earned = (self.first.count(now, WINDOW) as f64 * ratio) as u64;
        earned.max(u64::from(self.min_per_second.load(Ordering::Relaxed)) * WINDOW as u64)
    }

    /// Retries taken in the last ten to eleven seconds.
    pub fn used(&self, now: Timestamp) -> u64 {
        self.retries.count(now, BUCKETS)
    }

    /// Whether more than half of all attempts of the last ten seconds failed: answers with a server error are then not
    /// retried, because the fault lies behind the service. Fewer than ten attempts say nothing.
    pub fn mostly_failing(&self, now: Timestamp) -> bool {
        const ENOUGH: u64 = 10;
        let attempts = self.attempts.count(now, WINDOW);
        attempts >= ENOUGH && self.failures.count(now, WINDOW) * 2 > attempts
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(0.1, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_service_has_ten_retries_in_ten_seconds() {
        let budget = RetryBudget::default();
        let taken = (0..100).filter(|i| budget.try_retry(Timestamp::from_millis(i * 10))).count();
        assert_eq!(taken, 10);
        assert!(budget.try_retry(Timestamp::from_millis(12_000)));
    }

    #[test]
    fn a_busy_service_earns_a_tenth() {
        let budget = RetryBudget::default();
        let now = Timestamp::from_millis(500);
        (0..1_000).for_each(|_| budget.record_first(now));
        assert_eq!((0..1_000).filter(|_| budget.try_retry(now)).count(), 100);
        assert_eq!((budget.allowance(now), budget.used(now)), (100, 100));
    }

    #[test]
    fn other_numbers_hold_from_then_on() {
        let budget = RetryBudget::default();
        let now = Timestamp::from_millis(500);
        (0..1_000).for_each(|_| budget.record_first(now));
        budget.configure(0.5, 0);
        assert_eq!(budget.allowance(now), 500);
        budget.configure(0.0, 3);
        assert_eq!(budget.allowance(now), 30);
    }

    #[test]
    fn failing_mostly_needs_evidence() {
        let budget = RetryBudget::default();
        let now = Timestamp::ZERO;
        (0..9).for_each(|_| budget.record_end(true, now));
        assert!(!budget.mostly_failing(now));
        budget.record_end(true, now);
        assert!(budget.mostly_failing(now));
        (0..10).for_each(|_| budget.record_end(false, now));
        assert!(!budget.mostly_failing(now));
    }

    proptest! {
        /// Over any ten seconds that end with a retry, retries never exceed what their first attempts earned.
        #[test]
        fn retries_stay_within_the_budget_over_any_ten_seconds(
            steps in prop::collection::vec((0u64..400, any::<bool>()), 1..2_000),
        ) {
            let budget = RetryBudget::default();
            let ten = Duration::from_secs(10);
            let (mut firsts, mut retries) = (VecDeque::new(), VecDeque::new());
            let mut now = Timestamp::from_millis(1);
            for (pause, retry) in steps {
                now = now + Duration::from_millis(pause);
                if !retry {
                    budget.record_first(now);
                    firsts.push_back(now);
                    continue;
                }
                if budget.try_retry(now) {
                    retries.push_back(now);
                    let recent = |times: &VecDeque<Timestamp>| times.iter().filter(|t| now - **t <= ten).count();
                    let allowed = (recent(&firsts) as f64 * 0.1).max(10.0);
                    prop_assert!(recent(&retries) as f64 <= allowed, "{} > {allowed}", recent(&retries));
                }
            }
        }
    }
}
