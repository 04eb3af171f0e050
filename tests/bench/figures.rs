//! The figures that the decision core must reach: `make figures`, or `cargo bench -p eastway-simulation`.
//!
//! Each is computed or timed here and now with the production code; nothing is a constant but the goal. Prints a table, and
//! writes `target/figures.json` (or the file after `--json`): an array with one figure a line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process};

use eastway_documents as config;
use eastway_simulation::{Fault, Report, Scenario, run};
use serde_json::json;

#[path = "figures/breakers.rs"]
mod breakers;
#[path = "pick.rs"]
mod pick;

/// A value, and what it must be.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

/// What a value must be.
enum Goal {
    AtMost(f64),
    Exactly(f64),
    /// None of its own: others are compared with it.
    Beside,
}

const SEEDS: u64 = 5;
const COMMAND: &str = "make figures";

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if !env::args().any(|arg| arg == "--bench") {
        run(&scenario("zone-kill"));
        return;
    }
    let mut figures = Vec::new();
    let parts =
        [picking as fn() -> Vec<Figure>, balancing, failback, flapping, dependency, spilling, breakers::figures];
    for part in parts {
        for figure in part() {
            println!("{}", figure.row());
            figures.push(figure);
        }
    }
    let file = file();
    if let Err(error) = fs::write(&file, json_of(&figures)) {
        eprintln!("cannot write {}: {error}", file.display());
        process::exit(1);
    }
    let missed = figures.iter().filter(|figure| !figure.holds()).count();
    println!("{} figures, {missed} missed; {}", figures.len(), file.display());
    process::exit(i32::from(missed > 0));
}

impl Figure {
    fn holds(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.value <= most,
            Goal::Exactly(value) => self.value == value,
            Goal::Beside => true,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::Exactly(value) => format!("= {value}"),
            Goal::Beside => "-".to_owned(),
        }
    }

    fn row(&self) -> String {
        let mark = if self.holds() { "holds" } else { "MISSED" };
        format!("{:<44} {:>10.3} {:<10} {:>10}  {mark}", self.name, self.value, self.unit, self.goal())
    }
}

fn json_of(figures: &[Figure]) -> String {
    let mut text = String::from("[\n");
    for (index, figure) in figures.iter().enumerate() {
        let entry = json!({
            "name": figure.name,
            "value": (figure.value * 1e4).round() / 1e4,
            "unit": figure.unit,
            "goal": figure.goal(),
            "holds": figure.holds(),
            "command": COMMAND,
        });
        let comma = if index + 1 < figures.len() { "," } else { "" };
        let _ = writeln!(text, "{entry}{comma}");
    }
    text.push_str("]\n");
    text
}

/// Where the figures are written: after `--json`, else in the target folder.
fn file() -> PathBuf {
    let mut args = env::args().skip_while(|arg| arg != "--json");
    args.nth(1).map_or_else(|| root().join("target/figures.json"), PathBuf::from)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn scenario(name: &str) -> Scenario {
    let file = root().join(format!("tests/simulations/{name}.yaml"));
    config::load(&file).unwrap_or_else(|problems| panic!("{problems}")).value
}

/// A scenario with each of the seeds.
fn runs(scenario: &Scenario) -> Vec<Report> {
    (1..=SEEDS).map(|seed| run(&Scenario { seed, ..scenario.clone() })).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn worst(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}

/// What a pick costs, and what changes under it.
fn picking() -> Vec<Figure> {
    let figures = pick::figures(pick::BATCHES).into_iter();
    let goal = |most: Option<f64>| most.map_or(Goal::Beside, Goal::AtMost);
    figures
        .map(|figure| Figure { name: figure.name, value: figure.value, unit: figure.unit, goal: goal(figure.goal) })
        .collect()
}

/// 200 callers, 50 endpoints, 70 % load, two of them three times slower.
fn balancing() -> Vec<Figure> {
    let started = Instant::now();
    let reports = runs(&scenario("slow-endpoints"));
    let each = started.elapsed().as_secs_f64() / SEEDS as f64;
    let imbalance = median(reports.iter().map(|report| report.imbalance_over_baseline().expect("longer than 10 s")));
    let p99 = median(reports.iter().map(|report| report.p99_ms / report.baseline.p99_ms));
    vec![
        figure("imbalance over global-jsq2, median of 5", imbalance, "ratio", Goal::AtMost(1.25)),
        figure("p99 over global-jsq2, median of 5", p99, "ratio", Goal::AtMost(1.3)),
        figure("200 callers, 50 endpoints, 60 s simulated", each, "s", Goal::AtMost(30.0)),
    ]
}

fn failback() -> Vec<Figure> {
    let cold = scenario("cold-failback");
    let mut warm = cold.clone();
    for fault in &mut warm.faults {
        if let Fault::Kill { cold_s, .. } = fault {
            *cold_s = 0.0;
        }
    }
    let (cold, warm) = (runs(&cold), runs(&warm));
    let more = cold.iter().zip(&warm).map(|(cold, warm)| cold.failures as f64 - warm.failures as f64);
    let turns = worst(cold.iter().map(|report| f64::from(report.oscillations)));
    vec![
        figure("cold failback: failures beyond a warm one's", worst(more), "requests", Goal::Exactly(0.0)),
        figure("cold failback: changes of direction", turns, "count", Goal::Exactly(1.0)),
    ]
}

fn flapping() -> Vec<Figure> {
    let failures = worst(runs(&scenario("flapping-zone")).iter().map(|report| report.failure_ratio() * 100.0));
    vec![figure("zone flapping every 20 s: failures", failures, "%", Goal::AtMost(0.5))]
}

fn dependency() -> Vec<Figure> {
    let reports = runs(&scenario("dependency-down"));
    let offered = worst(reports.iter().map(|report| {
        let down = report.seconds.iter().filter(|second| (30..90).contains(&second.t));
        let (requests, offered) = down.fold((0, 0), |(r, o), second| (r + second.requests, o + second.offered));
        f64::from(offered) / f64::from(requests)
    }));
    let recovery = worst(reports.iter().map(|report| report.recovery_ms.map_or(f64::INFINITY, |ms| ms / 1000.0)));
    vec![
        figure("dependency down: offered over nominal", offered, "ratio", Goal::AtMost(1.2)),
        figure("dependency down: goodput at 99 % after", recovery, "s", Goal::AtMost(5.0)),
    ]
}

fn spilling() -> Vec<Figure> {
    let turns = worst(runs(&scenario("equal-localities")).iter().map(|report| f64::from(report.oscillations)));
    vec![figure("two equal localities: changes of direction", turns, "count", Goal::Exactly(0.0))]
}

fn figure(name: &'static str, value: f64, unit: &'static str, goal: Goal) -> Figure {
    Figure { name: name.to_owned(), value, unit, goal }
}
