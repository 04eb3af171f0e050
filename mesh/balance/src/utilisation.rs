//! Utilisation, smoothed, and the factor that it lowers a priority's share by, moved slowly so that callers do not swing.
//!
//! All callers see the same reports. If each followed them at once, a locality at its limit would lose too much, look idle,
//! and win everything back. Two more things would make them swing: what waits in queues keeps utilisation high long after
//! the cause is gone, and what is measured is the result of the factor itself. Therefore the factor aims at what would bring
//! the priority to its target *given what the factor is now*, never moves faster than 5 % of all traffic a second, waits
//! while utilisation is on its way to the target already, and is not set in motion by small differences (docs/adr/0010).

use std::time::Duration;

use eastway_core::Timestamp;

/// An exponentially weighted mean over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Smoothed {
    value: Option<f64>,
    at: Timestamp,
}

impl Smoothed {
    /// Takes a new reading; `None` (unknown) forgets.
    pub fn update(&mut self, reading: Option<f64>, constant: Duration, now: Timestamp) {
        self.value = match (self.value, reading) {
            (_, None) => None,
            (None, Some(reading)) => Some(reading),
            (Some(value), Some(reading)) => {
                let keep = (-((now - self.at).as_secs_f64() / constant.as_secs_f64().max(1e-9))).exp();
                Some(reading + (value - reading) * keep)
            }
        };
        self.at = now;
    }

    /// The mean, if known.
    pub fn get(&self) -> Option<f64> {
        self.value
    }
}

/// The utilisation of a priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Smoothed.
    pub mean: f64,
    /// As last reported: where the mean is going.
    pub latest: f64,
}

/// The factor of one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    value: f64,
    moving: bool,
    at: Option<Timestamp>,
}

/// Part of the distance to the target that is gone in a second, downwards. Slower than the smoothing of utilisation.
const DOWN: f64 = 0.1;
/// The same, upwards: a mistake there costs more.
const UP: f64 = 0.05;
/// Of all traffic, in a second.
const MAX_RATE: f64 = 0.05;
/// The least of it on the way up where there is room, so that it arrives.
const LEAST_RATE: f64 = 0.01;
/// Above the target utilisation, smaller differences do not start a movement.
const DEAD_BAND: f64 = 0.1;
/// A movement ends this close to the target utilisation.
const CLOSE: f64 = 0.02;
/// A latest reading that is this part away from the mean shows where the mean is going.
const TREND: f64 = 0.02;
/// Beyond this multiple of the target, utilisation tells of queues, not of demand.
const MOST: f64 = 2.0;
/// However long nothing was measured, one reading moves the factor for no longer than this.
const LONGEST: Duration = Duration::from_secs(1);
/// A priority keeps a little, or nothing would show that it has room again.
const FLOOR: f64 = 0.01;

impl Default for Factor {
    fn default() -> Self {
        Self { value: 1.0, moving: false, at: None }
    }
}

impl Factor {
    /// The factor to use now.
    pub fn get(&self) -> f64 {
        self.value
    }

    /// Whether it is on its way.
    pub fn moving(&self) -> bool {
        self.moving
    }

