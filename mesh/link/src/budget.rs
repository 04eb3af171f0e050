//! How often something may happen that costs the receiver more than the sender.

use std::time::Duration;

use eastway_core::Timestamp;

/// The size of a budget: what may come at once, and what may come for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many at once.
    pub burst: u32,
    /// So many a second after that.
    pub per_second: u32,
}

impl Rate {
    /// `burst` at once, and `per_second` after that.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second }
    }
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    rate: Rate,
    left: u32,
    filled: Timestamp,
}

impl Budget {
    pub(crate) const fn new(rate: Rate, now: Timestamp) -> Self {
        Self { rate, left: rate.burst, filled: now }
    }

    /// Takes one; false if there is none.
    #[must_use]
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        if self.left == 0 {
            self.refill(now);
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    /// Gives back what useful work has earned, up to the burst.
    #[inline]
    pub(crate) fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.rate.burst);
    }

    /// Whole units only; the time of a unit that is not complete stays.
    fn refill(&mut self, now: Timestamp) {
        if self.rate.per_second == 0 {
            return;
        }
        let unit = NANOS / u64::from(self.rate.per_second);
        let passed = now.since(self.filled).as_nanos().min(u128::from(u64::MAX)) as u64;
        let units = passed / unit.max(1);
        self.left = self.left.saturating_add(u32::try_from(units).unwrap_or(u32::MAX)).min(self.rate.burst);
        self.filled = self.filled + Duration::from_nanos(units.saturating_mul(unit));
    }
}

const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let mut budget = Budget::new(Rate::new(3, 10), Timestamp::ZERO);
        assert_eq!((0..5).filter(|_| budget.take(Timestamp::ZERO)).count(), 3);
        assert!(!budget.take(Timestamp::from_millis(99)));
        assert!(budget.take(Timestamp::from_millis(100)));
        assert!(!budget.take(Timestamp::from_millis(199)));
        assert_eq!(
            (0..9).filter(|_| budget.take(Timestamp::from_millis(100_000))).count(),
            3,
            "never more than a burst"
        );
    }

    #[test]
    fn useful_work_earns_up_to_the_burst() {
        let mut budget = Budget::new(Rate::new(2, 0), Timestamp::ZERO);
        assert!(
            budget.take(Timestamp::ZERO) && budget.take(Timestamp::ZERO) && !budget.take(Timestamp::from_millis(9))
        );
        budget.earn(5);
        assert_eq!((0..5).filter(|_| budget.take(Timestamp::ZERO)).count(), 2);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let mut budget = Budget::new(Rate::new(1, u32::MAX), Timestamp::from_millis(5));
        assert!(budget.take(Timestamp::from_millis(5)));
        assert!(!budget.take(Timestamp::from_millis(5)));
        assert!(!budget.take(Timestamp::ZERO));
    }
}
