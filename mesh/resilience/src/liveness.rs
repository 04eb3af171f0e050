//! Whether a path to another gateway is alive: our own pings on the control connection, judged by their own timeout.
//!
//! The monitor sends nothing and sleeps never: its driver asks [`PathMonitor::poll`] what to do and until when, reports
//! pings sent and answers received. It judges the path only; what a peer says of itself is another fact.

use std::collections::VecDeque;
use std::time::Duration;

use eastway_core::Timestamp;
use eastway_core::view::PathState;

/// The numbers of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMonitorConfig {
    /// Between pings while they are answered. Default 250 ms.
    pub interval: Duration,
    /// Added to every timeout, for what the far side needs to answer. Default 25 ms.
    pub grace: Duration,
    /// The timeout before the first answer. Default 500 ms.
    pub initial: Duration,
    /// Never down earlier than this after the first ping that expired was sent. Default 300 ms.
    pub min_down: Duration,
    /// The longest timeout. Default 10 s.
    pub max_timeout: Duration,
    /// Round trips older than this do not count for the minimum. Default 60 s.
    pub min_rtt_window: Duration,
    /// So many answers are needed before the minimum is told, and again after the path was down before another one
    /// replaces it. Default 20.
    pub min_rtt_samples: usize,
    /// So many pings, the last ones, are what loss is told of; at most 256. Default 240: a minute of pings that are answered.
    pub loss_window: usize,
}

impl Default for PathMonitorConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(250),
            grace: Duration::from_millis(25),
            initial: Duration::from_millis(500),
            min_down: Duration::from_millis(300),
            max_timeout: Duration::from_secs(10),
            min_rtt_window: Duration::from_secs(60),
            min_rtt_samples: 20,
            loss_window: 240,
        }
    }
}

/// What the driver of a monitor has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The state at this moment.
    pub state: PathState,
    /// A ping is due: send it and call [`PathMonitor::on_ping_sent`].
    pub send_ping: bool,
    /// Poll again at this time, or after the next answer.
    pub deadline: Timestamp,
}

/// The liveness of one path.
#[derive(Clone, Debug)]
pub struct PathMonitor {
    config: PathMonitorConfig,
    estimate: Option<Estimate>,
    /// When the last ping was sent, while it waits for its answer.
    waiting: Option<Timestamp>,
    /// When the oldest ping was sent that no answer followed.
    silent_since: Option<Timestamp>,
    /// When the latest ping was sent that was answered.
    answered: Option<Timestamp>,
    /// Pings that expired one after the other.
    expired: u32,
    next_ping: Timestamp,
    state: PathState,
    minimum: Minimum,
    outcomes: Outcomes,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    variance: Duration,
}

impl PathMonitor {
    /// A monitor of a connection that was just made: the first ping is due at once.
    pub fn new(config: PathMonitorConfig, now: Timestamp) -> Self {
        Self {
            config,
            estimate: None,
            waiting: None,
            silent_since: None,
            answered: None,
            expired: 0,
            next_ping: now,
            state: PathState::Unknown,
            minimum: Minimum::default(),
            outcomes: Outcomes::default(),
        }
    }

    /// What is true now, and what is to be done.
    pub fn poll(&mut self, now: Timestamp) -> Poll {
        if let Some(sent) = self.waiting
            && now >= sent + self.timeout()
        {
            self.waiting = None;
            self.expired = self.expired.saturating_add(1);
            self.outcomes.add(true, self.config.loss_window);
            self.next_ping = now;
        }
        self.judge(now);
        let send_ping = self.waiting.is_none() && now >= self.next_ping;
        Poll { state: self.state, send_ping, deadline: self.deadline(now, send_ping) }
    }

    /// A ping was sent.
    pub fn on_ping_sent(&mut self, now: Timestamp) {
        self.waiting = Some(now);
        self.silent_since.get_or_insert(now);
    }

