//! May this attempt be repeated, and when?
//!
//! The sidecar that took the request from its application keeps one [`Retries`] for it and asks the [`RetryPolicy`]
//! after each attempt that failed. Nobody else in the mesh retries. Which endpoint comes next is the balancer's part.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::backoff::Backoff;
use crate::budget::RetryBudget;
use crate::deadline::Deadline;

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

/// What is known of an attempt that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptEnd {
    /// No byte of the request can have reached the application.
    pub nothing_sent: bool,
    /// The connection could not be made: such a failure does not draw from the budget.
    pub connect_failed: bool,
    /// The method may be repeated without harm.
    pub idempotent: bool,
    /// The request's body, if any, is still there in full.
    pub body_kept: bool,
    /// Bytes of the response went to the caller already.
    pub response_begun: bool,
    /// The application answered, with a server error.
    pub answered: bool,
    /// A kept connection had been closed meanwhile, or its peer goes away (GOAWAY): that blames nobody, and costs none of
    /// the attempts of which something was sent. A killed zone breaks all kept connections to it at once.
    pub stale: bool,
    /// The attempt was the probe of a half-open breaker: it costs no attempt.
    pub probe: bool,
    /// The next attempt goes to another locality: then the first retry does not wait.
    pub other_locality: bool,
    /// What the answer's `Retry-After` asks for.
    pub retry_after: Option<Duration>,
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
    /// Part of the response reached the caller.
    ResponseBegun,
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
        if end.response_begun {
            return Err(GiveUp::ResponseBegun);
        }
        if !end.nothing_sent && !end.idempotent {
            return Err(GiveUp::NotIdempotent);
        }
        if !end.body_kept {
            return Err(GiveUp::BodyGone);
        }
        let exhausted = retries.counted >= self.attempts || retries.all >= self.attempts_in_all;
        if exhausted || retries.probes > MAX_PROBES {
            return Err(GiveUp::Attempts);
        }
        if end.answered && budgets.iter().any(|budget| budget.mostly_failing(now)) {
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
        let jittered = match first && (end.other_locality || end.stale) || end.probe {
            true => Duration::ZERO,
            false => self.backoff.delay(retries.all.saturating_sub(1), rng),
        };
        let after = jittered.max(end.retry_after.unwrap_or_default());
        if !deadline.allows(after, now) {
            return Decision::GiveUp(GiveUp::Deadline);
        }
        let free = end.connect_failed || end.probe || end.stale;
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
    if !end.nothing_sent && !end.stale {
        retries.counted += 1;
    }
}

#[cfg(test)]
mod tests;
