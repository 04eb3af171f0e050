//! The membership of two clusters under faults, over thousands of seeded schedules: `make figures`, or one of them with
//! `cargo bench -p eastway-model --bench schedules -- --seed N`.
//!
//! `--json FILE` adds what was counted to the figures in the file. Fails on a violation, and shows it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{env, process, thread};

use eastway_model::{Outcome, Plan, Schedule, Violation, run};
use report::Report;

#[path = "report.rs"]
mod report;

/// How many schedules are run, unless `--schedules N` says otherwise.
const SCHEDULES: u64 = 10_000;
/// How many violations are shown.
const SHOWN: usize = 5;
/// How long a cluster is left alone, in milliseconds, and over how many seeds.
const ISOLATION: (u64, u64) = (3_600_000, 5);
/// The least share of calls that must succeed meanwhile.
const SUCCESS: f64 = 0.999_5;
/// How soon after it everybody must know everything again, in milliseconds.
const RECOVERED: f64 = 5_000.0;

#[derive(Default)]
struct Counted {
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
}

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it runs.
    if !env::args().any(|arg| arg == "--bench") {
        run(&Schedule { seed: 1, ..Schedule::default() }).expect("no violation");
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = argument("--seed") {
        return replay(number(&seed));
    }
    let mut report = Report::default();
    under_faults(&mut report, argument("--schedules").map_or(SCHEDULES, |count| number(&count)));
    alone(&mut report);
    report.finish()
}

/// Runs one schedule, and shows all that happened.
fn replay(seed: u64) -> ExitCode {
    match run(&Schedule { seed, trace: true, ..Schedule::default() }) {
        Ok(Outcome { steps, trace, .. }) => {
            println!("{}\nseed {seed}: {steps} steps without a violation", trace.join("\n"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the schedules 1 to `schedules`, on as many threads as there are processors: each is a world of its own.
fn count(schedules: u64) -> Counted {
    let next = AtomicU64::new(1);
    let work = || {
        let mut counted = Counted::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > schedules {
                return counted;
            }
            match run(&Schedule { seed, ..Schedule::default() }) {
                Ok(outcome) => {
                    counted.add(Counted { steps: outcome.steps, faults: outcome.faults, ..Counted::default() })
                }
                Err(violation) => counted.violations.push(*violation),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut all = Counted::default();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().for_each(|thread| all.add(thread.join().expect("a schedule does not panic")));
    });
    all.violations.sort_by_key(|violation| violation.seed);
    all
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.violations.extend(other.violations);
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

/// Clusters under faults of all kinds.
fn under_faults(report: &mut Report, schedules: u64) {
    let started = Instant::now();
    let counted = count(schedules);
    let seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    for violation in counted.violations.iter().take(SHOWN) {
        eprintln!("{violation}");
    }
    for (kind, count) in &counted.faults {
        report.tell(&format!("membership schedules: {kind}"), *count as f64, "count");
    }
    let violations = counted.violations.len();
    report.tell("membership schedules: steps", counted.steps as f64, "count");
    report.tell("membership schedules: time", seconds, "s");
    // Whoever asks for fewer wants to see those.
    let goal = if schedules < SCHEDULES { "-" } else { ">= 10000" };
    report.add("membership schedules", schedules as f64, "count", (goal, true));
    report.add("membership schedules: violations", violations as f64, "count", ("= 0", violations == 0));
}

/// Clusters that are left alone for an hour, while 5 % of their workloads end in a minute.
fn alone(report: &mut Report) {
    let (long, seeds) = ISOLATION;
    let (mut succeeded, mut failed, mut recovered, mut violations) = (0, 0, 0, 0);
    for seed in 1..=seeds {
        match run(&Schedule { seed, plan: Plan::Isolation(long), ..Schedule::default() }) {
            Ok(outcome) => {
                succeeded += outcome.calls.succeeded;
                failed += outcome.calls.failed;
                recovered = outcome.recovered_ms.unwrap_or(u64::MAX).max(recovered);
            }
            Err(violation) => {
                eprintln!("{violation}");
                violations += 1;
            }
        }
    }
    let calls = succeeded + failed;
    let share = succeeded as f64 / calls.max(1) as f64;
    report.add("an hour alone: violations", f64::from(violations), "count", ("= 0", violations == 0));
    report.tell("an hour alone: calls", calls as f64, "count");
    report.tell("an hour alone: calls that fail", failed as f64, "count");
    report.add("an hour alone: calls that succeed", share, "share", (">= 0.9995", share >= SUCCESS));
    report.at_most("an hour alone: recovered", recovered as f64, "ms", RECOVERED);
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|arg| arg != name).nth(1)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        eprintln!("`{text}` is no number");
        process::exit(2);
    })
}
