//! The calling sidecar's own record of its attempts, and how fast a loss moved them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Deserialize;

/// The share of first attempts that must go to living zones.
const MOVED: f64 = 0.99;
/// The length of the windows in which they are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// A line of a sidecar's access log, as far as the demo reads it.
#[derive(Debug, Deserialize)]
struct Line {
    attempts: Vec<Attempt>,
}

/// An attempt of a request.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    /// Microseconds since the Unix epoch.
    at_us: u64,
    /// `first`, `retry` or `probe`.
    kind: String,
    /// The zone that the sidecar chose.
    zone: String,
}

/// Microseconds since the Unix epoch, as the access log counts them.
pub(super) fn now_us() -> u64 {
    // The demo and its sidecars share this machine's clock.
    #[allow(clippy::disallowed_methods, reason = "compared with the wall-clock times of the access log")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The first attempts of all requests in the access log at `path`, in the order of time; half-open probes excepted.
pub(super) fn first_attempts(path: &Path) -> anyhow::Result<Vec<Attempt>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut attempts = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("{} is malformed", path.display()))?;
        attempts.extend(line.attempts.into_iter().filter(|attempt| attempt.kind == "first"));
    }
    attempts.sort_by_key(|attempt| attempt.at_us);
    Ok(attempts)
}

/// The time after `lost_us` from which on, in every 1 s window up to `end_us`, at least 99 % of the first attempts go to
/// zones other than `killed`. `None` if that is never reached.
pub(super) fn shift(attempts: &[Attempt], killed: &[&str], lost_us: u64, end_us: u64) -> Option<Duration> {
    let window = WINDOW.as_micros() as u64;
    let phase: Vec<(u64, bool)> = attempts
        .iter()
        .filter(|attempt| (lost_us..end_us).contains(&attempt.at_us))
        .map(|attempt| (attempt.at_us, killed.contains(&attempt.zone.as_str())))
        .collect();
    let after_bad = phase.iter().filter(|(_, bad)| *bad).map(|(at, _)| at + 1);
    std::iter::once(lost_us)
        .chain(after_bad)
        .filter(|start| start + window <= end_us)
        .find(|&start| moved_from(&phase, start, end_us, window))
        .map(|start| Duration::from_micros(start - lost_us))
}

fn moved_from(phase: &[(u64, bool)], start: u64, end: u64, window: u64) -> bool {
    // What a window holds changes only where it begins at an attempt, or just after one.
    let attempts = phase.iter().flat_map(|(at, _)| [*at, at + 1]).filter(|at| *at >= start);
    let begins = std::iter::once(start).chain(attempts);
    begins.filter(|begin| begin + window <= end).all(|begin| {
        let from = phase.partition_point(|(at, _)| *at < begin);
        let to = phase.partition_point(|(at, _)| *at < begin + window);
        let bad = phase[from..to].iter().filter(|(_, bad)| *bad).count();
        let all = to - from;
        all > 0 && (all - bad) as f64 >= MOVED * all as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(times: impl Iterator<Item = (u64, &'static str)>) -> Vec<Attempt> {
        times.map(|(ms, zone)| Attempt { at_us: ms * 1000, kind: "first".to_owned(), zone: zone.to_owned() }).collect()
    }

    #[test]
    fn the_shift_ends_with_the_last_attempt_that_counts() {
        let record = attempts((0..4000).step_by(2).map(|ms| (ms, if ms < 120 { "x/a" } else { "x/b" })));
        let shift = shift(&record, &["x/a"], 0, 4_000_000).expect("it moved");
        // 1 % of 500 attempts may still be bad, so the shift is reached up to five attempts before the last bad one.
        assert!((Duration::from_millis(105)..=Duration::from_millis(119)).contains(&shift), "{shift:?}");
    }

    #[test]
    fn a_loss_that_never_moves_has_no_shift() {
        let record = attempts((0..4000).step_by(2).map(|ms| (ms, if ms % 20 == 0 { "x/a" } else { "x/b" })));
        assert_eq!(shift(&record, &["x/a"], 0, 4_000_000), None);
    }

    #[test]
    fn silence_is_not_a_shift() {
        let record = attempts((0..500).map(|ms| (ms, "x/b")));
        assert_eq!(shift(&record, &["x/a"], 0, 4_000_000), None);
    }

    #[test]
    fn a_relapse_at_the_end_counts() {
        let late = |ms| (3000..3050).contains(&ms);
        let record = attempts((0..4000).step_by(2).map(|ms| (ms, if late(ms) { "x/a" } else { "x/b" })));
        assert_eq!(shift(&record, &["x/a"], 0, 4_000_000), None, "the rest of the phase is shorter than a window");
    }
}
