//! Deadlines and how they travel: `grpc-timeout`, and the time that remains for the next hop.
//!
//! Only durations travel between nodes: their clocks are not compared.

use std::time::Duration;

use eastway_core::Timestamp;

/// The moment by which a request must have its answer; [`Deadline::NONE`] for streams that live by idleness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Timestamp>);

impl Deadline {
    /// No deadline.
    pub const NONE: Self = Self(None);

    /// `timeout` from now.
    pub fn after(timeout: Duration, now: Timestamp) -> Self {
        Self(Some(now + timeout))
    }

    /// The earlier of both.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// The moment, if there is one.
    pub fn at(self) -> Option<Timestamp> {
        self.0
    }

    /// What is left; `None` without a deadline, zero when it has passed.
    pub fn remaining(self, now: Timestamp) -> Option<Duration> {
        self.0.map(|at| at - now)
    }

    /// Whether it has passed.
    pub fn passed(self, now: Timestamp) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// Whether `wait` from now still lies before it.
    pub fn allows(self, wait: Duration, now: Timestamp) -> bool {
        self.0.is_none_or(|at| now + wait < at)
    }
}

/// Reads a `grpc-timeout` value: 1 to 8 digits and one of `H M S m u n`.
pub fn parse_grpc_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().last()?;
    let digits = value.get(..value.len() - unit.len_utf8())?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(amount * 3600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes a `grpc-timeout` value in the finest unit that fits into 8 digits, rounded down so that the next hop never
/// has more time than is left.
pub fn format_grpc_timeout(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let (size, unit) = units.into_iter().find(|(size, _)| nanos / size <= MOST).unwrap_or((3_600_000_000_000, 'H'));
    format!("{}{unit}", (nanos / size).min(MOST))
}

/// Reads a timeout in whole milliseconds, as `x-envoy-expected-rq-timeout-ms` gives it; 0 means none.
pub fn parse_timeout_ms(value: &str) -> Option<Duration> {
    let digits = !value.is_empty() && value.len() <= 12 && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten().filter(|ms| *ms > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_timeouts_of_every_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse_grpc_timeout(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "123456789n", "1.5S", "1Ü"] {
            assert_eq!(parse_grpc_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_sent_on_is_in_the_finest_unit_that_fits() {
        for (timeout, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(3_600), "3600000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(format_grpc_timeout(timeout), expected);
        }
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let now = Timestamp::from_millis(1_000);
        let long = Deadline::after(Duration::from_secs(15), now);
        let short = Deadline::after(Duration::from_secs(1), now);
        assert_eq!(long.or_earlier(short), short);
        assert_eq!(Deadline::NONE.or_earlier(long), long);
        assert_eq!(short.remaining(now + Duration::from_millis(400)), Some(Duration::from_millis(600)));
        assert!(short.passed(Timestamp::from_millis(2_000)) && !short.passed(Timestamp::from_millis(1_999)));
        assert!(short.allows(Duration::from_millis(999), now) && !short.allows(Duration::from_secs(1), now));
        assert!(Deadline::NONE.allows(Duration::MAX, now) && Deadline::NONE.remaining(now).is_none());
        assert_eq!(short.at(), Some(Timestamp::from_millis(2_000)));
    }

    #[test]
    fn zero_milliseconds_mean_no_timeout() {
        assert_eq!(parse_timeout_ms("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout_ms("999999999999"), Some(Duration::from_millis(999_999_999_999)));
        for text in ["0", "", "-5", "+5", "1s", "1000000000000"] {
            assert_eq!(parse_timeout_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_on_is_never_longer_and_hardly_shorter(nanos in 0u64..) {
            let timeout = Duration::from_nanos(nanos);
            let sent = parse_grpc_timeout(&format_grpc_timeout(timeout)).expect("our own form is read");
            prop_assert!(sent <= timeout);
            prop_assert!(timeout - sent <= Duration::from_nanos(nanos / 100_000 + 1));
        }
    }
}
