//! Which transport carries what goes to a gateway, where there are several: QUIC, and TCP for paths that do not let UDP through, or
//! police it.
//!
//! Each transport has a connection of its own with pings of its own ([`crate::liveness`]), all the time, so that the one which is not
//! in use is known to work when it is needed. This decides between them and keeps nothing else: it is told what each does and the time.
//!
//! * The preferred transport is used if it comes up within a head start, and the other one otherwise.
//! * If the one in use goes down, another takes over, provided that it answered a ping which was sent after the one in use fell
//!   silent. A gateway that died answers none, whatever carries it; so its path is down as soon as with a single transport.
//! * If the preferred one loses clearly more than the other for long enough, the other takes over as well.
//! * The preferred one gets its place back once it has worked for a while. Each time that it fails soon after, that while is doubled.

use std::time::Duration;

use eastway_core::Timestamp;
use eastway_core::view::{PathState, Transport};

/// The numbers of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransportConfig {
    /// How long the preferred transport may take to come up before another one is used. Default 500 ms.
    pub head_start: Duration,
    /// How long the preferred transport must have worked before it is used again. Default 5 s.
    pub probation: Duration,
    /// The longest that becomes by failures that follow one another. Default 5 min.
    pub max_probation: Duration,
    /// The share of pings that must be lost before another transport is better. Default 0.1.
    pub lossy: f64,
    /// It must be so many times what the other loses. Default 4.
    pub times: f64,
    /// And for so long. Default 10 s.
    pub lossy_for: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            head_start: Duration::from_millis(500),
            probation: Duration::from_secs(5),
            max_probation: Duration::from_secs(300),
            lossy: 0.1,
            times: 4.0,
            lossy_for: Duration::from_secs(10),
        }
    }
}

/// What is known of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransportFacts {
    /// Whether it answers.
    pub state: PathState,
    /// When the oldest ping was sent that no answer followed.
    pub silent_since: Option<Timestamp>,
    /// When the latest ping was sent that was answered.
    pub answered: Option<Timestamp>,
    /// The share of the last pings that were not answered in time, 0 to 1.
    pub loss: Option<f64>,
}

/// Why a transport is used that is not the preferred one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The preferred one does not answer.
    Blocked,
    /// The preferred one loses more.
    Lossy,
    /// The preferred one answers again, and is used once it has for a while.
    Recovering,
}

impl Cause {
    /// The name in metrics and for operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Lossy => "lossy",
            Self::Recovering => "recovering",
        }
    }
}

/// The choice between the transports to one gateway.
#[derive(Clone, Debug)]
pub struct TransportChoice {
    config: TransportConfig,
    /// The transports that may be used, the preferred one first.
    ways: Vec<Way>,
    used: Option<usize>,
    changes: u64,
    cause: Option<Cause>,
    begun: Timestamp,
    /// How long the preferred one must work next time.
    probation: Duration,
    /// Since when the preferred one has worked without a break while another is used.
    proving_since: Option<Timestamp>,
    /// When the preferred one got its place back.
    returned: Option<Timestamp>,
    /// Since when the preferred one has lost clearly more than another.
    lossy_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    transport: Transport,
    facts: TransportFacts,
    /// When it went down.
    down_at: Option<Timestamp>,
}

impl TransportChoice {
    /// None is used yet of `transports`, of which the first is preferred.
    pub fn new(config: TransportConfig, transports: &[Transport], now: Timestamp) -> Self {
        let way =
            |transport: &Transport| Way { transport: *transport, facts: TransportFacts::default(), down_at: None };
        Self {
            config,
            ways: transports.iter().map(way).collect(),
            used: None,
            changes: 0,
            cause: None,
            begun: now,
            probation: config.probation,
            proving_since: None,
            returned: None,
            lossy_since: None,
        }
    }

