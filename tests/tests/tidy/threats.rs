//! The threat model, and what is said of failures: every test that a row names exists, and every row names one.

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

/// The rows of the tables below the headings `heading` that name no test, or one that does not exist.
fn complaints(text: &str, heading: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let sections = text.split("\n## ").filter(|section| section.starts_with(heading));
    let tables = sections.flat_map(str::lines);
    let is_head = |line: &str| line.trim_end_matches([' ', '|']).ends_with("| Test") || line.starts_with("|--");
    for row in tables.filter(|line| line.starts_with('|') && !is_head(line)) {
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
fn every_threat_and_every_failure_names_a_test_that_exists() {
    let known = files("rs").iter().flat_map(|source| functions(&source.text).collect::<Vec<_>>()).collect();
    for (file, heading) in [("docs/security.md", "Threats"), ("docs/operations.md", "What fails")] {
        let text = read(file);
        assert!(text.contains(&format!("\n## {heading}")), "{file} has no table");
        assert_none(file, complaints(&text, heading, &known));
    }
}

#[test]
fn rows_without_tests_are_found() {
    let text = "# A\n\n## Threats: x\n\n| Actor | Test |\n|---|---|\n| a | `known` |\n| b | |\n| c | `gone` |\n";
    let known = functions("async fn known() {\n").collect();
    assert_eq!(complaints(text, "Threats", &known).len(), 2);
}
