//! Reading the repository: its files, and Rust code without its comments and strings.

use std::fs;
use std::path::{Path, PathBuf};

use eastway_tests::protogen::root;

/// A text file of the repository.
pub(crate) struct Text {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every file below the root with that extension, except what is built and what is hidden.
pub(crate) fn files(extension: &str) -> Vec<Text> {
    let mut found = Vec::new();
    collect(&root(), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} file below {}", root().display());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Text>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if entry.is_dir() {
            collect(&entry, extension, found);
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(Text { path: relative(&entry), text: fs::read_to_string(&entry).expect("text") });
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// A file of the repository that must be there.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path: PathBuf = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rust code with the insides of comments and literals blanked out; lines stay where they were.
pub(crate) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => line_end(&chars, at),
            ('/', Some('*')) => block_end(&chars, at),
            ('"', _) => string_end(&chars, at + 1),
            ('r', Some('"' | '#')) if !follows_name(&chars, at) => match raw_end(&chars, at + 1) {
                Some(end) => end,
                None => at,
            },
            ('\'', Some(_)) => character_end(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| at + length)
}

fn block_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a raw string whose hashes or quote begin at `at`; `None` if it is something else, such as `r#type`.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    let body = at + hashes + 1;
    if chars.get(body - 1) != Some(&'"') {
        return None;
    }
    let closes = |quote: usize| {
        chars[quote] == '"' && chars[quote + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    Some((body..chars.len()).find(|quote| closes(*quote)).map_or(chars.len(), |quote| quote + 1 + hashes))
}

/// The end of a character literal; `at` itself if the quote begins a lifetime.
fn character_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            chars[at + 2..].iter().skip(1).position(|c| *c == '\'').map_or(chars.len(), |length| at + length + 4)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

fn follows_name(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

/// Whether `word` occurs in `text` and is not part of a longer name.
pub(crate) fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let ends = (word.starts_with(part), word.ends_with(part));
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part);
        let after = text[at + word.len()..].chars().next().is_some_and(part);
        !(ends.0 && before || ends.1 && after)
    })
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a(); // b()\nc(\"d() \\\" e()\"); /* f() /* g() */ h() */ i('\"'); j(r#\"k() \" l()\"#); m::<'n>('\\n'); o(r#type)\n";
    let code = code(text);
    for kept in ["a();", "c(", "i(", "j(", "m::<'n>(", "o(r#type)"] {
        assert!(code.contains(kept), "{kept} in {code}");
    }
    for gone in ["b()", "d()", "e()", "f()", "g()", "h()", "k()", "l()"] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn words_are_found_whole() {
    assert!(names("use tokio::time;", "tokio") && names("fastrand::u64(..)", "fastrand::u64("));
    assert!(!names("use tokio_like;", "tokio") && !names("mytokio", "tokio"));
}
