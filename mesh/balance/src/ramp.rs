//! What returns from failure returns slowly; what comes and goes is kept out for a while.
//!
//! One [`FailbackRamp`] for each locality, fed with whether the locality can serve at all. A locality that was never seen to
//! fail is never held back: neither in a first snapshot, nor when it takes over lost load.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::policy::{Damping, Policy};
use crate::shares::S;

/// The share that a returning locality may take after `elapsed` of a ramp of `length`.
pub fn ramp(elapsed: Duration, length: Duration) -> u32 {
    if elapsed >= length {
        return S;
    }
    (elapsed.as_secs_f64() / length.as_secs_f64() * f64::from(S)) as u32
}

/// Whether a locality returns from failure, and how far it is.
#[derive(Clone, Debug, Default)]
pub struct FailbackRamp {
    stage: Stage,
    /// Failures, decayed to `flaps_at`.
    flaps: f64,
    flaps_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Stage {
    /// Never seen to serve.
    #[default]
    New,
    Serving,
    Failed {
        since: Timestamp,
    },
    Ramping {
        /// When the ramp starts to rise, jitter included.
        start: Timestamp,
        halved: Option<Timestamp>,
    },
    /// Back, but kept out.
    Damped {
        since: Timestamp,
    },
}

impl FailbackRamp {
    /// Takes note of whether the locality can serve now. `failed` says of a locality not seen before that it has endpoints
    /// but none that serves; `returned_ago` is what its owner says.
    pub fn observe(
        &mut self,
        available: bool,
        failed: bool,
        returned_ago: Option<Duration>,
        policy: &Policy,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) {
        let jitter = |rng: &mut fastrand::Rng| policy.ramp_jitter.mul_f64(rng.f64());
        self.stage = match (self.stage, available) {
            (Stage::New, false) if failed => Stage::Failed { since: now },
            (Stage::New, true) => match returned_ago.filter(|ago| *ago < policy.ramp + policy.ramp_jitter) {
                Some(ago) => Stage::Ramping { start: now.before(ago) + jitter(rng), halved: None },
                None => Stage::Serving,
            },
            (Stage::Serving | Stage::Ramping { .. } | Stage::Damped { .. }, false) => {
                self.flaps = self.flaps(&policy.damping, now) + 1.0;
                self.flaps_at = now;
                Stage::Failed { since: now }
            }
            (Stage::Failed { .. }, true) if self.flaps(&policy.damping, now) >= policy.damping.suppress => {
                Stage::Damped { since: now }
            }
            (Stage::Failed { since }, true) => {
                // The owner's word counts if it is about this failure, not about one before.
                let told = returned_ago.map(|ago| now.before(ago)).filter(|at| *at >= since);
                Stage::Ramping { start: told.unwrap_or(now) + jitter(rng), halved: None }
            }
            (stage, _) => stage,
        };
    }

    /// Lets time pass: ends ramps that are complete and dampings that are over.
    pub fn poll(&mut self, policy: &Policy, now: Timestamp, rng: &mut fastrand::Rng) {
        match self.stage {
            Stage::Ramping { start, .. } if now > start && now - start >= policy.ramp => self.stage = Stage::Serving,
            Stage::Damped { since }
                if now - since >= policy.damping.max || self.flaps(&policy.damping, now) <= policy.damping.release =>
            {
                let start = now + policy.ramp_jitter.mul_f64(rng.f64());
                self.stage = Stage::Ramping { start, halved: None };
            }
            _ => {}
        }
    }

    /// The locality takes `share`. If that is more than its ramp allows, nothing else can serve, and it has returned: it must
    /// not fall back to its ramp once something else can. Answers whether that ended the ramp.
    pub fn overtake(&mut self, share: u32, policy: &Policy, now: Timestamp) -> bool {
        let ended = matches!(self.stage, Stage::Ramping { .. }) && self.cap(policy, now).is_some_and(|cap| share > cap);
        if ended {
            self.stage = Stage::Serving;
        }
        ended
    }

    /// The most that the locality may take while others can serve; `None` where nothing holds it back.
    pub fn cap(&self, policy: &Policy, now: Timestamp) -> Option<u32> {
        match self.stage {
            Stage::Ramping { start, .. } => Some(ramp(now - start, policy.ramp)),
            Stage::Damped { .. } => Some(0),
            _ => None,
        }
    }

    /// Sets a ramp back to half of its height, at most once a second, and only under `pressure` (the breaker's
    /// statistic over its threshold) above one half. Returns whether it did.
    pub fn halve(&mut self, pressure: f64, now: Timestamp) -> bool {
        let Stage::Ramping { start, halved } = &mut self.stage else { return false };
        if pressure <= 0.5 || *start >= now || halved.is_some_and(|at| now - at < Duration::from_secs(1)) {
            return false;
        }
        *start = now.before((now - *start) / 2);
        *halved = Some(now);
        true
    }

