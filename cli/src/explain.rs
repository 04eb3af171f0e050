//! `eastway explain`: where a service's requests go, and why; from a running node, or from a scenario file.

use std::fmt::{self, Write};

use eastway_core::former::with_former_names;
use serde_json::Value;

use crate::division;
use crate::operator::{self, Output, Subject, Table};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainCommand {
    #[command(flatten)]
    subject: Subject,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl ExplainCommand {
    /// Prints the explanation.
    ///
    /// # Errors
    /// There is no such node, service, zone or file.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if let Some(file) = &self.subject.file {
            return division::print("", &division::scenario(file)?.situation().divide(), self.output);
        }
        let explanation = self.subject.ask("explain", Vec::new())?;
        let mut text = String::new();
        match self.output {
            Output::Json => writeln!(text, "{}", with_former_names(&explanation)?)?,
            Output::Table => write(&mut text, &explanation)?,
        }
        operator::print(&text)
    }
}

fn write(out: &mut impl Write, explanation: &Value) -> fmt::Result {
    let text = |value: &Value, name: &str| division::text(&value[name]);
    writeln!(
        out,
        "{} as called from {}, {} mode: can take {} % of its traffic",
        text(explanation, "service"),
        text(explanation, "from"),
        text(explanation, "mode"),
        text(explanation, "normalized_total_availability")
    )?;
    let regions: Vec<String> = division::list(&explanation["residency"]).iter().map(division::text).collect();
    if !regions.is_empty() {
        writeln!(out, "residency fence: {}; zones of other regions are left out", regions.join(", "))?;
    }
    for priority in division::list(&explanation["priorities"]) {
        writeln!(
            out,
            "\nlevel {}: {} % by healthy and {} % by degraded endpoints{}{}",
            text(priority, "level"),
            text(priority, "healthy_load"),
            text(priority, "degraded_load"),
            if panics(priority) { "; PANIC: ejected endpoints are used again" } else { "" },
            if unmeasured(priority, &explanation["mode"]) {
                "; utilisation unknown: load moves no traffic"
            } else {
                ""
            }
        )?;
        for locality in division::list(&priority["localities"]) {
            write_locality(out, locality, &explanation["mode"])?;
        }
    }
    Ok(())
}

/// Why a locality gets another share than the formulas give it.
fn moved(locality: &Value, mode: &Value) -> Option<String> {
    let (share, target) = (locality["share"].as_f64()?, locality["target"].as_f64()?);
    let formulas = format!("by the formulas {} %", division::text(&locality["target"]));
    match () {
        () if share == target => None,
        () if share > target && locality["staleness"] == "stale2" && share <= 1.0 => {
            Some(format!("tried though its cluster is silent, {formulas}"))
        }
        () if share > target && mode == "envoy" => {
            Some(format!("takes over what cannot be served where it was sent, {formulas}"))
        }
        () if share > target => Some(format!("takes over for what returns, {formulas}")),
        () if locality["cap"].is_null() => Some(format!("gives up a little to try a silent cluster, {formulas}")),
        () => Some(format!("held back from {} %", division::text(&locality["target"]))),
    }
}

/// The age of what a locality's cluster says. A node knows it by these steps only.
fn word(staleness: &str) -> String {
    match staleness {
        "stale1" => "word stale 1 (its cluster is silent for 3 to 30 s)".to_owned(),
        "stale2" => "word stale 2 (its cluster is silent for 30 s to 15 min)".to_owned(),
        "stale3" => "word stale 3 (its cluster is silent for more than 15 min)".to_owned(),
        other => format!("word {other}"),
    }
}

/// Whether a priority keeps its traffic however busy it is, because it does not say. The Envoy mode never asks.
fn unmeasured(priority: &Value, mode: &Value) -> bool {
    mode == "native" && priority["utilisation_factor"].is_null()
}

/// Whether ejected endpoints of a priority take traffic. A priority may panic without having any.
fn panics(priority: &Value) -> bool {
    let above_zero = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    let localities = division::list(&priority["localities"]);
    priority["panic"] == true
        && localities.iter().any(|locality| above_zero(&locality["share"]) && above_zero(&locality["soft"]))
}

