//! The fuzzer's entry points: each takes any bytes and panics if a promise of this crate is broken.
//!
//! The targets in `fuzz/` call them with what the fuzzer finds, the tests with seeded random and mutated inputs. The
//! program itself never calls them.

pub mod message;
pub mod ways;

use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use http::{Request, Response, Version};

use crate::framing::{self, Asked, Length};
use crate::limits::HeadLimits;
use crate::message::{FieldList, RequestHead};
use crate::names::is_hop_by_hop;
use message::Message;
use ways::Way;

/// Reads the bytes as a request's head. What our own parser lets through, hyper's must let through as the same.
pub fn request_head(bytes: &[u8]) {
    let Ok(Some(parsed)) = framing::parse_request(bytes, HeadLimits::default()) else { return };
    assert!(parsed.size <= bytes.len(), "a head does not end behind its bytes");
    let chunked = parsed.body == Length::Chunked;
    assert!(parsed.head.version == HttpVersion::Http11 || !chunked, "HTTP/1.0 knows no chunks");
    assert!(!(chunked && parsed.head.length.is_some()), "two lengths were let through");
    assert_admitted(&parsed.head);
    let Some(parts) = hyper_parts(bytes) else { return };
    let theirs = framing::admit_request(&parts).expect("the raw judge was the laxer one");
    assert_admitted(&theirs);
    let ours = &parsed.head;
    assert_eq!(
        (ours.method(), ours.target(), ours.authority()),
        (theirs.method(), theirs.target(), theirs.authority())
    );
    assert_eq!(
        (ours.upgrade(), ours.length, ours.expects_continue),
        (theirs.upgrade(), theirs.length, theirs.expects_continue)
    );
    assert_eq!(sorted(&ours.fields), sorted(&theirs.fields));
}

fn sorted(fields: &FieldList) -> Vec<(String, Vec<u8>)> {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let mut all: Vec<_> = fields.iter().map(|(name, value)| (lower(name), value.to_vec())).collect();
    all.sort();
    all
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

/// What [`framing`] promises of a request's head.
pub fn assert_admitted(head: &RequestHead) {
    for (name, _) in head.fields.iter() {
        let known = ["host", "content-length"].iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        assert!(!known && !is_hop_by_hop(name), "{} was let through", name.escape_ascii());
    }
    assert!(!head.authority().is_empty() && !head.authority().contains(['@', '/', '\\', ',', ' ', '#', '?']));
    assert!(head.fields.get("te").is_none_or(|te| te == b"trailers"));
    assert_eq!(head.target().is_empty(), head.is_connect(), "a path, except for CONNECT");
    assert!(head.is_connect() || head.target().starts_with('/') || head.target() == "*");
}

/// Reads the bytes as a response's head, by our own parser and by hyper's.
pub fn response_head(bytes: &[u8]) {
    let asked = Asked { upgrade: true, ..Asked::default() };
    let ours = framing::parse_response(bytes, asked, HeadLimits::default());
    if let Ok(Some(ours)) = &ours {
        assert!(ours.size <= bytes.len(), "a head does not end behind its bytes");
        assert!(
            ours.head
                .fields
                .iter()
                .all(|(name, _)| !is_hop_by_hop(name) && !name.eq_ignore_ascii_case(b"content-length"))
        );
    }
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
    match framing::admit_response(&response.into_parts().0, asked) {
        Err(reason) => assert_eq!(reason, Reason::UpstreamProtocol),
        Ok(theirs) => {
            if let Ok(Some(ours)) = ours {
                assert_eq!((ours.head.status, ours.head.length), (theirs.status, theirs.length));
                assert_eq!(sorted(&ours.head.fields), sorted(&theirs.fields));
            }
        }
    }
}

/// Sends the bytes to a node that forwards every request over a connection of its own, and judges what each upstream received.
pub fn exchange(bytes: &[u8]) {
    let seen = ways::run(Way::Ours, bytes, ways::OK, false);
    seen.upstream.iter().for_each(|bytes| assert_forwarded(bytes));
}

/// Sends the bytes both ways, hyper's and our own. Each request that both let through must reach its upstream as the same one;
/// our own may refuse more.
pub fn both_ways(bytes: &[u8]) {
    let ours = ways::run(Way::Ours, bytes, ways::OK, false);
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
    if let (Some(ours), Some(theirs)) = (answer(Way::Ours), answer(Way::Hyper)) {
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
