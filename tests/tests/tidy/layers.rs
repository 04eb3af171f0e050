//! The directions of dependency between the crates, and the homes of heavy dependencies.

use super::assert_none;
use super::manifest::manifests;

/// The crates of the workspace, the bottom first. A crate may use those of lower rows.
const ROWS: &[&[&str]] = &[
    &["mesh/core", "proto", "tests/allocations"],
    &["mesh/balance", "mesh/documents", "mesh/link", "mesh/resilience", "mesh/telemetry"],
    &["federation/registry", "mesh/admission", "mesh/identity", "mesh/request", "mesh/runtime"],
    &["federation/client", "federation/model", "mesh/simulation", "mesh/transport"],
    &["federation/server", "mesh/http", "mesh/node"],
    &["gateway", "sidecar"],
    &["cli"],
    // The load of `make bench` is apart from the other tests, so that what is measured is not built together with them.
    &["tests", "tests/bench/load"],
];

/// Uses within a row. Each is one direction only.
const SIDEWAYS: &[(&str, &str)] = &[
    // What a pick decides rests on what breakers and budgets decide.
    ("mesh/balance", "mesh/resilience"),
    // The control plane's own connections are the mesh's connections.
    ("federation/client", "mesh/transport"),
];

/// Crates that only some may use, although the rows would let more.
const ONLY: &[(&str, &[&str])] = &[
    // Protobuf types stop here.
    ("proto", &["mesh/transport", "federation/client", "federation/server", "cli", "tests"]),
    // A sidecar never carries a store.
    ("federation/server", &["gateway", "tests"]),
    // What the catalogue decides reaches a role through the client or the server.
    (
        "federation/registry",
        &["federation/client", "federation/model", "federation/server", "gateway", "sidecar", "tests"],
    ),
    // It proves something, and ships nowhere.
    ("federation/model", &["tests"]),
];

/// Heavy dependencies and the crates that may be linked with them.
const HOMES: &[(&str, &[&str])] = &[
    ("quinn", &["mesh/transport"]),
    ("quinn-proto", &["mesh/transport"]),
    ("etcd-client", &["federation/server"]),
    ("redb", &["federation/server"]),
    ("tonic", &["proto", "federation/client", "federation/server"]),
    ("tonic-prost", &["proto"]),
    ("prost", &["proto", "mesh/transport", "federation/client", "federation/server"]),
    ("tonic-prost-build", &["tests"]),
    ("protox", &["tests"]),
    ("opentelemetry", &["mesh/telemetry"]),
    ("opentelemetry_sdk", &["mesh/telemetry"]),
    ("opentelemetry-otlp", &["mesh/telemetry"]),
    ("prometheus-client", &["mesh/telemetry"]),
    ("rcgen", &["mesh/identity"]),
    ("geo", &["mesh/balance"]),
    ("governor", &["mesh/request"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("mimalloc", &["cli"]),
    ("stateright", &["federation/model"]),
];

fn row(member: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&member))
}

/// The folder of one of our packages.
fn folder(package: &str) -> Option<&'static str> {
    let name = package.strip_prefix("eastway-")?;
    ROWS.iter().flat_map(|row| row.iter()).find(|folder| folder.rsplit('/').next() == Some(name)).copied()
}

fn complaints(member: &str, dependencies: &[String]) -> Vec<String> {
    let Some(own_row) = row(member) else {
        return vec![format!("{member} has no place in the rows of tests/tests/tidy/layers.rs")];
    };
    let mut complaints = Vec::new();
    for dependency in dependencies {
        let homes = HOMES.iter().find(|(name, _)| name == dependency).map(|(_, homes)| homes);
        // The tests see everything.
        if let Some(homes) = homes.filter(|homes| member != "tests" && !homes.contains(&member)) {
            complaints.push(format!("{member} uses {dependency}, whose home is {}", homes.join(", ")));
        }
        if !dependency.starts_with("eastway-") {
            continue;
        }
        let Some(used) = folder(dependency) else {
            complaints.push(format!("{member} uses {dependency}, which has no place in the rows"));
            continue;
        };
        let below = row(used).is_some_and(|used_row| used_row < own_row);
        if !below && !SIDEWAYS.contains(&(member, used)) {
            complaints.push(format!("{member} uses {used}, which does not lie below it"));
        }
        if ONLY.iter().any(|(name, users)| *name == used && !users.contains(&member)) {
            complaints.push(format!("{member} uses {used}, which is not for it"));
        }
    }
    complaints
}

#[test]
fn crates_use_what_lies_below_them_and_heavy_dependencies_stay_home() {
    let members = manifests();
    assert!(members.len() >= 16, "{} members", members.len());
    let complaints = members.iter().flat_map(|(folder, manifest)| complaints(folder, &manifest.dependencies)).collect();
    assert_none("directions of dependency (ARCHITECTURE.md)", complaints);
}

/// Test code may reach further, but never into a role that its crate is a part of.
#[test]
fn tests_of_a_crate_do_not_reach_above_it() {
    let mut found = Vec::new();
    for (member, manifest) in manifests() {
        let ours: Vec<String> =
            manifest.dev_dependencies.into_iter().filter(|name| name.starts_with("eastway-")).collect();
        found.extend(
            complaints(&member, &ours).into_iter().filter(|complaint| complaint.contains("does not lie below")),
        );
    }
    assert_none("directions of dependency between tests", found);
}

#[test]
fn each_broken_direction_is_found() {
    for (member, dependency) in [
        ("gateway", "eastway-sidecar"),
        ("sidecar", "eastway-gateway"),
        ("sidecar", "eastway-server"),
        ("sidecar", "eastway-proto"),
        ("mesh/http", "eastway-proto"),
        ("mesh/core", "eastway-telemetry"),
        ("mesh/resilience", "eastway-balance"),
        ("mesh/link", "eastway-resilience"),
        ("mesh/link", "eastway-proto"),
        ("mesh/transport", "eastway-client"),
        ("federation/registry", "eastway-proto"),
        ("gateway", "quinn"),
        ("sidecar", "etcd-client"),
        ("gateway", "eastway-unheard-of"),
        ("mesh/unheard-of", "serde"),
    ] {
        assert!(!complaints(member, &[dependency.to_owned()]).is_empty(), "{member} -> {dependency}");
    }
    for (member, dependency) in [
        ("mesh/balance", "eastway-resilience"),
        ("federation/client", "eastway-transport"),
        ("gateway", "eastway-server"),
        ("mesh/transport", "quinn"),
        ("mesh/core", "serde"),
    ] {
        assert_eq!(complaints(member, &[dependency.to_owned()]), Vec::<String>::new());
    }
}
