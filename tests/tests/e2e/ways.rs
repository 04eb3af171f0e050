//! One table of exchanges, by every way through the mesh: what a caller is told does not depend on how it got there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use eastway_tests::apps::{App, Connection};
use eastway_tests::client;
use eastway_tests::lab::LabNode;
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::http_within::connect;
use crate::{across, h2, http_within};

const HOST: &str = "payments.shop.mesh.internal";

/// What is asked.
struct Ask {
    method: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const GET: Ask = Ask { method: "GET", fields: &[], body: "" };
const HEAD: Ask = Ask { method: "HEAD", ..GET };
const OPTIONS: Ask = Ask { method: "OPTIONS", ..GET };
const DELETE: Ask = Ask { method: "DELETE", ..GET };
const PURGE: Ask = Ask { method: "PURGE", ..GET };
const POST: Ask = Ask { method: "POST", fields: &[], body: "hello" };
const PUT: Ask = Ask { method: "PUT", ..POST };
const FIELDS: Ask = Ask { fields: &[("x-one", "1"), ("x-two", "a b"), ("x-one", "3")], ..GET };
const MESH: Ask = Ask { fields: &[("eastway-source", "spiffe://evil"), ("x-one", "1")], ..GET };
const GRPC: Ask = Ask { fields: &[("content-type", "application/grpc"), ("te", "trailers")], ..POST };
const HURRIED: Ask = Ask { fields: &[("content-type", "application/grpc"), ("grpc-timeout", "300m")], ..POST };

/// What a request meets: how the application behaves at each attempt, and what the caller gets of it.
struct Case {
    ask: Ask,
    script: &'static str,
    expected: &'static str,
    /// The same without anybody who tries again, within a stream that the caller opened; nothing if nobody would end the wait.
    alone: &'static str,
}

const fn case(ask: Ask, script: &'static str, expected: &'static str) -> Case {
    Case { ask, script, expected, alone: expected }
}

const fn repeated(ask: Ask, script: &'static str, expected: &'static str, alone: &'static str) -> Case {
    Case { ask, script, expected, alone }
}

const CASES: &[Case] = &[
    case(GET, "200", "200 ok after 1"),
    case(POST, "200", "200 ok after 1"),
    case(HEAD, "200", "200  after 1"),
    case(OPTIONS, "200", "200 ok after 1"),
    case(DELETE, "200", "200 ok after 1"),
    case(PURGE, "200", "200 ok after 1"),
    case(GET, "204", "204  after 1"),
    case(GET, "304", "304  after 1"),
    case(HEAD, "304", "304  after 1"),
    case(POST, "echo", "200 hello after 1"),
    case(GET, "chunks", "200 hello x-sum: 5 after 1"),
    case(HEAD, "chunks", "200  after 1"),
    case(GET, "to-the-end", "200 hello after 1"),
    case(GET, "hints", "200 ok after 1"),
    case(FIELDS, "fields", "200 x-one: 1|x-one: 3|x-two: a b after 1"),
    case(MESH, "fields", "200 x-one: 1 after 1"),
    case(POST, "early", "413 too much after 1"),
    // What the application says itself is passed on.
    case(GET, "400", "400 no after 1"),
    case(GET, "404", "404 no after 1"),
    case(GET, "429", "429 no after 1"),
    case(GET, "500", "500 no after 1"),
    case(GET, "501", "501 no after 1"),
    case(POST, "503", "503 no after 1"),
    case(PURGE, "503,200", "503 no after 1"),
    // Another attempt may do better.
    repeated(GET, "503,200", "200 ok after 2", "503 no after 1"),
    repeated(GET, "502,200", "200 ok after 2", "502 no after 1"),
    repeated(GET, "503,502", "502 no after 2", "503 no after 1"),
    repeated(GET, "504,200", "200 ok after 2", "504 no after 1"),
    repeated(HEAD, "503,200", "200  after 2", "503  after 1"),
    repeated(OPTIONS, "503,200", "200 ok after 2", "503 no after 1"),
    repeated(DELETE, "503,200", "200 ok after 2", "503 no after 1"),
    repeated(PUT, "503,echo", "200 hello after 2", "503 no after 1"),
    // Answers that do not come, or break off.
    repeated(GET, "close,200", "200 ok after 2", "502 upstream_reset after 1"),
    repeated(GET, "reset,200", "200 ok after 2", "502 upstream_reset after 1"),
    repeated(PUT, "close,echo", "200 hello after 2", "502 upstream_reset after 1"),
    case(POST, "close", "502 upstream_reset after 1"),
    case(POST, "reset", "502 upstream_reset after 1"),
    repeated(GET, "garbage,200", "200 ok after 2", "502 upstream_protocol after 1"),
    case(POST, "garbage", "502 upstream_protocol after 1"),
    repeated(GET, "half,200", "200 ok after 2", "broken after 1"),
    case(POST, "half", "broken after 1"),
    // gRPC.
    case(GRPC, "grpc-0", "200 grpc-status: 0 after 1"),
    case(GRPC, "grpc-5", "200 grpc-status: 5 after 1"),
    case(GRPC, "grpc-14", "200 grpc-status: 14 after 1"),
    case(GRPC, "503", "503 no after 1"),
    case(GRPC, "close", "200 grpc-status: 14 after 1"),
    repeated(HURRIED, "silent", "200 grpc-status: 4 after 1", ""),
];

/// An application that behaves as the path of a request says, which is `/NUMBER/SCRIPT`: a word for each attempt.
fn scripted(address: SocketAddr) -> App {
    let attempts = Mutex::<HashMap<String, usize>>::default();
    App::start(address, move |mut connection| {
        while let Some(head) = connection.request() {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let attempt = {
                let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
                let attempt = attempts.entry(path.clone()).or_default();
                *attempt += 1;
                *attempt
            };
            let script: Vec<&str> = path.rsplit('/').next().unwrap_or_default().split(',').collect();
            let behaviour = script[(attempt - 1).min(script.len() - 1)];
            if !behave(&mut connection, &head, behaviour) {
                return;
            }
        }
    })
}

/// Whether the connection goes on.
fn behave(connection: &mut Connection, head: &str, behaviour: &str) -> bool {
    let bodiless = head.starts_with("HEAD ");
    if behaviour == "early" {
        connection.wire.send("HTTP/1.1 413 No\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much");
        return false;
    }
    let body = body_of(connection, head);
    let text = |status: &str, body: &str| {
        let shown = if bodiless { "" } else { body };
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{shown}", body.len())
    };
    let answer = match behaviour {
        "200" => text("200", "ok"),
        "204" => "HTTP/1.1 204 X\r\n\r\n".to_owned(),
        "304" => "HTTP/1.1 304 X\r\ncontent-length: 1234\r\n\r\n".to_owned(),
        "echo" => text("200", &body),
        "fields" => {
            let mut fields: Vec<&str> = head.lines().filter(|line| line.starts_with("x-")).collect();
            fields.sort_unstable();
            let forged = head.contains("spiffe://evil").then_some("forged");
            fields.extend(forged);
            text("200", &fields.join("|"))
        }
        "chunks" if bodiless => "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        "chunks" => {
            "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n".to_owned()
        }
        "to-the-end" => "HTTP/1.1 200 X\r\n\r\nhello".to_owned(),
        "hints" => "HTTP/1.1 103 X\r\nlink: </a>\r\n\r\n".to_owned() + &text("200", "ok"),
        "garbage" => "SMTP/1.0 hello\r\n\r\n".to_owned(),
        "half" => "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf of it".to_owned(),
        "close" => String::new(),
        "reset" => {
            connection.wire.reset_at_end();
            return false;
        }
        "silent" => {
            let _ = connection.wire.rest();
            connection.note("gone");
            return false;
        }
        grpc if grpc.starts_with("grpc-") => {
            let status = &grpc["grpc-".len()..];
            format!(
                "HTTP/1.1 200 X\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\ncontent-length: 0\r\n\r\n"
            )
        }
        status => text(status, "no"),
    };
    connection.wire.send(answer);
    !matches!(behaviour, "to-the-end" | "garbage" | "half" | "close")
}

