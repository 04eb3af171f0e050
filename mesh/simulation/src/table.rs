//! A report for people at a terminal.

use std::fmt::Write as _;

use crate::report::Report;

/// Rows over time, at most.
const ROWS: usize = 20;

/// The report as text: what happened over time, then the figures.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    over_time(report, &mut text);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("seed", report.seed.to_string());
    line("requests", report.requests.to_string());
    line("failures", format!("{} ({:.3} %)", report.failures, report.failure_ratio() * 100.0));
    line(
        "offered",
        format!("{:.3} attempts a request, {:.3} at worst", report.offered_ratio, report.worst_offered_ratio),
    );
    line(
        "latency",
        format!("p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms", report.p50_ms, report.p99_ms, report.p999_ms),
    );
    line("imbalance", ratio(report.imbalance));
    line("shift", or_dash(report.shift_ms));
    line("recovery", or_dash(report.recovery_ms));
    line("oscillations", report.oscillations.to_string());
    let baseline = &report.baseline;
    line(
        "baseline",
        format!("{}: p99 {:.1} ms, imbalance {}", baseline.name, baseline.p99_ms, ratio(baseline.imbalance)),
    );
    text
}

/// A row for some time: the requests made in it, their failures, and where they went; of the last moment, which has no next
/// one, where they should go.
fn over_time(report: &Report, text: &mut String) {
    let localities = report.localities();
    let _ = write!(text, "{:>8} {:>9} {:>9}", "t", "requests", "failures");
    for locality in &localities {
        let _ = write!(text, " {locality:>14}");
    }
    text.push('\n');
    let moments = report.shares.len() / localities.len().max(1);
    let step = moments.div_ceil(ROWS).max(1);
    for index in (0..moments).step_by(step) {
        let moment = |index: usize| report.shares.get(index * localities.len()..(index + 1) * localities.len());
        let Some(row) = moment(index) else { break };
        let from = row[0].t;
        let until = moment(index + step).map_or(f64::INFINITY, |next| next[0].t);
        let inside = report.seconds.iter().filter(|second| (from..until).contains(&(second.t as f64)));
        let (requests, failures) = inside.fold((0, 0), |(r, f), second| (r + second.requests, f + second.failures));
        let _ = write!(text, "{from:>6.1} s {requests:>9} {failures:>9}");
        for (locality, share) in row.iter().enumerate() {
            // What was measured at a moment was so since the one before: the row's end is in the next one.
            let measured = (index + 1..=index + step).filter_map(|index| moment(index)?[locality].measured);
            let (sum, count) = measured.fold((0.0, 0u32), |(sum, count), share| (sum + share, count + 1));
            let share = if count > 0 { sum / f64::from(count) } else { share.share };
            let _ = write!(text, " {share:>12.1} %");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn or_dash(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"))
}
