//! What is counted while a simulation runs, and the figures that follow from it.

use eastway_core::Timestamp;

use crate::world::seconds;

/// Counts of one second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    /// Requests made in it.
    pub(crate) scheduled: u32,
    /// Of those, how many failed.
    pub(crate) failed: u32,
    /// Attempts that reached an endpoint in it.
    pub(crate) reached: u32,
    /// First attempts made in it, by zone.
    pub(crate) first: Vec<u32>,
}

/// The shares at one moment, in percent, by zone.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) shares: Vec<f64>,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) reached: u64,
    /// Max over endpoints of the time-averaged requests in flight, over their mean; `None` of what ends before it is
    /// measured.
    pub(crate) imbalance: Option<f64>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) samples: Vec<Sample>,
    /// First attempts that were no probes: when, and to which zone.
    pub(crate) first: Vec<(f64, u32)>,
    ended: u64,
    /// Of requests that succeeded, in ms; sorted once asked for.
    latencies: Vec<f32>,
    sorted: bool,
    zones: usize,
}

impl Record {
    pub(crate) fn new(zones: usize) -> Self {
        Self {
            requests: 0,
            failures: 0,
            reached: 0,
            imbalance: None,
            seconds: Vec::new(),
            samples: Vec::new(),
            first: Vec::new(),
            ended: 0,
            latencies: Vec::new(),
            sorted: false,
            zones,
        }
    }

    fn second(&mut self, at: Timestamp) -> &mut Second {
        let index = seconds(at) as usize;
        let zones = self.zones;
        if index >= self.seconds.len() {
            self.seconds.resize_with(index + 1, || Second { first: vec![0; zones], ..Second::default() });
        }
        &mut self.seconds[index]
    }

    /// A request is made.
    pub(crate) fn scheduled(&mut self, now: Timestamp) {
        self.requests += 1;
        self.second(now).scheduled += 1;
    }

    /// Requests without an end so far.
    pub(crate) fn open(&self) -> u64 {
        self.requests - self.ended
    }

    /// A request made at `scheduled` has its answer.
    pub(crate) fn succeeded(&mut self, scheduled: Timestamp, now: Timestamp) {
        self.ended += 1;
        self.latencies.push(now.since(scheduled).as_secs_f32() * 1000.0);
        self.sorted = false;
    }

    /// A request made at `scheduled` will have none.
    pub(crate) fn failed(&mut self, scheduled: Timestamp) {
        self.ended += 1;
        self.failures += 1;
        self.second(scheduled).failed += 1;
    }

    /// An attempt reached an endpoint.
    pub(crate) fn reached(&mut self, now: Timestamp) {
        self.reached += 1;
        self.second(now).reached += 1;
    }

    /// A first attempt that is no probe goes to a zone.
    pub(crate) fn first(&mut self, now: Timestamp, zone: usize) {
        self.first.push((seconds(now), zone as u32));
        self.second(now).first[zone] += 1;
    }

    /// The shares now.
    pub(crate) fn sample(&mut self, now: Timestamp, shares: Vec<f64>) {
        self.samples.push(Sample { at: seconds(now), shares });
    }

    /// A quantile of the latencies, in ms; 0 if nothing succeeded.
    pub(crate) fn quantile(&mut self, q: f64) -> f64 {
        if !self.sorted {
            self.latencies.sort_by(f32::total_cmp);
            self.sorted = true;
        }
        let last = self.latencies.len().saturating_sub(1);
        let index = (self.latencies.len() as f64 * q) as usize;
        self.latencies.get(index.min(last)).map_or(0.0, |ms| f64::from(*ms))
    }

    /// How often the share of the zone that turns most changes direction by more than 5 points.
    pub(crate) fn oscillations(&self) -> u32 {
        (0..self.zones)
            .map(|zone| turns(self.samples.iter().filter_map(|s| s.shares.get(zone).copied())))
            .max()
            .unwrap_or(0)
    }

    /// From which moment on, in ms after `from`, at least 99 % of first attempts of every second until `until` go to other
    /// zones than `zone`.
    pub(crate) fn shift_ms(&self, zone: usize, from: f64, until: f64) -> Option<f64> {
        let inside: Vec<(f64, bool)> = self
            .first
            .iter()
            .filter(|(at, _)| (from..until).contains(at))
            .map(|(at, to)| (*at, *to as usize == zone))
            .collect();
        settled(&inside, from, until).map(|at| (at - from) * 1000.0)
    }

