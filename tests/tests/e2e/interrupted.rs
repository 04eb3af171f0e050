//! Requests and answers that end too early.

use eastway_tests::apps::App;
use eastway_tests::caller::Caller;
use eastway_tests::client;
use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::http_within::with_app;

#[test]
fn a_caller_that_goes_away_within_its_body_leaves_nothing_behind() {
    let (_lab, app, payments, storefront) = with_app(|address| {
        App::start(address, |mut connection| {
            if connection.request().is_none() {
                return;
            }
            let (body, _) = connection.wire.rest();
            connection.note(&format!("{} bytes, then nothing", body.len()));
        })
    });
    let mut wire = Wire::to(storefront.proxy());
    wire.send(format!(
        "POST {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nContent-Length: 1000\r\n\r\n0123456789"
    ));
    eventually("the request arrives", || check(!app.seen().is_empty(), || "nothing".to_owned()));
    drop(wire);
    eventually("the application hears of it", || {
        check(app.seen().last().is_some_and(|note| note.ends_with("then nothing")), || format!("{:?}", app.seen()))
    });
    for node in [storefront, payments] {
        eventually("nothing is in flight any more", || {
            let in_flight = node.metric("eastway_requests_in_flight", &[])?;
            check(in_flight == 0.0, || format!("{in_flight} at {}", node.name))
        });
    }
}

#[test]
fn an_endpoint_that_dies_within_a_large_answer_leaves_a_broken_one() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let part = "ffff\r\n".to_owned() + &"a".repeat(0xffff) + "\r\n";
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}");
        let (_lab, _app, _, storefront) = with_app(|address| App::answering(address, answer));
        let got = client::get(storefront.proxy(), PAYMENTS);
        assert!(got.is_err(), "half of an answer passed for a whole one: {framing}");
        // The caller, too, can tell: it is not the end of the connection that ends the answer.
        let mut wire = Wire::to(storefront.proxy());
        wire.send(format!("GET {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n"));
        let head = wire.head().to_lowercase();
        assert!(head.contains(&framing.to_lowercase()), "{head}");
    }
}

#[test]
fn an_endpoint_that_dies_within_a_small_answer_costs_nobody_a_request() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let (dying, living) = (lab.host(), lab.host());
    let half = App::answering((dying, 8080).into(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of i");
    let _whole =
        App::answering((living, 8080).into(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    for ip in [dying, living] {
        lab.beside("us-east", "a", ip, "");
    }
    let storefront = lab.storefront("us-east", "a");
    // Only what the caller's sidecar knows can take over: both have been asked before anything counts.
    eventually("both endpoints are tried", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.status == 200 && !half.seen().is_empty(), || format!("{answer:?}"))
    });
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    caller.finish_without_failure();
}

#[test]
fn an_endpoint_killed_while_it_answers_costs_nobody_a_request() {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    lab.payments("us-east", "b", "payments-2");
    // Every request is under way for a while, so that some are when the endpoint is killed.
    let caller = Caller::start(storefront.proxy(), &format!("{PAYMENTS}delay/50"));
    caller.answers(20);
    lab.kill_workload(&payments);
    reaches(storefront.proxy(), "us-east/b");
    caller.answers(50);
    caller.finish_without_failure();
}

#[test]
fn an_answer_that_is_no_http_is_the_endpoints_fault() {
    let (_lab, _app, _, storefront) = with_app(|address| App::answering(address, "SMTP/1.0 hello\r\n\r\n"));
    let answer = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert!([502, 503].contains(&answer.status), "{answer:?}");
    assert!(answer.reason().is_some(), "{answer:?}");
}