fn write_locality(out: &mut impl Write, locality: &Value, mode: &Value) -> fmt::Result {
    let text = |name: &str| division::text(&locality[name]);
    writeln!(out, "  {}  {} %: {}", text("name"), text("share"), text("why"))?;
    let mut facts = vec![
        format!("{} of {} healthy", text("healthy"), text("total")),
        format!("utilisation {}", division::percent(&locality["utilisation"])),
        format!("breaker {}", text("breaker")),
    ];
    facts.extend(moved(locality, mode));
    if locality["remote"] == true {
        facts.push(format!("path {}", text("path")));
        facts.push(word(&text("staleness")));
        if !locality["distance_ms"].is_null() {
            facts.push(format!("{} ms away", text("distance_ms")));
        }
    }
    writeln!(out, "    {}", facts.join(", "))?;
    let endpoints = division::list(&locality["endpoints"]);
    if endpoints.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["endpoint", "used", "health", "own", "others", "latency ms", "breaker", "why"]);
    for endpoint in endpoints {
        let text = |name: &str| division::text(&endpoint[name]);
        let used = if endpoint["used"] == true { "yes" } else { "no" };
        table.row(vec![
            text("id"),
            used.to_owned(),
            text("health"),
            text("active_requests"),
            text("others"),
            text("latency_ms"),
            text("breaker"),
            text("why"),
        ]);
    }
    table.write(out, "    ")
}

#[cfg(test)]
mod tests {
    use eastway_core::view::Staleness;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_share_that_is_not_as_the_formulas_say_has_its_reason() {
        let told = |share: f64, target: f64, cap: Value, staleness: &str| {
            let locality = json!({ "share": share, "target": target, "cap": cap, "staleness": staleness });
            moved(&locality, &json!("native"))
        };
        assert_eq!(told(30.0, 30.0, json!(40.0), "fresh"), None);
        assert_eq!(told(12.5, 30.0, json!(12.5), "fresh").as_deref(), Some("held back from 30 %"));
        let over = told(87.5, 30.0, Value::Null, "fresh");
        assert_eq!(over.as_deref(), Some("takes over for what returns, by the formulas 30 %"));
        let tried = told(1.0, 0.0, Value::Null, "stale2").expect("a reason");
        assert!(tried.starts_with("tried though its cluster is silent"), "{tried}");
        let given = told(99.0, 100.0, Value::Null, "fresh").expect("a reason");
        assert!(given.starts_with("gives up a little"), "{given}");
    }

    #[test]
    fn a_priority_whose_load_moves_nothing_is_told_so() {
        let told = |mode: &str, factor: Value| {
            let priority = json!({ "level": 0, "utilisation_factor": factor, "localities": [] });
            let mut text = String::new();
            write(&mut text, &json!({ "mode": mode, "priorities": [priority] })).expect("written");
            text.contains(
                "level 0: - % by healthy and - % by degraded endpoints; utilisation unknown: load moves no traffic",
            )
        };
        assert!(told("native", Value::Null));
        assert!(!told("native", json!(0.9)) && !told("envoy", Value::Null));
    }

    #[test]
    fn silence_is_told_in_words() {
        assert_eq!(word("fresh"), "word fresh");
        for step in [Staleness::Stale1, Staleness::Stale2, Staleness::Stale3] {
            let step = serde_json::to_value(step).expect("JSON");
            let told = word(step.as_str().expect("a word"));
            assert!(told.starts_with("word stale ") && told.contains("its cluster is silent for"), "{told}");
        }
    }

    #[test]
    fn a_panic_is_told_where_ejected_endpoints_are_used_again() {
        let told = |panic: bool, share: f64, soft: f64| {
            let locality = json!({ "name": "us/a", "share": share, "target": share, "soft": soft });
            let priority = json!({ "level": 0, "panic": panic, "localities": [locality] });
            let mut text = String::new();
            write(&mut text, &json!({ "priorities": [priority] })).expect("written");
            text.contains("PANIC")
        };
        assert!(told(true, 100.0, 3.0));
        assert!(!told(false, 100.0, 3.0));
        assert!(!told(true, 100.0, 0.0), "nothing is ejected");
        assert!(!told(true, 0.0, 3.0), "it gets no traffic");
    }
}
