//! May this attempt be repeated, and when?
//!
//! The sidecar that took the request from its application keeps one [`Retries`] for it and asks the [`RetryPolicy`]
//! after each attempt that failed. Nobody else in the mesh retries. Which endpoint comes next is the balancer's part.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::backoff::Backoff;
use crate::budget::RetryBudget;
use crate::deadline::Deadline;
use crate::error::{Fault, Progress};

/// The rules for repeating attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts of which something was sent. Default 2.
    pub attempts: u32,
    /// All attempts, also those of which nothing was sent. Default 4.
    pub attempts_in_all: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// A request body of at most so many bytes is kept for a repetition. Default 64 KiB.
    pub kept_body: usize,
    /// A response with a Content-Length of at most this is held until complete. Default 16 KiB.
    pub held_response: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            attempts_in_all: 4,
            backoff: Backoff::default(),
            kept_body: 64 * 1024,
            held_response: 16 * 1024,
        }
    }
}

/// Whether a request may be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// Its method may be repeated without harm, and its body, if any, is still there in full.
    Always,
    /// Its body is still there, but only an application that has not seen the request may be asked again.
    Unsent,
    /// Its body is gone.
    Never,
}

/// What is known of an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// How far it came.
    pub progress: Progress,
    /// Whose fault it was. What is nobody's costs none of the attempts of which something was sent: a killed zone breaks all
    /// kept connections to it at once.
    pub fault: Fault,
    /// Whether the request may be sent once more.
    pub repeatable: Repeatable,
    /// The attempt was the probe of a half-open breaker: it costs no attempt.
    pub probe: bool,
    /// The next attempt goes to another locality: then the first retry does not wait.
    pub other_locality: bool,
    /// What the answer's `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

impl AttemptEnd {
    fn was_seen(&self) -> bool {
        self.progress > Progress::Unsent
    }
}

/// The attempts of one request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    counted: u32,
    all: u32,
    probes: u32,
}

impl Retries {
    /// Attempts that failed so far.
    pub fn failed(&self) -> u32 {
        self.all + self.probes
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait.
    Retry {
        /// The wait; zero means at once.
        after: Duration,
    },
    /// Answer with what there is.
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The application may have acted, and the method must not be repeated.
    NotIdempotent,
    /// The body is gone or was too large to keep.
    BodyGone,
    /// All attempts are used.
    Attempts,
    /// The wait would pass the deadline.
    Deadline,
    /// The service's retry budget is used up.
    Budget,
    /// More than half of all attempts fail: another answer would be the same.
    MostlyFailing,
}

impl RetryPolicy {
    /// Decides after an attempt that failed, and counts it in `retries`. `budgets` are the service's own and, if the
    /// next attempt would cross a region, the one for that; a retry must fit into each.
    pub fn decide(
        &self,
        retries: &mut Retries,
        end: &AttemptEnd,
        budgets: &[&RetryBudget],
        deadline: Deadline,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Decision {
        count(retries, end);
        match self.permitted(retries, end, budgets, now) {
            Err(why) => Decision::GiveUp(why),
            Ok(()) => self.schedule(retries, end, budgets, deadline, now, rng),
        }
    }

    /// Whether the facts allow another attempt at all.
    fn permitted(
        &self,
        retries: &Retries,
        end: &AttemptEnd,
        budgets: &[&RetryBudget],
        now: Timestamp,
    ) -> Result<(), GiveUp> {
        match end.repeatable {
            Repeatable::Never => return Err(GiveUp::BodyGone),
            Repeatable::Unsent if end.was_seen() => return Err(GiveUp::NotIdempotent),
            Repeatable::Unsent | Repeatable::Always => {}
        }
        let exhausted = retries.counted >= self.attempts || retries.all >= self.attempts_in_all;
        if exhausted || retries.probes > MAX_PROBES {
            return Err(GiveUp::Attempts);
        }
        if end.progress == Progress::Answered && budgets.iter().any(|budget| budget.mostly_failing(now)) {
            return Err(GiveUp::MostlyFailing);
        }
        Ok(())
    }

    fn schedule(
        &self,
        retries: &Retries,
        end: &AttemptEnd,
        budgets: &[&RetryBudget],
        deadline: Deadline,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Decision {
        let first = retries.failed() <= 1;
        // Nor does one that follows what blames nobody.
        let blameless = end.fault == Fault::Nobody;
        let jittered = match first && (end.other_locality || blameless) || end.probe {
            true => Duration::ZERO,
            false => self.backoff.delay(retries.all.saturating_sub(1), rng),
        };
        let after = jittered.max(end.retry_after.unwrap_or_default());
        if !deadline.allows(after, now) {
            return Decision::GiveUp(GiveUp::Deadline);
        }
        let free = end.progress == Progress::Connecting || end.probe || blameless;
        if !free && !take_from_each(budgets, now) {
            return Decision::GiveUp(GiveUp::Budget);
        }
        Decision::Retry { after }
    }
}

/// Takes one retry from each budget, or from none.
fn take_from_each(budgets: &[&RetryBudget], now: Timestamp) -> bool {
    let taken = budgets.iter().take_while(|budget| budget.try_retry(now)).count();
    if taken < budgets.len() {
        budgets[..taken].iter().for_each(|budget| budget.give_back(now));
    }
    taken == budgets.len()
}

/// Probes that may fail on behalf of one request and still be followed by another attempt; each costs it time.
const MAX_PROBES: u32 = 2;

fn count(retries: &mut Retries, end: &AttemptEnd) {
    if end.probe {
        retries.probes += 1;
        return;
    }
    retries.all += 1;
    if end.was_seen() && end.fault != Fault::Nobody {
        retries.counted += 1;
    }
}

#[cfg(test)]
mod tests;
