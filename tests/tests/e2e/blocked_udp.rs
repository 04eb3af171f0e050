//! Two clusters between which UDP does not pass, or stops to: what goes over TCP, what is told, and what comes back to QUIC.

use std::net::IpAddr;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, PAYMENTS_SPEC, StoreKind, service};
use eastway_tests::process::eastway_command;
use eastway_tests::relay::PathRelay;
use eastway_tests::{check, client, eventually};
use serde_json::Value;

/// us-east calls payments, which is in eu-west only, on a way that can lose UDP.
struct Clusters {
    lab: Lab,
    storefront: LabNode,
    /// The way there, and the way back.
    ways: [PathRelay; 2],
}

impl Clusters {
    /// With what `prepare` does to the lab and to the ways before anybody starts.
    fn start(prepare: impl FnOnce(&mut Lab, &[PathRelay; 2])) -> Self {
        let mut lab = Lab::new();
        for name in ["us-east", "eu-west"] {
            lab.plan(name, StoreKind::Embedded, "");
        }
        let ways = [("us-east", "eu-west"), ("eu-west", "us-east")]
            .map(|(from, to)| PathRelay::start(IpAddr::V4(lab.gateway(from).ip), lab.gateway(to).at(15443)));
        prepare(&mut lab, &ways);
        let peer = |name: &str, way: &PathRelay| lab.peer_at(name, &[way.address()], "imports: ['shop/*']");
        lab.declare("us-east", &[service("payments", PAYMENTS_SPEC), peer("eu-west", &ways[0])]);
        lab.declare("eu-west", &[service("payments", PAYMENTS_SPEC), peer("us-east", &ways[1])]);
        lab.start_gateway("us-east");
        lab.start_gateway("eu-west");
        for name in ["payments-1", "payments-2"] {
            lab.payments("eu-west", "a", name);
        }
        let storefront = lab.storefront("us-east", "a");
        Self { lab, storefront, ways }
    }

    fn gateway(&self) -> LabNode {
        self.lab.gateway("us-east")
    }

    fn block_udp(&self) {
        self.ways.iter().for_each(PathRelay::block_udp);
    }

    fn heal_udp(&self) {
        self.ways.iter().for_each(PathRelay::heal_udp);
    }

    /// Waits until an application is answered.
    fn answers(&self) {
        eventually("an answer across", || {
            let answer = client::get(self.storefront.proxy(), PAYMENTS)?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
    }

    /// Waits until the path to eu-west is up over `transport`, and answers what `eastway status` tells.
    fn is_over(&self, transport: &str) -> Value {
        eventually(&format!("up over {transport}"), || {
            let status = status(&self.gateway())?;
            let path = &status["federation"]["peers"][0]["paths"][0];
            let is = path["state"] == "up" && path["transport"] == transport;
            check(is, || format!("{path}")).map(|()| status)
        })
    }

    /// Streams to eu-west that were opened over `transport`.
    fn opened(&self, transport: &str) -> f64 {
        let labels = ["peer_cluster=\"eu-west\"", &format!("protocol=\"{transport}\""), "side=\"opened\""];
        self.gateway().metric("eastway_tunnel_streams_total", &labels).unwrap_or_default()
    }
}

fn status(node: &LabNode) -> Result<Value, String> {
    let admin = node.at(15000).to_string();
    let told = eastway_command().args(["status", "-o", "json", "--admin", &admin]).output().expect("the binary starts");
    serde_json::from_slice(&told.stdout).map_err(|error| format!("{error}: {told:?}"))
}

/// The problem of `kind`, if it is told.
fn problem<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["problems"].as_array().expect("problems").iter().find(|problem| problem["kind"] == kind)
}

#[test]
fn clusters_between_which_udp_is_blocked_reach_one_another_over_tcp_and_status_says_so() {
    let clusters = Clusters::start(|_, ways| ways.iter().for_each(PathRelay::block_udp));
    clusters.answers();
    let status = clusters.is_over("tcp");
    let problem = problem(&status, "udp_blocked").unwrap_or_else(|| panic!("{status}"));
    assert_eq!(problem["severity"], "warning", "{problem}");
    for (field, words) in [("what", "goes over TCP"), ("cause", "drops UDP to "), ("next", "pass, both ways")] {
        assert!(problem[field].as_str().is_some_and(|text| text.contains(words)), "{field}: {problem}");
    }
    assert_eq!((clusters.opened("quic"), clusters.opened("tcp") > 0.0), (0.0, true));
    let caller = Caller::start(clusters.storefront.proxy(), PAYMENTS);
    caller.answers(100);
    caller.finish_without_failure();
}

#[test]
fn udp_that_stops_between_two_clusters_costs_no_request_and_quic_is_used_again_when_it_passes() {
    let clusters = Clusters::start(|_, _| {});
    clusters.answers();
    let status = clusters.is_over("quic");
    assert_eq!(problem(&status, "udp_blocked"), None, "{status}");
    let caller = Caller::start(clusters.storefront.proxy(), PAYMENTS);
    caller.answers(100);
    assert_eq!(clusters.opened("tcp"), 0.0);

    clusters.block_udp();
    let status = clusters.is_over("tcp");
    assert!(problem(&status, "udp_blocked").is_some(), "{status}");
    caller.answers(200);
    assert!(clusters.opened("tcp") > 0.0);

    clusters.heal_udp();
    let status = clusters.is_over("quic");
    assert_eq!(problem(&status, "udp_blocked"), None, "{status}");
    caller.answers(100);
    caller.finish_without_failure();
    let metric = |name: &str, labels: &[&str]| clusters.gateway().metric(name, labels);
    let peer = "peer_cluster=\"eu-west\"";
    assert_eq!(metric("eastway_peer_transport_changes_total", &[peer]), Ok(2.0), "there and back");
    assert_eq!(metric("eastway_peer_paths", &[peer, "protocol=\"quic\""]), Ok(1.0));
    assert_eq!(metric("eastway_peer_paths", &[peer, "protocol=\"tcp\""]), Ok(0.0));
}

/// A gateway of an earlier version speaks QUIC, and turns away whoever comes to its TCP port without being a workload.
#[test]
fn a_gateway_that_only_does_quic_is_reached_as_before_and_reaches_others() {
    let clusters = Clusters::start(|lab, _| {
        lab.tunnel("eu-west", "transports: [quic]");
    });
    clusters.answers();
    clusters.is_over("quic");
    let caller = Caller::start(clusters.storefront.proxy(), PAYMENTS);
    caller.answers(100);
    caller.finish_without_failure();
    assert_eq!(clusters.opened("tcp"), 0.0);
    // With nothing to fall back to, the path is down without UDP, as it was.
    clusters.block_udp();
    eventually("the path is down", || {
        let status = status(&clusters.gateway())?;
        check(problem(&status, "peer_unreachable").is_some(), || format!("{}", status["problems"]))
    });
    clusters.heal_udp();
    clusters.is_over("quic");
    clusters.answers();
}

#[test]
fn clusters_that_use_no_udp_at_all_reach_one_another() {
    let clusters = Clusters::start(|lab, ways| {
        ways.iter().for_each(PathRelay::block_udp);
        lab.tunnel("us-east", "transports: [tcp]").tunnel("eu-west", "transports: [tcp]");
    });
    clusters.answers();
    let status = clusters.is_over("tcp");
    assert_eq!(problem(&status, "udp_blocked"), None, "it was meant so: {status}");
    assert_eq!(clusters.opened("quic"), 0.0);
}
