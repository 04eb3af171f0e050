//! HTTP within one cluster: application, sidecar, sidecar, application.

use std::net::SocketAddr;

use eastway_tests::apps::App;
use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind};
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::{curl, h2};

/// The identity of the storefronts of us-east.
pub(crate) const STOREFRONT: &str = "spiffe://us-east.mesh.internal/ns/shop/sa/storefront";

/// One cluster in which payments is an application of the test itself, at the address that `app` is started with.
pub(crate) fn with_app(app: impl FnOnce(SocketAddr) -> App) -> (Lab, App, LabNode, LabNode) {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let ip = lab.host();
    let app = app((ip, 8080).into());
    let payments = lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    known(storefront.proxy(), "payments.shop.mesh.internal");
    (lab, app, payments, storefront)
}

/// Waits until a byte stream to `host` can be opened through the sidecar at `proxy`, whatever the application says.
pub(crate) fn known(proxy: SocketAddr, host: &str) {
    eventually(&format!("{host} has an endpoint"), || connect(proxy, &format!("{host}:9000")).map(drop));
}

/// A byte stream to `authority` through the sidecar at `proxy`.
///
/// # Errors
/// With what the proxy said instead.
pub(crate) fn connect(proxy: SocketAddr, authority: &str) -> Result<Wire, String> {
    let mut wire = Wire::to(proxy);
    wire.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    let head = wire.until("\r\n\r\n")?;
    check(head.starts_with("HTTP/1.1 200 "), || head.clone()).map(|()| wire)
}

#[test]
fn absolute_form_and_host_routing_reach_the_application_and_it_learns_who_calls() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let absolute = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    let host = b"GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nConnection: close\r\n\r\n";
    let by_host = client::raw(storefront.proxy(), host).expect("an answer");
    let cluster = client::get(storefront.proxy(), "http://payments.shop.us-east.mesh.internal/").expect("an answer");
    for answer in [absolute, by_host, cluster] {
        assert_eq!((answer.status, answer.json()["caller"].as_str()), (200, Some(STOREFRONT)), "{answer:?}");
    }
}

#[test]
fn http2_with_prior_knowledge_reaches_the_application() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let proxy = format!("payments.shop.mesh.internal:80:{}", storefront.proxy());
    let got = curl::curl(["--http2-prior-knowledge", "--connect-to", &proxy, PAYMENTS]).expect("an answer");
    assert_eq!((got.status, got.version.as_str()), (200, "2"), "{got:?}");
    assert!(got.body.contains(STOREFRONT), "{got:?}");
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let mut wire = Wire::to(storefront.proxy());
    for number in 0..20 {
        wire.send(format!(
            "POST {PAYMENTS}echo HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nContent-Length: 2\r\n\r\n{number:02}"
        ));
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // The application echoes with a length or in chunks, as it likes.
        wire.until(&format!("{number:02}")).expect("the body comes back");
        if head.to_lowercase().contains("chunked") {
            wire.until("\r\n0\r\n\r\n").expect("the last chunk");
        }
    }
}

#[test]
fn large_bodies_stream_through_in_both_directions_without_being_kept() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 64;
    let (mut lab, payments, storefront) = Lab::one_cluster();
    let nodes = [payments.name.clone(), storefront.name.clone()];
    let before = nodes.clone().map(|node| lab.process(&node).peak_memory());
    let mut wire = Wire::to(storefront.proxy());
    wire.send(format!("POST {PAYMENTS}echo HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", CHUNK * CHUNKS));
    let mut writer = wire.writer();
    let sender = std::thread::spawn(move || (0..CHUNKS).for_each(|number| writer.send(vec![number as u8; CHUNK])));
    assert!(wire.head().starts_with("HTTP/1.1 200"));
    let mut received = 0;
    while let Ok(bytes) = wire.chunk() {
        if bytes.is_empty() {
            break;
        }
        received += bytes.len();
    }
    sender.join().expect("the sender ends");
    assert!(received >= CHUNK * CHUNKS, "only {received} bytes came back");
    for (node, before) in nodes.iter().zip(before) {
        let grown = lab.process(node).peak_memory().saturating_sub(before);
        assert!(grown < 32 << 20, "{node} grew by {grown} bytes for a body of {}", CHUNK * CHUNKS);
    }
}

