//! Mistakes are found before anything starts, all at once, with their place; what changes is taken without a restart.

use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches, service};
use eastway_tests::{check, client, eventually};

use crate::http_within::connect;
use crate::opaque::TCP;

/// The exit code for a configuration that cannot be used.
const UNUSABLE: i32 = 3;

/// A lab with the configuration of a gateway and a sidecar, of which nothing runs; answers their nodes.
fn planned() -> (Lab, LabNode, LabNode) {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").resources("us-east", &[]);
    lab.configure_gateway("us-east");
    let storefront = LabNode { name: "us-east-storefront".to_owned(), ip: lab.host() };
    lab.configure("us-east", "a", &storefront, "storefront", "");
    let gateway = lab.gateway("us-east");
    (lab, gateway, storefront)
}

/// Replaces a text in the configuration of `node`.
fn edit(lab: &Lab, node: &LabNode, from: &str, to: &str) {
    let name = format!("{}.yaml", node.name);
    let text = std::fs::read_to_string(lab.path(&name)).expect("a configuration");
    assert!(text.contains(from), "{name} does not say {from:?}:\n{text}");
    lab.write(&name, &text.replace(from, to));
}

/// Checks that the configuration of `node` cannot be used, and that each of `complaints` is named on a line of its own.
fn refused(lab: &Lab, role: &str, node: &LabNode, complaints: &[&str]) {
    let output = lab.check(role, &node.name);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNUSABLE), "{words}");
    for complaint in complaints {
        let lines: Vec<&str> = words.lines().filter(|line| line.contains(complaint)).collect();
        assert!(!lines.is_empty(), "nothing about {complaint:?} in:\n{words}");
    }
    // Each problem is told with file and line.
    let placed = words.lines().filter(|line| line.contains(".yaml:")).count();
    assert!(placed >= complaints.len(), "{} problems, {placed} places:\n{words}", complaints.len());
}

#[test]
fn a_valid_configuration_is_valid_and_starts_nothing() {
    let (lab, gateway, storefront) = planned();
    for (role, node) in [("gateway", &gateway), ("sidecar", &storefront)] {
        let output = lab.check(role, &node.name);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(client::get(node.at(15020), "/ready").is_err(), "{role} --check listens");
    }
}

#[test]
fn all_mistakes_of_shape_are_told_at_once() {
    let (lab, gateway, storefront) = planned();
    edit(&lab, &storefront, "outbound:", "outbond:");
    edit(&lab, &storefront, "admin: {", "admin: { colour: red,");
    edit(&lab, &storefront, "  namespace: shop\n", "  namespace: [shop]\n");
    refused(&lab, "sidecar", &storefront, &["outbond", "colour", "workload.namespace"]);
    let output = lab.check("sidecar", &storefront.name);
    assert!(String::from_utf8_lossy(&output.stderr).contains("outbound"), "no hint at the right name");
    edit(&lab, &gateway, "region:", "regoin:");
    edit(&lab, &gateway, "discovery: {", "discovery: { port: 1,");
    refused(&lab, "gateway", &gateway, &["regoin", "port"]);
    edit(&lab, &gateway, "embedded:", "memory:");
    refused(&lab, "gateway", &gateway, &["store"]);
}

#[test]
fn all_mistakes_of_meaning_are_told_at_once() {
    let (lab, gateway, storefront) = planned();
    edit(&lab, &storefront, &format!("proxy: '{}'", storefront.proxy()), "proxy: 'localhost'");
    edit(&lab, &storefront, &format!("{}.key", storefront.name), "missing.key");
    edit(&lab, &storefront, "cluster: us-east", "cluster: US_EAST");
    let more = "timeouts: { connect: soon }\n";
    let text = std::fs::read_to_string(lab.path(&format!("{}.yaml", storefront.name))).expect("a configuration");
    lab.write(&format!("{}.yaml", storefront.name), &(text + more));
    refused(&lab, "sidecar", &storefront, &["outbound.proxy", "identity.key", "cluster", "timeouts.connect"]);
    edit(&lab, &gateway, &format!("tunnel: {{ listen: '{}'", gateway.at(15443)), "tunnel: { listen: 'nowhere:port'");
    edit(&lab, &gateway, "zones: { a: {}, b: {} }", "zones: {}");
    refused(&lab, "gateway", &gateway, &["tunnel.listen", "zones"]);
}

