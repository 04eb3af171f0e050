//! Malformed and oversized HTTP, byte by byte, through a real sidecar: what is refused, and what the application sees of
//! what is not.

use std::net::SocketAddr;

use eastway_tests::apps::App;
use eastway_tests::client::{self, Answer};
use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::h2;
use crate::http_within::with_app;

/// The application's answer to whatever reaches it.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Sends `bytes`, and reads the answer up to the end of the connection.
fn refused(proxy: SocketAddr, bytes: &str) -> Answer {
    client::raw(proxy, bytes.as_bytes()).unwrap_or_else(|error| panic!("{bytes:?}: {error}"))
}

#[test]
fn a_request_with_two_lengths_is_refused_closed_and_never_passed_on() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    let host = "Host: payments.shop.mesh.internal";
    for lengths in [
        "Content-Length: 6\r\nContent-Length: 7",
        "Content-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 6, 7",
        "Content-Length: +6",
        "Content-Length: 0x6",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
    ] {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n";
        // `raw` reads to the end: that it answers shows that the connection was closed.
        let answer =
            refused(storefront.proxy(), &format!("POST {PAYMENTS} HTTP/1.1\r\n{host}\r\n{lengths}\r\n\r\n{smuggled}"));
        assert_eq!(answer.status, 400, "{lengths}: {answer:?}");
    }
    assert_eq!(app.seen(), Vec::<String>::new(), "something was passed on");
}

#[test]
fn a_head_that_breaks_the_rules_is_refused() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    for head in [
        // A folded line, no host, two hosts, a broken host, a broken name, a name with a space before the colon.
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nX-Folded: a\r\n b\r\n",
        "GET / HTTP/1.1\r\nX-Other: 1\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nHost: payments.shop.mesh.internal\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal, orders.shop.mesh.internal\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nBad Name: 1\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nX-Name : 1\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nX-Null: a\0b\r\n",
        "GET  / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n",
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal:port\r\n",
    ] {
        let answer = refused(storefront.proxy(), &format!("{head}\r\n"));
        assert_eq!(answer.status, 400, "{head:?}: {answer:?}");
    }
    assert_eq!(app.seen(), Vec::<String>::new(), "something was passed on");
}

#[test]
fn a_head_beyond_the_limit_is_refused_with_431() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    let long = "a".repeat(100 << 10);
    let many: String =
        (0..2_000).map(|number| format!("X-Header-{number}: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")).collect();
    for headers in [format!("X-Long: {long}\r\n"), many] {
        let head = format!("GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n{headers}\r\n");
        let answer = refused(storefront.proxy(), &head);
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    assert_eq!(app.seen(), Vec::<String>::new(), "something was passed on");
}

#[test]
fn http2_with_a_host_beside_another_authority_is_refused() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let request = h2::request("GET", PAYMENTS).header("host", "orders.shop.mesh.internal").body(()).expect("a request");
    let answer = h2::send(storefront.proxy(), request, vec![]).expect("an answer");
    assert_eq!(answer.status.as_u16(), 400, "{answer:?}");
    let same = h2::request("GET", PAYMENTS).header("host", "payments.shop.mesh.internal").body(()).expect("a request");
    assert_eq!(h2::send(storefront.proxy(), same, vec![]).expect("an answer").status.as_u16(), 200);
}

#[test]
fn bare_line_feeds_are_refused() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    for head in ["GET /bare HTTP/1.1\nHost: HOST\n\n", "GET /bare HTTP/1.1\r\nHost: HOST\nX-Bare: 1\r\n\r\n"] {
        let answer = refused(storefront.proxy(), &head.replace("HOST", "payments.shop.mesh.internal"));
        assert_eq!((answer.status, answer.reason()), (400, Some("malformed_request")), "{answer:?}");
    }
    assert_eq!(app.seen(), Vec::<String>::new(), "something was passed on");
}

