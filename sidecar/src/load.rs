//! What this sidecar knows of its own application's load: requests in flight, errors, utilisation.
//!
//! The inbound path counts here; the registration stream and the `eastway-load` response header report it. Utilisation is
//! the greatest of what is known: requests in flight over the configured capacity, what the application says of itself
//! (`orca`), and its processor time (`cgroup`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::{LoadReport, Timestamp};
use parking_lot::Mutex;

pub(crate) mod cgroup;
pub(crate) mod orca;

/// The time constant of the error rate.
const SMOOTHING: Duration = Duration::from_secs(5);
/// The time constant of utilisation. Short, because callers smooth it again, and need to see where it is going.
const UTILISATION_SMOOTHING: Duration = Duration::from_secs(1);

/// The load of the application beside this sidecar. Shared by all workers.
#[derive(Debug)]
pub struct OwnLoad {
    in_flight: AtomicU32,
    total: AtomicU64,
    failed: AtomicU64,
    capacity: u32,
    /// What the application said last, and when, in nanoseconds; 0 for never.
    stated: AtomicU32,
    stated_at: AtomicU64,
    /// Its processor time; not a number while unknown.
    processor: AtomicU32,
    averages: Mutex<Averages>,
}

/// What an application said of itself counts for so long.
const STATED_LIFE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Averages {
    at: Timestamp,
    total: u64,
    failed: u64,
    error_rate: f64,
    utilisation: Option<f64>,
    last: LoadReport,
}

impl OwnLoad {
    /// No load yet, of an application that serves `capacity` requests at once (0: unknown).
    pub fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            capacity,
            stated: AtomicU32::new(0),
            stated_at: AtomicU64::new(0),
            processor: AtomicU32::new(f32::NAN.to_bits()),
            averages: Mutex::default(),
        })
    }

    /// Counts a request in until the guard is dropped, however the request ends.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { load: Arc::clone(self), failed: false }
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The application says how utilised it is.
    pub fn stated(&self, utilisation: f64, now: Timestamp) {
        self.stated.store((utilisation as f32).to_bits(), Ordering::Relaxed);
        self.stated_at.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    /// The part of its processors that the application uses, if that is known.
    pub fn processor(&self, utilisation: Option<f64>) {
        self.processor.store(utilisation.map_or(f32::NAN, |used| used as f32).to_bits(), Ordering::Relaxed);
    }

    /// The greatest of what is known of its utilisation at this moment.
    fn utilisation(&self, active_requests: u32, now: Timestamp) -> Option<f64> {
        let occupied = (self.capacity > 0).then(|| f64::from(active_requests) / f64::from(self.capacity));
        let stated_at = self.stated_at.load(Ordering::Relaxed);
        let recent = stated_at > 0 && now.since(Timestamp::from_nanos(stated_at)) <= STATED_LIFE;
        let stated = recent.then(|| f64::from(f32::from_bits(self.stated.load(Ordering::Relaxed))));
        let processor = Some(f32::from_bits(self.processor.load(Ordering::Relaxed))).filter(|used| used.is_finite());
        [occupied, stated, processor.map(f64::from)].into_iter().flatten().reduce(f64::max)
    }

    /// The report as of `now`: in-flight requests as they are, the rates smoothed.
    pub fn report(&self, now: Timestamp) -> LoadReport {
        let active_requests = self.in_flight();
        let mut averages = self.averages.lock();
        let elapsed = now.since(averages.at);
        if elapsed >= Duration::from_millis(50) {
            averages.advance(self, now, elapsed, active_requests);
        }
        let utilisation = averages.utilisation.map(|utilisation| utilisation as f32);
        averages.last = LoadReport { active_requests, utilisation, error_rate: averages.error_rate as f32 };
        averages.last
    }
}

impl Averages {
    fn advance(&mut self, load: &OwnLoad, now: Timestamp, elapsed: Duration, active_requests: u32) {
        let (total, failed) = (load.total.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
        let weight = |smoothing: Duration| 1.0 - (-elapsed.as_secs_f64() / smoothing.as_secs_f64()).exp();
        let finished = total - self.total;
        if finished > 0 {
            let rate = (failed - self.failed) as f64 / finished as f64;
            self.error_rate += weight(SMOOTHING) * (rate - self.error_rate);
        }
        self.utilisation = load.utilisation(active_requests, now).map(|used| {
            let before = self.utilisation.unwrap_or_default();
            before + weight(UTILISATION_SMOOTHING) * (used - before)
        });
        (self.at, self.total, self.failed) = (now, total, failed);
    }
}

/// A request in flight. Dropping it counts the request out.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<OwnLoad>,
    failed: bool,
}

impl InFlight {
    /// Notes that the application answered with a server error, or not at all.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.failed {
            self.load.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.load.total.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_flight_return_to_zero_however_they_end() {
        let load = OwnLoad::new(0);
        let first = load.enter();
        let second = load.enter();
        assert_eq!(load.report(Timestamp::from_millis(1)).active_requests, 2);
        drop(first);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _second = second;
            panic!("the task died");
        }));
        assert!(unwound.is_err());
        assert_eq!(load.report(Timestamp::from_millis(2)).active_requests, 0);
    }

    #[test]
    fn rates_follow_what_happens_and_utilisation_needs_a_capacity() {
        let load = OwnLoad::new(10);
        let _held: Vec<_> = (0..5).map(|_| load.enter()).collect();
        for n in 0..100 {
            let mut request = load.enter();
            if n % 2 == 0 {
                request.fail();
            }
        }
        let report = load.report(Timestamp::from_millis(60_000));
        assert!((report.error_rate - 0.5).abs() < 0.01, "{report:?}");
        assert!((report.utilisation.expect("a capacity is known") - 0.5).abs() < 0.01, "{report:?}");
        assert_eq!(OwnLoad::new(0).report(Timestamp::from_millis(60_000)).utilisation, None);
    }

    #[test]
    fn the_greatest_of_what_is_known_counts_and_what_was_said_long_ago_does_not() {
        let load = OwnLoad::new(10);
        let _held = load.enter();
        let utilisation = |seconds: u64| load.utilisation(load.in_flight(), Timestamp::from_millis(seconds * 1_000));
        assert_eq!(utilisation(1), Some(0.1));
        load.stated(0.5, Timestamp::from_millis(1_000));
        load.processor(Some(0.25));
        assert_eq!(utilisation(2), Some(0.5));
        assert_eq!(utilisation(12), Some(0.25));
        load.processor(None);
        assert_eq!(utilisation(12), Some(0.1));
    }
}
