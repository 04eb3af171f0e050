//! The demo's report: its format, how it is computed from samples, and what it must fulfil.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Sample;

/// What `--report` writes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) phases: Vec<PhaseReport>,
    pub(super) callers: BTreeMap<String, CallerReport>,
    pub(super) tunnel: TunnelReport,
}

/// One phase, as us-east/a's storefront saw it.
#[derive(Debug, Serialize)]
pub(super) struct PhaseReport {
    pub(super) name: &'static str,
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) shares: BTreeMap<String, f64>,
    pub(super) shift_ms: Option<f64>,
    /// Of `return`: from when on the caller's own region served everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) home_ms: Option<f64>,
    /// The most frequent failures, in words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) causes: BTreeMap<String, u64>,
}

/// Another caller, over all phases.
#[derive(Debug, Default, Serialize)]
pub(super) struct CallerReport {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The most frequent failures, in words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) causes: BTreeMap<String, u64>,
}

/// The tunnel between the regions, over all phases, bytes of both directions.
#[derive(Debug, Serialize)]
pub(super) struct TunnelReport {
    pub(super) protocol: &'static str,
    pub(super) streams: u64,
    pub(super) bytes: u64,
    /// Bytes during `region-loss` alone.
    pub(super) region_loss_bytes: u64,
}

/// How the demo's phases are to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expectation {
    phase: &'static str,
    /// The zone, or the whole cluster, that must serve at least `share`.
    place: &'static str,
    share: f64,
}

const EXPECTED: [Expectation; 4] = [
    Expectation { phase: "steady", place: "us-east/a", share: 0.95 },
    Expectation { phase: "zone-loss", place: "us-east/b", share: 0.9 },
    Expectation { phase: "region-loss", place: "eu-west", share: 0.9 },
    Expectation { phase: "recovered", place: "us-east/a", share: 0.9 },
];

/// The fewest requests of a phase.
const MIN_REQUESTS: u64 = 1_000;
/// The slowest shift.
const MAX_SHIFT_MS: f64 = 1_000.0;
/// The latest time at which a region that returns serves all its callers: half of a ramp, its jitter, and its start. One
/// zone alone would need the whole ramp.
const MAX_HOME_MS: f64 = 28_000.0;
/// The longest latency that is told apart: far above the load's patience.
const MAX_LATENCY_US: u64 = 60_000_000;
/// The fewest tunnel bytes for each request of `region-loss`.
const MIN_TUNNEL_BYTES: u64 = 50;

impl PhaseReport {
    /// The phase `name`, of the samples scheduled in `[from, to)`.
    pub(super) fn new(name: &'static str, samples: &[Sample], from: Instant, to: Instant) -> Self {
        let summary = Summary::of(samples, from, to);
        Self {
            name,
            requests: summary.requests,
            failures: summary.failures,
            p50_ms: summary.quantile_ms(0.5),
            p99_ms: summary.quantile_ms(0.99),
            shares: summary.shares(),
            shift_ms: None,
            home_ms: None,
            causes: summary.causes,
        }
    }

    fn share_of(&self, place: &str) -> f64 {
        let inside = |zone: &str| zone == place || zone.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        self.shares.iter().filter(|(zone, _)| inside(zone)).map(|(_, share)| share).sum()
    }
}

/// Samples of an interval, added up.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) requests: u64,
    pub(super) failures: u64,
    answered: BTreeMap<String, u64>,
    causes: BTreeMap<String, u64>,
    latency_us: Histogram<u64>,
}

impl Summary {
    /// The samples scheduled in `[from, to)`.
    pub(super) fn of(samples: &[Sample], from: Instant, to: Instant) -> Self {
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("the bounds are in order");
        let mut summary =
            Self { requests: 0, failures: 0, answered: BTreeMap::new(), causes: BTreeMap::new(), latency_us };
        for sample in samples.iter().filter(|sample| (from..to).contains(&sample.scheduled)) {
            summary.requests += 1;
            match &sample.zone {
                Ok(zone) => *summary.answered.entry(zone.clone()).or_default() += 1,
                Err(cause) => {
                    summary.failures += 1;
                    *summary.causes.entry(cause.clone()).or_default() += 1;
                }
            }
            summary.latency_us.saturating_record(sample.latency.as_micros() as u64);
        }
        summary
    }

