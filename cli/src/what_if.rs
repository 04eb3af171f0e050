//! `eastway what-if`: where a service's requests would go after a loss, and whether the rest could bear it.

use eastway_balance::Loss;
use serde_json::Value;

use crate::division;
use crate::operator::{Output, Subject};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct WhatIfCommand {
    #[command(flatten)]
    subject: Subject,
    /// What is lost: zone=CLUSTER/ZONE, cluster=NAME, region=NAME, or locality=NAME in a scenario. May be given several
    /// times.
    #[arg(long, value_name = "WHAT=NAME")]
    lose: Vec<Loss>,
    /// Traffic, relative to now.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor, allow_negative_numbers = true)]
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
        division::print(&head(&answer), &answer, self.output)
    }
}

/// What a running node was asked, and what it takes for granted: it sees how busy localities are, not by whom.
fn head(answer: &Value) -> String {
    let from = division::text(&answer["from"]);
    let mut head = format!("{} as called from {from}\n", division::text(&answer["service"]));
    let loaded: Vec<String> = division::list(&answer["loaded"]).iter().map(division::text).collect();
    if loaded.len() > 1 {
        head += &format!("as if all callers were in {from}: the load of {} is added up\n", loaded.join(", "));
    }
    head
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if factor.is_finite() && (0.0..=1_000.0).contains(&factor) {
        Ok(factor)
    } else {
        Err("from 0 to 1000: 1.3 is 30 % more traffic than now".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        command: WhatIfCommand,
    }

    #[test]
    fn a_negative_load_is_refused_as_a_load() {
        let error = Line::try_parse_from(["what-if", "payments", "--load", "-1"]).expect_err("refused").to_string();
        assert!(error.contains("from 0 to 1000: 1.3 is 30 % more traffic than now"), "{error}");
        for (admin, valid) in [("localhost:15000", true), ("[::1]:1", true), ("10.0.0.1:1", true), ("localhost", false)]
        {
            let parsed = Line::try_parse_from(["what-if", "payments", "--admin", admin]);
            assert_eq!(parsed.is_ok(), valid, "{admin}: {parsed:?}");
        }
        let error = Line::try_parse_from(["what-if", "payments", "--admin", "::1"]).expect_err("refused").to_string();
        assert!(error.contains("write HOST:PORT"), "{error}");
    }

    #[test]
    fn what_is_taken_for_granted_of_callers_is_told_where_it_matters() {
        let told = |loaded: &[&str]| head(&json!({ "service": "shop/payments", "from": "us/a", "loaded": loaded }));
        assert_eq!(told(&["us/a"]), "shop/payments as called from us/a\n");
        let both = told(&["us/a", "us/b"]);
        assert!(both.ends_with("\nas if all callers were in us/a: the load of us/a, us/b is added up\n"), "{both}");
    }
}
