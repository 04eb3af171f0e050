//! Utilisation, smoothed, and the factor that it lowers a tier's share by, moved slowly so that callers do not swing.
//!
//! All callers see the same reports. If each followed them at once, a lane at its limit would lose too much, look idle,
//! and win everything back. The factor therefore approaches its target with a time constant longer than the
//! smoothing of utilisation (which makes the loop of both well damped), never faster than 5 % of all traffic a second,
//! and small differences do not start a movement.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::shares::utilisation_factor;

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

/// The factor of one tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    value: f64,
    moving: bool,
    at: Option<Timestamp>,
}

/// Part of the distance to the target that is gone in a second. Slower than the smoothing of utilisation (1/5 per second).
const GAIN: f64 = 0.1;
/// Of all traffic, in a second.
const MAX_RATE: f64 = 0.05;
/// Above the target utilisation, smaller differences do not start a movement.
const DEAD_BAND: f64 = 0.1;
/// A movement ends this close to its target.
const CLOSE: f64 = 0.01;

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

    /// Moves towards what `utilisation` calls for, as far as the time since the last call allows.
    pub fn update(&mut self, utilisation: Option<f64>, target: f64, now: Timestamp) {
        let wanted = utilisation_factor(utilisation, target);
        let seconds = self.at.map_or(0.0, |at| (now - at).as_secs_f64());
        self.at = Some(now);
        let distance = wanted - self.value;
        // Up to the target utilisation nothing may spill, so the way back to 1 is always taken.
        if distance.abs() > DEAD_BAND || (wanted >= 1.0 && distance > 0.0) {
            self.moving = true;
        }
        if !self.moving {
            return;
        }
        if distance.abs() <= CLOSE {
            self.moving = false;
            self.value = if wanted >= 1.0 { (self.value + MAX_RATE * seconds).min(1.0) } else { self.value };
            self.moving |= wanted >= 1.0 && self.value < 1.0;
            return;
        }
        let step = (distance * GAIN * seconds).clamp(-MAX_RATE * seconds, MAX_RATE * seconds);
        self.value = (self.value + step).clamp(0.0, 1.0);
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

    /// A lane whose utilisation is `demand` × factor, smoothed over 5 s and reported with a second's delay.
    fn settle(demand: f64, seconds: u64) -> Vec<f64> {
        let (mut factor, mut mean) = (Factor::default(), Smoothed::default());
        let mut pipe = std::collections::VecDeque::from(vec![0.5; 10]);
        (0..seconds * 10)
            .map(|step| {
                let now = Timestamp::from_millis(step * 100);
                pipe.push_back(demand * factor.get());
                mean.update(pipe.pop_front(), Duration::from_secs(5), now);
                factor.update(mean.get(), 0.8, now);
                factor.get()
            })
            .collect()
    }

    #[test]
    fn the_loop_of_factor_and_utilisation_settles_without_swinging() {
        for demand in [1.0, 1.3, 2.0, 4.0] {
            let factors = settle(demand, 300);
            // The fixed point of f = 0.8 / (demand × f).
            let fixed = (0.8 / demand).sqrt();
            let last = factors[2_900..].iter().copied();
            assert!(last.clone().all(|f| (f - fixed).abs() < 0.1), "{demand}: {:?}, not {fixed}", last.last());
            let lowest = factors.iter().copied().fold(1.0, f64::min);
            assert!(fixed - lowest < 0.05, "{demand}: undershoots to {lowest} from {fixed}");
            let swing = factors[1_500..].iter().fold((1.0f64, 0.0f64), |(l, h), f| (l.min(*f), h.max(*f)));
            assert!(swing.1 - swing.0 < 0.02, "{demand}: swings {swing:?}");
        }
    }

    #[test]
    fn a_little_too_much_moves_nothing_and_everything_comes_back() {
        assert!(settle(0.85, 60).iter().all(|f| *f == 1.0));
        let mut factor = Factor { value: 0.6, moving: false, at: Some(Timestamp::ZERO) };
        for step in 1..600 {
            factor.update(Some(0.75), 0.8, Timestamp::from_millis(step * 100));
        }
        assert_eq!((factor.get(), factor.moving()), (1.0, false));
    }

    proptest! {
        #[test]
        fn it_never_moves_faster_than_five_percent_a_second(
            readings in prop::collection::vec(prop::option::of(0.0f64..5.0), 1..200),
        ) {
            let mut factor = Factor::default();
            let mut now = Timestamp::ZERO;
            for reading in readings {
                now = now + STEP;
                let before = factor.get();
                factor.update(reading, 0.8, now);
                prop_assert!((factor.get() - before).abs() <= MAX_RATE * 0.1 + 1e-9);
                prop_assert!((0.0..=1.0).contains(&factor.get()));
            }
        }
    }
}
