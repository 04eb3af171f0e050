//! Values as YAML.

use serde_json::Value;

/// `value` as YAML, as people write it: what [`parse`](crate::yaml::parse) reads back as the same.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write_in(&mut out, value, 0);
    out
}

fn write_in(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                out.push_str(&indent);
                out.push_str(&scalar(key));
                out.push(':');
                write_value(out, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                if let Value::Object(entries) = item
                    && !entries.is_empty()
                {
                    // The first key stands beside the dash.
                    let mut inner = String::new();
                    write_in(&mut inner, item, depth + 1);
                    out.push_str(&indent);
                    out.push_str("- ");
                    out.push_str(inner.trim_start());
                } else {
                    out.push_str(&indent);
                    out.push('-');
                    write_value(out, item, depth);
                }
            }
        }
        other => {
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

/// A value behind a key or a dash.
fn write_value(out: &mut String, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(entries) => !entries.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        return write_in(out, value, depth + 1);
    }
    out.push(' ');
    match value {
        // Certificates: lines that people compare.
        Value::String(text) if is_block(text) => {
            out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
            for line in text.lines() {
                out.push_str(&"  ".repeat(depth + 1));
                out.push_str(line);
                out.push('\n');
            }
        }
        other => {
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // A double-quoted text of JSON is one of YAML, and so are its numbers and empty collections.
        other => other.to_string(),
    }
}

/// Whether a text can be written line by line and is read back as it was.
fn is_block(text: &str) -> bool {
    let plain =
        |line: &str| !line.is_empty() && !line.starts_with(' ') && line.chars().all(|c| (' '..='~').contains(&c));
    text.contains('\n') && !text.ends_with("\n\n") && text.lines().all(plain)
}

/// A text without quotes, if it cannot be taken for something else.
fn scalar(text: &str) -> String {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if first && plain && !word { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn what_is_written_is_read_back() {
        let value = serde_json::json!({
            "kind": "Peer", "yes": "no", "empty": {}, "none": [], "n": [1, 2.5, -3, true, null], "a b": " x", "colon": "a: b",
            "pem": "-----BEGIN X-----\nMAA=\n-----END X-----\n", "cut": "a\nb", "gap": "a\n\nb\n", "address": "10.0.0.1:1",
            "list": [{ "a": 1, "b": { "c": ["d"] } }, {}, [["deep"]], "1"], "localityWeights": { "us-east/a": 2 }, "": "",
        });
        let text = to_yaml(&value);
        let parsed = parse(&text);
        assert!(parsed.faults.is_empty() && parsed.documents.len() == 1, "{text}\n{:?}", parsed.faults);
        assert_eq!(parsed.documents[0].to_json(), value, "{text}");
        assert!(text.contains("kind: Peer\n") && text.contains("pem: |\n  -----BEGIN X-----\n"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_back(key in "\\PC{0,8}", text in "[ -~\n\t\u{e9}]{0,20}") {
            let value = serde_json::json!({ (key): [text.clone(), { "inner": text }] });
            let written = to_yaml(&value);
            let parsed = parse(&written);
            proptest::prop_assert!(parsed.faults.is_empty(), "{written}\n{:?}", parsed.faults);
            proptest::prop_assert_eq!(parsed.documents[0].to_json(), value, "{}", written);
        }
    }
}
