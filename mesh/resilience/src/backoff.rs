//! How long to wait before the next attempt: full jitter over a doubling ceiling.

use std::time::Duration;

/// Waiting times between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Ceiling of the first wait. Default 25 ms.
    pub base: Duration,
    /// Ceiling of every wait. Default 1 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_secs(1) }
    }
}

impl Backoff {
    /// The longest wait before retry number `retry`, counted from 0.
    pub fn ceiling(&self, retry: u32) -> Duration {
        self.base.saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX)).min(self.max)
    }

    /// The wait before retry number `retry`: anything up to the ceiling, so that callers that failed together do not
    /// come back together.
    pub fn delay(&self, retry: u32, rng: &mut fastrand::Rng) -> Duration {
        self.ceiling(retry).mul_f64(rng.f64())
    }
}

/// Reads a `Retry-After` header that gives seconds. The form with a date is not read: clocks differ.
pub fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = !value.is_empty() && value.len() <= 9 && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok().map(Duration::from_secs)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let backoff = Backoff::default();
        let ceilings: Vec<_> = (0..7).map(|retry| backoff.ceiling(retry).as_millis()).collect();
        assert_eq!(ceilings, [25, 50, 100, 200, 400, 800, 1000]);
        assert_eq!(backoff.ceiling(u32::MAX), backoff.max);
    }

    #[test]
    fn delays_cover_the_whole_range() {
        let mut rng = fastrand::Rng::with_seed(7);
        let delays: Vec<_> = (0..1_000).map(|_| Backoff::default().delay(2, &mut rng).as_millis()).collect();
        assert!(delays.iter().all(|d| *d < 100));
        assert!(delays.iter().any(|d| *d < 10) && delays.iter().any(|d| *d >= 90));
    }

    #[test]
    fn only_seconds_are_read_from_retry_after() {
        assert_eq!(retry_after(" 3 "), Some(Duration::from_secs(3)));
        for text in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