#[test]
fn mistakes_in_resources_are_told_with_their_own_file() {
    let (lab, gateway, _) = planned();
    lab.declare(
        "us-east",
        &[
            service("payments", "export: ['*']"),
            service("payments", "export: []"),
            service("orders", "exprot: ['*']"),
            "apiVersion: eastway.dev/v1\nkind: Widget\nmetadata: { name: a }\nspec: {}\n".to_owned(),
        ],
    );
    refused(&lab, "gateway", &gateway, &["resources.yaml"]);
    let words = String::from_utf8_lossy(&lab.check("gateway", &gateway.name).stderr).into_owned();
    assert!(words.contains("exprot") && words.contains("Widget"), "{words}");
    lab.declare("us-east", &[service("payments", "export: ['*']"), service("payments", "export: []")]);
    refused(&lab, "gateway", &gateway, &["payments"]);
}

#[test]
fn a_role_that_cannot_use_its_configuration_does_not_start() {
    let (mut lab, gateway, storefront) = planned();
    for (role, node) in [("gateway", gateway), ("sidecar", storefront)] {
        edit(&lab, &node, "identity:", "idendity:");
        lab.start_role(role, &node.name);
        assert_eq!(lab.take(&node.name).wait().code(), Some(UNUSABLE), "{role}");
    }
}

#[test]
fn a_key_of_another_certificate_is_told_at_the_start() {
    let (mut lab, _, storefront) = planned();
    let key = lab.path("us-east-identities").join("us-east-gateway.key");
    edit(&lab, &storefront, &format!("us-east-identities/{}.key", storefront.name), &key.display().to_string());
    lab.start_role("sidecar", &storefront.name);
    let process = lab.take(&storefront.name);
    assert_ne!(process.wait().code(), Some(0));
    let log = std::fs::read_to_string(lab.path(&format!("{}.log", storefront.name))).unwrap_or_default();
    assert!(log.contains("key"), "{log}");
}

#[test]
fn every_listener_says_where_it_is_bound() {
    let (mut lab, gateway, storefront) = planned();
    for (role, node, listeners) in [
        ("gateway", &gateway, &["tunnel.listen", "discovery.listen", "admin.listen", "metrics.listen"][..]),
        ("sidecar", &storefront, &["outbound.proxy", "admin.listen", "metrics.listen"]),
    ] {
        for port in [15443, 15010, 15080, 15000, 15020] {
            let name = format!("{}.yaml", node.name);
            let text = std::fs::read_to_string(lab.path(&name)).expect("a configuration");
            lab.write(&name, &text.replace(&format!("'{}'", node.at(port)), &format!("'{}:0'", node.ip)));
        }
        lab.start_role(role, &node.name);
        let bound = eventually("all listeners are logged", || {
            let bound = listeners.iter().map(|listener| listening(&lab.process(&node.name).log(), listener));
            bound.collect::<Option<Vec<_>>>().ok_or_else(|| lab.process(&node.name).log())
        });
        assert!(bound.iter().all(|address| address.ip() == node.ip && address.port() != 0), "{bound:?}");
        let metrics = *bound.last().expect("a listener");
        eventually("the logged address serves", || client::get(metrics, "/live").map(drop));
    }
}

/// Where a log says that `listener` is bound.
fn listening(log: &str, listener: &str) -> Option<std::net::SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut lines = lines.filter(|line| line["message"] == "listening" && line["listener"] == listener);
    lines.next()?["address"].as_str()?.parse().ok()
}

#[test]
fn sighup_has_a_gateway_read_its_resources_again() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").plan("eu-west", StoreKind::Embedded, "");
    lab.resources("us-east", &["eu-west"]);
    lab.declare("eu-west", &[service("payments", ""), lab.peer("us-east", "imports: []")]);
    lab.start_gateway("us-east");
    let gateway = lab.start_gateway("eu-west");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    let refused = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_ne!(refused.status, 200, "{refused:?}");

    lab.resources("eu-west", &["us-east"]);
    lab.process(&gateway.name).signal("HUP");
    reaches(storefront.proxy(), "eu-west/a");

    // What cannot be used changes nothing, and is told.
    lab.declare("eu-west", &[service("payments", "exprot: []")]);
    lab.process(&gateway.name).signal("HUP");
    eventually("the mistake is in the log", || {
        let log = lab.process(&gateway.name).log();
        check(log.contains("exprot"), || log.clone())
    });
    reaches(storefront.proxy(), "eu-west/a");

    // And what is taken back is gone.
    lab.declare("eu-west", &[service("payments", ""), lab.peer("us-east", "imports: []")]);
    lab.process(&gateway.name).signal("HUP");
    eventually("payments is not offered any more", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check([403, 404, 503].contains(&answer.status), || format!("{answer:?}"))
    });
    assert!(connect(storefront.proxy(), TCP).is_err());
}
