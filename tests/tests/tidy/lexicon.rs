//! Words: what `docs/lexicon.md` retires is in no code and in no document.

use super::assert_none;
use super::scan::{Text, files, read};

/// Files that tell of other times, or of the words themselves.
const EXEMPT: [&str; 5] =
    ["docs/lexicon.md", "docs/adr/", "CHANGELOG.md", "mesh/core/src/former.rs", "tests/tests/tidy/lexicon.rs"];

/// The last column of the table: what is in backticks.
fn retired() -> Vec<String> {
    let table = read("docs/lexicon.md");
    let rows = table.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split('|').nth(3));
    rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// A word in lower case is retired as a part of any name and as text, in the plural, too; one with a capital as a whole name.
fn uses(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut identifiers = line.split(|c| !is_name(c)).filter(|identifier| !identifier.is_empty());
    if word.contains('_') || word.starts_with(char::is_uppercase) {
        return identifiers.any(|identifier| identifier == word);
    }
    identifiers.flat_map(parts).any(|part| part == word || part.strip_suffix('s') == Some(word))
}

/// The words of a name in snake or camel case, in lower case.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in identifier.chars() {
        if c == '_' || c.is_uppercase() {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    parts
}

fn complaints(file: &Text, retired: &[String]) -> Vec<String> {
    if EXEMPT.iter().any(|exempt| file.path.starts_with(exempt)) {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate().filter(|(_, line)| !line.to_lowercase().contains("former"));
    let found =
        lines.flat_map(|(number, line)| retired.iter().filter(|word| uses(line, word)).map(move |word| (number, word)));
    found
        .map(|(number, word)| format!("{}:{}: `{word}` is retired: see docs/lexicon.md", file.path, number + 1))
        .collect()
}

#[test]
fn retired_words_are_nowhere() {
    let retired = retired();
    assert!(retired.len() > 10, "{retired:?}");
    let all = ["rs", "proto", "md", "yaml"].into_iter().flat_map(files);
    assert_none("retired words", all.flat_map(|file| complaints(&file, &retired)).collect());
}

#[test]
fn each_use_of_a_retired_word_is_found_and_nothing_else() {
    let retired = ["lane".to_owned(), "Circuit".to_owned()];
    let of =
        |path: &str, text: &str| complaints(&Text { path: path.to_owned(), text: text.to_owned() }, &retired).len();
    for text in ["let lane = 1;", "two_lanes_of_three", "struct LaneState;", "// all lanes", "use Circuit;"] {
        assert_eq!(of("a.rs", text), 1, "{text}");
    }
    for text in ["the control plane", "airplanes", "CircuitBreaker", "a circuit breaker", "lane // a former name"] {
        assert_eq!(of("a.rs", text), 0, "{text}");
    }
    assert_eq!(of("docs/adr/0001.md", "a lane"), 0);
}
