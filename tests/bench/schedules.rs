//! The membership of two clusters under faults, over thousands of seeded schedules: `make figures`, or one of them with
//! `cargo bench -p eastway-model --bench schedules -- --seed N`.
//!
//! `--json FILE` adds what was counted to the figures in the file. Fails on a violation, and shows it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{env, fs, process, thread};

use eastway_model::{Outcome, Plan, Schedule, Violation, run};
use serde_json::{Value, json};

/// How many schedules are run, unless `--schedules N` says otherwise.
const SCHEDULES: u64 = 10_000;
/// How many violations are shown.
const SHOWN: usize = 5;
/// How long a cluster is left alone, in milliseconds, and over how many seeds.
const ISOLATION: (u64, u64) = (3_600_000, 5);
/// The least share of calls that must succeed meanwhile.
const SUCCESS: f64 = 0.999_5;
/// How soon after it everybody must know everything again, in milliseconds.
const RECOVERED: u64 = 5_000;

#[derive(Default)]
struct Counted {
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if !env::args().any(|arg| arg == "--bench") {
        run(&Schedule { seed: 1, ..Schedule::default() }).expect("no violation");
        return;
    }
    if let Some(seed) = argument("--seed") {
        replay(number(&seed));
    }
    let schedules = argument("--schedules").map_or(SCHEDULES, |count| number(&count));
    let started = Instant::now();
    let counted = count(schedules);
    let seconds = started.elapsed().as_secs_f64();
    for violation in counted.violations.iter().take(SHOWN) {
        eprintln!("{violation}");
    }
    for (kind, count) in &counted.faults {
        println!("{kind:<44} {count:>10}");
    }
    let violations = counted.violations.len();
    println!("{schedules} schedules, {} steps, {violations} violations in {seconds:.0} s", counted.steps);
    let alone = isolations();
    let mut figures = figures(schedules, seconds, &counted);
    let missed = alone.iter().any(|figure| figure["holds"] == false);
    figures.extend(alone);
    if let Some(file) = argument("--json").map(PathBuf::from)
        && let Err(error) = add_to(&file, &figures)
    {
        eprintln!("cannot add to {}: {error}", file.display());
        process::exit(1);
    }
    process::exit(i32::from(violations > 0 || missed));
}

/// Runs one schedule, and shows all that happened.
fn replay(seed: u64) -> ! {
    match run(&Schedule { seed, trace: true, ..Schedule::default() }) {
        Ok(Outcome { steps, trace, .. }) => {
            println!("{}\nseed {seed}: {steps} steps without a violation", trace.join("\n"));
            process::exit(0);
        }
        Err(violation) => {
            println!("{violation}");
            process::exit(1);
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

fn figure(name: String, value: f64, unit: &str, goal: &str, holds: bool) -> Value {
    json!({ "name": name, "value": value, "unit": unit, "goal": goal, "holds": holds, "command": "make figures" })
}

/// Clusters that are left alone for an hour, while 5 % of their workloads end in a minute.
fn isolations() -> Vec<Value> {
    let (long, seeds) = ISOLATION;
    let (mut succeeded, mut failed, mut recovered) = (0, 0, 0);
    for seed in 1..=seeds {
        match run(&Schedule { seed, plan: Plan::Isolation(long), ..Schedule::default() }) {
            Ok(outcome) => {
                succeeded += outcome.calls.succeeded;
                failed += outcome.calls.failed;
                recovered = outcome.recovered_ms.unwrap_or(u64::MAX).max(recovered);
            }
            Err(violation) => {
                eprintln!("{violation}");
                return vec![figure("an hour alone: violations".into(), 1.0, "count", "= 0", false)];
            }
        }
    }
    let calls = succeeded + failed;
    let share = succeeded as f64 / calls.max(1) as f64;
    println!(
        "{seeds} x an hour without store and peers: {failed} of {calls} calls failed; recovered after {recovered} ms at most"
    );
    vec![
        figure("an hour alone: calls that succeed".into(), share, "share", ">= 0.9995", share >= SUCCESS),
        figure("an hour alone: recovered".into(), recovered as f64, "ms", "<= 5000", recovered <= RECOVERED),
    ]
}

fn figures(schedules: u64, seconds: f64, counted: &Counted) -> Vec<Value> {
    let violations = counted.violations.len();
    let mut figures = vec![
        figure("membership schedules: violations".into(), violations as f64, "count", "= 0", violations == 0),
        figure("membership schedules".into(), schedules as f64, "count", ">= 10000", schedules >= SCHEDULES),
        figure("membership schedules: steps".into(), counted.steps as f64, "count", "-", true),
        figure("membership schedules: time".into(), (seconds * 10.0).round() / 10.0, "s", "-", true),
    ];
    let faults = counted.faults.iter();
    figures
        .extend(faults.map(|(kind, n)| figure(format!("membership schedules: {kind}"), *n as f64, "count", "-", true)));
    figures
}

/// Adds figures to those in the file, one a line.
fn add_to(file: &PathBuf, figures: &[Value]) -> Result<(), Box<dyn std::error::Error>> {
    let mut all: Vec<Value> = match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => Vec::new(),
    };
    let is_ours = |figure: &Value| figures.iter().any(|own| own["name"] == figure["name"]);
    all.retain(|figure| !is_ours(figure));
    all.extend(figures.iter().cloned());
    let lines: Vec<String> = all.iter().map(Value::to_string).collect();
    fs::write(file, format!("[\n{}\n]\n", lines.join(",\n")))?;
    Ok(())
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
