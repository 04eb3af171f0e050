//! What a cluster's state costs and how soon it is known: `cargo bench -p eastway-tests --bench fleet`, or one part of it by name:
//! `-- spreading`, `-- keeping`, `-- using`, `-- naming`, `-- capturing`.
//!
//! Prints a line for each figure, adds them to the file after `--json`, and exits with 1 if one misses its goal.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

mod callers;
mod capturing;
mod crowd;
mod keeping;
mod naming;
#[path = "../report.rs"]
mod report;
mod spreading;
mod using;

use report::Report;

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it runs.
    let whole = env::args().any(|arg| arg == "--bench");
    let named: Vec<String> =
        env::args().filter(|arg| ["spreading", "keeping", "using", "naming", "capturing"].contains(&&**arg)).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let mut report = Report::default();
    if wanted("spreading") {
        alone(spreading::within(&mut report, whole));
        alone(spreading::across(&mut report, whole));
    }
    if wanted("keeping") {
        alone(keeping::measure(&mut report, whole));
    }
    if wanted("using") {
        using::measure(&mut report, whole);
    }
    if wanted("naming") {
        naming::measure(&mut report, whole);
    }
    if wanted("capturing") {
        capturing::measure(&mut report, whole);
    }
    report.finish()
}

/// Runs a part on a runtime of its own, with which everything ends that it began.
fn alone(part: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(part);
}

/// The time that so large a part of the times do not exceed, in milliseconds.
fn percentile(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
