//! The rate at which one workload's health may change.
//!
//! Each change forms its service's view anew and is told to all who follow it, so a workload whose health flaps would keep
//! everybody busy. A few changes in a row pass at once; beyond that, one in a while, and then the last state that was
//! said: those in between are never seen. Pure.

use std::time::Duration;

use eastway_core::{Health, Timestamp};

/// Changes that pass at once.
const BURST: u32 = 10;
/// After them, one change passes in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// What one stream said of its workload's health.
#[derive(Debug)]
pub(super) struct Flips {
    /// Changes that may pass at once, as of `since`.
    room: u32,
    since: Timestamp,
    /// The last state that was said, if it waits.
    waiting: Option<Health>,
}

impl Flips {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { room: BURST, since: now, waiting: None }
    }

    /// The workload says `health`: the state to take over now, if it is time for one.
    pub(super) fn say(&mut self, health: Health, now: Timestamp) -> Option<Health> {
        self.waiting = Some(health);
        self.due(now)
    }

    /// The workload registers, and with that states its health anew: how long that has to wait.
    pub(super) fn register(&mut self, now: Timestamp) -> Duration {
        self.waiting = None;
        if self.take(now).is_some() { Duration::ZERO } else { INTERVAL }
    }

    /// Whether a state waits until it is time.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Time passes: the state to take over now, if one waits and it is time.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Health> {
        self.waiting?;
        self.take(now)?;
        self.waiting.take()
    }

    /// Takes the place of one change, if there is room.
    fn take(&mut self, now: Timestamp) -> Option<()> {
        let passed = (now.since(self.since).as_millis() / INTERVAL.as_millis()).min(u128::from(BURST)) as u32;
        if passed > 0 {
            self.room = (self.room + passed).min(BURST);
            self.since = now;
        }
        self.room = self.room.checked_sub(1)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_workload_that_flaps_is_heard_once_a_second_and_the_last_state_wins() {
        let mut flips = Flips::new(at(0));
        let states = [Health::Unready, Health::Ready];
        let said = |n: usize| states[n % 2];
        let passed: Vec<_> = (0..1_000).filter_map(|n| flips.say(said(n), at(n as u64))).collect();
        assert_eq!(passed.len(), 10, "a burst, and then nothing for a second");
        assert_eq!(flips.due(at(1_000)), Some(said(999)));
        assert_eq!(flips.due(at(5_000)), None, "nothing waits");
    }

    #[test]
    fn a_registration_replaces_what_waits_and_waits_itself_if_there_are_many() {
        let mut flips = Flips::new(at(0));
        assert!((0..10).all(|_| flips.register(at(0)).is_zero()));
        assert_eq!(flips.say(Health::Unready, at(1)), None);
        assert_eq!(flips.register(at(2)), INTERVAL);
        assert!(!flips.is_waiting());
    }

    #[test]
    fn who_changes_now_and_then_is_heard_at_once() {
        let mut flips = Flips::new(at(0));
        for n in 0..100 {
            let health = if n % 2 == 0 { Health::Unready } else { Health::Ready };
            assert_eq!(flips.say(health, at(n * 1_500)), Some(health), "{n}");
        }
    }
}
