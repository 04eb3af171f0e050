//! Figures: told, compared with their goals, and added to a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

use serde_json::{Value, json};

/// The figures so far.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Value>);

impl Report {
    /// A figure that may be at most `goal`.
    pub(super) fn add(&mut self, name: &str, value: f64, unit: &str, goal: Option<f64>) {
        let holds = goal.is_none_or(|goal| value <= goal);
        let verdict = match goal {
            Some(goal) => format!(" (goal {goal}: {})", if holds { "holds" } else { "MISSED" }),
            None => String::new(),
        };
        println!("{name}: {value:.2} {unit}{verdict}");
        let goal = goal.map_or_else(|| "-".to_owned(), |goal| format!("<= {goal}"));
        let command = "cargo bench -p eastway-tests --bench fleet";
        self.0.push(
            json!({ "name": name, "value": value, "unit": unit, "goal": goal, "holds": holds, "command": command }),
        );
    }

    /// Adds all to the file after `--json`; fails if a goal was missed.
    pub(super) fn finish(self) -> ExitCode {
        let file = env::args().skip_while(|arg| arg != "--json").nth(1).map(PathBuf::from);
        if let Some(Err(error)) = file.as_deref().map(|file| self.add_to(file)) {
            eprintln!("cannot add the figures to the file: {error}");
            return ExitCode::FAILURE;
        }
        match self.0.iter().all(|figure| figure["holds"] == true) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// Those of the same names are replaced.
    fn add_to(&self, file: &Path) -> io::Result<()> {
        let mut all: Vec<Value> = match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => Vec::new(),
        };
        all.retain(|figure| !self.0.iter().any(|own| own["name"] == figure["name"]));
        all.extend(self.0.iter().cloned());
        let lines: Vec<String> = all.iter().map(Value::to_string).collect();
        fs::write(file, format!("[\n{}\n]\n", lines.join(",\n")))
    }
}

/// The time that so large a part of the times do not exceed, in milliseconds.
pub(super) fn percentile(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