fn body_of(connection: &mut Connection, head: &str) -> String {
    let head = head.to_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let chunks = connection.wire.until("0\r\n\r\n").unwrap_or_default();
        return chunks.split("\r\n").skip(1).step_by(2).collect();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    String::from_utf8_lossy(&connection.wire.exactly(length).unwrap_or_default()).into_owned()
}

/// How a request gets to the application.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By HTTP/1.1 to the sidecar.
    Http1,
    /// By HTTP/2.
    Http2,
    /// By HTTP/1.1 within a stream to the called sidecar, which the caller's knows nothing of.
    Stream,
}

/// Sends the request by `way` through the sidecar at `proxy`; the caller is told so.
fn told(way: Way, proxy: SocketAddr, ask: &Ask, path: &str) -> String {
    match way {
        Way::Http2 => told_by_http2(proxy, ask, path),
        Way::Http1 => told_over(Wire::to(proxy), ask, path),
        Way::Stream => told_over(connect(proxy, &format!("{HOST}:80")).expect("a stream"), ask, path),
    }
}

fn told_over(mut wire: Wire, ask: &Ask, path: &str) -> String {
    let fields: String = ask.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if ask.body.is_empty() { String::new() } else { format!("content-length: {}\r\n", ask.body.len()) };
    let (method, body) = (ask.method, ask.body);
    wire.send(format!("{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{fields}{length}\r\n{body}"));
    let (mut bytes, _) = wire.rest();
    if method == "HEAD" || bytes.starts_with(b"HTTP/1.1 304") {
        // The client takes the length that the head states for that of a body.
        let head = String::from_utf8_lossy(&bytes).replace("content-length", "x-length");
        bytes = head.replace("transfer-encoding", "x-encoding").into_bytes();
    }
    match client::parse(&bytes) {
        Ok(answer) => shown(
            answer.status,
            answer.reason(),
            answer.header("grpc-status"),
            &String::from_utf8_lossy(&answer.body),
            &answer.trailers,
        ),
        Err(_) => "broken".to_owned(),
    }
}

