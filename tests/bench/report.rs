//! Figures: told, compared with their goals, and added to a file. Several benches include it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use serde_json::{Value, json};

/// The figures of one bench.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Value>);

impl Report {
    /// A figure, what it should be in words, and whether it is.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &str, (goal, holds): (&str, bool)) {
        let verdict = match (goal, holds) {
            ("-", _) => String::new(),
            (goal, true) => format!(" (goal {goal}: holds)"),
            (goal, false) => format!(" (goal {goal}: MISSED)"),
        };
        println!("{name}: {value:.2} {unit}{verdict}");
        let command = "make figures";
        self.0.push(
            json!({ "name": name, "value": value, "unit": unit, "goal": goal, "holds": holds, "command": command }),
        );
    }

    /// One without a goal.
    pub(crate) fn tell(&mut self, name: &str, value: f64, unit: &str) {
        self.add(name, value, unit, ("-", true));
    }

    /// One that may be at most `goal`.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.add(name, value, unit, (&format!("<= {goal}"), value <= goal));
    }

    /// Adds all to the file after `--json`; fails if a goal was missed.
    pub(crate) fn finish(self) -> ExitCode {
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

    /// Those of the same names are replaced; one a line.
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