    /// An answer came, `rtt` after its ping; any answer, however late, is evidence of life.
    pub fn on_pong(&mut self, rtt: Duration, now: Timestamp) {
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: rtt, variance: rtt / 2 },
            Some(Estimate { smoothed, variance }) => {
                let deviation = smoothed.abs_diff(rtt);
                Estimate { smoothed: (smoothed * 7 + rtt) / 8, variance: (variance * 3 + deviation) / 4 }
            }
        });
        self.minimum.add(rtt, now, &self.config);
        // Answers come in the order of their pings.
        self.answered = Some(Timestamp::from_nanos(now.as_nanos().saturating_sub(rtt.as_nanos() as u64)));
        // An answer to a ping that expired before does not make that one answered: it was too late to be of use.
        if self.waiting.is_some() {
            self.outcomes.add(false, self.config.loss_window);
        }
        self.waiting = None;
        self.silent_since = None;
        self.expired = 0;
        self.state = PathState::Up;
        self.next_ping = now + self.config.interval;
    }

    /// The connection is gone: down at once. Round trips seen before stay known.
    pub fn on_lost(&mut self, now: Timestamp) {
        self.waiting = None;
        self.expired = self.expired.max(DOWN_AFTER);
        self.go_down();
        self.next_ping = now;
    }

    /// There is a connection again: nothing is held against it, and the first answer makes it up.
    pub fn on_connected(&mut self, now: Timestamp) {
        self.waiting = None;
        self.silent_since = None;
        self.expired = 0;
        self.outcomes = Outcomes::default();
        self.state = PathState::Unknown;
        self.next_ping = now;
    }

    /// The state as of the last call.
    pub fn state(&self) -> PathState {
        self.state
    }

    /// When the oldest ping was sent that no answer followed; `None` while all are answered.
    pub fn silent_since(&self) -> Option<Timestamp> {
        self.silent_since
    }

    /// When the latest ping was sent that was answered.
    pub fn answered(&self) -> Option<Timestamp> {
        self.answered
    }

    /// The smoothed round-trip time, once there is one.
    pub fn smoothed_rtt(&self) -> Option<Duration> {
        self.estimate.map(|e| e.smoothed)
    }

    /// The share of the last pings of this connection that were not answered in time, 0 to 1; `None` before the first has ended.
    pub fn loss(&self) -> Option<f64> {
        self.outcomes.loss()
    }

    /// The least round-trip time of the last minute, once enough pings were answered. What was measured before an outage
    /// stays known through it, and until as many pings were answered after it: where the far side lies is not changed by
    /// silence, and the first answers of a path that heals are those that waited.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.minimum.told
    }

    /// How long the ping now waiting (or the next one) may take: SRTT + max(4 RTTVAR, 1 ms) + grace, doubled for each
    /// ping that expired before it.
    pub fn timeout(&self) -> Duration {
        let base = match self.estimate {
            Some(Estimate { smoothed, variance }) => {
                smoothed + (variance * 4).max(Duration::from_millis(1)) + self.config.grace
            }
            None => self.config.initial,
        };
        base.saturating_mul(1 << self.expired.min(16)).min(self.config.max_timeout)
    }

    fn judge(&mut self, now: Timestamp) {
        let silent_for = self.silent_since.map_or(Duration::ZERO, |since| now - since);
        if self.expired >= DOWN_AFTER && (self.state == PathState::Down || silent_for >= self.config.min_down) {
            self.go_down();
        } else if self.expired >= SUSPECT_AFTER && self.state != PathState::Down {
            self.state = PathState::Suspect;
        }
    }

    fn go_down(&mut self) {
        self.state = PathState::Down;
        self.minimum.begin_anew();
    }

    fn deadline(&self, now: Timestamp, send_ping: bool) -> Timestamp {
        if send_ping {
            return now;
        }
        let next = self.waiting.map_or(self.next_ping, |sent| sent + self.timeout());
        match self.silent_since {
            // Enough pings expired, and only the minimum time is missing.
            Some(since) if self.expired >= DOWN_AFTER && self.state != PathState::Down => {
                next.min(since + self.config.min_down)
            }
            _ => next,
        }
    }
}

const SUSPECT_AFTER: u32 = 2;
const DOWN_AFTER: u32 = 3;

/// A running minimum: the queue holds only those samples that a later, smaller one has not replaced.
#[derive(Clone, Debug, Default)]
struct Minimum {
    rising: VecDeque<(Timestamp, Duration)>,
    /// Answers since the last outage; before anything was told, all.
    answers: usize,
    /// The least of the window when the last answer came that was one of enough.
    told: Option<Duration>,
}

impl Minimum {
    fn add(&mut self, rtt: Duration, now: Timestamp, config: &PathMonitorConfig) {
        self.answers = self.answers.saturating_add(1);
        while self.rising.back().is_some_and(|(_, kept)| *kept >= rtt) {
            self.rising.pop_back();
        }
        self.rising.push_back((now, rtt));
        while self.rising.front().is_some_and(|(at, _)| now - *at > config.min_rtt_window) {
            self.rising.pop_front();
        }
        if self.answers >= config.min_rtt_samples {
            self.told = self.rising.front().map(|(_, rtt)| *rtt);
        }
    }

    /// The path is down: what is told stays so until enough answers came again. A path that was never measured goes on
    /// counting, or one that is lost every few seconds never would be.
    fn begin_anew(&mut self) {
        if self.told.is_some() {
            self.answers = 0;
        }
    }
}

/// What became of the last pings.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    /// Whether each was lost, the oldest first.
    lost: VecDeque<bool>,
}

/// The most outcomes that are kept, whatever is configured.
const MAX_OUTCOMES: usize = 256;

impl Outcomes {
    fn add(&mut self, lost: bool, window: usize) {
        self.lost.push_back(lost);
        while self.lost.len() > window.clamp(1, MAX_OUTCOMES) {
            self.lost.pop_front();
        }
    }

    fn loss(&self) -> Option<f64> {
        let lost = self.lost.iter().filter(|lost| **lost).count();
        (!self.lost.is_empty()).then(|| lost as f64 / self.lost.len() as f64)
    }
}

#[cfg(test)]
mod tests;
