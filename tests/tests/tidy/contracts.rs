//! What is committed of the wire contracts is what `make proto` would write, and scripts can be run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use eastway_tests::protogen::{etcd_contract, generate, root};

use super::assert_none;

fn folder(path: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path()).expect("text"))
    };
    entries.map(entry).collect()
}

fn complaints(committed: &BTreeMap<String, String>, generated: &BTreeMap<String, String>) -> Vec<String> {
    let stale = generated.iter().filter(|(name, text)| committed.get(*name) != Some(*text));
    let stale = stale.map(|(name, _)| format!("proto/src/gen/{name} is stale"));
    let left_over = committed.keys().filter(|name| !generated.contains_key(*name));
    stale.chain(left_over.map(|name| format!("proto/src/gen/{name} belongs to no contract"))).collect()
}

#[test]
fn the_committed_code_of_the_contracts_is_current() {
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(fresh.path()).expect("the contracts compile");
    let generated = folder(fresh.path());
    assert!(!generated.is_empty());
    assert_none("run `make proto`", complaints(&folder(&root().join("proto/src/gen")), &generated));
}

#[test]
fn stale_and_left_over_code_is_found() {
    let files =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let generated: BTreeMap<_, _> = files(&[("a.rs", "new"), ("b.rs", "same")]);
    let committed: BTreeMap<_, _> = files(&[("a.rs", "old"), ("b.rs", "same"), ("c.rs", "gone")]);
    assert_eq!(complaints(&committed, &generated).len(), 2);
    assert_eq!(complaints(&BTreeMap::new(), &generated).len(), 2);
    assert!(complaints(&generated, &generated).is_empty());
}

#[test]
fn the_etcd_clients_build_is_answered_with_the_contract_of_its_version() {
    let (current, contract) = etcd_contract().expect("the contract compiles");
    let names = fs::read_dir(root().join("proto")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let committed: Vec<String> = names.filter(|name| name.ends_with(".fds")).collect();
    assert_eq!(committed, [current.as_str()], "run `make proto`");
    assert!(
        fs::read(root().join("proto").join(&current)).expect("bytes") == contract,
        "{current} is stale: run `make proto`"
    );
}

#[test]
fn scripts_can_be_run() {
    let tools = fs::read_dir(root().join("tools")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let scripts = tools.filter(|path| path.is_file()).chain([root().join(".ci/run")]);
    let broken = scripts.filter(|path| {
        let executable = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
        let portable = fs::read_to_string(path).is_ok_and(|text| text.starts_with("#!/bin/sh\n"));
        !executable || !portable
    });
    assert_none("not executable, or not POSIX sh", broken.map(|path| path.display().to_string()).collect());
}
