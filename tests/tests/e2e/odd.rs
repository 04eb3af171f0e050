//! Applications that answer oddly, early or late: each answer is told for what it is, and nobody is taken for dead.

use std::net::SocketAddr;
use std::time::Duration;

use eastway_tests::apps::{App, Connection};
use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS};
use eastway_tests::wire::Wire;

use crate::http_within::connect;
use crate::opaque::TCP;
use crate::{across, h2, http_within};

/// What an application is asked to take, in pieces and in all.
const PIECE: usize = 1 << 16;

/// The application in the caller's cluster, and in another one.
fn both(app: fn(SocketAddr) -> App) -> [(&'static str, Lab, App, LabNode); 2] {
    let (lab, within, _, caller) = http_within::with_app(app);
    let (other, across, far) = across::with_app(app);
    [("within", lab, within, caller), ("across", other, across, far)]
}

/// Answers each request by the last part of its path.
fn odd(address: SocketAddr) -> App {
    App::start(address, |mut connection| {
        while let Some(head) = connection.request() {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.as_str() {
                "/small" if head.starts_with("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".to_owned(),
                "/unchanged" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\n\r\n".to_owned(),
                "/switching" => "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
                "/twice" => {
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()
                }
                "/huge" => format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(200 << 10)),
                "/foreign" => "SMTP/1.0 hello\r\n\r\n".to_owned(),
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
            };
            connection.wire.send(answer);
            if !matches!(path.as_str(), "/" | "/small" | "/unchanged") {
                return;
            }
        }
    })
}

fn metric(caller: &LabNode, result: &str) -> f64 {
    caller.metric("eastway_attempts_total", &[result]).expect("metrics")
}

const FAILURES: &str = r#"result="failure""#;

#[test]
fn a_response_without_a_body_is_passed_on_whatever_length_it_states() {
    for (way, _lab, _app, caller) in both(odd) {
        for (method, path, status) in [("HEAD", "small", 200), ("GET", "unchanged", 304)] {
            let url = format!("{PAYMENTS}{path}");
            for _ in 0..3 {
                let over_h1 = client::raw(
                    caller.proxy(),
                    format!(
                        "{method} {url} HTTP/1.1\r\nhost: payments.shop.mesh.internal\r\nconnection: close\r\n\r\n"
                    )
                    .as_bytes(),
                );
                // A client that knows nothing of HEAD misses the body; what matters is the head.
                let head = over_h1.map_or_else(|error| error, |answer| answer.head);
                let length = if method == "HEAD" { 100 } else { 1234 };
                assert_eq!(head, format!("0 of {length} body bytes"), "{way}, {method}");
                let request = h2::request(method, &url).body(()).expect("a request");
                let over_h2 = h2::send(caller.proxy(), request, vec![]).expect("an answer");
                assert_eq!((over_h2.status.as_u16(), over_h2.body.len()), (status, 0), "{way}, {method}");
            }
        }
        assert!(metric(&caller, FAILURES) < 2.0, "{way}: somebody was charged");
    }
}

#[test]
fn the_refusal_of_a_head_has_no_body_over_http2() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let request = h2::request("HEAD", "http://nothing.shop.mesh.internal/").body(()).expect("a request");
    let refused = h2::send(storefront.proxy(), request, vec![]).expect("an answer without an error of the protocol");
    assert_eq!((refused.status.as_u16(), refused.body.len()), (404, 0));
}

#[test]
fn an_odd_answer_is_told_by_its_own_reason_and_its_endpoint_goes_on_serving() {
    for (way, _lab, _app, caller) in both(odd) {
        for path in ["switching", "twice", "huge", "foreign"] {
            for method in ["GET", "POST"] {
                let before = metric(&caller, FAILURES);
                let answer = client::send(caller.proxy(), method, &format!("{PAYMENTS}{path}"), &[], b"");
                let answer = answer.expect("an answer");
                let told = (answer.status, answer.reason());
                assert_eq!(told, (502, Some("upstream_protocol")), "{way}, {method} {path}: {answer:?}");
                assert!(metric(&caller, FAILURES) - before <= 2.0, "{way}, {method} {path}");
                // An endpoint whose answers are mostly odd would be ejected, as one that answers errors.
                for _ in 0..10 {
                    let next = client::send(caller.proxy(), "POST", PAYMENTS, &[], b"").expect("an answer");
                    assert_eq!(next.status, 200, "{way}, after {method} {path}: {next:?}");
                }
            }
        }
    }
}

/// Refuses an upload before it has read it, or pauses in the middle of one.
fn early_or_late(address: SocketAddr) -> App {
    App::start(address, |mut connection| {
        while let Some(head) = connection.request() {
            if head.contains("/early") {
                connection.wire.send("HTTP/1.1 413 No\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much");
                return;
            }
            pause_and_read(&mut connection, &head);
            if head.contains("connection: close") {
                return;
            }
        }
    })
}

fn pause_and_read(connection: &mut Connection, head: &str) {
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    if let Some(length) = length {
        // The pause is what the test is about.
        std::thread::sleep(Duration::from_secs(2));
        let _ = connection.wire.exactly(length);
    }
    connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
}

/// A POST of `pieces`, and the head of its answer and what follows until the connection ends.
fn upload(mut wire: Wire, path: &str, pieces: usize) -> (String, String) {
    let length = pieces * PIECE;
    wire.send(format!(
        "POST {PAYMENTS}{path} HTTP/1.1\r\nhost: payments.shop.mesh.internal\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    ));
    let mut writer = wire.writer();
    let sender = std::thread::spawn(move || (0..pieces).for_each(|_| writer.send([7; PIECE])));
    let head = wire.head();
    sender.join().expect("the sender ends");
    let (body, end) = wire.rest();
    assert_eq!(end, None, "no orderly end after {head}");
    (head, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn an_application_may_answer_before_it_has_read_an_upload_or_pause_in_one() {
    for (way, _lab, _app, caller) in both(early_or_late) {
        for _ in 0..5 {
            let (head, body) = upload(Wire::to(caller.proxy()), "early", 256);
            assert!(head.starts_with("HTTP/1.1 413") && body.ends_with("too much"), "{way}: {head}{body}");
            let request = h2::request("POST", &format!("{PAYMENTS}early")).body(()).expect("a request");
            let answer = h2::send(caller.proxy(), request, (0..256).map(|_| h2::data(&[7; PIECE])).collect());
            let answer = answer.expect("an answer");
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (413, &b"too much"[..]), "{way}");
        }
        // As a request, and as bytes of which the mesh knows nothing.
        for wire in [Wire::to(caller.proxy()), connect(caller.proxy(), TCP).expect("a stream")] {
            let (head, body) = upload(wire, "", 960);
            assert!(head.starts_with("HTTP/1.1 200") && body.ends_with("ok"), "{way}: {head}{body}");
        }
        // On a busy machine, a ping may go unanswered.
        assert!(metric(&caller, FAILURES) < 2.0, "{way}: somebody was charged");
    }
}
