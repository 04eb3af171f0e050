//! The threat model: every test that it names exists, and every threat names one.

use std::collections::BTreeSet;

use super::assert_none;
use super::scan::{files, read};

/// The names of all functions in a source.
fn functions(source: &str) -> impl Iterator<Item = String> {
    source.lines().filter_map(|line| {
        let name = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?;
        name.split(['(', '<']).next().map(str::to_owned)
    })
}

/// The rows of the tables of threats that name no test, or one that does not exist.
fn complaints(text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let tables = text.split("\n## Threats").skip(1).flat_map(str::lines);
    for row in tables.filter(|line| line.starts_with('|') && !line.starts_with("| Actor") && !line.starts_with("|--")) {
        let named = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        let tests: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            complaints.push(format!("no test in: {row}"));
        }
        complaints
            .extend(tests.into_iter().filter(|test| !known.contains(*test)).map(|test| format!("no test `{test}`")));
    }
    complaints
}

#[test]
fn every_threat_names_a_test_that_exists() {
    let known = files("rs").iter().flat_map(|source| functions(&source.text).collect::<Vec<_>>()).collect();
    let text = read("docs/security.md");
    assert_none("docs/security.md", complaints(&text, &known));
}

#[test]
fn rows_without_tests_are_found() {
    let text = "# A\n\n## Threats: x\n\n| Actor | Test |\n|---|---|\n| a | `known` |\n| b | |\n| c | `gone` |\n";
    let known = functions("async fn known() {\n").collect();
    assert_eq!(complaints(text, &known).len(), 2);
}
