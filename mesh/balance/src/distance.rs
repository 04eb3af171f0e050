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

/// The ring of what cannot be placed: beyond all others.
pub const BEYOND: usize = usize::MAX;

/// The ring of a cost, from 0; an unknown cost lies beyond all rings.
pub fn ring(cost_ms: Option<f64>, ceilings: &[f64]) -> usize {
    let Some(ms) = cost_ms else { return BEYOND };
    ceilings.iter().position(|ceiling| ms < *ceiling).unwrap_or(ceilings.len())
}

/// How far a zone is held to be: its cost, and the ring that follows it after lasting evidence only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingKeeper {
    cost_ms: Option<f64>,
    /// The path to it is not down: its cost is evidence.
    reachable: bool,
    ring: usize,
    /// Its own cost put it there.
    placed: bool,
    /// Another ring that its cost speaks for, and for how long it has done so.
    other: Option<(usize, Duration)>,
    observed: Timestamp,
}

/// A ring that a zone is to leave for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    from: usize,
    to: usize,
}

impl Default for RingKeeper {
    fn default() -> Self {
        Self { cost_ms: None, reachable: false, ring: BEYOND, placed: false, other: None, observed: Timestamp::ZERO }
    }
}

impl RingKeeper {
    /// Takes over what is known of the zone now.
    pub fn learn(&mut self, cost_ms: Option<f64>, reachable: bool) {
        (self.cost_ms, self.reachable) = (cost_ms, reachable);
    }

    /// The cost as it is known now.
    pub fn cost_ms(&self) -> Option<f64> {
        self.cost_ms
    }

    /// The ring to use.
    pub fn ring(&self) -> usize {
        self.ring
    }

    /// Lets time pass, and says whether the zone is to change its ring. The first ring is taken at once. A path that is
    /// down gives no evidence, neither for another ring nor against it.
    pub fn observe(&mut self, ceilings: &[f64], evidence: Duration, now: Timestamp) -> Option<Move> {
        let passed = now - std::mem::replace(&mut self.observed, now);
        let seen = ring(self.cost_ms, ceilings);
        let to = if self.placed {
            if !self.reachable || self.cost_ms.is_none() {
                return None;
            }
            if seen == self.ring {
                self.other = None;
                return None;
            }
            let gathered = match self.other {
                Some((other, gathered)) if other == seen => gathered + passed,
                _ => Duration::ZERO,
            };
            self.other = Some((seen, gathered));
            if gathered < evidence {
                return None;
            }
            seen
        } else {
            self.placed = self.cost_ms.is_some();
            // What was only carried along and cannot be reached any more has no claim to a place.
            if self.placed || !self.reachable { seen } else { self.ring }
        };
        (to != self.ring).then_some(Move { from: self.ring, to })
    }

    /// Follows another zone that moved, so that their order does not turn: this one is not behind it, and must not come to be
    /// if it is nearer or may be; nor may it come before it if it is farther.
    fn follow(&mut self, mover: &Self, from: usize, own: usize) {
        let Some(cost) = mover.cost_ms else { return };
        let nearer = self.cost_ms.map_or(self.reachable, |own| own <= cost);
        let farther = self.cost_ms.is_some_and(|own| own >= cost);
        if nearer && own <= from {
            self.ring = self.ring.min(mover.ring);
        }
        if farther && own >= from {
            self.ring = self.ring.max(mover.ring);
        }
    }
}