    /// Failures counted, halved with each half-life.
    pub fn flaps(&self, damping: &Damping, now: Timestamp) -> f64 {
        let half_lives = (now - self.flaps_at).as_secs_f64() / damping.half_life.as_secs_f64().max(1e-9);
        self.flaps * (-half_lives).exp2()
    }

    /// Whether time alone will change what [`FailbackRamp::cap`] says.
    pub fn moves(&self) -> bool {
        matches!(self.stage, Stage::Ramping { .. } | Stage::Damped { .. })
    }

    /// One word for the operator.
    pub fn as_str(&self) -> &'static str {
        match self.stage {
            Stage::New => "new",
            Stage::Serving => "serving",
            Stage::Failed { .. } => "failed",
            Stage::Ramping { .. } => "ramping",
            Stage::Damped { .. } => "damped",
        }
    }
}

/// What a locality could take over from others that are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Headroom {
    /// Its priority.
    pub priority: usize,
    /// It can serve.
    pub available: bool,
    /// The most it may take; `None` if nothing holds it back.
    pub cap: Option<u32>,
    /// What its own endpoints can take, of [`S`], overprovisioning included.
    pub ability: f64,
    /// Its part of what its priority gets: weight × capacity × availability.
    pub part: f64,
}

/// Holds localities to their caps. What they do not take goes, in priority order from their own on, to localities that can
/// take more: as far as their endpoints can, and those that are held back themselves up to their caps. What is left then
/// goes to the localities that nothing holds back, beyond what their endpoints can take; if there is no such locality,
/// nothing is held back.
pub fn apply_caps(shares: &mut [u32], headrooms: &[Headroom]) {
    let held = |(share, headroom): (&u32, &Headroom)| headroom.cap.is_some_and(|cap| *share > cap);
    let free = |headroom: &Headroom| headroom.cap.is_none() && headroom.available;
    if !shares.iter().zip(headrooms).any(held) || !headrooms.iter().any(free) {
        return;
    }
    let mut rest = 0;
    let priorities = headrooms.iter().map(|headroom| headroom.priority + 1).max().unwrap_or(0);
    for priority in 0..priorities {
        let localities: Vec<usize> = (0..headrooms.len()).filter(|i| headrooms[*i].priority == priority).collect();
        rest += trim(shares, headrooms, &localities);
        rest -= fill(shares, headrooms, &localities, rest);
    }
    let localities: Vec<usize> = (0..headrooms.len()).filter(|i| free(&headrooms[*i])).collect();
    spread(shares, headrooms, &localities, rest);
}

/// Cuts `localities` down to their caps; returns how much that was.
fn trim(shares: &mut [u32], headrooms: &[Headroom], localities: &[usize]) -> u32 {
    let mut cut = 0;
    for locality in localities {
        let over = shares[*locality].saturating_sub(headrooms[*locality].cap.unwrap_or(u32::MAX));
        shares[*locality] -= over;
        cut += over;
    }
    cut
}

/// Adds up to `units` to the localities of one priority, as far as their endpoints and their caps allow; returns how many
/// were added.
fn fill(shares: &mut [u32], headrooms: &[Headroom], localities: &[usize], units: u32) -> u32 {
    let able =
        |locality: &usize| headrooms[*locality].ability.min(headrooms[*locality].cap.map_or(f64::INFINITY, f64::from));
    let ability: f64 = localities.iter().map(able).sum();
    let taken: u32 = localities.iter().map(|locality| shares[*locality]).sum();
    let more = (ability.min(f64::from(S)) as u32).saturating_sub(taken).min(units);
    let mut left = more;
    let mut open = localities.to_vec();
    // Each round but the last fills a locality up to its cap; the others divide what that leaves.
    while left > 0 {
        open.retain(|locality| {
            headrooms[*locality].available && headrooms[*locality].cap.is_none_or(|cap| shares[*locality] < cap)
        });
        if open.is_empty() {
            break;
        }
        spread(shares, headrooms, &open, left);
        left = trim(shares, headrooms, &open);
    }
    more - left
}

/// Adds `units` to `localities` by their parts.
fn spread(shares: &mut [u32], headrooms: &[Headroom], localities: &[usize], units: u32) {
    let mut parts: Vec<f64> = localities.iter().map(|i| headrooms[*i].part).collect();
    if parts.iter().all(|part| *part <= 0.0) {
        parts.fill(1.0);
    }
    let added = crate::table::apportion(&parts, units);
    localities.iter().zip(&added).for_each(|(i, more)| shares[*i] += more);
}

#[cfg(test)]
mod tests;