    /// Takes in what is now known of a transport.
    pub fn observe(&mut self, transport: Transport, facts: TransportFacts, now: Timestamp) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.transport == transport) {
            way.down_at = if facts.state == PathState::Down { way.down_at.or(Some(now)) } else { None };
            way.facts = facts;
        }
        self.decide(now);
    }

    /// Decides anew because time has passed; answers when to do so again if nothing is observed before.
    pub fn poll(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.decide(now);
        match self.used {
            None => Some(self.begun + self.config.head_start).filter(|at| *at > now),
            Some(0) => self.lossy_since.map(|since| since + self.config.lossy_for),
            Some(_) => self.proving_since.map(|since| since + self.probation),
        }
        .filter(|at| *at > now)
    }

    /// The transport in use; none before one has come up.
    pub fn used(&self) -> Option<Transport> {
        self.used.and_then(|used| self.ways.get(used)).map(|way| way.transport)
    }

    /// Why the one in use is not the preferred one.
    pub const fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// How often another one has taken over.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// What is known of the path over all transports: the state of the one in use. Before one has come up it is unknown, until all
    /// are down.
    pub fn state(&self) -> PathState {
        match self.used.and_then(|used| self.ways.get(used)) {
            Some(way) => way.facts.state,
            None if !self.ways.is_empty() && self.ways.iter().all(|way| way.facts.state == PathState::Down) => {
                PathState::Down
            }
            None => PathState::Unknown,
        }
    }

    fn decide(&mut self, now: Timestamp) {
        match self.used {
            None => self.begin(now),
            Some(used) => {
                self.replace_if_down(used, now);
                self.replace_if_lossy(now);
                self.return_to_preferred(now);
            }
        }
    }

    /// The first that comes up; the preferred one has a head start, unless it is known not to work.
    fn begin(&mut self, now: Timestamp) {
        let Some(preferred) = self.ways.first() else { return };
        let waits = now < self.begun + self.config.head_start && preferred.facts.state != PathState::Down;
        let up = self.ways.iter().position(|way| way.facts.state == PathState::Up);
        match up {
            Some(0) => self.used = Some(0),
            Some(other) if !waits => {
                self.used = Some(other);
                self.cause = Some(Cause::Blocked);
            }
            _ => {}
        }
    }

    fn replace_if_down(&mut self, used: usize, now: Timestamp) {
        let Some(way) = self.ways.get(used).filter(|way| way.facts.state == PathState::Down) else { return };
        let silent_since = way.facts.silent_since.or(way.down_at).unwrap_or(now);
        let alive = |way: &Way| {
            way.facts.state == PathState::Up && way.facts.answered.is_some_and(|answered| answered >= silent_since)
        };
        let Some(other) = self.ways.iter().position(alive) else { return };
        self.leave(used, other, Cause::Blocked, now);
    }

    fn replace_if_lossy(&mut self, now: Timestamp) {
        let (Some(0), Some(preferred)) = (self.used, self.ways.first()) else {
            self.lossy_since = None;
            return;
        };
        let lost = preferred.facts.loss.unwrap_or_default();
        let better = |way: &Way| {
            let loss = way.facts.loss.filter(|_| way.facts.state == PathState::Up);
            loss.is_some_and(|loss| lost >= self.config.lossy && lost >= loss * self.config.times)
        };
        let Some(other) = self.ways.iter().position(better) else {
            self.lossy_since = None;
            return;
        };
        let since = *self.lossy_since.get_or_insert(now);
        if now.since(since) >= self.config.lossy_for {
            self.leave(0, other, Cause::Lossy, now);
        }
    }

    /// Another one takes over. If the preferred one had its place back only lately, it must work for longer next time.
    fn leave(&mut self, used: usize, other: usize, cause: Cause, now: Timestamp) {
        self.lossy_since = None;
        self.used = Some(other);
        self.changes += 1;
        if used == 0 {
            let soon = self.returned.is_some_and(|returned| now.since(returned) < self.probation * SOON);
            let longer = if soon { self.probation * 2 } else { self.config.probation };
            self.probation = longer.min(self.config.max_probation);
            self.proving_since = None;
        }
        self.cause = (other != 0).then_some(cause);
        if other == 0 {
            self.returned = Some(now);
        }
    }

    fn return_to_preferred(&mut self, now: Timestamp) {
        if self.used == Some(0) {
            return;
        }
        let (lossy, was_lossy) = (self.config.lossy, self.cause == Some(Cause::Lossy));
        let Some(preferred) = self.ways.first() else { return };
        match (preferred.facts.state, self.cause) {
            (PathState::Down, _) => self.cause = Some(Cause::Blocked),
            (PathState::Up, Some(Cause::Blocked)) => self.cause = Some(Cause::Recovering),
            _ => {}
        }
        // What was left for its losses must lose far less before it is taken again.
        let loses = was_lossy && preferred.facts.loss.is_none_or(|loss| loss >= lossy / FAR_LESS);
        if preferred.facts.state != PathState::Up || loses {
            // Suspicion is a break too.
            self.proving_since = None;
            return;
        }
        let since = *self.proving_since.get_or_insert(now);
        if now.since(since) >= self.probation {
            self.used = Some(0);
            self.changes += 1;
            self.cause = None;
            self.returned = Some(now);
            self.proving_since = None;
        }
    }
}

/// A failure within so many probations of the return comes soon after it.
const SOON: u32 = 10;
/// Losses are far less below this part of what is too much.
const FAR_LESS: f64 = 4.0;

#[cfg(test)]
mod tests;
