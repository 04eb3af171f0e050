//! How far a zone is: measured round trips first, geography as a prior, and the rings that both fall into.

use std::time::Duration;

use eastway_core::{Coordinates, Timestamp};
use geo::{Distance, Haversine, Point};

/// The great-circle distance in km, on a sphere of Earth's mean radius.
pub fn kilometres(from: Coordinates, to: Coordinates) -> f64 {
    let point = |c: Coordinates| Point::new(c.longitude, c.latitude);
    Haversine.distance(point(from), point(to)) / 1000.0
}

/// The round-trip time, in ms, that a distance lets expect: light in fibre, on a way half again as long, and 1 ms.
pub fn expected_rtt_ms(kilometres: f64) -> f64 {
    const KM_PER_MS: f64 = 204.19;
    const DETOUR: f64 = 1.5;
    1.0 + 2.0 * kilometres * DETOUR / KM_PER_MS
}

/// The cost of reaching a zone, in ms: measured if it was, else expected, else unknown.
pub fn cost_ms(measured: Option<Duration>, from: Option<Coordinates>, to: Option<Coordinates>) -> Option<f64> {
    match (measured, from, to) {
        (Some(rtt), ..) => Some(rtt.as_secs_f64() * 1000.0),
        (None, Some(from), Some(to)) => Some(expected_rtt_ms(kilometres(from, to))).filter(|ms| ms.is_finite()),
        _ => None,
    }
}

/// The ring of a cost, from 0; an unknown cost lies beyond all rings.
pub fn ring(cost_ms: Option<f64>, ceilings: &[f64]) -> usize {
    match cost_ms {
        Some(ms) => ceilings.iter().position(|ceiling| ms < *ceiling).unwrap_or(ceilings.len()),
        None => ceilings.len() + 1,
    }
}

/// The ring that a zone is held to be in: it changes only after lasting evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingKeeper {
    current: Option<usize>,
    other: Option<(usize, Timestamp)>,
}

impl RingKeeper {
    /// Takes note of the ring that the cost falls into now, and returns the one to use. The first is taken at once.
    pub fn observe(&mut self, ring: usize, evidence: Duration, now: Timestamp) -> usize {
        let current = *self.current.get_or_insert(ring);
        if ring == current {
            self.other = None;
            return current;
        }
        match self.other {
            Some((other, since)) if other == ring => {
                if now - since >= evidence {
                    *self = Self { current: Some(ring), other: None };
                    return ring;
                }
            }
            _ => self.other = Some((ring, now)),
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRGINIA: Coordinates = Coordinates { latitude: 38.13, longitude: -78.45 };
    const OREGON: Coordinates = Coordinates { latitude: 46.15, longitude: -123.88 };
    const DUBLIN: Coordinates = Coordinates { latitude: 53.3498, longitude: -6.2603 };
    const FRANKFURT: Coordinates = Coordinates { latitude: 50.1109, longitude: 8.6821 };
    const TOKYO: Coordinates = Coordinates { latitude: 35.6762, longitude: 139.6503 };
    const SYDNEY: Coordinates = Coordinates { latitude: -33.8688, longitude: 151.2093 };
    const RINGS: [f64; 5] = [2.0, 10.0, 40.0, 100.0, 250.0];

    #[test]
    fn the_written_distances() {
        let degree =
            kilometres(Coordinates { latitude: 0.0, longitude: 0.0 }, Coordinates { latitude: 0.0, longitude: 1.0 });
        assert!((degree - 111.195).abs() < 0.001, "{degree}");
        for (from, to, expected) in [
            (VIRGINIA, DUBLIN, 5_591.0),
            (VIRGINIA, OREGON, 3_796.0),
            (DUBLIN, FRANKFURT, 1_088.0),
            (TOKYO, SYDNEY, 7_826.0),
        ] {
            let got = kilometres(from, to);
            assert!((got - expected).abs() < 1.0, "{got:.1}, not {expected}");
            assert!((kilometres(to, from) - got).abs() < 1e-6);
        }
        let opposite = Coordinates { latitude: -VIRGINIA.latitude, longitude: VIRGINIA.longitude + 180.0 };
        assert!((kilometres(VIRGINIA, opposite) - 20_015.1).abs() < 0.1, "half of the way around");
        assert_eq!(kilometres(TOKYO, TOKYO), 0.0);
    }

    #[test]
    fn measurement_outranks_geography_and_nothing_known_is_farthest() {
        let measured = Duration::from_millis(7);
        assert_eq!(cost_ms(Some(measured), Some(TOKYO), Some(SYDNEY)), Some(7.0));
        let expected = cost_ms(None, Some(DUBLIN), Some(FRANKFURT)).expect("both known");
        assert!((expected - 17.0).abs() < 0.1, "{expected}");
        assert_eq!(cost_ms(None, Some(DUBLIN), None), None);
        assert!(ring(None, &RINGS) > ring(Some(9_999.0), &RINGS));
    }

    #[test]
    fn rings_end_below_their_ceiling() {
        let rings: Vec<_> =
            [0.0, 1.99, 2.0, 9.0, 39.0, 99.0, 249.0, 250.0].iter().map(|ms| ring(Some(*ms), &RINGS)).collect();
        assert_eq!(rings, [0, 0, 1, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_ring_changes_after_a_minute_of_evidence_only() {
        let minute = Duration::from_secs(60);
        let mut keeper = RingKeeper::default();
        let mut at = |second: u64, ring| keeper.observe(ring, minute, Timestamp::from_millis(second * 1000));
        assert_eq!(at(0, 3), 3);
        assert_eq!(at(10, 4), 3);
        assert_eq!(at(69, 4), 3);
        assert_eq!(at(69, 3), 3, "the evidence is gone");
        assert_eq!(at(70, 4), 3);
        assert_eq!(at(130, 4), 4);
        assert_eq!(at(131, 2), 4);
        assert_eq!(at(150, 3), 4, "evidence of another ring");
        assert_eq!(at(200, 3), 4, "begins anew");
        assert_eq!(at(210, 3), 3);
    }
}
