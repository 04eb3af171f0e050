//! Gateways and sidecars that die, start again, or end in order, while callers go on.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eastway_tests::apps::App;
use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::{check, client, eventually};

use crate::across;
use crate::http_within::{connect, with_app};
use crate::opaque::TCP;

/// How long a tunnel may be silent.
const TUNNEL_IDLE: Duration = Duration::from_secs(20);

#[test]
fn a_gateway_is_killed_and_starts_again_while_its_own_sidecars_call_one_another() {
    let (mut lab, _, storefront) = Lab::one_cluster();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    lab.kill("us-east-gateway");
    caller.answers(100);
    lab.start_gateway("us-east");
    // What is new is learnt from the gateway again.
    lab.payments("us-east", "a", "payments-2");
    eventually("the new endpoint is called", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.json()["name"] == "us-east-payments-2", || format!("{answer:?}"))
    });
    caller.finish_without_failure();
}

#[test]
fn the_gateway_of_another_region_is_killed_with_open_streams_and_starts_again() {
    let (mut lab, _app, storefront) = across::with_app(App::echoing);
    let mut open = eventually("a stream to eu-west", || connect(storefront.proxy(), TCP));
    open.send("before");
    assert_eq!(open.exactly(6).expect("an echo"), b"before");
    lab.kill("eu-west-gateway");
    let refused = eventually("a new stream is refused", || match connect(storefront.proxy(), TCP) {
        Ok(_) => Err("it opens".to_owned()),
        Err(refused) => Ok(refused),
    });
    assert!(refused.starts_with("HTTP/1.1 50"), "{refused}");
    lab.start_gateway("eu-west");
    let mut again = eventually("a new stream to eu-west", || connect(storefront.proxy(), TCP));
    again.send("after");
    assert_eq!(again.exactly(5).expect("an echo"), b"after");
    // The old stream's gateway is gone for good: it ends, and does not hang.
    open.send("lost");
    let (late, _) = open.rest();
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn a_kept_tunnel_to_a_gateway_that_was_killed_and_started_again_is_replaced_at_once() {
    // Opening a stream has more time than the old tunnel has until it is idle for too long, so that it is not what ends it.
    let patient = "timeouts: { streamOpen: 60s }\n";
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, patient).plan("eu-west", StoreKind::Embedded, "");
    lab.resources("us-east", &["eu-west"]);
    lab.resources("eu-west", &["us-east"]);
    lab.start_gateway("us-east");
    lab.start_gateway("eu-west");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront_with("us-east", "a", patient);
    let stream = "payments.shop.eu-west.mesh.internal:80";
    eventually("a stream to eu-west", || connect(storefront.proxy(), stream).map(drop));
    lab.kill("eu-west-gateway");
    let begun = Instant::now();
    lab.start_gateway("eu-west");
    eventually("a new stream to eu-west", || connect(storefront.proxy(), stream).map(drop));
    assert!(begun.elapsed() < TUNNEL_IDLE, "the old tunnel was waited for: {:?}", begun.elapsed());
}

#[test]
fn the_own_gateway_is_killed_with_open_streams_which_end_at_once() {
    let (mut lab, _app, storefront) = across::with_app(App::echoing);
    let mut open = eventually("a stream to eu-west", || connect(storefront.proxy(), TCP));
    lab.kill("us-east-gateway");
    let (late, _) = open.rest();
    assert!(late.is_empty(), "{late:?}");
    lab.start_gateway("us-east");
    eventually("a new stream to eu-west", || connect(storefront.proxy(), TCP).map(drop));
}

#[test]
fn a_sidecar_that_starts_again_while_no_gateway_answers_serves_from_its_last_view() {
    let (mut lab, _, storefront) = Lab::one_cluster();
    let state = lab.path(&format!("{}-state/view.json", storefront.name));
    eventually("the view is on disk", || {
        let view = std::fs::read_to_string(&state).map_err(|error| error.to_string())?;
        check(view.contains("us-east-payments-1"), || view.clone())
    });
    lab.kill("us-east-gateway");
    lab.kill(&storefront.name);
    lab.start_role("sidecar", &storefront.name);
    reaches(storefront.proxy(), "us-east/a");
}

