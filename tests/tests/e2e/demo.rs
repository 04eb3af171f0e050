//! The demo, as `make demo` runs it, but judged by failures and shares alone: other programs may keep the machine busy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use eastway_tests::process::{Process, eastway_command, required};
use eastway_tests::{check, eventually, eventually_within, machine};
use serde_json::Value;

/// How long all phases may take together, with the start and the end of 22 processes.
const PATIENCE: Duration = Duration::from_secs(240);
const PHASES: [&str; 6] = ["steady", "zone-loss", "region-loss", "return", "gateway-restart", "recovered"];

/// Requests a second: enough for a thousand in the shortest phase, and what a slow machine serves in a debug build.
const RATE: &str = "300";

/// A demo with its report in `folder`, which is also its working directory.
fn demo(folder: &Path, more: &[&str]) -> Process {
    let mut command: Command = eastway_command();
    command.args(["demo", "--no-timing", "--rate", RATE, "--report", "report.json"]).args(more).current_dir(folder);
    Process::start("demo", command, &folder.join("demo.log"))
}

/// The report, once the demo has written it.
fn report(process: &mut Process, folder: &Path) -> Value {
    eventually_within(PATIENCE, "the demo reports", || {
        if let Ok(text) = std::fs::read_to_string(folder.join("report.json")) {
            return serde_json::from_str(&text).map_err(|error| error.to_string());
        }
        let ended = process.ended();
        assert!(ended.is_none(), "the demo ended with {ended:?}:\n{}", process.log());
        Err("it still runs".to_owned())
    })
}

/// The share of a phase that went to `place`, a zone or a whole cluster.
fn share(phase: &Value, place: &str) -> f64 {
    let shares = phase["shares"].as_object().expect("shares by zone");
    let inside = |zone: &str| zone == place || zone.starts_with(&format!("{place}/"));
    shares.iter().filter(|(zone, _)| inside(zone)).filter_map(|(_, share)| share.as_f64()).sum()
}

/// What the report must say, by the task's own words, times excepted.
fn judge(report: &Value) {
    let phases = report["phases"].as_array().expect("a list of phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert_eq!(names, PHASES);
    for phase in phases {
        let name = phase["name"].as_str().expect("a name");
        assert!(phase["requests"].as_u64() >= Some(1_000), "{phase:#}");
        assert_eq!(phase["failures"].as_u64(), Some(0), "{phase:#}");
        assert!(
            phase["p50_ms"].as_f64() > Some(0.0) && phase["p99_ms"].as_f64() >= phase["p50_ms"].as_f64(),
            "{phase:#}"
        );
        // Only a loss shifts traffic; whether it took too long is not judged here.
        let shifts = phase.as_object().expect("a phase").contains_key("shift_ms");
        assert!(shifts && (name.ends_with("-loss") || phase["shift_ms"].is_null()), "{phase:#}");
    }
    for (phase, place, least) in
        [(0, "us-east/a", 0.95), (1, "us-east/b", 0.9), (2, "eu-west", 0.9), (5, "us-east/a", 0.9)]
    {
        assert!(share(&phases[phase], place) >= least, "{place}: {:#}", phases[phase]);
    }
    let other = &report["callers"]["eu-west/a"];
    assert_eq!(other["failures"].as_u64(), Some(0), "{other:#}");
    assert!(other["requests"].as_u64() >= Some(1_000), "{other:#}");
    let tunnel = &report["tunnel"];
    assert_eq!(tunnel["protocol"], "quic");
    assert!(tunnel["streams"].as_u64() >= Some(1), "{tunnel:#}");
    let far = phases[2]["requests"].as_u64().expect("a number");
    assert!(tunnel["bytes"].as_u64() >= Some(50 * far), "{tunnel:#}");
}

#[test]
fn the_demo_holds_its_promises_and_then_stays_up() {
    let _machine = machine::alone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut process = demo(folder.path(), &["--hold"]);
    judge(&report(&mut process, folder.path()));
    let state = eventually("the state is written", || {
        let text = std::fs::read_to_string(folder.path().join("target/demo/state.json"));
        text.map_err(|error| format!("{error}\n{}", process.log()))
    });
    let state: Value = serde_json::from_str(&state).expect("written by rename, so never half");
    holds(state.as_array().expect("a list of nodes"));
    assert_eq!(process.terminate().code(), Some(0));
    for node in state.as_array().into_iter().flatten() {
        let pid = node["pid"].as_u64().expect("a number");
        eventually(&format!("{pid} has ended"), || check(!alive(pid), || node.to_string()));
    }
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    let _machine = machine::alone();
    required("etcd", "etcd-server");
    let folder = tempfile::tempdir().expect("a temporary folder");
    // It cannot delete a folder of its own.
    let process = demo(folder.path(), &["--etcd", "--folder", "scratch"]);
    let (demo, here) = (process.pid(), folder.path().join("demo.log"));
    let children = eventually("its first children are there", || {
        let children = children(demo);
        let etcds = children.iter().filter(|pid| name(**pid) == "etcd").count();
        check(etcds == 2 && children.len() > 2, || format!("{children:?}")).map(|()| children)
    });
    // As by an impatient operator: it has no time to clean up.
    process.kill();
    for pid in children {
        let log = || std::fs::read_to_string(&here).unwrap_or_default();
        eventually(&format!("{pid} has ended"), || check(!alive(pid), || format!("{}:\n{}", name(pid), log())));
    }
}

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<u64> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let its = |pid: &u64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|of| of.trim() == parent.to_string()))
    };
    pids.filter(its).collect()
}

/// The program that a process runs.
fn name(pid: u64) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// One entry for each live process, with addresses that answer.
fn holds(nodes: &[Value]) {
    let of = |role: &str| nodes.iter().filter(|node| node["role"] == role).count();
    // Two gateways; in each of four zones two payments and a storefront, and an application beside each payments.
    assert_eq!((of("gateway"), of("sidecar"), of("app"), nodes.len()), (2, 12, 8, 22), "{nodes:#?}");
    for node in nodes {
        assert!(alive(node["pid"].as_u64().expect("a number")), "{node}");
        assert!(["us-east", "eu-west"].contains(&node["cluster"].as_str().expect("a cluster")), "{node}");
        match node["role"].as_str() {
            Some("gateway") => assert!(node["zone"].is_null() && node["service"].is_null(), "{node}"),
            _ => assert!(
                ["a", "b"].contains(&node["zone"].as_str().unwrap_or_default())
                    && ["payments", "storefront"].contains(&node["service"].as_str().unwrap_or_default()),
                "{node}"
            ),
        }
        for (field, path) in [("metrics", "/metrics"), ("admin", "/")] {
            assert!(node.as_object().is_some_and(|node| node.contains_key(field)), "{node}");
            if let Some(address) = node[field].as_str() {
                let answer = eastway_tests::client::get(address.parse().expect("HOST:PORT"), path);
                assert!(answer.is_ok(), "{field} of {node}: {answer:?}");
            }
        }
        if let Some(proxy) = node["proxy"].as_str() {
            let answer =
                eastway_tests::client::get(proxy.parse().expect("HOST:PORT"), "http://payments.shop.mesh.internal/");
            assert_eq!(answer.expect("an answer").status, 200, "{node}");
        }
    }
}

/// Whether the process is there and no mere remainder.
fn alive(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[test]
fn the_demo_holds_its_promises_on_etcd() {
    let _machine = machine::alone();
    required("etcd", "etcd-server");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut process = demo(folder.path(), &["--etcd"]);
    judge(&report(&mut process, folder.path()));
    assert_eq!(process.wait().code(), Some(0));
}
