//! `eastway simulate`: a scenario, with the production decision code, in simulated time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use eastway_core::former::with_former_names;
use eastway_documents::{self as config, Checks, Problems};
use eastway_simulation::{Report, Scenario, plot, run, table};

use crate::operator::{self, Output};

/// What to simulate, and how to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateCommand {
    /// The scenario (examples: tests/simulations).
    #[arg(value_name = "SCENARIO.yaml")]
    scenario: PathBuf,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// A seed instead of the scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Draw shares and failures over time into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl SimulateCommand {
    /// Runs the scenario and prints what came of it.
    ///
    /// # Errors
    /// The scenario cannot be used, or the plot not be written.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut scenario = load(&self.scenario)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        if let Some(file) = &self.plot {
            // Before a run of minutes, not after it.
            let opened = File::options().create(true).append(true).open(file);
            opened.map_err(|error| unwritable(file, &error))?;
        }
        self.show(&run(&scenario))
    }

    fn show(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(file) = &self.plot {
            let title = self.scenario.file_stem().unwrap_or_default().to_string_lossy().replace('-', " ");
            fs::write(file, plot::svg(report, &title)).map_err(|error| unwritable(file, &error))?;
        }
        let text = match self.output {
            Output::Table => table::text(report),
            Output::Json => format!("{}\n", with_former_names(report)?),
        };
        operator::print(&text)
    }
}

fn unwritable(file: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot write the plot to {}: {error}; name a file in a folder that you may write to",
        file.display()
    )
}

/// The scenario in a file, or everything that is wrong with it.
fn load(file: &Path) -> Result<Scenario, Problems> {
    let loaded = config::load::<Scenario>(file)?;
    let mut checks = Checks::new(&loaded.source);
    for mistake in loaded.value.mistakes() {
        checks.problem(&mistake.path, mistake.message);
    }
    checks.finish(loaded.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("scenario.yaml");
        fs::write(&file, text).expect("the file");
        match load(&file) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|p| format!("{} {}: {}", p.line, p.path, p.message)).collect(),
        }
    }

    const GOOD: &str =
        "duration_s: 5\nrate: 10\ncallers: [{zone: us/a, count: 1}]\nzones: [{zone: us/a, endpoints: 1}]\n";

    #[test]
    fn every_problem_is_reported_with_its_line() {
        assert_eq!(problems(GOOD), Vec::<String>::new());
        let unknown = problems(&format!("{GOOD}spede: 3\n"));
        assert!(matches!(&unknown[..], [one] if one.starts_with("5 spede: ")), "{unknown:?}");
        let numbers = problems(&GOOD.replace("endpoints: 1}", "endpoints: 99999999999}"));
        assert_eq!(numbers, ["4 zones[0].endpoints: 99999999999 is out of range: from 0 to 4294967295"]);
        let zones =
            problems(&format!("{GOOD}faults:\n  - {{kind: kill, at_s: 1}}\n  - {{kind: kill, zone: us, at_s: 1}}\n"));
        assert!(matches!(&zones[..], [one] if one.starts_with("7 faults[1].zone: `us` is not a zone")), "{zones:?}");
        let faults = "faults:\n  - {kind: kill, zone: eu/a, at_s: 9}\n  - {kind: kil, at_s: 1}\n";
        let kinds = problems(&format!("{GOOD}{faults}"));
        assert!(matches!(&kinds[..], [one] if one.starts_with("7 faults[1].kind: ")), "{kinds:?}");
        let meaning = problems(&format!("{GOOD}{}", faults.replace("kil,", "load, factor: 200,")));
        let paths: Vec<&str> = meaning.iter().filter_map(|text| text.split(": ").next()).collect();
        assert_eq!(paths, ["6 faults[0].at_s", "6 faults[0].zone", "7 faults[1].factor"]);
    }

    /// A day of a thousand requests a second would take minutes.
    #[test]
    fn a_plot_that_cannot_be_written_is_told_before_the_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let scenario = folder.path().join("scenario.yaml");
        let long = GOOD.replace("duration_s: 5", "duration_s: 20000").replace("rate: 10", "rate: 1000");
        fs::write(&scenario, long).expect("the file");
        let plot = Some(folder.path().join("missing/plot.svg"));
        let command = SimulateCommand { scenario, output: Output::Json, seed: None, plot };
        let started = std::time::Instant::now();
        let error = command.run().expect_err("no such folder").to_string();
        assert!(error.contains("cannot write the plot to") && error.contains("missing/plot.svg"), "{error}");
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "it ran: {:?}", started.elapsed());
    }
}
