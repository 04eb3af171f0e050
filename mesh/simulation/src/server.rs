//! One endpoint: who waits, who is served, how fast, and what it says of itself.

use std::collections::VecDeque;
use std::time::Duration;

use eastway_core::{LoadReport, Timestamp};

use crate::faults::Active;
use crate::flight::FlightId;
use crate::world::START;

/// The smoothing of the error rate that the called sidecar reports, as in production.
const SMOOTHING: Duration = Duration::from_secs(5);
/// The same of utilisation, which its callers smooth again.
const UTILISATION_SMOOTHING: Duration = Duration::from_secs(1);
/// More often than this the smoothed values are not formed.
const LEAST_STEP: Duration = Duration::from_millis(50);

/// Whether an endpoint lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It serves.
    Up,
    /// Its host refuses connections.
    Refusing,
    /// Nothing comes back from its host.
    Silent,
}

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) life: Life,
    pub(crate) incarnation: u64,
    /// Requests being worked on.
    pub(crate) busy: u32,
    pub(crate) waiting: VecDeque<FlightId>,
    /// Requests on their way to it, for who knows everything.
    pub(crate) coming: u32,
    /// Service times are multiplied by these.
    pub(crate) slow: Active,
    /// Service times are multiplied by this too, until then.
    pub(crate) cold: Option<(Timestamp, f64)>,
    /// The parts of requests that it answers with 503.
    pub(crate) errors: Active,
    /// Faults that hold it dead: those that refuse, and those that are silent.
    held: [u32; 2],
    concurrency: u32,
    queue_limit: u32,
    area: f64,
    changed: Timestamp,
    averages: Averages,
}

#[derive(Debug)]
struct Averages {
    at: Timestamp,
    finished: u64,
    failed: u64,
    error_rate: f64,
    utilisation: f64,
}

/// What an endpoint does with a request that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Serve,
    Wait,
    Full,
}

impl Server {
    pub(crate) fn new(concurrency: u32, queue_limit: u32) -> Self {
        Self {
            life: Life::Up,
            incarnation: 1,
            busy: 0,
            waiting: VecDeque::new(),
            coming: 0,
            slow: Active::default(),
            cold: None,
            errors: Active::default(),
            held: [0, 0],
            concurrency,
            queue_limit,
            area: 0.0,
            changed: START,
            averages: Averages { at: START, finished: 0, failed: 0, error_rate: 0.0, utilisation: 0.0 },
        }
    }

    /// Requests that it works on at once, as it registers it; 0 if unknown.
    pub(crate) fn capacity(&self) -> u32 {
        self.concurrency
    }

    /// Requests that it has, worked on or waiting.
    pub(crate) fn in_flight(&self) -> u32 {
        self.busy + self.waiting.len() as u32
    }

    /// What becomes of one more request. Call [`Server::account`] before.
    pub(crate) fn admit(&mut self, flight: FlightId) -> Admission {
        if self.concurrency == 0 || self.busy < self.concurrency {
            self.busy += 1;
            return Admission::Serve;
        }
        if self.queue_limit > 0 && self.waiting.len() >= self.queue_limit as usize {
            return Admission::Full;
        }
        self.waiting.push_back(flight);
        Admission::Wait
    }

    /// By how much a service that starts now takes longer.
    pub(crate) fn slowness(&self, now: Timestamp) -> f64 {
        self.slow.product() * self.cold.filter(|(until, _)| now < *until).map_or(1.0, |(_, factor)| factor)
    }

    /// Adds the time since the last change to the requests in flight over time.
    pub(crate) fn account(&mut self, now: Timestamp) {
        self.area += f64::from(self.in_flight()) * now.since(self.changed).as_secs_f64();
        self.changed = now;
    }

    /// Forgets what was added up.
    pub(crate) fn reset_area(&mut self, now: Timestamp) {
        (self.area, self.changed) = (0.0, now);
    }

    /// Requests in flight × seconds since the last reset.
    pub(crate) fn area(&self) -> f64 {
        self.area
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self, failed: bool) {
        self.averages.finished += 1;
        self.averages.failed += u64::from(failed);
    }

    /// What its sidecar says of its load, as production forms it.
    pub(crate) fn report(&mut self, now: Timestamp) -> LoadReport {
        let active_requests = self.in_flight();
        let used = f64::from(active_requests) / f64::from(self.concurrency.max(1));
        let averages = &mut self.averages;
        let elapsed = now.since(averages.at);
        if elapsed >= LEAST_STEP {
            let weight = |smoothing: Duration| 1.0 - (-elapsed.as_secs_f64() / smoothing.as_secs_f64()).exp();
            if averages.finished > 0 {
                let rate = averages.failed as f64 / averages.finished as f64;
                averages.error_rate += weight(SMOOTHING) * (rate - averages.error_rate);
            }
            averages.utilisation += weight(UTILISATION_SMOOTHING) * (used - averages.utilisation);
            (averages.at, averages.finished, averages.failed) = (now, 0, 0);
        }
        LoadReport {
            active_requests,
            utilisation: (self.concurrency > 0).then_some(averages.utilisation as f32),
            error_rate: averages.error_rate as f32,
        }
    }

    /// Its last smoothed utilisation.
    pub(crate) fn utilisation(&self) -> Option<f32> {
        (self.concurrency > 0).then_some(self.averages.utilisation as f32)
    }

    /// A fault kills it; what it had is lost. Returns whether it lived.
    pub(crate) fn die(&mut self, silent: bool, now: Timestamp) -> bool {
        let lived = self.life == Life::Up;
        self.account(now);
        self.held[usize::from(silent)] += 1;
        self.life = self.dead();
        self.busy = 0;
        self.waiting.clear();
        lived
    }

    /// How it is dead: what any fault swallows, no other one refuses.
    fn dead(&self) -> Life {
        if self.held[1] > 0 { Life::Silent } else { Life::Refusing }
    }

    /// A fault that killed it has ended. A new life begins if it was the last; returns whether it was.
    pub(crate) fn rise(&mut self, silent: bool, now: Timestamp) -> bool {
        self.held[usize::from(silent)] -= 1;
        if self.held != [0, 0] {
            self.life = self.dead();
            return false;
        }
        self.life = Life::Up;
        self.incarnation += 1;
        self.averages = Averages { at: now, finished: 0, failed: 0, error_rate: 0.0, utilisation: 0.0 };
        true
    }
}
