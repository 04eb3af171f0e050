//! Which member to ask first: no I/O, no clock of its own.

use std::time::Duration;

use tokio::time::Instant;

/// How long a member that failed once is asked last; doubles with each further failure.
const FIRST_PENALTY: Duration = Duration::from_secs(1);

/// The longest penalty.
const LAST_PENALTY: Duration = Duration::from_secs(30);

/// The members' standing. The one that answered last stays first, so that a client does not wander.
#[derive(Debug)]
pub(super) struct Ranking {
    standings: Vec<Standing>,
    preferred: usize,
    last_success: Option<Instant>,
    /// Failures of all members since the last success of any.
    failures: u32,
    last_error: Option<String>,
}

/// How one member does.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Failures since its last success.
    pub(super) failures: u32,
    /// Until when it is asked last.
    penalty: Option<Instant>,
    /// Its last failure.
    pub(super) last_error: Option<String>,
}

impl Ranking {
    /// A ranking of `count` members that begins with number `first`.
    pub(super) fn new(count: usize, first: usize) -> Self {
        let standings = vec![Standing::default(); count];
        Self { standings, preferred: first, last_success: None, failures: 0, last_error: None }
    }

    /// All members, the most promising first: those without a penalty, beginning with the preferred one and going
    /// round, then the others by the end of their penalties.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let count = self.standings.len();
        let mut order: Vec<usize> = (0..count).map(|step| (self.preferred + step) % count).collect();
        order.sort_by_key(|&index| self.standings[index].penalty.filter(|end| *end > now));
        order
    }

    /// Notes that a member answered; says whether that is news: another one than before, or after
    /// a failure.
    pub(super) fn succeeded(&mut self, index: usize, now: Instant) -> bool {
        self.returned(index);
        let is_other = self.last_success.is_none() || self.preferred != index || self.failures > 0;
        self.failures = 0;
        self.preferred = index;
        self.last_success = Some(now);
        is_other
    }

    /// Notes that a member failed; says whether it is the first failure since a success. `jitter` (0 to 1) spreads the
    /// end of its penalty.
    pub(super) fn failed(&mut self, index: usize, now: Instant, error: String, jitter: f64) -> bool {
        self.still_fails(index, now, error.clone(), jitter);
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        self.failures == 1
    }

    /// The members that failed last and whose penalties are over: nobody asks them while another one answers.
    pub(super) fn to_be_asked_again(&self, now: Instant) -> Vec<usize> {
        let due = |standing: &Standing| standing.failures > 0 && standing.penalty.is_none_or(|end| end <= now);
        let standings = self.standings.iter().enumerate();
        standings.filter(|(_, standing)| due(standing)).map(|(index, _)| index).collect()
    }

    /// Notes that a member that had failed answers again, though another one is used.
    pub(super) fn returned(&mut self, index: usize) {
        let standing = &mut self.standings[index];
        standing.failures = 0;
        standing.penalty = None;
    }

    /// Notes that a member that was only asked how it does has failed: no call has.
    pub(super) fn still_fails(&mut self, index: usize, now: Instant, error: String, jitter: f64) {
        let standing = &mut self.standings[index];
        let penalty = (FIRST_PENALTY * 2_u32.saturating_pow(standing.failures.min(10))).min(LAST_PENALTY);
        standing.failures = standing.failures.saturating_add(1);
        standing.penalty = Some(now + penalty.mul_f64(0.5 + jitter));
        standing.last_error = Some(error);
    }

    /// The member that answered last, if one did.
    pub(super) fn used(&self) -> Option<usize> {
        self.last_success.map(|_| self.preferred)
    }

    /// Whether nothing failed since the last success.
    pub(super) const fn is_healthy(&self) -> bool {
        self.failures == 0
    }

    /// When a member last answered.
    pub(super) const fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// The last failure of any member.
    pub(super) const fn last_error(&self) -> Option<&String> {
        self.last_error.as_ref()
    }

    /// Each member's standing.
    pub(super) fn standings(&self) -> &[Standing] {
        &self.standings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_that_answers_stays_first() {
        let now = Instant::now();
        let mut ranking = Ranking::new(3, 1);
        assert_eq!(ranking.order(now), [1, 2, 0]);
        assert!(ranking.succeeded(2, now) && !ranking.succeeded(2, now));
        assert_eq!(ranking.order(now), [2, 0, 1]);
        assert_eq!(ranking.used(), Some(2));
    }

    #[test]
    fn failures_push_back_for_longer_and_longer() {
        let now = Instant::now();
        let mut ranking = Ranking::new(3, 0);
        assert!(ranking.failed(0, now, "refused".to_owned(), 0.5));
        assert_eq!(ranking.order(now), [1, 2, 0]);
        assert!(!ranking.failed(1, now, "mute".to_owned(), 0.5));
        ranking.failed(1, now, "mute".to_owned(), 0.5);
        assert_eq!(ranking.order(now), [2, 0, 1], "those that fail more are asked later");
        assert!(!ranking.is_healthy());
        assert_eq!(ranking.order(now + Duration::from_millis(1500)), [0, 2, 1]);
        assert_eq!(ranking.order(now + Duration::from_secs(3)), [0, 1, 2]);
        ranking.succeeded(0, now);
        assert!(ranking.is_healthy() && ranking.last_error().is_some());
    }

    #[test]
    fn a_member_that_failed_is_asked_again_and_what_it_says_changes_nothing_for_the_others() {
        let now = Instant::now();
        let mut ranking = Ranking::new(3, 0);
        ranking.failed(0, now, "refused".to_owned(), 0.5);
        ranking.succeeded(1, now);
        assert_eq!(ranking.to_be_asked_again(now), [0; 0]);
        let later = now + FIRST_PENALTY;
        assert_eq!(ranking.to_be_asked_again(later), [0]);
        ranking.still_fails(0, later, "refused".to_owned(), 0.5);
        assert_eq!((ranking.standings()[0].failures, ranking.is_healthy()), (2, true));
        assert_eq!(ranking.to_be_asked_again(later + FIRST_PENALTY), [0; 0]);
        assert_eq!(ranking.to_be_asked_again(later + FIRST_PENALTY * 2), [0]);
        ranking.returned(0);
        assert_eq!((ranking.standings()[0].failures, ranking.used()), (0, Some(1)));
        assert_eq!(ranking.to_be_asked_again(later + LAST_PENALTY), [0; 0]);
    }

    #[test]
    fn a_single_member_is_always_asked() {
        let now = Instant::now();
        let mut ranking = Ranking::new(1, 0);
        for _ in 0..100 {
            ranking.failed(0, now, "refused".to_owned(), 1.0);
        }
        assert_eq!(ranking.order(now), [0]);
    }
}
