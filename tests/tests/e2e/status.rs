//! Do the operator's commands tell how the mesh stands, what is wrong, and where to look next?

use eastway_tests::lab::{Lab, LabNode, StoreKind};
use eastway_tests::process::eastway_command;
use eastway_tests::{check, client, eventually};
use serde_json::Value;

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    errors: String,
}

/// Runs `eastway WORDS` about `node`.
fn eastway(words: &[&str], node: &LabNode) -> Told {
    let admin = node.at(15000).to_string();
    let output = eastway_command().args(words).args(["--admin", &admin]).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: output.status.code(), out: text(&output.stdout), errors: text(&output.stderr) }
}

/// The same as JSON.
fn json(words: &[&str], node: &LabNode) -> Value {
    let told = eastway(&[words, &["-o", "json"]].concat(), node);
    serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

/// Waits until all is well at `node`.
fn is_well(node: &LabNode) -> Told {
    eventually(&format!("all is well at {}", node.name), || {
        let told = eastway(&["status"], node);
        let well = told.code == Some(0) && told.out.ends_with("\nall is well\n");
        check(well, || format!("{told:?}")).map(|()| told)
    })
}

/// Waits until `node` tells a problem of `kind`; answers it.
fn has_problem(node: &LabNode, kind: &str) -> Value {
    eventually(&format!("{} tells of {kind}", node.name), || {
        let status = json(&["status"], node);
        let problems = status["problems"].as_array().expect("problems");
        let found = problems.iter().find(|problem| problem["kind"] == kind).cloned();
        found.ok_or_else(|| format!("{problems:?}"))
    })
}

#[test]
fn a_peers_gateway_dies_and_status_names_the_peer_and_the_next_step_until_it_is_back() {
    let (mut lab, ..) = Lab::two_clusters();
    let gateway = lab.gateway("us-east");
    let well = is_well(&gateway);
    for part in
        ["us-east (region us-east, uid ", "gateway gateway-1", "from us-east to:", "eu-west", "store embedded: healthy"]
    {
        assert!(well.out.contains(part), "`{part}`: {well:?}");
    }
    let status = json(&["status"], &gateway);
    assert_eq!(status["problems"], serde_json::json!([]));
    let path = &status["federation"]["peers"][0]["paths"][0];
    assert_eq!((path["state"].as_str(), path["transport"].as_str()), (Some("up"), Some("quic")), "{path}");
    assert!(path["epoch"].as_u64().is_some_and(|epoch| epoch > 0) && path["rtt_ms"].is_number(), "{path}");

    lab.kill("eu-west-gateway");
    let problem = has_problem(&gateway, "peer_unreachable");
    for (field, words) in [
        ("what", "no gateway of eu-west can be reached"),
        ("cause", "ended"),
        ("next", "`eastway status` on the machine of a gateway of eu-west"),
    ] {
        assert!(problem[field].as_str().is_some_and(|text| text.contains(words)), "{field}: {problem}");
    }
    let told = eastway(&["status"], &gateway);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.out.contains("ERROR: no gateway of eu-west") && told.out.contains("  next: `eastway status`"),
        "{told:?}"
    );

    lab.start_gateway("eu-west");
    is_well(&gateway);
}

#[test]
fn services_endpoints_and_peers_are_told_by_either_cluster() {
    let (lab, payments, _) = Lab::two_clusters();
    let (east, west) = (lab.gateway("us-east"), lab.gateway("eu-west"));
    is_well(&east);

    let services = json(&["services"], &east);
    let service = &services[0];
    assert_eq!(
        (service["name"].as_str(), service["declared"].as_bool()),
        (Some("shop/payments"), Some(true)),
        "{service}"
    );
    let clusters: Vec<_> =
        service["clusters"].as_array().expect("clusters").iter().map(|c| (&c["cluster"], &c["ready"])).collect();
    assert_eq!(clusters, [(&Value::from("us-east"), &Value::from(0)), (&Value::from("eu-west"), &Value::from(1))]);
    let told = eastway(&["services"], &east);
    assert!(told.code == Some(0) && told.out.contains("us-east 0/0, eu-west 1/1"), "{told:?}");

    let endpoints = json(&["endpoints", "payments"], &west);
    let endpoint = &endpoints[0]["endpoints"][0];
    assert_eq!((endpoint["id"].as_str(), endpoint["health"].as_str()), (Some(payments.name.as_str()), Some("ready")));
    assert_eq!(
        (endpoint["gateway"].as_str(), endpoint["why"].as_str()),
        (Some("gateway-1"), Some("its sidecar says so"))
    );
    let told = eastway(&["endpoints"], &east);
    assert!(told.out.contains("no endpoints in this cluster") && told.out.contains("eu-west/a"), "{told:?}");

    // What its application answers to a health probe is told where its sidecar registered.
    let request = "POST /health/fail HTTP/1.1\r\nhost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    client::raw(payments.app(), request.as_bytes()).expect("an answer");
    let problem = has_problem(&west, "service_down");
    let next = problem["next"].as_str().unwrap_or_default();
    assert!(next.contains(&format!("`eastway endpoints shop/payments --admin {}`", west.at(15000))), "{problem}");
    let endpoint = json(&["endpoints", "shop/payments"], &west)[0]["endpoints"][0].clone();
    let why = endpoint["why"].as_str().unwrap_or_default();
    assert!(endpoint["health"] == "unready" && why.starts_with("its sidecar says: "), "{endpoint}");

    let peers = json(&["peers"], &west);
    assert_eq!(
        (peers[0]["cluster"].as_str(), peers[0]["staleness"].as_str()),
        (Some("us-east"), Some("fresh")),
        "{peers}"
    );
    let told = eastway(&["peers"], &west);
    assert!(told.code == Some(0) && told.out.contains("us-east  gateway-1"), "{told:?}");
}

#[test]
fn a_sidecar_tells_what_it_knows_and_where_to_ask_for_the_rest() {
    let (_lab, _, storefront) = Lab::two_clusters();
    let told = is_well(&storefront);
    assert!(told.out.contains("registration: none, it only calls"), "{told:?}");
    let told = eastway(&["services"], &storefront);
    assert!(told.out.contains("shop/payments") && told.out.contains("ask a gateway for all of them"), "{told:?}");
    for words in ["endpoints", "peers"] {
        let told = eastway(&[words], &storefront);
        let plain = told.errors.contains("sidecar") && told.errors.contains("ask a gateway of us-east");
        assert!(told.code == Some(1) && plain, "{told:?}");
    }
    let mistaken = eastway_command().args(["status", "--admin", "nowhere"]).output().expect("the binary starts");
    assert_eq!(mistaken.status.code(), Some(2), "{mistaken:?}");
}

#[test]
fn a_sibling_that_dies_and_a_service_that_nobody_serves_are_problems() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Etcd);
    let gateway = lab.gateway("us-east");
    let problem = has_problem(&gateway, "service_unserved");
    assert_eq!(problem["severity"].as_str(), Some("warning"), "{problem}");
    let payments = lab.payments("us-east", "a", "payments-1");
    let sibling = lab.start_sibling("us-east");
    is_well(&sibling);
    is_well(&gateway);
    let told = eastway(&["endpoints"], &sibling);
    assert!(told.out.contains(&payments.name) && told.out.contains("its sidecar says so to gateway-1"), "{told:?}");
    lab.kill(&sibling.name);
    let problem = has_problem(&gateway, "sibling_silent");
    assert!(problem["what"].as_str().is_some_and(|what| what.contains("gateway-2 of us-east")), "{problem}");
}
