//! Log lines that bytes from outside can cause: a few at once, then one a second, and how many were held back.
//!
//! Whoever can send packets must not be able to fill a disk, or to hide a line in a flood of its like. Each place in the
//! code has a count of its own. Called by everything that accepts, shakes hands or reads what others wrote.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::Timestamp;

#[doc(hidden)]
pub use tracing as __tracing;

/// How often one line may be written.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Until when the lines that passed have used up what is allowed, in nanoseconds.
    spent_until: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    /// Nothing was written yet.
    pub const fn new() -> Self {
        Self { spent_until: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether a line may be written at `now`; if so, how many like it were held back since the last one.
    pub fn pass(&self, now: Timestamp) -> Option<u64> {
        let now = now.as_nanos().saturating_add(BURST * PERIOD);
        let spend = |until: u64| Some(until.max(now - BURST * PERIOD) + PERIOD).filter(|after| *after <= now);
        match self.spent_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => Some(self.held_back.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.held_back.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Lines that may follow at once on one another.
const BURST: u64 = 10;
/// After a burst, one line in this time, in nanoseconds.
const PERIOD: u64 = Duration::from_secs(1).as_nanos() as u64;

/// Writes a log line of the level (`info`, `warn` …) with tracing's fields, unless there were too many of this place's. The
/// field `held_back` says how many were not written since the last.
#[macro_export]
macro_rules! throttled {
    ($level:ident, $($line:tt)+) => {{
        static THROTTLE: $crate::throttle::Throttle = $crate::throttle::Throttle::new();
        if let Some(held_back) = THROTTLE.pass($crate::clock::now()) {
            $crate::throttle::__tracing::$level!(held_back, $($line)+);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_line_a_second_which_says_how_many_were_held_back() {
        let throttle = Throttle::new();
        for start in [Timestamp::ZERO, Timestamp::from_millis(3_600_000)] {
            let passed = (0..1_000).filter_map(|_| throttle.pass(start)).count();
            assert_eq!(passed, 10);
            assert_eq!(throttle.pass(start + Duration::from_millis(999)), None);
            assert_eq!(throttle.pass(start + Duration::from_secs(1)), Some(991));
            assert_eq!(throttle.pass(start + Duration::from_secs(1)), None);
            // What is held back at the end is said by the next line.
            assert_eq!(throttle.pass(start + Duration::from_secs(60)), Some(1));
        }
    }
}
