//! Pure crates are handed the time and a random source: the same input gives the same decision, in a process and in a
//! simulation.

use super::assert_none;
use super::manifest::manifests;
use super::scan::{Text, code, files, names};

const PURE: [&str; 8] = [
    "mesh/balance",
    "mesh/core",
    "mesh/link",
    "mesh/request",
    "mesh/resilience",
    "mesh/simulation",
    "federation/model",
    "federation/registry",
];

/// What a pure crate names nowhere in its code, its tests included.
const BANNED: [(&str, &str); 9] = [
    ("tokio", "a runtime"),
    ("Instant::now", "a clock"),
    ("Instant::elapsed", "a clock"),
    ("SystemTime", "a clock"),
    ("thread::sleep", "a clock"),
    ("thread_rng", "a global random source"),
    ("OsRng", "a global random source"),
    ("Rng::new()", "a random source seeded by nobody"),
    ("Rng::default()", "a random source seeded by nobody"),
];

/// Dependencies that would bring any of it in.
const BANNED_CRATES: [&str; 8] =
    ["tokio", "tokio-util", "tokio-stream", "hyper", "rand", "getrandom", "nix", "socket2"];

fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in code(text).lines().enumerate() {
        let at = format!("{path}:{}", number + 1);
        let banned = BANNED.iter().filter(|(word, _)| names(line, word));
        complaints.extend(banned.map(|(word, what)| format!("{at}: `{word}` is {what}")));
        if global_fastrand(line) {
            complaints.push(format!("{at}: the global functions of `fastrand` are a global random source"));
        }
    }
    complaints
}

/// Whether a line names a function of `fastrand` itself: everything there in lower case, also in a list of imports.
fn global_fastrand(line: &str) -> bool {
    line.split("fastrand::").skip(1).any(|rest| {
        let list = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap_or(list));
        let names = list.unwrap_or_else(|| rest.split(',').next().unwrap_or(rest));
        names
            .split(',')
            .any(|name| name.trim_start().starts_with(|first: char| first.is_ascii_lowercase() || first == '*'))
    })
}

#[test]
fn pure_crates_name_no_runtime_no_clock_and_no_global_randomness() {
    let pure =
        |path: &str| PURE.iter().any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    let sources: Vec<_> = files("rs").into_iter().filter(|file| pure(&file.path)).collect();
    assert!(
        PURE.iter().all(|folder| sources.iter().any(|file| file.path.starts_with(folder))),
        "a pure crate has moved"
    );
    assert_none("pure crates", sources.iter().flat_map(|file| complaints(&file.path, &file.text)).collect());
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let mut found = Vec::new();
    for (folder, manifest) in manifests().into_iter().filter(|(folder, _)| PURE.contains(&folder.as_str())) {
        let all = manifest.dependencies.iter().chain(&manifest.dev_dependencies);
        found.extend(
            all.filter(|name| BANNED_CRATES.contains(&name.as_str())).map(|name| format!("{folder} uses {name}")),
        );
    }
    assert_none("pure crates", found);
}

/// The crates whose state threads share name atomics and locks in one file each, where a model checker's can stand in.
#[test]
fn shared_state_is_made_of_what_the_model_checker_sees() {
    let watched = |path: &str| {
        ["mesh/balance/src/", "mesh/resilience/src/"].iter().any(|folder| path.starts_with(folder))
            && !path.ends_with("/sync.rs")
            && !path.ends_with("/interleave.rs")
    };
    let sources: Vec<_> = files("rs").into_iter().filter(|file| watched(&file.path)).collect();
    assert!(sources.len() > 40, "the crates have moved");
    let complain = |file: &Text| {
        let code = code(&file.text);
        let named = ["sync::atomic", "sync::Mutex", "sync::RwLock", "parking_lot"]
            .into_iter()
            .filter(|word| code.lines().any(|line| names(line, word) && !line.contains("crate::sync::")));
        named.map(|word| format!("{}: `{word}` is hidden from the interleaving tests", file.path)).collect::<Vec<_>>()
    };
    assert_none("shared state", sources.iter().flat_map(complain).collect());
}

#[test]
fn each_impurity_is_found() {
    for text in [
        "use tokio::time;",
        "let t = std::time::Instant::now();",
        "let t: SystemTime = x;",
        "let r = fastrand::u64(..);",
        "use fastrand::{Rng, u32};",
        "use fastrand::*;",
        "let mut r = fastrand::Rng::new();",
        "rand::thread_rng()",
        "a();\n\n std::thread::sleep(d)",
    ] {
        assert_eq!(complaints("x.rs", text).len(), 1, "{text}");
    }
    for text in [
        "use fastrand::Rng;",
        "use fastrand::{Rng};",
        "fn pick(rng: &mut fastrand::Rng, now: Timestamp) -> u64 { rng.u64(..) }",
        "let rng = fastrand::Rng::with_seed(7);",
        "// Instant::now() would be wrong here, and so would tokio",
        "let text = \"SystemTime\";",
        "let tokio_like = 1;",
    ] {
        assert_eq!(complaints("x.rs", text), Vec::<String>::new(), "{text}");
    }
}