fn told_by_http2(proxy: SocketAddr, ask: &Ask, path: &str) -> String {
    let mut request = h2::request(ask.method, &format!("http://{HOST}{path}"));
    for (name, value) in ask.fields {
        request = request.header(*name, *value);
    }
    let frames = if ask.body.is_empty() { vec![] } else { vec![h2::data(ask.body.as_bytes())] };
    let Ok(answer) = h2::send(proxy, request.body(()).expect("a request"), frames) else { return "broken".to_owned() };
    let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let reason = text("proxy-status").and_then(|status| status.split("details=\"").nth(1)?.strip_suffix('"'));
    let trailers: Vec<String> = answer
        .trailers
        .iter()
        .flatten()
        .filter_map(|(name, value)| Some(format!("{name}: {}", value.to_str().ok()?)))
        .collect();
    let body = String::from_utf8_lossy(&answer.body);
    shown(answer.status.as_u16(), reason, text("grpc-status"), &body, &trailers.join("|"))
}

fn shown(status: u16, reason: Option<&str>, grpc: Option<&str>, body: &str, trailers: &str) -> String {
    match (grpc, reason) {
        (Some(grpc), _) => format!("{status} grpc-status: {grpc}"),
        // Which of the two it is depends on whether the connection to the application had been used before.
        (None, Some("stale_connection")) => format!("{status} upstream_reset"),
        (None, Some(reason)) => format!("{status} {reason}"),
        (None, None) if trailers.is_empty() => format!("{status} {body}"),
        (None, None) => format!("{status} {body} {trailers}"),
    }
}

/// Runs the table by `way`, and complains of what differs.
fn run(place: &str, way: Way, app: &App, caller: &LabNode) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let expected = if matches!(way, Way::Stream) { case.alone } else { case.expected };
        if expected.is_empty() {
            continue;
        }
        let path = format!("/{place}-{way:?}-{number}/{}", case.script);
        let told = told(way, caller.proxy(), &case.ask, &path);
        let attempts = app.seen().iter().filter(|head| head.contains(&format!(" {path} "))).count();
        let found = format!("{told} after {attempts}");
        if found != expected {
            complaints.push(format!(
                "{place}, {way:?}, {} {}: {found:?} instead of {expected:?}",
                case.ask.method, case.script
            ));
        }
        // Whose answers were mostly failures would be ejected.
        for again in 0..10 {
            self::told(Way::Http1, caller.proxy(), &POST, &format!("{path}/{again}/200"));
        }
    }
    complaints
}

#[test]
fn what_a_caller_is_told_is_the_same_by_every_way() {
    let (_near, near, _, near_caller) = http_within::with_app(scripted);
    let (_far, far, far_caller) = across::with_app(scripted);
    let mut complaints = Vec::new();
    for way in [Way::Http1, Way::Http2, Way::Stream] {
        complaints.extend(run("near", way, &near, &near_caller));
        complaints.extend(run("far", way, &far, &far_caller));
    }
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), 6 * CASES.len(), complaints.join("\n"));
}

#[test]
fn a_caller_that_goes_away_is_missed_at_the_application_by_every_way() {
    let (_near, near, _, near_caller) = http_within::with_app(scripted);
    let (_far, far, far_caller) = across::with_app(scripted);
    for (app, caller) in [(&near, &near_caller), (&far, &far_caller)] {
        for way in [Way::Http1, Way::Stream] {
            let before = app.seen().len();
            let mut wire = match way {
                Way::Stream => connect(caller.proxy(), &format!("{HOST}:80")).expect("a stream"),
                _ => Wire::to(caller.proxy()),
            };
            wire.send(format!("GET /{way:?}/silent HTTP/1.1\r\nhost: {HOST}\r\n\r\n"));
            eventually("the request arrives", || check(app.seen().len() > before, || format!("{way:?}")));
            drop(wire);
            eventually("the application hears of it", || {
                check(app.seen().last().is_some_and(|note| note == "gone"), || format!("{way:?}: {:?}", app.seen()))
            });
        }
    }
}
