//! What an operator sees in the metrics: who called whom, from where to where, also when it failed.

use eastway_tests::lab::{Lab, LabNode, PAYMENTS, reaches};
use eastway_tests::{check, client, eventually};

/// Waits until the sum of a metric's samples with these labels is at least `least`.
fn counts(node: &LabNode, name: &str, labels: &[&str], least: f64) {
    eventually(&format!("{name} with {labels:?} at {}", node.name), || {
        let sum = node.metric(name, labels)?;
        check(sum >= least, || format!("{sum} of {least} in\n{}", node.metrics().unwrap_or_default()))
    });
}

#[test]
fn requests_have_the_places_of_both_ends_also_when_they_fail() {
    let (mut lab, payments, storefront) = Lab::two_clusters();
    let source = [r#"source_service="shop/storefront""#, r#"source_cluster="us-east""#, r#"source_zone="a""#];
    let destination =
        [r#"destination_service="shop/payments""#, r#"destination_cluster="eu-west""#, r#"destination_zone="a""#];
    let both = [&source[..], &destination[..]].concat();
    let with = |more: &[&'static str]| [&both[..], more].concat();
    client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    // The service exists only in the other region: that is level 2, although it is the nearest that there is.
    let served = [r#"direction="outbound""#, r#"code="2xx""#, r#"reason="none""#, r#"failover_level="2""#];
    counts(&storefront, "eastway_requests_total", &with(&served), 1.0);
    counts(&storefront, "eastway_request_duration_seconds_count", &with(&[r#"direction="outbound""#]), 1.0);
    counts(&storefront, "eastway_attempts_total", &with(&[r#"attempt="first""#, r#"result="success""#]), 1.0);
    let inbound = [r#"direction="inbound""#, source[0], source[1], destination[0], destination[1], destination[2]];
    counts(&payments, "eastway_requests_total", &inbound, 1.0);

    let failed = client::get(storefront.proxy(), &format!("{PAYMENTS}status/500")).expect("an answer");
    assert_eq!(failed.status, 500);
    counts(&storefront, "eastway_requests_total", &with(&[r#"code="5xx""#, r#"reason="none""#]), 1.0);
    // Also when nobody is left who could answer: the reason that the caller is told is the one that is counted.
    lab.kill_workload(&payments);
    let failed = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert!(failed.status >= 500, "{failed:?}");
    let reason = failed.reason().expect("a reason").to_owned();
    let counted = format!(r#"reason="{reason}""#);
    let labels = [&both[..], &[r#"code="5xx""#, &counted, r#"failover_level="2""#]].concat();
    counts(&storefront, "eastway_requests_total", &labels, 1.0);
    // And once everybody has heard of it, that is that nobody can serve.
    eventually("the loss is known", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.reason() == Some("no_ready_endpoint"), || format!("{answer:?}"))
    });
    counts(&storefront, "eastway_requests_total", &with(&[r#"code="5xx""#, r#"reason="no_ready_endpoint""#]), 1.0);
}

#[test]
fn the_failover_level_says_how_far_requests_had_to_go() {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    lab.payments("us-east", "b", "payments-2");
    counts(&storefront, "eastway_requests_total", &[r#"failover_level="0""#, r#"destination_zone="a""#], 1.0);
    lab.kill_workload(&payments);
    reaches(storefront.proxy(), "us-east/b");
    counts(&storefront, "eastway_requests_total", &[r#"failover_level="1""#, r#"destination_zone="b""#], 1.0);
}

#[test]
fn the_tunnel_counts_streams_bytes_and_round_trips() {
    const BODY: usize = 1 << 20;
    let (lab, _, storefront) = Lab::two_clusters();
    let body = vec![b'a'; BODY];
    let answer = client::send(storefront.proxy(), "POST", &format!("{PAYMENTS}echo"), &[], &body).expect("an answer");
    assert_eq!(answer.body.len(), BODY);
    for (name, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        let gateway = lab.gateway(name);
        let peer = format!(r#"peer_cluster="{peer}""#);
        let labels = [peer.as_str(), r#"protocol="quic""#];
        counts(&gateway, "eastway_tunnel_connections", &labels, 1.0);
        counts(&gateway, "eastway_tunnel_streams_total", &labels, 1.0);
        counts(&gateway, "eastway_tunnel_streams_active", &labels, 1.0);
        counts(&gateway, "eastway_tunnel_sent_bytes_total", &labels, BODY as f64);
        counts(&gateway, "eastway_tunnel_received_bytes_total", &labels, BODY as f64);
        counts(&gateway, "eastway_tunnel_rtt_seconds", &labels, f64::MIN_POSITIVE);
    }
}

#[test]
fn what_only_a_request_says_is_no_label() {
    let (_lab, _, storefront) = Lab::one_cluster();
    for url in ["http://made-up-name.shop.mesh.internal/", "http://example.com/made-up-path"] {
        client::get(storefront.proxy(), url).expect("an answer");
    }
    counts(&storefront, "eastway_requests_total", &[r#"reason="foreign_host""#], 1.0);
    counts(&storefront, "eastway_requests_total", &[r#"reason="unknown_service""#], 1.0);
    let metrics = storefront.metrics().expect("metrics");
    assert!(!metrics.contains("made-up"), "{metrics}");
}

#[test]
fn a_node_says_whether_it_lives_and_who_it_is() {
    let (_lab, payments, storefront) = Lab::one_cluster();
    for node in [payments, storefront] {
        for path in ["/live", "/ready"] {
            assert_eq!(client::get(node.at(15020), path).expect("an answer").status, 200, "{path} of {}", node.name);
        }
        counts(&node, "eastway_build_info", &[r#"role="sidecar""#, r#"cluster="us-east""#], 1.0);
        counts(&node, "eastway_process_resident_memory_bytes", &[], 1.0);
    }
}
