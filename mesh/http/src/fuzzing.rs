//! The fuzzer's entry points: each takes any bytes and panics if a promise of this crate is broken.
//!
//! The targets in `fuzz/` call them with what the fuzzer finds, the tests with seeded random and mutated inputs. The
//! program itself never calls them.

pub mod message;
pub mod shell;
pub mod ways;

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::rc::Rc;

use eastway_core::Reason;
use eastway_transport::Io;
use http::{Request, Response, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::body::Body;
use crate::client::{ClientOptions, H1};
use crate::framing::{self, Length, RawRequest};
use crate::head::Head;
use crate::refuse;
use crate::server::{ServerOptions, serve};
use crate::sweeper::Sweeper;
use message::Message;
use ways::Way;

/// More than any head that the fuzzer makes up.
const LIMIT: usize = 64 * 1024;

/// More turns of the only thread than a few requests in memory need.
const TURNS: usize = 200;

/// Reads the bytes as a raw request head. What the raw judge accepts, hyper's path must accept with the same result.
pub fn request_head(bytes: &[u8]) {
    let mut fields = [const { MaybeUninit::uninit() }; 64];
    let Ok(Some(RawRequest { head, verdict, length, .. })) = framing::parse_request(bytes, &mut fields, LIMIT) else {
        return;
    };
    assert!(length <= bytes.len(), "a head does not end behind its bytes");
    assert_eq!(head.authority, verdict.authority);
    assert!(!verdict.authority.is_empty() && !verdict.authority.contains(['@', '/', '\\', ',', ' ', '#', '?']));
    assert!(head.version == Version::HTTP_11 || verdict.length != Length::Chunked, "HTTP/1.0 knows no chunks");
    let both = head.header("content-length").is_some() && head.header("transfer-encoding").is_some();
    assert!(!both, "two lengths were let through");
    same_by_hyper(&head, bytes, &verdict);
}

fn same_by_hyper(head: &Head<'_>, bytes: &[u8], verdict: &framing::Verdict<'_>) {
    let Some(mut parts) = hyper_parts(bytes) else { return };
    let admitted = framing::admit_request(&mut parts);
    assert_eq!(admitted, Ok(()), "the raw judge was the laxer one");
    let view = Head::of(&parts);
    assert_eq!((view.method, view.authority), (head.method, verdict.authority));
    assert_admitted(&parts);
    if view.method != "CONNECT" {
        let slash = if head.target.starts_with('?') { "/" } else { "" };
        assert_eq!(parts.uri.to_string(), format!("{slash}{}", head.target), "written as it was read");
    }
    let before = parts.headers.clone();
    let again = framing::admit_request(&mut parts);
    assert_eq!((again, &parts.headers), (Ok(()), &before), "admitting twice changes nothing");
}

/// The head as hyper would hand it over; `None` if the `http` crate refuses parts of it.
fn hyper_parts(bytes: &[u8]) -> Option<http::request::Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let version = if parsed.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for field in parsed.headers.iter() {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What [`framing::admit_request`] promises of a head.
pub fn assert_admitted(parts: &http::request::Parts) {
    for name in parts.headers.keys() {
        assert!(!framing::is_hop_by_hop(name.as_str()), "{name} was let through");
    }
    assert_eq!(parts.headers.get_all("host").iter().count(), 1, "exactly one Host");
    assert!(parts.headers.get_all("content-length").iter().count() <= 1, "one length");
    assert!(parts.headers.get("te").is_none_or(|te| te == "trailers"));
    let connect = parts.method == http::Method::CONNECT;
    assert_eq!(parts.uri.authority().is_some(), connect, "origin form, except for CONNECT");
    assert!(parts.uri.scheme().is_none() && !parts.uri.to_string().is_empty());
}

/// Reads the bytes as a response head and admits it.
pub fn response_head(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    if !parsed.parse(bytes).is_ok_and(|status| status.is_complete()) {
        return;
    }
    let mut response = Response::builder().status(parsed.code.unwrap_or_default());
    for field in parsed.headers.iter() {
        response = response.header(field.name, field.value);
    }
    let Ok(response) = response.body(()) else { return };
    let mut parts = response.into_parts().0;
    let chunked = parts.headers.contains_key("transfer-encoding");
    match framing::admit_response(&mut parts) {
        Err(reason) => assert_eq!(reason, Reason::UpstreamProtocol),
        Ok(()) => {
            assert!(parts.headers.keys().all(|name| !framing::is_hop_by_hop(name.as_str())));
            let lengths = parts.headers.get_all("content-length").iter().count();
            assert!(lengths <= 1 && !(chunked && lengths == 1), "one way to tell the length");
        }
    }
}

/// Sends the bytes to a server whose handler forwards every request over a connection of its own, and judges what each
/// upstream received.
pub fn exchange(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O needs nothing from the system");
    let forwarded = tokio::task::LocalSet::new().block_on(&runtime, forward(bytes));
    forwarded.iter().for_each(|bytes| assert_forwarded(bytes));
}

/// Sends the bytes both ways, hyper's and our own. Each request that both let through must reach its upstream as the same one;
/// our own may refuse more.
pub fn both_ways(bytes: &[u8]) {
    let ours = ways::run(Way::Wire, bytes, ways::OK, false);
    ours.upstream.iter().for_each(|bytes| assert_forwarded(bytes));
    let theirs = ways::run(Way::Hyper, bytes, ways::OK, false);
    for (ours, theirs) in ours.requests().iter().zip(&theirs.requests()) {
        if ours.whole && theirs.whole {
            assert_same(ours, theirs);
        }
    }
}

/// Has an upstream say the bytes, both ways. What both pass on must be the same to the caller.
pub fn both_ways_back(bytes: &[u8]) {
    let answer = |way| {
        let seen = ways::run(way, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes, true);
        let last = Message::responses(&seen.answer, false).pop();
        last.filter(|answer| answer.whole && answer.refusal().is_none())
    };
    if let (Some(ours), Some(theirs)) = (answer(Way::Wire), answer(Way::Hyper)) {
        assert_same(&ours, &theirs);
    }
}

/// The same message to everybody who reads it. hyper passes on no trailers that were not announced.
fn assert_same(ours: &Message, theirs: &Message) {
    assert_eq!((&ours.line, &ours.fields), (&theirs.line, &theirs.fields));
    // hyper sends no chunks with these methods, and so loses the body.
    let lost = theirs.body.is_empty() && (theirs.line.starts_with("GET ") || theirs.line.starts_with("HEAD "));
    if !lost {
        assert_eq!(ours.body.escape_ascii().to_string(), theirs.body.escape_ascii().to_string());
    }
    assert!(theirs.trailers.iter().all(|trailer| ours.trailers.contains(trailer)), "{ours:?} {theirs:?}");
}

type Seen = Rc<RefCell<Vec<Rc<RefCell<Vec<u8>>>>>>;

/// The bytes that each upstream connection received.
async fn forward(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut caller, io) = Io::pair(LIMIT.max(bytes.len()));
    let seen = Seen::default();
    let upstreams = Rc::clone(&seen);
    let handler = move |request| {
        let (near, far) = Io::pair(LIMIT);
        let received = Rc::new(RefCell::default());
        upstreams.borrow_mut().push(Rc::clone(&received));
        tokio::task::spawn_local(upstream(far, received));
        call(near, request)
    };
    let options = ServerOptions::new("fuzz");
    let sweeper = Sweeper::new();
    let served = serve(io, &options, &sweeper, std::future::pending(), handler);
    let sent = async {
        // The server may close before it has read everything.
        let _ = caller.write_all(bytes).await;
        // A caller that hangs up early is not served: everything in memory has its turn first.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let _ = caller.shutdown().await;
        let mut answer = Vec::new();
        let _ = caller.read_to_end(&mut answer).await;
    };
    tokio::join!(served, sent);
    seen.take().iter().map(|received| received.borrow().clone()).collect()
}

async fn call(io: Io, request: Request<Body>) -> Response<Body> {
    let version = request.version();
    let answer = match H1::new(io, &ClientOptions::default()).await {
        Ok(mut connection) => connection.send(request).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| refuse::response(error.reason(), "fuzz", false, version))
}

/// Answers at once, and takes down what comes until the connection ends.
async fn upstream(mut io: Io, received: Rc<RefCell<Vec<u8>>>) {
    let mut chunk = [0; 4096];
    let mut answered = false;
    while let Ok(read @ 1..) = io.read(&mut chunk).await {
        received.borrow_mut().extend_from_slice(&chunk[..read]);
        let head_complete = received.borrow().windows(4).any(|window| window == b"\r\n\r\n");
        if head_complete && !answered {
            answered = true;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    }
}

/// Reads what an upstream received as strictly as anything would.
pub fn assert_forwarded(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        assert!(bytes.is_empty(), "a head is written whole: {text:?}");
        return;
    };
    let (head, body) = bytes.split_at(end + 4);
    let lines: Vec<&[u8]> = head[..end].split(|byte| *byte == b'\n').collect();
    let (last, others) = lines.split_last().expect("split gives at least one");
    assert!(others.iter().all(|line| line.ends_with(b"\r")) && !last.contains(&b'\r'), "CRLF only: {text:?}");
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    assert!(parsed.parse(head).is_ok_and(|status| status.is_complete()), "{text:?}");
    let count = |name: &str| parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(count("host"), 1, "{text:?}");
    let (length, chunked) = (count("content-length"), count("transfer-encoding"));
    assert!(length + chunked <= 1, "one length: {text:?}");
    assert!(!lines.iter().any(|line| line.starts_with(b" ") || line.starts_with(b"\t")), "no folding: {text:?}");
    if length == 0 && chunked == 0 {
        let connect = parsed.method == Some("CONNECT");
        assert!(body.is_empty() || connect, "bytes behind a request without a body: {text:?}");
    }
    if let Some(field) = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length")) {
        let stated: Option<usize> = std::str::from_utf8(field.value).ok().and_then(|digits| digits.parse().ok());
        assert!(stated.is_some_and(|stated| body.len() <= stated), "more than was stated: {text:?}");
    }
}

#[cfg(test)]
mod tests;
