//! Source files: short, finished, and all of them tested.

use super::assert_none;
use super::scan::{Text, code, files, names};

/// Lines of one file at most; most should have fewer than 500.
const MAX_LINES: usize = 600;

/// Where generated code lies, which nobody reads as a file.
const GENERATED: &str = "proto/src/gen/";

fn complaints(file: &Text) -> Vec<String> {
    let Text { path, text } = file;
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES && !path.starts_with(GENERATED) {
        complaints.push(format!("{path}: {lines} lines; split it (at most {MAX_LINES})"));
    }
    if path.ends_with("/mod.rs") {
        complaints.push(format!("{path}: write foo.rs beside foo/"));
    }
    let code = code(text);
    for unfinished in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"] {
        let found = code.lines().enumerate().filter(|(_, line)| names(line, unfinished));
        complaints.extend(found.map(|(number, _)| format!("{path}:{}: `{unfinished}`", number + 1)));
    }
    // Spelt so that this file does not complain about itself.
    for note in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")] {
        let found = text.lines().enumerate().filter(|(_, line)| names(line, note));
        complaints
            .extend(found.map(|(number, _)| format!("{path}:{}: `{note}`: do it, or write an issue", number + 1)));
    }
    complaints
}

#[test]
fn source_files_are_short_and_finished() {
    assert_none("source files", files("rs").iter().flat_map(complaints).collect());
}

#[test]
fn each_unfinished_file_is_found() {
    let file = |path: &str, text: &str| Text { path: path.to_owned(), text: text.to_owned() };
    for (path, text) in [
        ("a.rs", "x\n".repeat(MAX_LINES + 1)),
        ("a/mod.rs", String::new()),
        ("a.rs", "fn f() { todo!() }".to_owned()),
        ("a.rs", "fn f() { unimplemented!(\"later\") }".to_owned()),
        ("a.rs", "#[ignore = \"slow\"]\nfn f() {}".to_owned()),
        ("a.rs", format!("// {}: later", concat!("TO", "DO"))),
    ] {
        assert_eq!(complaints(&file(path, &text)).len(), 1, "{path}: {text:.40}");
    }
    for (path, text) in [
        ("a.rs", "x\n".repeat(MAX_LINES)),
        ("proto/src/gen/a.rs", "x\n".repeat(MAX_LINES + 1)),
        ("a.rs", "let text = \"todo!()\"; // unimplemented!() is banned".to_owned()),
    ] {
        assert_eq!(complaints(&file(path, &text)), Vec::<String>::new());
    }
}
