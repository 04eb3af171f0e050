//! Bodies that take their time, wait to be asked for, come just as a connection is closed, or are never read.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use eastway_tests::apps::App;
use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind};
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::h2;
use crate::http_within::known;

/// The application in the caller's cluster, and in another one, with lines for the configuration of the caller's sidecar and
/// of the called one.
fn both(app: fn(SocketAddr) -> App, calling: &str, called: &str) -> [(&'static str, Lab, App, LabNode); 2] {
    [("within", "us-east"), ("across", "eu-west")].map(|(way, cluster)| {
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        let ip = lab.host();
        let app = app((ip, 8080).into());
        lab.beside(cluster, "a", ip, called);
        let caller = lab.storefront_with("us-east", "a", calling);
        known(caller.proxy(), "payments.shop.mesh.internal");
        (way, lab, app, caller)
    })
}

/// Says yes or no to a body, by the path, notes how much of it came, and closes.
fn asking(address: SocketAddr) -> App {
    App::start(address, |mut connection| {
        let Some(head) = connection.request() else { return };
        let head = head.to_lowercase();
        if head.starts_with("post /refused") {
            connection.wire.send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno");
            let (body, _) = connection.wire.rest();
            connection.note(&format!("{} bytes", body.len()));
            return;
        }
        if head.contains("expect: 100-continue") {
            connection.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = connection.wire.exactly(length.unwrap_or_default()).unwrap_or_default();
        connection.wire.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(&body)
        ));
    })
}

/// A POST whose head alone is sent.
fn begin(caller: &LabNode, path: &str, more: &str) -> Wire {
    let mut wire = Wire::to(caller.proxy());
    wire.send(format!("POST {PAYMENTS}{path} HTTP/1.1\r\nhost: payments.shop.mesh.internal\r\n{more}\r\n"));
    wire
}

#[test]
fn the_application_is_asked_whether_it_wants_a_body() {
    const EXPECT: &str = "expect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n";
    for (way, _lab, app, caller) in both(asking, "", "") {
        let mut refused = begin(&caller, "refused", EXPECT);
        let head = refused.head();
        assert!(head.starts_with("HTTP/1.1 401 "), "{way}: {head}");
        drop(refused);
        eventually("the application knows that there is no body", || {
            check(app.seen().iter().any(|note| note == "0 bytes"), || format!("{way}: {:?}", app.seen()))
        });
        let mut wanted = begin(&caller, "", EXPECT);
        let interim = wanted.head();
        assert!(interim.starts_with("HTTP/1.1 100 "), "{way}: {interim}");
        wanted.send("hello");
        let head = wanted.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{way}: {head}");
        assert_eq!(wanted.rest().0, b"hello", "{way}");
    }
}

#[test]
fn a_limit_for_the_response_begins_when_the_request_has_been_sent() {
    for (way, _lab, _app, caller) in both(asking, "timeouts: { request: 1s }\n", "") {
        let mut wire = begin(&caller, "", "content-length: 5\r\nconnection: close\r\n");
        for piece in ["h", "e", "l", "l", "o"] {
            // Five pauses are longer than the limit.
            std::thread::sleep(Duration::from_millis(400));
            wire.send(piece);
        }
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{way}: {head}");
    }
}

#[test]
fn a_caller_that_stalls_is_told_so_and_nobody_else_is_charged() {
    const SHORT: &str = "timeouts: { idle: 1s }\n";
    let cases = [both(asking, SHORT, ""), both(asking, "", SHORT)];
    for (way, _lab, _app, caller) in cases.into_iter().flatten() {
        let mut wire = begin(&caller, "", "content-length: 5\r\n");
        wire.send("hel");
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 408 ") && head.contains("body_timeout"), "{way}: {head}");
        let next = client::send(caller.proxy(), "POST", PAYMENTS, &[], b"next").expect("an answer");
        assert_eq!((next.status, &next.body[..]), (200, &b"next"[..]), "{way}: {next:?}");
    }
}

/// Closes each connection when it has been idle for 50 ms, which takes it a moment.
fn impatient(address: SocketAddr) -> App {
    App::start(address, |mut connection| {
        while connection.request().is_some() {
            connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if !connection.readable_within(Duration::from_millis(50)) {
                // What comes now is lost.
                std::thread::sleep(Duration::from_millis(5));
                return;
            }
        }
    })
}

#[test]
fn hardly_a_post_is_lost_to_connections_that_the_application_closes_as_idle() {
    for (way, _lab, _app, caller) in both(impatient, "", "") {
        let mut lost = Vec::new();
        for _ in 0..60 {
            // Just when the application closes.
            std::thread::sleep(Duration::from_micros(51_500));
            let answer = client::send(caller.proxy(), "POST", PAYMENTS, &[], b"").expect("an answer");
            if answer.status != 200 {
                lost.push((answer.status, answer.reason().unwrap_or_default().to_owned()));
            }
        }
        assert!(lost.len() <= 3, "{way}: {lost:?}");
        assert!(lost.iter().all(|(_, reason)| reason == "stale_connection"), "{way}: {lost:?}");
    }
}

/// Answers with more than any buffer holds, as fast as it is taken.
fn generous(address: SocketAddr) -> App {
    App::start(address, |mut connection| {
        let Some(head) = connection.request() else { return };
        if !head.contains("/much") {
            connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
            return;
        }
        let (mut stream, _) = connection.into_parts();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MUCH * PIECE);
        let _ = stream.write_all(head.as_bytes());
        let _ = (0..MUCH).try_for_each(|_| stream.write_all(&[7; PIECE]));
    })
}

/// Pieces of an answer that nobody reads, and the length of one.
const MUCH: usize = 1024;
const PIECE: usize = 1 << 16;

#[test]
fn a_caller_that_never_reads_costs_no_more_than_its_windows() {
    const STREAMS: usize = 60;
    // Given up soon, or not at all as long as the test lasts.
    let cases = [both(generous, "timeouts: { idle: 1s }\n", ""), both(generous, "", "")];
    for (way, mut lab, _app, caller) in cases.into_iter().flatten() {
        let before = lab.process(&caller.name).peak_memory();
        let unread = h2::unread(caller.proxy(), &format!("{PAYMENTS}much"), STREAMS).expect("answers");
        assert!(unread.answers.iter().all(|answer| answer.status() == 200), "{way}");
        // It takes a second to see that nobody reads; until then others may come to wait behind them.
        std::thread::sleep(Duration::from_secs(3));
        eventually("others are served", || {
            let answer = client::get(caller.proxy(), PAYMENTS)?;
            check(answer.status == 200, || format!("{way}: {answer:?}"))
        });
        let grown = lab.process(&caller.name).peak_memory().saturating_sub(before);
        // 8 MiB of a connection's window, and 256 KiB for each stream, and as much again for what is on its way to them.
        assert!(grown < 64 << 20, "{way}: it grew by {grown} bytes for {STREAMS} streams");
    }
}
