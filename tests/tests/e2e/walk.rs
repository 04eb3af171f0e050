//! The walk in the README, word for word: its shell blocks are run, and its answer is compared with what came.

use std::path::Path;
use std::process::{Command, Output};

use eastway_tests::process::{eastway, required};
use eastway_tests::{machine, protogen};
use serde_json::Value;

/// The blocks of `language` in the walk's section.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let (_, walk) = readme.split_once("\n## Walk through it by hand\n").expect("the README has the walk");
    let walk = walk.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    let blocks = walk.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// Puts into `folder` what a clone with `make build` behind it has: the examples, and the binary.
fn clone_into(folder: &Path) {
    let release = folder.join("target/release");
    std::fs::create_dir_all(&release).expect("a writable folder");
    std::os::unix::fs::symlink(eastway(), release.join("eastway")).expect("a writable folder");
    copy(&protogen::root().join("examples"), &folder.join("examples"));
    // The build itself is what made the binary under test.
    let make = folder.join("bin");
    std::fs::create_dir_all(&make).expect("a writable folder");
    std::fs::write(make.join("make"), "#!/bin/sh\n[ \"$*\" = build ]\n").expect("a writable folder");
    let executable = Command::new("chmod").arg("+x").arg(make.join("make")).status();
    assert!(executable.is_ok_and(|status| status.success()));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable folder");
    for entry in std::fs::read_dir(from).expect("the examples").flatten() {
        let target = to.join(entry.file_name());
        // What somebody who walked by hand has left behind is no part of the example.
        if ["ca", "identities", "state"].iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a writable folder");
        }
    }
}

/// Runs the blocks as one session of a shell, as a reader would type them.
fn walk(folder: &Path, blocks: &[String]) -> Output {
    required("curl", "curl");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut session: String = blocks.iter().map(|block| format!("echo '== block'\n{block}")).collect();
    // What the session left in the background is gone when it has ended.
    session.push_str("\nwait\n");
    Command::new("bash")
        .args(["-u", "-o", "pipefail", "-c", &session])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env_remove("http_proxy")
        .output()
        .expect("bash starts")
}

#[test]
fn the_walk_in_the_readme_works_as_written() {
    let _machine = machine::shared();
    let readme = std::fs::read_to_string(protogen::root().join("README.md")).expect("the README");
    let commands = blocks(&readme, "sh");
    assert!(commands.len() >= 6, "the walk has lost its commands");
    let folder = tempfile::tempdir().expect("a temporary folder");
    clone_into(folder.path());
    let output = walk(folder.path(), &commands);
    let (words, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let logs = || -> String {
        let logs = ["us-east/gateway", "eu-west/gateway", "eu-west/payments", "us-east/storefront"];
        let read = |log: &str| std::fs::read_to_string(folder.path().join(format!("examples/two-clusters/{log}.log")));
        logs.iter().map(|log| format!("-- {log}\n{}", read(log).unwrap_or_default())).collect()
    };
    let promised: Vec<Value> =
        blocks(&readme, "json").iter().map(|block| serde_json::from_str(block).expect("JSON")).collect();
    assert!(!promised.is_empty(), "the walk promises no answer any more");
    for answer in promised {
        let came = words.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| line == answer);
        assert!(came, "{answer} did not come:\n{words}\n{complaints}\n{}", logs());
    }
    let parts: Vec<&str> = words.split("== block\n").collect();
    let look = commands.iter().position(|block| block.contains("eastway_tunnel")).expect("the walk looks around");
    let seen = parts[look + 1].to_lowercase();
    assert!(seen.contains("eastway_tunnel_streams_total") && seen.contains("proxy-status: "), "{words}\n{}", logs());
    assert!(seen.contains("unknown_service"), "{seen}");
    let join = commands.iter().position(|block| block.contains("peer join")).expect("a third cluster joins");
    let joined = parts[join + 1];
    assert!(joined.contains("eu-west is a peer now") && joined.contains("token"), "{words}\n{complaints}\n{}", logs());
}

#[test]
fn every_file_of_the_examples_is_valid() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    clone_into(folder.path());
    let readme = std::fs::read_to_string(protogen::root().join("README.md")).expect("the README");
    // The certificates are those that the walk makes.
    let made = blocks(&readme, "sh").into_iter().filter(|block| !block.contains(" &\n") && !block.contains("curl"));
    let made: Vec<String> = made.filter(|block| !block.contains("kill ")).collect();
    let output = walk(folder.path(), &made);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (role, file) in [
        ("gateway", "us-east/gateway.yaml"),
        ("gateway", "eu-west/gateway.yaml"),
        ("gateway", "ap-south/gateway.yaml"),
        ("sidecar", "us-east/storefront.yaml"),
        ("sidecar", "eu-west/payments.yaml"),
    ] {
        let file = folder.path().join("examples/two-clusters").join(file);
        let output =
            Command::new(eastway()).args([role, "--check", "--config"]).arg(&file).output().expect("it starts");
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
}
