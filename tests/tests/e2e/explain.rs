//! Does what `explain` and `what-if` say come true?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches};
use eastway_tests::process::eastway_command;
use eastway_tests::{check, client, eventually};
use serde_json::Value;

/// Requests that shares are measured by: a share of 70 % then has a standard deviation of 0.4 points.
const SAMPLE: usize = 12_000;
const THREADS: usize = 6;
/// Points that a measured share may differ.
const TOLERANCE: f64 = 2.0;

/// Runs an operator's command; answers what it printed.
fn eastway(arguments: &[&str]) -> Result<String, String> {
    let output = eastway_command().args(arguments).output().expect("the binary starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), || words)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn json(arguments: &[&str]) -> Result<Value, String> {
    let text = eastway(&[arguments, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// The shares of the localities, in percent, of an answer of either command.
fn shares(answer: &Value) -> BTreeMap<String, f64> {
    let priorities = answer["priorities"].as_array().expect("priorities").iter();
    let localities = priorities.flat_map(|priority| priority["localities"].as_array().expect("localities"));
    localities
        .map(|locality| {
            (locality["name"].as_str().expect("a name").to_owned(), locality["share"].as_f64().expect("a share"))
        })
        .collect()
}

/// Waits until `explain` tells these shares, and nothing on its way.
fn explained(admin: SocketAddr, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> = expected.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect();
    eventually("explain tells the shares", || {
        let answer = json(&["explain", "shop/payments", "--admin", &admin.to_string()])?;
        check(shares(&answer) == expected, || format!("{:?}", shares(&answer)))
    });
}

/// Where so many requests really went, in percent.
fn measured(proxy: SocketAddr) -> BTreeMap<String, f64> {
    let one = move |_| {
        let answer = client::get(proxy, PAYMENTS).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["zone"].as_str().expect("a zone").to_owned()
    };
    let threads: Vec<_> = (0..THREADS)
        .map(|_| std::thread::spawn(move || (0..SAMPLE / THREADS).map(one).collect::<Vec<String>>()))
        .collect();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for zone in threads.into_iter().flat_map(|thread| thread.join().expect("every request was answered")) {
        *counts.entry(zone).or_default() += 100.0 / SAMPLE as f64;
    }
    counts
}

fn agrees(proxy: SocketAddr, admin: SocketAddr) {
    let measured = measured(proxy);
    let answer = json(&["explain", "payments.shop", "--admin", &admin.to_string()]).expect("explained");
    for (zone, share) in shares(&answer) {
        let really = measured.get(&zone).copied().unwrap_or_default();
        assert!(
            (really - share).abs() <= TOLERANCE,
            "{zone}: {share} % explained, {really:.2} % measured: {measured:?}"
        );
    }
}

/// Has the application of a node answer its probes from now on with that verdict.
fn fail_probes(node: &LabNode) {
    let told = client::send(node.app(), "POST", "http://app/health/fail", &[], b"");
    assert_eq!(told.expect("an answer").status, 200);
}

#[test]
fn shares_are_as_explained_before_and_during_the_loss_of_a_zone() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let near: Vec<LabNode> = (1..=4).map(|i| lab.payments("us-east", "a", &format!("payments-{i}"))).collect();
    let same_region: Vec<LabNode> = (5..=6).map(|i| lab.payments("us-east", "b", &format!("payments-{i}"))).collect();
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    let (proxy, admin) = (storefront.proxy(), storefront.at(15000));
    reaches(proxy, "us-east/a");
    explained(admin, &[("us-east/a", 100.0), ("us-east/b", 0.0), ("eu-west/a", 0.0)]);

    // Half of the zone is unready: 1.4 × 2 of 4 is 70 %. Half of the next one: it could take as much.
    near[..2].iter().for_each(fail_probes);
    fail_probes(&same_region[0]);
    explained(admin, &[("us-east/a", 70.0), ("us-east/b", 30.0), ("eu-west/a", 0.0)]);
    agrees(proxy, admin);

    // What would be, while nothing is lost yet.
    let admin_text = admin.to_string();
    let question = ["what-if", "shop/payments", "--lose", "zone=us-east/a", "--admin", &admin_text];
    let predicted = shares(&json(&question).expect("an answer"));
    let text = eastway(&["explain", "payments", "--admin", &admin_text]).expect("explained");
    for words in
        ["us-east-payments-1", "its application's probe fails", "nearer priorities have enough capacity", "it serves"]
    {
        assert!(text.contains(words), "{words}\n{text}");
    }

    near.iter().for_each(|node| lab.kill_workload(node));
    explained(admin, &[("us-east/a", 0.0), ("us-east/b", 70.0), ("eu-west/a", 30.0)]);
    assert_eq!(predicted.get("us-east/b"), Some(&70.0), "{predicted:?}");
    assert_eq!(predicted.get("eu-west/a"), Some(&30.0), "{predicted:?}");
    agrees(proxy, admin);
}

#[test]
fn a_gateway_explains_for_every_zone_of_its_cluster_and_mistakes_say_what_to_do() {
    let (lab, _payments, storefront) = Lab::one_cluster();
    let (gateway, sidecar) = (lab.gateway("us-east").at(15000).to_string(), storefront.at(15000).to_string());
    let from = |admin: &str, zone: &str| json(&["explain", "shop/payments", "--admin", admin, "--from", zone]);
    let near = from(&gateway, "us-east/a").expect("explained");
    assert_eq!((&near["from"], &near["priorities"][0]["level"]), (&"us-east/a".into(), &0.into()));
    for admin in [lab.gateway("us-east").at(15000), storefront.at(15000)] {
        let told = client::get(admin, &format!("http://{admin}/explain/shop/payments")).expect("explained").json();
        let told = (&told["priorities"][0]["localities"][0], &told["tiers"][0]["lanes"][0]); // former names
        assert_eq!(told.0["share"], told.1["share"]);
        assert!(told.0["endpoints"][0]["active_requests"].is_u64() && told.1["endpoints"][0]["rif"].is_u64()); // former names
    }
    let far = from(&gateway, "us-east/b").expect("explained");
    assert_eq!((&far["from"], &far["priorities"][0]["level"]), (&"us-east/b".into(), &1.into()));
    for (admin, zone, words) in [
        (&gateway, "eu-west/a", "zones of its own cluster: us-east/a, us-east/b"),
        (&sidecar, "us-east/b", "this sidecar sees the mesh from us-east/a only"),
    ] {
        let error = from(admin, zone).expect_err("refused");
        assert!(error.contains(words), "{error}");
    }
    for (arguments, words) in [
        (&["explain", "shop/nothing", "--admin", &sidecar][..], "does not follow the service"),
        (&["explain", "nothing", "--admin", &sidecar], "it knows shop/payments"),
        (&["what-if", "payments", "--lose", "zone=us-east/z", "--admin", &sidecar], "there are us-east/a"),
        (
            &["what-if", "payments", "--lose", "us-east/a", "--admin", &sidecar],
            "write locality=NAME, zone=CLUSTER/ZONE",
        ),
        (&["explain", "payments", "--admin", "127.0.0.1:1"], "name one with --admin"),
    ] {
        let error = eastway(arguments).expect_err("refused");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn scenarios_are_explained_without_a_mesh() {
    let lab = Lab::new();
    let file = lab.write(
        "scenario.yaml",
        "mode: envoy\npriorities:\n  - localities: [{name: us-east/a, hosts: 4, healthy: 2}]\n  - localities: [{name: us-east/b, hosts: 4, healthy: 2}]\n",
    );
    let file = file.to_str().expect("a path");
    let answer = json(&["explain", "--file", file]).expect("explained");
    assert_eq!(shares(&answer), BTreeMap::from([("us-east/a".to_owned(), 70.0), ("us-east/b".to_owned(), 30.0)]));
    let answer =
        json(&["what-if", "--file", file, "--lose", "locality=us-east/a", "--load", "1.3"]).expect("an answer");
    assert_eq!(shares(&answer).get("us-east/b"), Some(&100.0));
    let earlier = lab.write(
        "former.yaml",
        "mode: compatible\ntiers:\n  - lanes: [{name: us-east/a, hosts: 4, healthy: 2}]\n  - lanes: [{name: us-east/b, hosts: 4, healthy: 2}]\n", // former names
    );
    let earlier = earlier.to_str().expect("a path");
    assert_eq!(
        json(&["explain", "--file", earlier]).expect("explained"),
        json(&["explain", "--file", file]).expect("explained")
    );
    let lost = json(&["what-if", "--file", earlier, "--lose", "lane=us-east/a", "--load", "1.3"]).expect("an answer"); // a former name
    assert_eq!(lost, answer);
    assert_eq!(lost["tiers"][1]["lanes"][0]["share"], 100); // former names
    let wrong =
        lab.write("wrong.yaml", "priorities:\n  - localities: [{name: a, hosts: 1, healthy: 2}]\nmod: native\n");
    let output = eastway_command().args(["explain", "--file"]).arg(&wrong).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(3));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("wrong.yaml:3: mod: unknown key `mod`; did you mean `mode`?"), "{words}");
}

/// `eastway explain ... | head -1`, and a full disk.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let lab = Lab::new();
    let file = lab.write("scenario.yaml", "priorities:\n  - localities: [{name: us-east/a, hosts: 4, healthy: 2}]\n");
    for verb in ["explain", "what-if"] {
        for format in ["table", "json"] {
            let command = || {
                let mut command = eastway_command();
                command.args([verb, "-o", format, "--file"]).arg(&file);
                command
            };
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let output = command().stdout(writer).output().expect("the binary starts");
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && words.is_empty(), "{verb} {format}: {words}");
            let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
            let output = command().stdout(full).output().expect("the binary starts");
            let words = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{verb} {format}: {words}");
            assert!(words.contains("cannot write the result to the standard output"), "{verb} {format}: {words}");
        }
    }
}

#[test]
fn a_scenario_is_simulated_and_drawn_the_same_way_every_time() {
    let lab = Lab::new();
    let file = lab.write(
        "scenario.yaml",
        "duration_s: 15\nrate: 50\nseed: 7\ncallers: [{zone: us/a, count: 5}]\nzones: [{zone: us/a, endpoints: 2}, {zone: us/b, endpoints: 2}]\n",
    );
    let plot = lab.path("plot.svg");
    let arguments = ["simulate", file.to_str().expect("a path"), "--plot", plot.to_str().expect("a path")];
    let first = json(&arguments).expect("simulated");
    assert_eq!(json(&arguments), Ok(first.clone()), "one seed, one result");
    for field in [
        "seed",
        "requests",
        "failures",
        "offered_ratio",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "imbalance",
        "shift_ms",
        "oscillations",
        "shares",
        "baseline",
    ] {
        assert!(first.get(field).is_some(), "{field}: {first}");
    }
    assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg"));
}

/// The commands that documents show print what the documents say.
#[test]
fn documents_show_what_the_commands_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut shown = 0;
    for document in ["docs/balancing.md", "docs/simulation.md", "README.md"] {
        let text = std::fs::read_to_string(root.join(document)).expect("a document");
        for block in text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let (command, expected) = block.split_once('\n').expect("a command and what it prints");
            let arguments = command.strip_prefix("$ eastway ").expect("a command of ours").split(' ');
            let output = eastway_command().args(arguments).current_dir(&root).output().expect("the binary starts");
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{document}: {command}");
            shown += 1;
        }
    }
    assert!(shown >= 3, "{shown} commands are shown");
}