/// Has zones change their rings, given by index, and the others follow where their order would turn. Evidence is gathered zone by zone and
/// is not complete at the same time: without this, the one whose evidence is complete first would overtake a nearer one.
pub fn apply(moves: &[(usize, Move)], keepers: &mut [&mut RingKeeper]) {
    let before: Vec<usize> = keepers.iter().map(|keeper| keeper.ring).collect();
    for (mover, Move { to, .. }) in moves {
        (keepers[*mover].ring, keepers[*mover].other) = (*to, None);
    }
    for (mover, Move { from, .. }) in moves {
        let moved = *keepers[*mover];
        for (keeper, own) in keepers.iter_mut().zip(&before) {
            keeper.follow(&moved, *from, *own);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    const MINUTE: Duration = Duration::from_secs(60);

    /// Zones by their cost in ms, as seen over time.
    #[derive(Default)]
    struct Zones(Vec<RingKeeper>);

    impl Zones {
        fn of<const N: usize>(costs: [Option<f64>; N]) -> Self {
            let mut zones = Self(vec![RingKeeper::default(); N]);
            zones.at(0, costs);
            zones
        }

        /// The rings at that second, from which on the costs are these.
        fn at<const N: usize>(&mut self, second: u64, costs: [Option<f64>; N]) -> [usize; N] {
            self.at_with(second, costs.map(|cost| (cost, true)))
        }

        /// The same, each with whether its path works.
        fn at_with<const N: usize>(&mut self, second: u64, facts: [(Option<f64>, bool); N]) -> [usize; N] {
            let mut moves = Vec::new();
            for (i, (cost, reachable)) in facts.into_iter().enumerate() {
                self.0[i].learn(cost, reachable);
                let now = Timestamp::from_millis(second * 1_000);
                moves.extend(self.0[i].observe(&RINGS, MINUTE, now).map(|to| (i, to)));
            }
            apply(&moves, &mut self.0.iter_mut().collect::<Vec<_>>());
            std::array::from_fn(|i| self.0[i].ring())
        }
    }

    #[test]
    fn a_ring_changes_after_a_minute_of_evidence_only() {
        let mut zones = Zones::of([Some(50.0)]);
        let mut at = |second, ms| zones.at(second, [Some(ms)])[0];
        assert_eq!(at(0, 50.0), 3);
        assert_eq!(at(10, 120.0), 3);
        assert_eq!(at(69, 120.0), 3);
        assert_eq!(at(69, 50.0), 3, "the evidence is gone");
        assert_eq!(at(70, 120.0), 3);
        assert_eq!(at(130, 120.0), 4);
        assert_eq!(at(131, 20.0), 4);
        assert_eq!(at(150, 50.0), 4, "evidence of another ring");
        assert_eq!(at(200, 50.0), 4, "begins anew");
        assert_eq!(at(210, 50.0), 3);
    }

    #[test]
    fn the_first_ring_is_taken_when_the_cost_is_known_first() {
        let mut zones = Zones::of([None]);
        assert_eq!(zones.at(1, [None]), [BEYOND]);
        assert_eq!(zones.at(2, [Some(50.0)]), [3]);
        assert_eq!(zones.at(3, [None]), [3], "nor is it left when the cost is not told any more");
        assert_eq!(zones.at_with(4, [(None, false)]), [3]);
    }

    #[test]
    fn a_path_that_is_down_gives_no_evidence_and_takes_none_away() {
        let mut zones = Zones::of([Some(50.0)]);
        let mut at = |second, reachable| zones.at_with(second, [(Some(20.0), reachable)])[0];
        assert_eq!(at(10, true), 3);
        assert_eq!(at(40, true), 3);
        assert_eq!(at(100, false), 3);
        assert_eq!(at(129, true), 3, "59 seconds of evidence: those of the outage are missing");
        assert_eq!(at(130, true), 2);
    }

    #[test]
    fn who_changes_its_ring_first_does_not_overtake_a_nearer_one() {
        // By geography both are far; they are measured one after the other, the farther one first.
        let mut zones = Zones::of([Some(300.0), Some(300.0)]);
        assert_eq!(zones.at(10, [Some(300.0), Some(120.0)]), [5, 5]);
        assert_eq!(zones.at(30, [Some(50.0), Some(120.0)]), [5, 5]);
        assert_eq!(zones.at(70, [Some(50.0), Some(120.0)]), [4, 4], "taken along");
        assert_eq!(zones.at(90, [Some(50.0), Some(120.0)]), [3, 4], "by its own evidence");
        // And away: who becomes slower first takes the farther one along.
        assert_eq!(zones.at(100, [Some(120.0), Some(120.0)]), [3, 4]);
        assert_eq!(zones.at(110, [Some(120.0), Some(300.0)]), [3, 4]);
        assert_eq!(zones.at(120, [Some(280.0), Some(300.0)]), [3, 4]);
        assert_eq!(zones.at(180, [Some(280.0), Some(300.0)]), [5, 5]);
    }

    #[test]
    fn what_is_not_known_yet_is_not_left_behind_unless_it_was_behind_or_cannot_be_reached() {
        let mut zones = Zones::of([None, None, None]);
        let known = (Some(120.0), true);
        assert_eq!(zones.at_with(5, [(None, true), known, (None, false)]), [4, 4, BEYOND]);
        assert_eq!(zones.at_with(6, [(None, true), known, (None, true)]), [4, 4, BEYOND], "it was behind");
        assert_eq!(
            zones.at_with(7, [(None, false), known, (None, true)]),
            [BEYOND, 4, BEYOND],
            "lost before it was known"
        );
        assert_eq!(zones.at_with(8, [(Some(50.0), true), known, (Some(300.0), true)]), [3, 4, 5]);
    }

    proptest! {
        /// Whatever zones cost over time and whenever their paths fail: one that is not behind another does not come to be
        /// behind it at a moment when both are known and it is the nearer one, and equal ones that begin together stay so.
        #[test]
        fn no_move_turns_the_order_against_the_costs(
            steps in prop::collection::vec((1u64..40, prop::array::uniform4((0u32..300, 0u32..8))), 1..60),
        ) {
            let mut zones = Zones(vec![RingKeeper::default(); 5]);
            let mut second = 0;
            let mut before = [BEYOND; 5];
            for (passed, costs) in steps {
                second += passed;
                // One of eight is not known, and one of eight not reachable; the last zone always costs what the first does.
                let fact = |(ms, chance): (u32, u32)| ((chance != 0).then(|| f64::from(ms)), chance != 1);
                let [a, b, c, d] = costs.map(fact);
                let facts = [a, b, c, d, a];
                let rings = zones.at_with(second, facts);
                for (i, j) in (0..5).flat_map(|i| (0..5).map(move |j| (i, j))) {
                    if let ((Some(near), _), (Some(far), _)) = (facts[i], facts[j]) && near <= far && before[i] <= before[j] {
                        prop_assert!(rings[i] <= rings[j], "{facts:?}: {before:?} to {rings:?}");
                    }
                }
                prop_assert_eq!(rings[0], rings[4]);
                before = rings;
            }
        }
    }
}
