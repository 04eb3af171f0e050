//! What no shape can say: ranges, names that must exist, and statements without effect.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use eastway_core::ZoneId;

use super::{Fault, Mistake, Scenario, ServiceTime};

// Bounds, so that a mistyped number ends at once, and not at night or when the memory is full. Each keeps what it bounds to
// about a gigabyte.

/// Requests in all. Each leaves its latency behind.
const MOST_REQUESTS: f64 = 2e7;
/// Requests, or other messages, under way at once.
const MOST_AT_ONCE: f64 = 2e6;
const MOST_CALLERS: u64 = 10_000;
const MOST_ENDPOINTS: u64 = 10_000;
const MOST_ZONES: usize = 100;
/// Endpoints that are known to somebody: every caller, and the gateway of every zone, knows all of them by itself.
const MOST_KNOWN: u64 = 1_000_000;
/// Shares that are noted or counted.
const MOST_SHARES: f64 = 1e6;
const MOST_FAULTS: usize = 1_000;
/// Deaths of one flapping zone.
const MOST_DEATHS: f64 = 10_000.0;

pub(super) fn mistakes(scenario: &Scenario) -> Vec<Mistake> {
    let mut check = Check { scenario, mistakes: Vec::new() };
    check.numbers();
    check.zones();
    check.callers();
    for index in 0..scenario.faults.len() {
        check.fault(index);
    }
    check.amounts();
    check.mistakes
}

struct Check<'a> {
    scenario: &'a Scenario,
    mistakes: Vec<Mistake>,
}