#[test]
fn trailers_pass_over_http2_in_both_directions() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let url = format!("{PAYMENTS}echo");
    let request = h2::request("POST", &url).header("te", "trailers").body(()).expect("a request");
    let frames = vec![h2::data(b"one "), h2::data(b"two"), h2::trailers("x-sum", "7")];
    let answer = h2::send(storefront.proxy(), request, frames).expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"one two"[..]));
    let trailers = answer.trailers.expect("the application echoes the trailers");
    assert_eq!(trailers.get("x-sum").map(|value| value.as_bytes()), Some(&b"7"[..]));
}

#[test]
fn trailers_pass_over_http1() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n\
                  5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n";
    let (_lab, _app, _, storefront) = with_app(|address| App::answering(address, answer));
    let got = client::send(storefront.proxy(), "GET", PAYMENTS, &["te: trailers"], b"").expect("an answer");
    assert_eq!((got.status, &got.body[..], got.trailers.as_str()), (200, &b"hello"[..], "x-sum: 5"), "{got:?}");
}

#[test]
fn a_connection_that_changes_its_protocol_carries_bytes_both_ways() {
    let (_lab, app, _, storefront) = with_app(App::switching);
    upgrade(storefront.proxy());
    let seen = app.seen().concat().to_lowercase();
    assert!(seen.contains("upgrade: echo"), "{seen}");
}

/// A stream of the protocol `echo`, through the sidecar at `proxy`.
///
/// # Errors
/// With what the proxy said instead.
pub(crate) fn switch(proxy: SocketAddr) -> Result<Wire, String> {
    switch_with(proxy, "\r\n")
}

/// The same with `more` of the request behind its first fields.
pub(crate) fn switch_with(proxy: SocketAddr, more: &str) -> Result<Wire, String> {
    let mut wire = Wire::to(proxy);
    wire.send(format!(
        "GET {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nConnection: Upgrade\r\nUpgrade: echo\r\n{more}"
    ));
    let head = wire.until("\r\n\r\n")?;
    check(head.starts_with("HTTP/1.1 101 "), || head.clone()).map(|()| wire)
}

/// Changes to the protocol `echo`, and sees that it echoes.
pub(crate) fn upgrade(proxy: SocketAddr) {
    let mut wire = switch(proxy).expect("the protocol changes");
    for word in ["first", "second"] {
        wire.send(word);
        assert_eq!(wire.exactly(word.len()).expect("an echo"), word.as_bytes());
    }
}

#[test]
fn interim_answers_come_before_the_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let app = |address| App::answering(address, format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let (_near, _app, _, near) = with_app(app);
    let (_far, _other, far) = crate::across::with_app(app);
    for proxy in [near.proxy(), far.proxy()] {
        let mut wire = Wire::to(proxy);
        wire.send(format!("GET {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n"));
        let heads = [wire.until("\r\n\r\n"), wire.until("\r\n\r\n")].map(Result::unwrap_or_default);
        assert!(heads[0].starts_with("HTTP/1.1 103 ") && heads[0].contains("</style.css>"), "{heads:?}");
        assert!(heads[1].starts_with("HTTP/1.1 200 "), "{heads:?}");
    }
}

#[test]
fn an_answer_says_nothing_of_the_inside_of_the_mesh() {
    let (_lab, _, storefront) = Lab::one_cluster();
    eventually("an answer without headers of ours", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(!answer.head.to_lowercase().contains("\neastway-"), || answer.head.clone())
    });
}
