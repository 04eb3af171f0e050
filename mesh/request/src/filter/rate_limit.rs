//! A limit on the rate of a route's requests in this process, by the generic cell rate algorithm (`governor`).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::{Reason, Refusal, Timestamp};
use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::FilterVerdict;

/// So many requests in a time, which all workers of the process share.
#[derive(Debug)]
pub struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, SharedClock, NoOpMiddleware<Nanos>>,
    clock: SharedClock,
}

/// A clock that is told the time: the latest that anybody knows.
#[derive(Clone, Debug, Default)]
struct SharedClock(Arc<AtomicU64>);

impl Clock for SharedClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

impl RateLimit {
    /// `requests` in each `period`, of which `burst` may come at once. `None` if the period is too short for so many.
    pub fn new(requests: NonZeroU32, period: Duration, burst: NonZeroU32) -> Option<Self> {
        let quota = Quota::with_period(period / requests.get())?.allow_burst(burst);
        let clock = SharedClock::default();
        Some(Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock })
    }

    pub(super) fn request(&self, now: Timestamp) -> FilterVerdict {
        self.clock.0.fetch_max(now.as_nanos(), Ordering::Relaxed);
        match self.limiter.check() {
            Ok(()) => FilterVerdict::Pass,
            Err(not_until) => {
                let wait: Duration = not_until.earliest_possible().duration_since(self.clock.now()).into();
                let refusal = Refusal { retry_after: Some(wait), ..Refusal::from(Reason::RateLimited) };
                FilterVerdict::Refuse(refusal, Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, burst: u32) -> RateLimit {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        RateLimit::new(number(requests), Duration::from_secs(1), number(burst)).expect("a second is long enough")
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = limit(10, 3);
        let passed = |ms: u64| {
            let now = Timestamp::from_millis(1_000 + ms);
            (0..20).filter(|_| limit.request(now) == FilterVerdict::Pass).count()
        };
        assert_eq!(passed(0), 3);
        assert_eq!(passed(99), 0);
        assert_eq!(passed(100), 1);
        assert_eq!(passed(10_000), 3, "what was not used is not saved beyond the burst");
    }

    #[test]
    fn who_is_refused_learns_when_to_come_again() {
        let limit = limit(10, 1);
        let now = Timestamp::from_millis(1_000);
        assert_eq!(limit.request(now), FilterVerdict::Pass);
        let FilterVerdict::Refuse(refusal, wait) = limit.request(now) else { panic!("refused") };
        assert_eq!((refusal.reason, refusal.status, wait), (Reason::RateLimited, 429, Duration::ZERO));
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_period_that_no_clock_can_divide_is_refused() {
        let number = NonZeroU32::new(2).expect("not zero");
        assert!(RateLimit::new(number, Duration::from_nanos(1), number).is_none());
    }
}
