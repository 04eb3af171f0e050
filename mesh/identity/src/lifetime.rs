//! From when to when a certificate is valid, for those who show it to operators. Nothing but a handshake decides by it.

use std::time::{Duration, SystemTime};

use crate::calendar;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Not before this time.
    pub not_before: SystemTime,
    /// Not after this time.
    pub not_after: SystemTime,
}

impl Lifetime {
    /// That of the certificate in `der`; `None` if it is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let validity = certificate.validity();
        let [not_before, not_after] =
            [validity.not_before, validity.not_after].map(|time| calendar::system_time(time.timestamp()));
        Some(Self { not_before, not_after })
    }

    /// For how many days the certificate is valid in all.
    pub fn days(&self) -> f64 {
        days(self.not_before, self.not_after)
    }

    /// For how many days from now on it is valid; negative if it has expired.
    pub fn days_left(&self) -> f64 {
        days(calendar::now(), self.not_after)
    }
}

fn days(from: SystemTime, to: SystemTime) -> f64 {
    let days = |time: Duration| time.as_secs_f64() / 86_400.0;
    to.duration_since(from).map_or_else(|error| -days(error.duration()), days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_in_both_directions() {
        let day = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        assert_eq!(days(day(3), day(10)), 7.0);
        assert_eq!(days(day(10), day(9)), -1.0);
        let lifetime = Lifetime { not_before: day(0), not_after: day(2) };
        assert_eq!(lifetime.days(), 2.0);
        assert!(lifetime.days_left() < 0.0, "it expired long ago");
        assert_eq!(Lifetime::of(b"no certificate"), None);
    }
}
