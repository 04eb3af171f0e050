//! How traffic is divided: reading scenarios, and printing answers about them.

use std::fmt::{self, Write};
use std::path::Path;

use eastway_balance::Scenario;
use eastway_core::former::with_former_names;
use eastway_documents::{self as config, Checks};
use serde::Serialize;
use serde_json::Value;

use crate::operator::{self, Output, Table};

/// The scenario in a file.
///
/// # Errors
/// Everything that is wrong with it, each with its line.
pub(crate) fn scenario(file: &Path) -> anyhow::Result<Scenario> {
    let loaded = config::load::<Scenario>(file)?;
    let mut checks = Checks::new(&loaded.source);
    for (path, message) in loaded.value.problems() {
        checks.problem(&path, message);
    }
    Ok(checks.finish(loaded.value)?)
}

/// Prints a division of traffic, after `head` where people read it.
pub(crate) fn print(head: &str, answer: &impl Serialize, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return operator::print(&format!("{}\n", with_former_names(answer)?));
    }
    let mut text = head.to_owned();
    write(&mut text, &serde_json::to_value(answer)?)?;
    operator::print(&text)
}

fn write(out: &mut impl Write, answer: &Value) -> fmt::Result {
    let asked = !answer["warnings"].is_null();
    let mut table = Table::new(if asked {
        &["priority", "locality", "share", "utilisation"]
    } else {
        &["priority", "locality", "share"]
    });
    for (index, priority) in list(&answer["priorities"]).iter().enumerate() {
        for locality in list(&priority["localities"]) {
            let panic = if priority["panic"] == true { " (panic)" } else { "" };
            let mut row =
                vec![format!("{index}{panic}"), text(&locality["name"]), format!("{} %", text(&locality["share"]))];
            if asked {
                let idle = locality["share"] == 0 && locality["utilisation"].is_null();
                row.push(if idle { "-".to_owned() } else { percent(&locality["utilisation"]) });
            }
            table.row(row);
        }
    }
    table.write(out, "")?;
    writeln!(out, "normalized total availability: {} %", text(&answer["normalized_total_availability"]))?;
    for warning in list(&answer["warnings"]) {
        writeln!(out, "WARNING: {}", text(warning))?;
    }
    Ok(())
}

/// A value as a person reads it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), short),
        other => other.to_string(),
    }
}

/// A part of 1 in percent.
pub(crate) fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "unknown".to_owned(), |part| format!("{} %", short((part * 1000.0).round() / 10.0)))
}

fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The items of a list; none of what is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_cannot_be_used_tells_every_problem_with_its_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let write = |text: &str| std::fs::write(file.path(), text).expect("written");
        write("mode: natve\npriorities:\n  - localities: [{name: a, hosts: 1, helthy: 1}]\n");
        let error = scenario(file.path()).expect_err("unusable").to_string();
        assert!(error.contains(":1: mode: unknown value `natve`; did you mean `native`?"), "{error}");
        assert!(
            error.contains(":3: priorities[0].localities[0].helthy: unknown key `helthy`; did you mean `healthy`?"),
            "{error}"
        );
        write("priorities:\n  - localities: [{name: a, hosts: 1, healthy: 2}]\n");
        let error = scenario(file.path()).expect_err("unusable").to_string();
        assert!(error.contains(":2: priorities[0].localities[0].hosts: healthy + degraded"), "{error}");
        write("priorities:\n  - localities:\n    - {name: a, healthy: 1,\n       hosts: 99999999999}\n");
        let error = scenario(file.path()).expect_err("unusable").to_string();
        assert!(error.contains(":4: priorities[0].localities[0].hosts: 99999999999 is out of range"), "{error}");
        write("priorities:\n  - localities: [{name: a, hosts: 2, healthy: 2}]\n");
        assert_eq!(scenario(file.path()).expect("usable").priorities.len(), 1);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(text(&serde_json::json!(2.0)), "2");
        assert_eq!(text(&serde_json::json!(46.67)), "46.67");
        assert_eq!(percent(&serde_json::json!(1.17)), "117 %");
        assert_eq!(percent(&Value::Null), "unknown");
    }
}
