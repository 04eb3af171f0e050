//! Hosts that are silent: nothing is refused, nothing is closed, there is just no answer. And networks that lose packets.

use std::net::SocketAddrV4;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, app_name, reaches};
use eastway_tests::machine::{Blackhole, connections_to};
use eastway_tests::{check, client, eventually};

use crate::http_within::connect;

/// Payments in zones a and b of us-east, called from zone a; answers the node in zone a and the caller.
fn lab() -> (Lab, LabNode, LabNode) {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    lab.payments("us-east", "b", "payments-2");
    (lab, payments, storefront)
}

#[test]
fn a_host_whose_packets_are_dropped_costs_nobody_a_request() {
    let (mut lab, payments, storefront) = lab();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    // Its own sign of life ends with it: what it sends bears another address on a loopback network.
    let vanished = vanish(&mut lab, &payments);
    reaches(storefront.proxy(), "us-east/b");
    caller.answers(100);
    drop(vanished);
    resume(&mut lab, &payments);
    reaches(storefront.proxy(), "us-east/a");
    caller.finish_without_failure();
}

#[test]
fn a_host_in_another_region_whose_packets_are_dropped_costs_nobody_a_request() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let first = lab.payments("eu-west", "a", "payments-1");
    lab.payments("eu-west", "b", "payments-2");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
    reaches(storefront.proxy(), "eu-west/b");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    let _vanished = vanish(&mut lab, &first);
    caller.answers(200);
    caller.finish_without_failure();
}

#[test]
fn a_host_that_stands_still_loses_its_traffic_to_others() {
    let (mut lab, payments, storefront) = lab();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    stop(&mut lab, &payments);
    // Its kernel acknowledges what it is sent, as that of a slow application does: nobody must wait until it goes on.
    caller.answers(200);
    let tally = caller.finish_without_failure();
    assert!(tally.zones.get("us-east/b") >= Some(&150), "{tally:?}");
    resume(&mut lab, &payments);
    reaches(storefront.proxy(), "us-east/a");
}

#[test]
fn a_gateway_whose_packets_are_dropped_is_no_loss_within_its_cluster() {
    let (lab, _, storefront) = lab();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    let vanished = Blackhole::around(lab.gateway("us-east").ip);
    caller.answers(200);
    drop(vanished);
    caller.answers(50);
    caller.finish_without_failure();
}

#[test]
fn a_stream_that_waits_for_a_gateway_that_vanishes_is_given_up_with_its_path() {
    // No limit of time is ever reached: only the state of the path can end the wait.
    let patient = "timeouts: { streamOpen: 60s }\n";
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, patient).plan("eu-west", StoreKind::Embedded, "");
    lab.resources("us-east", &["eu-west"]);
    lab.resources("eu-west", &["us-east"]);
    lab.start_gateway("us-east");
    lab.start_gateway("eu-west");
    lab.payments("eu-west", "a", "payments-1");
    let [storefront, another] = [(); 2].map(|()| lab.storefront_with("us-east", "a", patient));
    let service = "payments.shop.eu-west.mesh.internal";
    eventually("a stream to eu-west", || connect(storefront.proxy(), &format!("{service}:80")).map(drop));
    // It knows the service, and has no session that would find out before the path does.
    eventually("the service is known", || {
        let refused = connect(another.proxy(), &format!("{service}:81")).err().unwrap_or_default();
        check(refused.contains("unknown_port"), || refused.clone())
    });
    let _vanished = Blackhole::around(lab.gateway("eu-west").ip);
    let refused = connect(another.proxy(), &format!("{service}:80")).expect_err("nobody is there");
    assert!(refused.contains("path_down"), "{refused}");
}

#[test]
fn a_stream_to_a_region_that_vanished_under_an_open_session_is_given_up_by_the_session() {
    let (lab, _, storefront) = Lab::two_clusters();
    let stream = "payments.shop.eu-west.mesh.internal:80";
    eventually("a stream to eu-west", || connect(storefront.proxy(), stream).map(drop));
    let _vanished = Blackhole::around(lab.gateway("eu-west").ip);
    let refused = connect(storefront.proxy(), stream).expect_err("nobody is there");
    assert!(["upstream_reset", "path_down"].iter().any(|reason| refused.contains(reason)), "{refused}");
}

#[test]
fn a_region_whose_gateway_vanishes_is_left_and_found_again() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west", "ap-south"], StoreKind::Embedded);
    lab.payments("eu-west", "a", "payments-1");
    lab.payments("ap-south", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    for cluster in ["eu-west", "ap-south"] {
        let url = PAYMENTS.replace(".mesh.", &format!(".{cluster}.mesh."));
        eventually(&url, || check(client::get(storefront.proxy(), &url)?.status == 200, || "not yet".to_owned()));
    }
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    // Both are as far away; whichever serves is the one that vanishes.
    let serving = caller.tally().zones.into_iter().max_by_key(|(_, count)| *count).expect("a zone").0;
    let (gone, other) = if serving == "eu-west/a" { ("eu-west", "ap-south/a") } else { ("ap-south", "eu-west/a") };
    let vanished = Blackhole::around(lab.gateway(gone).ip);
    reaches(storefront.proxy(), other);
    caller.answers(100);
    drop(vanished);
    let url = PAYMENTS.replace(".mesh.", &format!(".{gone}.mesh."));
    eventually(&url, || check(client::get(storefront.proxy(), &url)?.status == 200, || "not yet".to_owned()));
    caller.finish_without_failure();
}

#[test]
fn a_second_connection_carries_what_lost_packets_would_hold_up() {
    let (_lab, payments, storefront) = Lab::one_cluster();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    let inbound = SocketAddrV4::new(payments.ip, 15008);
    assert_eq!(connections_to(inbound), 1, "requests share one connection");
    let _lossy = Blackhole::of_one_in(50, payments.ip, 15008);
    eventually("another connection", || {
        let count = connections_to(inbound);
        check(count == 2, || format!("{count} connections"))
    });
    caller.answers(100);
    caller.finish_without_failure();
}

/// The host of `node` vanishes: nobody hears from it, and what is sent to it is dropped.
fn vanish(lab: &mut Lab, node: &LabNode) -> Blackhole {
    let blackhole = Blackhole::around(node.ip);
    stop(lab, node);
    blackhole
}

/// The processes of `node` stand still; their sockets stay open.
fn stop(lab: &mut Lab, node: &LabNode) {
    for name in [app_name(node), node.name.clone()] {
        lab.process(&name).signal("STOP");
    }
}

fn resume(lab: &mut Lab, node: &LabNode) {
    for name in [app_name(node), node.name.clone()] {
        lab.process(&name).signal("CONT");
    }
}