    /// The latency that the share `quantile` of the requests stays within, in milliseconds.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        (self.latency_us.value_at_quantile(quantile) as f64 / 10.0).round() / 100.0
    }

    /// The zones' shares of the answered requests.
    pub(super) fn shares(&self) -> BTreeMap<String, f64> {
        let all = (self.requests - self.failures).max(1) as f64;
        self.answered
            .iter()
            .map(|(zone, count)| (zone.clone(), (*count as f64 / all * 10_000.0).round() / 10_000.0))
            .collect()
    }
}

impl CallerReport {
    /// All `samples` of a caller.
    pub(super) fn new(samples: &[Sample]) -> Self {
        let mut report = Self { requests: samples.len() as u64, ..Self::default() };
        for cause in samples.iter().filter_map(|sample| sample.zone.as_ref().err()) {
            report.failures += 1;
            *report.causes.entry(cause.clone()).or_default() += 1;
        }
        report
    }
}

impl Report {
    /// What is not as it must be. `timing` says whether times count: they do in the demo, not in its test.
    pub(super) fn complaints(&self, timing: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        for phase in &self.phases {
            if phase.requests < MIN_REQUESTS {
                complaints.push(format!(
                    "{}: only {} requests, at least {MIN_REQUESTS} expected",
                    phase.name, phase.requests
                ));
            }
            if phase.failures > 0 {
                complaints.push(format!(
                    "{}: {} of {} requests failed: {:?}",
                    phase.name, phase.failures, phase.requests, phase.causes
                ));
            }
            for expected in EXPECTED.iter().filter(|expected| expected.phase == phase.name) {
                let share = phase.share_of(expected.place);
                if share < expected.share {
                    complaints.push(format!(
                        "{}: {} served {share:.3}, at least {} expected",
                        phase.name, expected.place, expected.share
                    ));
                }
            }
            let lost = matches!(phase.name, "zone-loss" | "region-loss");
            if timing && lost && phase.shift_ms.is_none_or(|shift| shift > MAX_SHIFT_MS) {
                complaints.push(format!(
                    "{}: traffic moved after {:?} ms, at most {MAX_SHIFT_MS} expected",
                    phase.name, phase.shift_ms
                ));
            }
            if timing && phase.name == "return" && phase.home_ms.is_none_or(|home| home > MAX_HOME_MS) {
                complaints.push(format!(
                    "{}: the region served everything after {:?} ms, at most {MAX_HOME_MS} expected",
                    phase.name, phase.home_ms
                ));
            }
            if phase.name == "region-loss" && self.tunnel.region_loss_bytes < MIN_TUNNEL_BYTES * phase.requests {
                complaints
                    .push(format!("region-loss: only {} bytes crossed the tunnel", self.tunnel.region_loss_bytes));
            }
        }
        for (caller, report) in &self.callers {
            if report.failures > 0 || report.requests == 0 {
                complaints.push(format!(
                    "caller {caller}: {} of {} requests failed: {:?}",
                    report.failures, report.requests, report.causes
                ));
            }
        }
        complaints
    }

    /// Writes the report to `path`, by rename, so that a reader never sees half of it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }

    /// The report as a table for people.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{:<16}{:>9}{:>9}{:>9}{:>9}{:>10}  shares\n",
            "phase", "requests", "failures", "p50 ms", "p99 ms", "shift ms"
        );
        for phase in &self.phases {
            let shift = phase.shift_ms.map_or_else(|| "-".to_owned(), |shift| format!("{shift:.0}"));
            table.push_str(&format!(
                "{:<16}{:>9}{:>9}{:>9.2}{:>9.2}{shift:>10}  {}\n",
                phase.name,
                phase.requests,
                phase.failures,
                phase.p50_ms,
                phase.p99_ms,
                shares_text(&phase.shares),
            ));
        }
        for home in self.phases.iter().filter_map(|phase| phase.home_ms) {
            table.push_str(&format!("return: us-east served everything again after {:.0} s\n", home / 1_000.0));
        }
        for (caller, report) in &self.callers {
            table.push_str(&format!("{caller:<16}{:>9}{:>9}  all phases\n", report.requests, report.failures));
        }
        let TunnelReport { protocol, streams, bytes, .. } = self.tunnel;
        table.push_str(&format!("tunnel: {streams} streams and {bytes} bytes over {protocol}\n"));
        table
    }
}