impl Check<'_> {
    fn mistake(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push(Mistake { path: path.into(), message: message.into() });
    }

    fn range(&mut self, path: impl Into<String>, value: f64, range: RangeInclusive<f64>) {
        if !range.contains(&value) {
            self.mistake(path, format!("{value} is out of range: from {} to {}", range.start(), range.end()));
        }
    }

    fn optional(&mut self, path: &str, value: Option<f64>, range: RangeInclusive<f64>) {
        if let Some(value) = value {
            self.range(path, value, range);
        }
    }

    fn numbers(&mut self) {
        let s = self.scenario;
        self.range("duration_s", s.duration_s, 0.1..=86_400.0);
        self.range("rate", s.rate, 0.01..=1e6);
        self.range("service.mean_ms", s.service.mean_ms(), 0.001..=1e6);
        if let ServiceTime::Lognormal { sigma, .. } = s.service {
            self.range("service.sigma", sigma, 0.0..=5.0);
        }
        for (name, value) in
            [("zone_ms", s.rtt.zone_ms), ("region_ms", s.rtt.region_ms), ("remote_ms", s.rtt.remote_ms)]
        {
            self.range(format!("rtt.{name}"), value, 0.0..=10_000.0);
        }
        if s.report_ms != 0.0 {
            self.range("report_ms", s.report_ms, 1.0..=60_000.0);
        }
        self.range("probes", f64::from(s.probes), 0.0..=100.0);
        self.range("timeout_s", s.timeout_s, 0.001..=3_600.0);
        self.range("warm_ms", s.warm_ms, 0.0..=600_000.0);
        self.range("sample_s", s.sample_s, 0.1..=3_600.0);
        if s.queue_limit > 0 && s.concurrency == 0 {
            self.mistake("queue_limit", "nothing ever waits where concurrency is 0: set concurrency, or remove this");
        }
        let p = &s.policy;
        self.optional("policy.overprovisioning", p.overprovisioning, 1.0..=100.0);
        self.optional("policy.panic_threshold", p.panic_threshold, 0.0..=100.0);
        self.optional("policy.target_utilisation", p.target_utilisation, 0.05..=10.0);
        self.optional("policy.ramp_s", p.ramp_s, 0.001..=3_600.0);
        self.optional("policy.ramp_jitter_s", p.ramp_jitter_s, 0.0..=3_600.0);
        self.optional("policy.ejection_cap", p.ejection_cap, 0.0..=1.0);
        self.optional("policy.latency_veto", p.latency_veto.map(f64::from), 0.0..=1_000.0);
        self.optional("policy.load_decay_ms", p.load_decay_ms, 1.0..=600_000.0);
        self.optional("policy.retry_ratio", p.retry_ratio, 0.0..=1.0);
        self.optional("policy.attempts", p.attempts.map(f64::from), 1.0..=4.0);
    }

    fn zones(&mut self) {
        let zones = &self.scenario.zones;
        let mut regions: BTreeMap<&str, &str> = BTreeMap::new();
        for (i, zone) in zones.iter().enumerate() {
            if zones[..i].iter().any(|other| other.zone == zone.zone) {
                self.mistake(format!("zones[{i}].zone"), format!("`{}` is there twice", zone.zone));
            }
            let cluster = &*zone.zone.cluster;
            let region = zone.region.as_deref().unwrap_or(cluster);
            let first = *regions.entry(cluster).or_insert(region);
            if first != region {
                let message =
                    format!("cluster {cluster} is in region {first} by another zone; a cluster has one region");
                self.mistake(format!("zones[{i}].region"), message);
            }
        }
        let endpoints: u64 = zones.iter().map(|zone| u64::from(zone.endpoints)).sum();
        if !(1..=MOST_ENDPOINTS).contains(&endpoints) {
            self.mistake("zones", format!("{endpoints} endpoints in all: from 1 to {MOST_ENDPOINTS}"));
        }
        if zones.len() > MOST_ZONES {
            self.mistake("zones", format!("{} zones: at most {MOST_ZONES}; join some of them", zones.len()));
        }
    }

    /// What single numbers allow, and their products do not.
    fn amounts(&mut self) {
        let s = self.scenario;
        let peak = s.peak();
        let times = if peak > 1.0 { format!(" × the greatest load factor {peak}") } else { String::new() };
        let requests = s.rate * peak * s.duration_s;
        if requests > MOST_REQUESTS {
            let sum = format!("rate {} × duration_s {}{times} is {requests} requests", s.rate, s.duration_s);
            self.mistake("rate", format!("{sum}, at most {MOST_REQUESTS}: lower the rate or shorten duration_s"));
        }
        // Whoever waits is held until the time limit, and in an endpoint that works on any number until that is done.
        let work = s.service.mean_ms() / 1000.0 * s.slowest();
        let (held, name) = match s.concurrency {
            0 if work > s.timeout_s => (work, "the time that an endpoint works on one"),
            _ => (s.timeout_s, "timeout_s"),
        };
        let waiting = s.rate * peak * held.min(s.duration_s);
        if waiting > MOST_AT_ONCE {
            let sum = format!("rate {}{times} × {name}, {held} s, is {waiting} requests at once", s.rate);
            self.mistake("rate", format!("{sum}, at most {MOST_AT_ONCE}: lower the rate or shorten timeout_s"));
        }
        let trip = s.rtt.zone_ms.max(s.rtt.region_ms) / 1000.0;
        let probes = s.rate * peak * f64::from(s.probes) * trip;
        if probes > MOST_AT_ONCE {
            let sum =
                format!("rate {}{times} × {} probes × {trip} s of round trip is {probes} at once", s.rate, s.probes);
            self.mistake("probes", format!("{sum}, at most {MOST_AT_ONCE}: ask fewer endpoints"));
        }
        let endpoints: u64 = s.zones.iter().map(|zone| u64::from(zone.endpoints)).sum();
        let callers: u64 = s.callers.iter().map(|group| u64::from(group.count)).sum();
        let known = (callers + s.zones.len() as u64).saturating_mul(endpoints);
        if known > MOST_KNOWN {
            let sum =
                format!("{callers} callers and {} gateways know {endpoints} endpoints each: {known}", s.zones.len());
            self.mistake("callers", format!("{sum}, at most {MOST_KNOWN} together: take fewer callers or endpoints"));
        }
        let reports = if s.report_ms > 0.0 { s.rtt.zone_ms / s.report_ms * endpoints as f64 } else { 0.0 };
        if reports > MOST_AT_ONCE {
            let sum = format!("{endpoints} endpoints × {} ms on the way is {reports} reports at once", s.rtt.zone_ms);
            self.mistake(
                "report_ms",
                format!("{sum}, at most {MOST_AT_ONCE}: report less often, or set a shorter rtt.zone_ms"),
            );
        }
        let shares = s.duration_s / s.sample_s.min(1.0) * s.zones.len() as f64;
        if shares > MOST_SHARES {
            let sum = format!(
                "duration_s {} by sample_s {} × {} zones is {shares} shares",
                s.duration_s,
                s.sample_s,
                s.zones.len()
            );
            self.mistake("sample_s", format!("{sum} (counts of every second included), at most {MOST_SHARES}: sample less often or shorten duration_s"));
        }
        if s.faults.len() > MOST_FAULTS {
            self.mistake(
                "faults",
                format!("{} faults: at most {MOST_FAULTS}; use flap for what repeats", s.faults.len()),
            );
        }
    }

    fn callers(&mut self) {
        let callers = &self.scenario.callers;
        for (i, group) in callers.iter().enumerate() {
            self.zone_exists(&format!("callers[{i}].zone"), &group.zone);
        }
        let count: u64 = callers.iter().map(|group| u64::from(group.count)).sum();
        if !(1..=MOST_CALLERS).contains(&count) {
            self.mistake("callers", format!("{count} callers in all: from 1 to {MOST_CALLERS}"));
        }
    }

    fn zone_exists(&mut self, path: &str, zone: &ZoneId) {
        if !self.scenario.zones.iter().any(|known| known.zone == *zone) {
            self.mistake(path, format!("`{zone}` is none of `zones`"));
        }
    }

    fn fault(&mut self, index: usize) {
        let fault = &self.scenario.faults[index];
        let at = |field: &str| format!("faults[{index}].{field}");
        let (from, until) = fault.span();
        self.range(at("at_s"), from, 0.0..=self.scenario.duration_s);
        if let Some(until) = until.filter(|until| *until <= from) {
            self.mistake(at("until_s"), format!("{until} is not after at_s, {from}"));
        }
        let (zone, endpoints) = fault.place();
        if let Some(zone) = zone {
            self.zone_exists(&at("zone"), zone);
        }
        let there: u32 =
            self.scenario.zones.iter().filter(|z| zone.is_none_or(|zone| z.zone == *zone)).map(|z| z.endpoints).sum();
        if let Some(count) = endpoints.filter(|count| !(1..=there).contains(count)) {
            self.mistake(at("endpoints"), format!("{count} of {there} endpoints: from 1 to {there}"));
        }
        match fault {
            Fault::Kill { until_s, cold_s, cold_factor, .. } => {
                self.range(at("cold_s"), *cold_s, 0.0..=86_400.0);
                self.range(at("cold_factor"), *cold_factor, 0.01..=1_000.0);
                if *cold_s > 0.0 && until_s.is_none() {
                    self.mistake(at("cold_s"), "without until_s nothing returns that could be cold");
                }
            }
            Fault::Flap { period_s, down_s, .. } => {
                self.range(at("period_s"), *period_s, 0.1..=86_400.0);
                self.range(at("down_s"), *down_s, 0.01..=*period_s);
                let deaths = (until.unwrap_or(from).min(self.scenario.duration_s) - from) / period_s;
                if deaths > MOST_DEATHS {
                    let message = format!(
                        "it dies {deaths:.0} times, at most {MOST_DEATHS}: lengthen period_s, or end it sooner"
                    );
                    self.mistake(at("period_s"), message);
                }
            }
            Fault::Errors { ratio, .. } => self.range(at("ratio"), *ratio, 0.0..=1.0),
            Fault::Slow { factor, .. } => self.range(at("factor"), *factor, 0.01..=1_000.0),
            Fault::Load { factor, .. } => self.range(at("factor"), *factor, 0.0..=100.0),
            Fault::Stale { cluster, .. } => {
                let known = |name: &String| self.scenario.zones.iter().any(|zone| *zone.zone.cluster == **name);
                if let Some(cluster) = cluster.as_ref().filter(|name| !known(name)) {
                    self.mistake(at("cluster"), format!("no zone is in cluster `{cluster}`"));
                }
            }
        }
    }
}