#[test]
fn headers_of_one_hop_stay_there_and_the_absolute_form_replaces_host() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    let answer = refused(
        storefront.proxy(),
        "GET http://payments.shop.mesh.internal/path?query HTTP/1.1\r\nHost: orders.shop.mesh.internal\r\n\
         Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic c2VjcmV0\r\nTE: trailers, gzip\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = app.seen().concat().to_lowercase();
    assert!(seen.starts_with("get /path?query http/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("\r\nhost: payments.shop.mesh.internal\r\n") && seen.matches("\r\nhost:").count() == 1,
        "{seen}"
    );
    assert!(seen.contains("\r\nx-kept: 1\r\n"), "{seen}");
    for gone in ["x-secret", "keep-alive:", "proxy-connection", "proxy-authorization", "gzip"] {
        assert!(!seen.contains(gone), "{gone} was passed on: {seen}");
    }
}

#[test]
fn connect_to_nobody_is_refused_with_a_reason() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let storefront = lab.storefront("us-east", "a");
    for (authority, status, reason) in [
        ("nothing.shop.mesh.internal:80", 404, "unknown_service"),
        ("example.com:443", 404, "foreign_host"),
        // Declared, so that it is known, but nobody has registered for it.
        ("payments.shop.mesh.internal:80", 503, "no_ready_endpoint"),
    ] {
        let answer = eventually(authority, || {
            let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
            let answer = refused(storefront.proxy(), &head);
            check(answer.status == status, || format!("{answer:?}")).map(|()| answer)
        });
        let proxy_status = answer.header("proxy-status").unwrap_or_default();
        assert!(proxy_status.contains("error=") && answer.reason() == Some(reason), "{authority}: {answer:?}");
        let plain = client::get(storefront.proxy(), &format!("http://{authority}/")).expect("an answer");
        assert_eq!((plain.status, plain.reason()), (status, Some(reason)), "{authority}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let (_lab, _, storefront) = Lab::one_cluster();
    for garbage in [
        "\r\n\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "GET",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        let mut wire = Wire::to(storefront.proxy());
        wire.send(garbage);
        wire.finish();
        let (answer, _) = wire.rest();
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("200 OK"), "{garbage:?}: {text}");
    }
    reaches(storefront.proxy(), "us-east/a");
}

#[test]
fn odd_cases_are_answered_as_the_table_of_them_says() {
    let (_lab, app, _, storefront) = with_app(|address| App::answering(address, OK));
    let proxy = storefront.proxy();
    let host = "Host: payments.shop.mesh.internal\r\n";
    for (head, status, reason) in [
        ("GET https://payments.shop.mesh.internal/ HTTP/1.1\r\n", 404, "plain_http_only"),
        ("POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n", 400, "conflicting_length"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Body: broken\r\n", 400, "malformed_request"),
        ("GET / HTTP/1.2\r\n", 400, "malformed_request"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked,\r\n", 400, "malformed_request"),
    ] {
        let answer = refused(proxy, &format!("{head}{host}\r\nzz\r\nbody\r\n0\r\n\r\n"));
        assert_eq!((answer.status, answer.reason()), (status, Some(reason)), "{head}: {answer:?}");
    }
    eventually("what never became a request is counted as well", || {
        let counted = storefront.metric("eastway_requests_total", &[r#"reason="malformed_request""#])?;
        check(counted >= 3.0, || format!("{counted}"))
    });
    let before = app.seen().len();
    for (method, status) in [("OPTIONS", 200), ("TRACE", 405)] {
        let answer =
            refused(proxy, &format!("{method} / HTTP/1.1\r\n{host}Max-Forwards: 0\r\nConnection: close\r\n\r\n"));
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(app.seen().len(), before, "neither goes further");
    let empty_port =
        "GET / HTTP/1.1\r\nHost: payments.shop.mesh.internal:\r\nVia: 1.0 other\r\nConnection: close\r\n\r\n";
    let answer = refused(proxy, empty_port);
    assert_eq!((answer.status, answer.header("via")), (200, Some("1.1 eastway")), "{answer:?}");
    let seen = app.seen().last().cloned().unwrap_or_default().to_lowercase();
    assert!(seen.contains("host: payments.shop.mesh.internal\r\n"), "{seen}");
    assert!(seen.contains("via: 1.0 other\r\nvia: 1.1 eastway\r\n"), "{seen}");
    assert!(!seen.contains("traceparent"), "nobody records this trace: {seen}");
    let large = h2::request("GET", PAYMENTS).header("x-large", "a".repeat(100_000)).body(()).expect("valid");
    let answer = h2::send(proxy, large, vec![]).expect("an answer");
    assert!(answer.status == 431 && String::from_utf8_lossy(&answer.body).contains("header_too_large"), "{answer:?}");
}