/// From when on, in each second of `[from, to)`, at least 99 % of the answers came from the region `home`.
pub(super) fn home(samples: &[Sample], home: &str, from: Instant, to: Instant) -> Option<Duration> {
    let second = Duration::from_secs(1);
    let mut seconds = (0..to.duration_since(from).as_secs() as u32).rev().map(|number| from + second * number);
    let away = |start: &Instant| {
        let phase = PhaseReport::new("", samples, *start, *start + second);
        phase.share_of(home) < 0.99
    };
    let since = seconds.find(away).map_or(from, |start| start + second);
    (since < to).then(|| since - from)
}

/// `us-east/a 98% eu-west/b 2%`.
pub(super) fn shares_text(shares: &BTreeMap<String, f64>) -> String {
    let parts: Vec<String> = shares.iter().map(|(zone, share)| format!("{zone} {:.1}%", share * 100.0)).collect();
    parts.join("  ")
}

/// Writes `value` as JSON to `path`, by rename.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let draft = path.with_extension("json.part");
    std::fs::write(&draft, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("cannot write {}", draft.display()))?;
    std::fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Milliseconds with one decimal.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &'static str, shares: &[(&str, f64)]) -> PhaseReport {
        PhaseReport {
            name,
            requests: 2_000,
            failures: 0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            shares: shares.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect(),
            shift_ms: None,
            home_ms: None,
            causes: BTreeMap::new(),
        }
    }

    fn report(phases: Vec<PhaseReport>) -> Report {
        let caller = CallerReport { requests: 10, ..CallerReport::default() };
        Report {
            phases,
            callers: BTreeMap::from([("eu-west/a".to_owned(), caller)]),
            tunnel: TunnelReport { protocol: "quic", streams: 1, bytes: 1, region_loss_bytes: 200_000 },
        }
    }

    #[test]
    fn a_region_serves_with_all_its_zones() {
        let good = phase("region-loss", &[("eu-west/a", 0.5), ("eu-west/b", 0.5)]);
        assert!(report(vec![good]).complaints(false).is_empty());
        let bad = phase("region-loss", &[("eu-west/a", 0.5), ("us-east/b", 0.5)]);
        assert_eq!(report(vec![bad]).complaints(false).len(), 1);
    }

    #[test]
    fn times_count_only_where_asked() {
        let slow = || report(vec![phase("zone-loss", &[("us-east/b", 1.0)])]);
        assert!(slow().complaints(false).is_empty());
        assert_eq!(slow().complaints(true).len(), 1);
    }

    #[test]
    fn a_region_that_returns_must_have_its_traffic_in_time() {
        let (start, millisecond) = (Instant::now(), Duration::from_millis(1));
        let sample = |at: u32| Sample {
            scheduled: start + millisecond * at,
            latency: millisecond,
            zone: Ok(if at < 12_300 { "eu-west/a" } else { "us-east/b" }.to_owned()),
        };
        let samples: Vec<Sample> = (0..20_000).step_by(10).map(sample).collect();
        let until = |seconds| home(&samples, "us-east", start, start + Duration::from_secs(seconds));
        assert_eq!((until(20), until(12)), (Some(Duration::from_secs(13)), None));
        let returned = |home_ms| {
            let phase = PhaseReport { home_ms, ..phase("return", &[("us-east/a", 1.0)]) };
            report(vec![phase]).complaints(true).len()
        };
        assert_eq!([Some(20_000.0), Some(33_000.0), None].map(returned), [0, 1, 1]);
    }

    #[test]
    fn one_failure_of_anybody_is_too_many() {
        let mut failed = phase("steady", &[("us-east/a", 1.0)]);
        failed.failures = 1;
        let mut whole = report(vec![failed]);
        whole
            .callers
            .insert("eu-west/b".to_owned(), CallerReport { requests: 5, failures: 1, ..CallerReport::default() });
        assert_eq!(whole.complaints(false).len(), 2);
    }
}
