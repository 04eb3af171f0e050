//! Who the node is, and what its process uses. The numbers are read from `/proc` when somebody asks for them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use super::{Described, Metrics};
use crate::TelemetryNode;

pub(super) const TABLE: &[Described] = &[BUILD, START, MEMORY, CPU, THREADS, FILES];

const BUILD: Described = Described {
    name: "eastway_build_info",
    kind: "gauge",
    help: "Always 1; the labels say who this is",
    labels: &["role", "version", "cluster", "zone", "node"],
};
const START: Described = Described {
    name: "eastway_process_start_time_seconds",
    kind: "gauge",
    help: "When the process started, in seconds since 1970",
    labels: &[],
};
const MEMORY: Described =
    Described { name: "eastway_process_resident_memory_bytes", kind: "gauge", help: "Resident memory", labels: &[] };
const CPU: Described = Described {
    name: "eastway_process_cpu_seconds_total",
    kind: "counter",
    help: "Processor time used, in user and system mode",
    labels: &[],
};
const THREADS: Described = Described { name: "eastway_process_threads", kind: "gauge", help: "Threads", labels: &[] };
const FILES: Described =
    Described { name: "eastway_process_open_files", kind: "gauge", help: "Open file descriptors", labels: &[] };

/// Registers the metrics of the process.
pub(super) fn register(metrics: &Metrics, node: &TelemetryNode) {
    let labels = vec![
        ("role", node.role.to_owned()),
        ("version", node.version.to_owned()),
        ("cluster", node.cluster.clone()),
        ("zone", node.zone.clone().unwrap_or_default()),
        ("node", node.name.clone()),
    ];
    let build: Family<Vec<(&'static str, String)>, Gauge> = metrics.register(&BUILD, Family::default());
    build.get_or_create_owned(&labels).set(1);
    metrics.registry.lock().register_collector(Box::new(Process { started: since_1970() }));
}

#[derive(Debug)]
struct Process {
    started: Duration,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::read();
        gauge(&mut encoder, &START, self.started.as_secs_f64())?;
        gauge(&mut encoder, &MEMORY, usage.memory as f64)?;
        gauge(&mut encoder, &THREADS, usage.threads as f64)?;
        gauge(&mut encoder, &FILES, usage.files as f64)?;
        let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
        let (name, help) = (CPU.name.trim_end_matches("_total"), format!("{}.", CPU.help));
        cpu.encode(encoder.encode_descriptor(name, &help, None, cpu.metric_type())?)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, described: &Described, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    // Collectors write their help text themselves, so the full stop is ours to add.
    let help = format!("{}.", described.help);
    gauge.encode(encoder.encode_descriptor(described.name, &help, None, gauge.metric_type())?)
}

/// What the process uses; zero where the system does not tell.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    memory: u64,
    threads: u64,
    files: u64,
    cpu: Duration,
}

impl Usage {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        Self { files, ..Self::parse(&status, &stat) }
    }

    fn parse(status: &str, stat: &str) -> Self {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        // The second field is the program's name in parentheses, which may hold anything.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |index: usize| after.split_whitespace().nth(index).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        Self {
            memory: field("VmRSS") * 1024,
            threads: field("Threads"),
            files: 0,
            // Linux counts processor time in hundredths of a second wherever it runs today.
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the start time is only shown; nothing is decided by it")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1 1";
        let usage = Usage::parse("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t3\n", stat);
        assert_eq!(usage, Usage { memory: 2 << 20, threads: 3, files: 0, cpu: Duration::from_secs(3) });
    }

    #[test]
    fn an_unreadable_proc_gives_zeroes() {
        assert_eq!(Usage::parse("", ""), Usage::default());
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::read();
        assert!(usage.memory > 0 && usage.threads > 0 && usage.files > 0, "{usage:?}");
    }
}
