use serde_json::json;

use super::*;

fn faults(text: &str) -> Vec<(usize, String, String)> {
    parse(text).faults.into_iter().map(|fault| (fault.line, fault.path, fault.message)).collect()
}

fn value(text: &str) -> Value {
    let parsed = parse(text);
    assert_eq!(parsed.faults, [], "{text}");
    assert!(parsed.complete);
    parsed.documents.first().map(YamlNode::to_json).unwrap_or_default()
}

#[test]
fn scalars_mean_what_the_core_schema_says() {
    let text = "[no, on, true, 'true', 12, -3, 0x1f, 0o17, 1.5, 1e3, '12', 1.2.3.4, 12:30, ~, null, \"\", .inf, 0123, +7, 1_000]";
    let expected = json!([
        "no", "on", true, "true", 12, -3, 31, 15, 1.5, 1000.0, "12", "1.2.3.4", "12:30", null, null, "", ".inf", 123,
        7, "1_000"
    ]);
    assert_eq!(value(text), expected);
    assert_eq!(value("18446744073709551615"), json!(u64::MAX));
    assert_eq!(value("a: |\n  one\n  two\n"), json!({"a": "one\ntwo\n"}));
}

#[test]
fn everything_knows_its_line() {
    let parsed = parse("# comment\na:\n  - b: 1\n\n  - c.d: 2\n    e: [x,\n      y]\n");
    let lines = Lines::of(&parsed.documents[0]);
    for (path, line) in [
        ("", 2),
        ("a", 2),
        ("a[0]", 3),
        ("a[0].b", 3),
        ("a[1]", 5),
        ("a[1][\"c.d\"]", 5),
        ("a[1].e[0]", 6),
        ("a[1].e[1]", 7),
        // What is not there has the line of the nearest thing that is.
        ("a[1].missing.deep", 5),
        ("a[7]", 2),
        ("missing", 2),
    ] {
        assert_eq!(lines.line(path), line, "{path}");
    }
}

#[test]
fn duplicate_keys_are_all_found_and_the_first_counts() {
    let text = "a: 1\nb:\n  c: 1\n  c: 2\na: 3\na: 4\n";
    let expected = [(4, "b.c", "first on line 3"), (5, "a", "first on line 1"), (6, "a", "first on line 1")];
    let found = faults(text);
    assert_eq!(found.len(), expected.len());
    for ((line, path, message), (expected_line, expected_path, part)) in found.iter().zip(expected) {
        assert_eq!((*line, path.as_str()), (expected_line, expected_path));
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(parse(text).documents[0].to_json(), json!({"a": 1, "b": {"c": 1}}));
}

#[test]
fn aliases_merges_and_tags_are_refused_where_they_stand() {
    let found = faults("a: &x [1]\nb: *x\nc:\n  <<: *x\nd: !!str 1\n");
    let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [1, 2, 4, 5]);
    assert!(found[3].2.contains("tags"), "{found:?}");
    // Nothing more is said about a value that was refused.
    assert_eq!(parse("a: &x 1").documents[0].find("a").map(|node| node.kind.clone()), Some(Kind::Refused));
}

#[test]
fn an_alias_bomb_does_not_go_off() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    let parsed = parse(&bomb);
    assert!(!parsed.faults.is_empty() && parsed.complete);
    assert!(parsed.faults.len() < 300);
}

#[test]
fn deep_nesting_ends_the_reading() {
    let parsed = parse(&"[".repeat(100_000));
    assert!(!parsed.complete);
    let found = faults(&format!("{}{}", "[".repeat(40), "]".repeat(40)));
    assert!(found[0].2.contains("nested deeper"), "{found:?}");
}

#[test]
fn broken_syntax_has_its_line() {
    let parsed = parse("a: 1\nb: [1, 2\nc: 3\n");
    assert!(!parsed.complete);
    assert!(parsed.faults[0].line >= 2 && parsed.faults[0].message.starts_with("not YAML: "), "{:?}", parsed.faults);
    assert!(!parse("a: b: c").complete);
}

#[test]
fn keys_must_be_texts() {
    let found = faults("? [a, b]\n: 1\nc: 2\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].2.contains("key must be a text"));
}

#[test]
fn documents_without_content_do_not_count() {
    for (text, documents) in
        [("", 0), ("# nothing\n", 0), ("---\n---\n", 0), ("a: 1\n---\n", 1), ("a: 1\n---\nb: 2\n", 2)]
    {
        let parsed = parse(text);
        assert!(parsed.complete, "{text}");
        assert_eq!(parsed.documents.len(), documents, "{text}");
    }
}

/// Mutilated files give faults or documents, never a panic, and never a line outside of the file.
#[test]
fn any_text_can_be_read() {
    let seeds = [
        "a: [1, {b: c}]\nd:\n  - e: |\n      f\n",
        "? x\n: - y\n--- &z !t\n*z : 'q'\n",
        "{[\"\\u0041\": ~, <<: {}]}\n...\n",
    ];
    let pieces = [
        "\n", " ", "- ", ": ", "[", "]", "{", "}", "'", "\"", "|", ">", "&a", "*a", "!", "%", "#", "---", "\t", "é",
        "\u{0}",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("it is less than `below`")
    };
    for _ in 0..5_000 {
        let mut text: Vec<char> = seeds[draw(seeds.len())].chars().collect();
        for _ in 0..=draw(6) {
            let at = draw(text.len() + 1);
            match draw(2) {
                0 => drop(text.splice(at..at, pieces[draw(pieces.len())].chars())),
                _ => drop(text.drain(at..(at + draw(4)).min(text.len()))),
            }
        }
        let text: String = text.into_iter().collect();
        let parsed = parse(&text);
        let last = text.lines().count() + 1;
        assert!(parsed.faults.iter().all(|fault| fault.line <= last), "{text:?}: {:?}", parsed.faults);
        for document in &parsed.documents {
            document.to_json();
            Lines::of(document);
        }
    }
}
