//! `eastway what-if`: where a service's requests would go after a loss, and whether the rest could bear it.

use eastway_balance::Loss;

use crate::division;
use crate::operator::{Output, Subject};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct WhatIfCommand {
    #[command(flatten)]
    subject: Subject,
    /// What is lost: zone=CLUSTER/ZONE, cluster=NAME, region=NAME, or lane=NAME in a scenario. May be given several times.
    #[arg(long, value_name = "WHAT=NAME")]
    lose: Vec<Loss>,
    /// Traffic, relative to now.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    load: f64,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl WhatIfCommand {
    /// Prints the answer.
    ///
    /// # Errors
    /// There is no such node, service, zone or file.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if let Some(file) = &self.subject.file {
            let answer = division::scenario(file)?.situation().what_if(&self.lose, self.load)?;
            return division::print("", &answer, self.output);
        }
        let losses = self.lose.iter().map(|loss| ("lose", loss.to_string()));
        let answer = self.subject.ask("what-if", losses.chain([("load", self.load.to_string())]).collect())?;
        let head =
            format!("{} as called from {}\n", division::text(&answer["service"]), division::text(&answer["from"]));
        division::print(&head, &answer, self.output)
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if factor.is_finite() && (0.0..=1_000.0).contains(&factor) {
        Ok(factor)
    } else {
        Err("from 0 to 1000: 1.3 is 30 % more traffic than now".to_owned())
    }
}