    /// From which moment on, in ms after `from`, at least 99 % of the requests made in every whole second succeed.
    pub(crate) fn recovery_ms(&self, from: f64) -> Option<f64> {
        let first = from.ceil() as usize;
        let bad = |second: &Second| second.failed * 100 > second.scheduled;
        let seconds = self.seconds.get(first..)?;
        if seconds.last().is_some_and(bad) {
            return None;
        }
        let good_from = seconds.iter().rposition(bad).map_or(0, |last| last + 1);
        Some(if good_from == 0 { 0.0 } else { ((first + good_from) as f64 - from) * 1000.0 })
    }
}

/// The first start, on a grid of 10 ms, from which on every window of 1 s that ends before `until` has at most 1 % of marked
/// ones.
fn settled(marked: &[(f64, bool)], from: f64, until: f64) -> Option<f64> {
    const STEP: f64 = 0.01;
    let steps = ((until - from - 1.0) / STEP).floor();
    if steps < 0.0 {
        return None;
    }
    let (mut low, mut high, mut count) = (0, 0, 0usize);
    let mut settled = Some(from);
    for step in 0..=steps as usize {
        let start = from + step as f64 * STEP;
        while high < marked.len() && marked[high].0 < start + 1.0 {
            count += usize::from(marked[high].1);
            high += 1;
        }
        while low < high && marked[low].0 < start {
            count -= usize::from(marked[low].1);
            low += 1;
        }
        if count * 100 > high - low {
            settled = None;
        } else if settled.is_none() {
            settled = Some(start);
        }
    }
    settled
}

/// Changes of direction by more than 5 points.
fn turns(shares: impl Iterator<Item = f64>) -> u32 {
    const LEAST: f64 = 5.0;
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut rising: Option<bool> = None;
    let mut turns = 0;
    for share in shares {
        (low, high) = (low.min(share), high.max(share));
        let turned = match rising {
            Some(true) => high - share > LEAST,
            Some(false) => share - low > LEAST,
            None if share - low > LEAST || high - share > LEAST => {
                rising = Some(share - low > LEAST);
                (low, high) = (share, share);
                false
            }
            None => false,
        };
        if turned {
            turns += 1;
            rising = rising.map(|up| !up);
            (low, high) = (share, share);
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_change_of_direction_by_more_than_five_points() {
        let count = |shares: &[f64]| turns(shares.iter().copied());
        assert_eq!(count(&[100.0, 100.0, 0.0, 0.0, 30.0, 60.0, 100.0]), 1);
        assert_eq!(count(&[50.0, 53.0, 49.0, 52.0, 48.0]), 0, "noise");
        assert_eq!(count(&[50.0, 60.0, 54.0, 61.0, 50.0]), 3);
        assert_eq!(count(&[0.0, 40.0, 36.0, 80.0, 100.0]), 0, "a rise with a dent");
    }

    #[test]
    fn traffic_has_left_when_no_window_has_more_than_one_percent_of_it() {
        let attempts: Vec<(f64, bool)> = (0..5_000).map(|i| (f64::from(i) / 1000.0, i < 700 || i == 3_000)).collect();
        let at = settled(&attempts, 0.0, 5.0).expect("it settles");
        assert!((0.68..=0.71).contains(&at), "{at}");
        assert_eq!(settled(&attempts[..900], 0.0, 1.0), None, "the only window is bad");
        let late: Vec<(f64, bool)> = (0..5_000).map(|i| (f64::from(i) / 1000.0, i > 4_900)).collect();
        assert_eq!(settled(&late, 0.0, 5.0), None);
    }

    #[test]
    fn quantiles_come_from_what_succeeded() {
        let mut record = Record::new(1);
        let start = crate::world::START;
        for ms in (1..=100).rev() {
            record.scheduled(start);
            record.succeeded(start, start + std::time::Duration::from_millis(ms));
        }
        record.scheduled(start);
        record.failed(start);
        assert_eq!((record.quantile(0.5), record.quantile(0.99), record.open()), (51.0, 100.0, 0));
        assert_eq!((record.requests, record.failures), (101, 1));
    }
}