#[test]
fn a_caller_far_away_survives_the_restart_of_both_gateways() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    for gateway in ["us-east", "eu-west"] {
        lab.kill(&format!("{gateway}-gateway"));
        lab.start_gateway(gateway);
        reaches(storefront.proxy(), "eu-west/a");
    }
}

#[test]
fn sigterm_lets_a_callers_sidecar_finish_what_is_under_way() {
    drains(|_, storefront| storefront);
}

#[test]
fn sigterm_lets_a_called_sidecar_finish_what_is_under_way() {
    drains(|payments, _| payments);
}

/// A request is under way when the sidecar that `which` chooses gets SIGTERM: it is answered, and the sidecar exits with 0.
fn drains(which: fn(String, String) -> String) {
    let (arrived, waiting) = channel();
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let arrived = Mutex::new(arrived);
    let (mut lab, _app, payments, storefront) = with_app(move |address| {
        App::start(address, move |mut connection| {
            if connection.request().is_none() {
                return;
            }
            let _ = arrived.lock().expect("nobody panicked").send(());
            let _ = released.lock().expect("nobody panicked").recv();
            connection.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone");
        })
    });
    let proxy = storefront.proxy();
    let under_way = std::thread::spawn(move || client::get(proxy, PAYMENTS));
    waiting.recv().expect("the request arrives");
    let node =
        if which(payments.name.clone(), storefront.name.clone()) == payments.name { payments } else { storefront };
    let process = lab.take(&node.name);
    process.signal("TERM");
    eventually("the sidecar says that it is not ready", || match client::get(node.at(15020), "/ready") {
        Ok(answer) if answer.status == 200 => Err(format!("{answer:?}")),
        _ => Ok(()),
    });
    release.send(()).expect("the application waits");
    let answer = under_way.join().expect("the caller ends").expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"done"[..]));
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn sigterm_lets_a_gateway_finish_and_leave_without_waiting_for_idle_sessions() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    // A session is open through both, and nothing is under way on it.
    for cluster in ["eu-west", "us-east"] {
        leaves(&mut lab, cluster);
        lab.start_gateway(cluster);
        reaches(storefront.proxy(), "eu-west/a");
    }
}

/// The gateway of `cluster` gets SIGTERM, and exits when nothing is under way any more, not when its patience is over.
fn leaves(lab: &mut Lab, cluster: &str) {
    let process = lab.take(&format!("{cluster}-gateway"));
    let log = lab.path(&format!("{cluster}-gateway.log"));
    let ended = process.terminate();
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert_eq!(ended.code(), Some(0), "{log}");
    let drained: Vec<&str> = log.lines().filter(|line| line.contains("drained")).collect();
    assert!(drained.last().is_some_and(|line| line.contains("Finished")), "{cluster}: {drained:?}");
}

#[test]
fn gateways_that_drain_hand_their_sessions_to_their_siblings_and_cost_nobody_a_request() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "").plan("eu-west", StoreKind::Etcd, "");
    for cluster in ["us-east", "eu-west"] {
        lab.declare(cluster, &[]);
        lab.start_gateway(cluster);
        lab.start_sibling(cluster);
    }
    // Both gateways of each are known now.
    for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        lab.resources(cluster, &[peer]);
        for gateway in ["gateway", "gateway-2"] {
            lab.process(&format!("{cluster}-{gateway}")).signal("HUP");
        }
    }
    lab.payments("eu-west", "a", "payments-1");
    lab.payments("eu-west", "a", "payments-2");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    for cluster in ["us-east", "eu-west"] {
        leaves(&mut lab, cluster);
        caller.answers(100);
    }
    caller.finish_without_failure();
}

#[test]
fn a_sidecar_that_deregisters_is_gone_at_once_and_costs_nobody_a_request() {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    lab.payments("us-east", "b", "payments-2");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    assert_eq!(lab.take(&payments.name).terminate().code(), Some(0));
    reaches(storefront.proxy(), "us-east/b");
    caller.answers(50);
    caller.finish_without_failure();
}