    /// Moves towards what brings the utilisation to `target`, as far as the time since the last call allows. Where it is
    /// unknown, the factor returns to 1.
    pub fn update(&mut self, utilisation: Option<Reading>, target: f64, now: Timestamp) {
        let seconds = self.at.map_or(Duration::ZERO, |at| now - at).min(LONGEST).as_secs_f64();
        self.at = Some(now);
        let Some(Reading { mean, latest }) = utilisation else {
            self.value = (self.value + MAX_RATE * seconds).min(1.0);
            self.moving = self.value < 1.0;
            return;
        };
        let excess = mean - target;
        // Up to the target utilisation nothing may spill, so the way back to 1 is always taken.
        let starts = excess > DEAD_BAND || self.value < 1.0 && excess < -CLOSE;
        let goes_on = self.moving && excess > if self.value < 1.0 { CLOSE } else { 0.0 };
        self.moving = starts || goes_on;
        let eases = excess > 0.0 && latest < mean * (1.0 - TREND);
        let fills = excess < 0.0 && latest > mean * (1.0 + TREND);
        if !self.moving || eases || fills {
            return;
        }
        let wanted = (self.value * target / mean.clamp(target * 0.01, target * MOST)).min(1.0);
        let distance = wanted - self.value;
        let rate = match () {
            () if excess > 0.0 => distance * DOWN,
            () if wanted >= 1.0 => (distance * UP).max(LEAST_RATE),
            () => (distance * UP).max(LEAST_RATE * self.value),
        };
        self.value = (self.value + rate.clamp(-MAX_RATE, MAX_RATE) * seconds).clamp(FLOOR, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn smoothing_reaches_63_percent_after_its_constant() {
        let mut mean = Smoothed::default();
        let constant = Duration::from_secs(5);
        mean.update(Some(0.0), constant, Timestamp::ZERO);
        mean.update(Some(1.0), constant, Timestamp::from_millis(5_000));
        assert!((mean.get().expect("known") - 0.632).abs() < 0.001);
        mean.update(None, constant, Timestamp::from_millis(6_000));
        assert_eq!(mean.get(), None);
    }

    /// The loop as it is: servers with a queue, their reports a second late in the mean, smoothed by the caller, and the
    /// factor that decides what comes next. `demand` is in multiples of their capacity. Returns the factors, ten a second.
    fn settle(demand: impl Fn(f64) -> f64, seconds: u64) -> Vec<f64> {
        const SERVICE_S: f64 = 0.1;
        let (mut factor, mut reported, mut mean) = (Factor::default(), Smoothed::default(), Smoothed::default());
        let mut in_flight = 0.0f64;
        (1..=seconds * 10)
            .map(|step| {
                let now = Timestamp::from_millis(step * 100);
                for _ in 0..10 {
                    let arriving = demand(step as f64 / 10.0) * factor.get();
                    in_flight = (in_flight + (arriving - in_flight.min(1.0)) / SERVICE_S * 0.01).max(0.0);
                }
                reported.update(Some(in_flight), Duration::from_secs(1), now);
                mean.update(reported.get(), Duration::from_secs(5), now);
                let reading = mean.get().zip(reported.get()).map(|(mean, latest)| Reading { mean, latest });
                factor.update(reading, 0.8, now);
                factor.get()
            })
            .collect()
    }

    #[test]
    fn a_sudden_load_moves_the_factor_once_and_to_where_the_target_is_met() {
        for demand in [1.0, 1.25, 1.5, 2.0, 3.0] {
            let factors = settle(|at| if at < 60.0 { 0.4 } else { demand }, 300);
            let (fixed, last) = (0.8 / demand, factors[2_999]);
            assert!((last - fixed).abs() < 0.05, "{demand}: {last}, not {fixed}");
            let lowest = factors.iter().copied().fold(1.0, f64::min);
            assert!(last - lowest < 0.05, "{demand}: undershoots to {lowest} from {last}");
        }
    }

    #[test]
    fn a_little_too_much_moves_nothing_and_everything_comes_back() {
        assert!(settle(|_| 0.88, 60).iter().all(|f| *f == 1.0));
        let factors = settle(|at| if at < 100.0 { 1.5 } else { 0.6 }, 200);
        assert!(factors[990] < 0.6, "{}", factors[990]);
        assert_eq!(factors[1_999], 1.0);
        let mut factor = Factor { value: 0.6, moving: false, at: Some(Timestamp::ZERO) };
        for step in 1..100 {
            factor.update(None, 0.8, Timestamp::from_millis(step * 100));
        }
        assert_eq!((factor.get(), factor.moving()), (1.0, false), "unknown");
    }

    /// One second at a target of 0.8: what is held before, the utilisation (mean, latest), what is held after.
    type Second = ((f64, bool), (f64, f64), (f64, bool));

    #[test]
    fn a_second_at_a_time() {
        const RESTING: bool = false;
        const MOVING: bool = true;
        let seconds: &[Second] = &[
            // Whole, and all is well, or nearly so.
            ((1.0, RESTING), (0.5, 0.5), (1.0, RESTING)),
            ((1.0, RESTING), (0.9, 0.9), (1.0, RESTING)),
            ((1.0, MOVING), (0.8, 0.8), (1.0, RESTING)),
            ((1.0, MOVING), (0.81, 0.81), (1.0 - 0.1 * (1.0 - 0.8 / 0.81), MOVING)),
            // Too much starts it: a tenth of the distance.
            ((1.0, RESTING), (0.91, 0.91), (1.0 - 0.1 * (1.0 - 0.8 / 0.91), MOVING)),
            ((0.5, RESTING), (1.0, 1.0), (0.5 - 0.1 * 0.1, MOVING)),
            // However much it is, the distance is that of twice the target.
            ((1.0, RESTING), (5.0, 5.0), (0.95, MOVING)),
            ((0.5, RESTING), (5.0, 5.0), (0.475, MOVING)),
            ((0.01, MOVING), (5.0, 5.0), (0.01, MOVING)),
            // Near the target it stops; from beside it, what moves goes on and what rests is left.
            ((0.5, MOVING), (0.8, 0.8), (0.5, RESTING)),
            ((0.5, MOVING), (0.815, 0.815), (0.5, RESTING)),
            ((0.5, MOVING), (0.785, 0.785), (0.5, RESTING)),
            ((0.5, RESTING), (0.83, 0.83), (0.5, RESTING)),
            ((0.5, MOVING), (0.83, 0.83), (0.5 - 0.1 * (0.5 - 0.5 * 0.8 / 0.83), MOVING)),
            // Too little always starts it: a twentieth, and at least a hundredth of what there is, or of the whole where
            // that would fit.
            ((0.5, RESTING), (0.7, 0.7), (0.505, MOVING)),
            ((0.5, RESTING), (0.45, 0.45), (0.5 + 0.05 * (0.4 / 0.45 - 0.5), MOVING)),
            ((0.9, RESTING), (0.4, 0.4), (0.91, MOVING)),
            ((0.5, RESTING), (0.4, 0.4), (0.525, MOVING)),
            ((0.5, RESTING), (0.0, 0.0), (0.525, MOVING)),
            // What is on its way already is waited for.
            ((0.9, MOVING), (1.0, 0.97), (0.9, MOVING)),
            ((0.9, MOVING), (1.0, 0.98), (0.9 - 0.1 * 0.18, MOVING)),
            ((0.9, MOVING), (1.0, 1.1), (0.9 - 0.1 * 0.18, MOVING)),
            ((0.5, MOVING), (0.5, 0.52), (0.5, MOVING)),
            ((0.5, MOVING), (0.5, 0.51), (0.5 + 0.05 * 0.3, MOVING)),
            ((0.5, MOVING), (0.5, 0.4), (0.5 + 0.05 * 0.3, MOVING)),
        ];
        for &((value, moving), (mean, latest), (expected, then)) in seconds {
            let mut factor = Factor { value, moving, at: Some(Timestamp::from_millis(500)) };
            factor.update(Some(Reading { mean, latest }), 0.8, Timestamp::from_millis(1_500));
            let what = format!("{value} ({moving}) at {mean} and {latest}");
            assert!((factor.get() - expected).abs() < 1e-9, "{what}: {}, not {expected}", factor.get());
            assert_eq!(factor.moving(), then, "{what}");
        }
    }

    #[test]
    fn what_is_unknown_lets_it_return_by_five_percent_a_second() {
        let mut factor = Factor { value: 0.9, moving: false, at: Some(Timestamp::ZERO) };
        factor.update(None, 0.8, Timestamp::from_millis(1_000));
        assert!((factor.get() - 0.95).abs() < 1e-9 && factor.moving(), "{factor:?}");
        factor.update(None, 0.8, Timestamp::from_millis(2_000));
        assert_eq!((factor.get(), factor.moving()), (1.0, false));
    }

    #[test]
    fn a_reading_after_a_long_silence_moves_it_no_further_than_a_second_would() {
        let mut factor = Factor { value: 1.0, moving: false, at: Some(Timestamp::ZERO) };
        factor.update(Some(Reading { mean: 1.0, latest: 1.0 }), 0.8, Timestamp::from_millis(60_000));
        assert!((factor.get() - 0.98).abs() < 1e-9, "{factor:?}");
    }

    #[test]
    fn the_first_reading_only_sets_the_clock() {
        let mut factor = Factor::default();
        factor.update(Some(Reading { mean: 2.0, latest: 2.0 }), 0.8, Timestamp::from_millis(9_000));
        assert_eq!((factor.get(), factor.moving()), (1.0, true));
    }

    proptest! {
        #[test]
        fn it_never_moves_faster_than_five_percent_a_second(
            readings in prop::collection::vec(prop::option::of((0.0f64..5.0, 0.0f64..5.0)), 1..200),
        ) {
            let mut factor = Factor::default();
            let mut now = Timestamp::ZERO;
            for reading in readings {
                now = now + STEP;
                let before = factor.get();
                factor.update(reading.map(|(mean, latest)| Reading { mean, latest }), 0.8, now);
                prop_assert!((factor.get() - before).abs() <= MAX_RATE * 0.1 + 1e-9);
                prop_assert!((0.0..=1.0).contains(&factor.get()));
            }
        }
    }
}
