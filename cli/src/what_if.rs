//! `eastway what-if`: where a service's requests would go after a loss, and whether the rest could bear it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use eastway_balance::Loss;
use eastway_core::ZoneId;

use crate::division;
use crate::operator::{self, Output};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct WhatIfCommand {
    /// NAMESPACE/SERVICE, SERVICE.NAMESPACE, or SERVICE.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    service: Option<String>,
    /// What is lost: zone=CLUSTER/ZONE, cluster=NAME, region=NAME, or lane=NAME in a scenario. May be given several times.
    #[arg(long, value_name = "WHAT=NAME")]
    lose: Vec<Loss>,
    /// Traffic, relative to now.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    load: f64,
    /// The zone that calls, CLUSTER/ZONE. A sidecar knows its own zone's view only, a gateway every zone of its cluster.
    #[arg(long, value_name = "CLUSTER/ZONE", conflicts_with = "file")]
    from: Option<ZoneId>,
    /// The administration server of a sidecar or a gateway.
    #[arg(long, value_name = "ADDR", default_value = operator::ADMIN)]
    admin: SocketAddr,
    /// Ask about a scenario instead of a running service.
    #[arg(long, value_name = "SCENARIO.yaml")]
    file: Option<PathBuf>,
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
        if let Some(file) = &self.file {
            let answer = division::scenario(file)?.situation().what_if(&self.lose, self.load)?;
            return division::print(&answer, self.output);
        }
        let service = operator::service(self.service.as_deref().unwrap_or_default(), self.admin)?;
        let mut query = vec![format!("load={}", self.load)];
        query.extend(self.lose.iter().map(|loss| format!("lose={}", operator::encode(&loss.to_string()))));
        query.extend(self.from.iter().map(|zone| format!("from={}", operator::encode(&zone.to_string()))));
        let path = format!("/what-if/{service}?{}", query.join("&"));
        let answer = operator::ask(self.admin, &path).with_context(|| format!("cannot tell of {service}"))?;
        if self.output == Output::Table {
            println!("{} as called from {}", division::text(&answer["service"]), division::text(&answer["from"]));
        }
        division::print(&answer, self.output)
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
