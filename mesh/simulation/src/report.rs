//! What a simulation found out: the contract of `eastway simulate -o json`. Fields are only ever added.

use serde::Serialize;

use crate::record::{Record, Second};
use crate::scenario::{Fault, Scenario};
use crate::world::World;

/// The result of a simulation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed that it ran with.
    pub seed: u64,
    /// Requests made.
    pub requests: u64,
    /// Requests without a good answer, after all attempts.
    pub failures: u64,
    /// Attempts that reached endpoints, over requests.
    pub offered_ratio: f64,
    /// Median latency of good answers, from the moment the request was made.
    pub p50_ms: f64,
    /// 99 % were faster.
    pub p99_ms: f64,
    /// 99.9 % were faster.
    pub p999_ms: f64,
    /// The greatest time-averaged number of requests in flight of an endpoint over the mean of all, from 10 s on. `null` if
    /// the simulation ends before.
    pub imbalance: Option<f64>,
    /// After the first loss or failure of a whole zone: from when on, in every second to the fault's end, at least 99 % of
    /// first attempts (but for half-open probes) went elsewhere. `null` if that was never so, or if there is no such fault.
    pub shift_ms: Option<f64>,
    /// Changes of direction, by more than 5 points, of the share of the locality that has most of them.
    pub oscillations: u32,
    /// The localities' shares over time.
    pub shares: Vec<ShareAt>,
    /// The same arrivals with exact knowledge.
    pub baseline: Baseline,
    /// After the end of the last fault: from when on at least 99 % of the requests made in every second succeeded. `null` if
    /// that was never so, or if no fault ends.
    pub recovery_ms: Option<f64>,
    /// As `offered_ratio`, of the second in which it was greatest, among those with at least half of the mean rate.
    pub worst_offered_ratio: f64,
    /// What happened, second by second.
    pub seconds: Vec<SecondCount>,
}

/// The share of a locality at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct ShareAt {
    /// Seconds from the start.
    pub t: f64,
    /// `CLUSTER/ZONE`.
    pub locality: String,
    /// In percent: the mean of the shares in the callers' tables.
    pub share: f64,
    /// In percent of first attempts since the last moment, where there were any: what the callers did. Single requests are
    /// drawn by chance, so it scatters about `share`.
    pub measured: Option<f64>,
}

/// Figures of the baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    /// Always `global-jsq2`.
    pub name: &'static str,
    /// As in [`Report`].
    pub p99_ms: f64,
    /// As in [`Report`].
    pub imbalance: Option<f64>,
}

/// Counts of one second.
#[derive(Clone, Debug, Serialize)]
pub struct SecondCount {
    /// Its start, in seconds.
    pub t: usize,
    /// Requests made in it.
    pub requests: u32,
    /// Of those, how many failed.
    pub failures: u32,
    /// Attempts that reached endpoints in it.
    pub offered: u32,
}

impl SecondCount {
    fn new(t: usize, second: &Second) -> Self {
        Self { t, requests: second.scheduled, failures: second.failed, offered: second.reached }
    }
}

impl Report {
    pub(crate) fn new(scenario: &Scenario, world: &World, mut record: Record, baseline: Baseline) -> Self {
        let duration = scenario.duration_s;
        let affected = scenario.faults.iter().filter(|fault| fault.affected().is_some());
        let first = affected.min_by(|a, b| a.span().0.total_cmp(&b.span().0));
        let shift_ms = first.and_then(|fault| shift(fault, world, &record, duration));
        // What has ended well before the end of the simulation.
        let ends = scenario.faults.iter().filter_map(|fault| fault.span().1).filter(|end| end + 1.0 <= duration);
        let last_end = ends.max_by(f64::total_cmp);
        let baseline = Baseline {
            p99_ms: round(baseline.p99_ms, 1e3),
            imbalance: baseline.imbalance.map(|x| round(x, 1e4)),
            ..baseline
        };
        Self {
            seed: scenario.seed,
            requests: record.requests,
            failures: record.failures,
            offered_ratio: round(ratio(record.reached, record.requests), 1e4),
            p50_ms: round(record.quantile(0.5), 1e3),
            p99_ms: round(record.quantile(0.99), 1e3),
            p999_ms: round(record.quantile(0.999), 1e3),
            imbalance: record.imbalance.map(|x| round(x, 1e4)),
            shift_ms: shift_ms.map(|ms| round(ms, 1.0)),
            oscillations: record.oscillations(),
            shares: shares(world, &record),
            baseline,
            recovery_ms: last_end.and_then(|end| record.recovery_ms(end)).map(|ms| round(ms, 1.0)),
            worst_offered_ratio: round(worst_offered(&record, scenario.rate), 1e4),
            seconds: seconds(&record),
        }
    }

    /// The imbalance as a multiple of the baseline's.
    pub fn imbalance_over_baseline(&self) -> Option<f64> {
        Some(self.imbalance? / self.baseline.imbalance?)
    }

    /// Failures as a part of all requests.
    pub fn failure_ratio(&self) -> f64 {
        ratio(self.failures, self.requests)
    }

    /// The share of a locality at each moment, in percent.
    pub fn shares_of(&self, locality: &str) -> Vec<(f64, f64)> {
        self.shares.iter().filter(|share| share.locality == locality).map(|share| (share.t, share.share)).collect()
    }

    /// The localities, in the scenario's order.
    pub fn localities(&self) -> Vec<&str> {
        let mut localities: Vec<&str> = Vec::new();
        for share in &self.shares {
            if localities.contains(&share.locality.as_str()) {
                break;
            }
            localities.push(&share.locality);
        }
        localities
    }
}

fn shift(fault: &Fault, world: &World, record: &Record, duration: f64) -> Option<f64> {
    let zone = world.zone(fault.affected()?);
    let (from, until) = match fault {
        // The first of its deaths.
        Fault::Flap { at_s, down_s, .. } => (*at_s, at_s + down_s),
        _ => (fault.span().0, fault.span().1.unwrap_or(duration).min(duration)),
    };
    record.shift_ms(zone, from, until)
}

fn shares(world: &World, record: &Record) -> Vec<ShareAt> {
    let mut shares = Vec::new();
    let mut seconds = record.seconds.iter().enumerate().peekable();
    for sample in &record.samples {
        // Those that began since the sample before.
        let counted = std::iter::from_fn(|| seconds.next_if(|(t, _)| (*t as f64) < sample.at));
        let mut first = vec![0u64; world.zones.len()];
        counted.for_each(|(_, second)| first.iter_mut().zip(&second.first).for_each(|(sum, n)| *sum += u64::from(*n)));
        let all: u64 = first.iter().sum();
        for (zone, share) in sample.shares.iter().enumerate().filter(|(zone, _)| !world.zones[*zone].servers.is_empty())
        {
            shares.push(ShareAt {
                t: round(sample.at, 1e3),
                locality: world.zones[zone].id.to_string(),
                share: round(*share, 1e2),
                measured: (all > 0).then(|| round(ratio(first[zone], all) * 100.0, 1e2)),
            });
        }
    }
    shares
}

fn seconds(record: &Record) -> Vec<SecondCount> {
    record.seconds.iter().enumerate().map(|(t, second)| SecondCount::new(t, second)).collect()
}

fn worst_offered(record: &Record, rate: f64) -> f64 {
    let busy = record.seconds.iter().filter(|second| f64::from(second.scheduled) >= rate / 2.0);
    busy.map(|second| ratio(u64::from(second.reached), u64::from(second.scheduled))).fold(0.0, f64::max)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Digits beyond these would be noise.
fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
