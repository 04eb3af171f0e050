use eastway_core::Reason;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response, Version, request};
use proptest::prelude::*;

use super::*;
use crate::fuzzing::assert_admitted;
use crate::limits::HeadLimits;
use crate::message::{FieldList, RequestHead, ResponseHead};
use crate::names::clean_trailers;

/// A request as hyper hands it over.
fn parts(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().version(version).method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("the http crate takes it").into_parts().0
}

fn admit(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<RequestHead, Reason> {
    admit_request(&parts(version, method, uri, fields))
}

fn h1(uri: &str, fields: &[(&str, &str)]) -> Result<RequestHead, Reason> {
    admit(Version::HTTP_11, "POST", uri, fields)
}

fn h2(uri: &str, fields: &[(&str, &str)]) -> Result<RequestHead, Reason> {
    admit(Version::HTTP_2, "POST", uri, fields)
}

fn refused(result: Result<RequestHead, Reason>) -> Reason {
    result.expect_err("must be refused")
}

#[test]
fn both_lengths_are_a_conflict_in_either_order() {
    let both = [("host", "a"), ("content-length", "4"), ("transfer-encoding", "chunked")];
    assert_eq!(refused(h1("/", &both)), Reason::ConflictingLength);
    let both = [("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "4")];
    assert_eq!(refused(h1("/", &both)), Reason::ConflictingLength);
}

#[test]
fn a_length_is_stated_once_and_in_digits() {
    for value in ["+4", "-1", "4, 4", "0x4", "", " ", "4 4", "18446744073709551616"] {
        let result = h1("/", &[("host", "a"), ("content-length", value)]);
        assert_eq!(refused(result), Reason::ConflictingLength, "{value:?}");
    }
    let twice = [("host", "a"), ("content-length", "4"), ("content-length", "4")];
    assert_eq!(refused(h1("/", &twice)), Reason::ConflictingLength);
    assert!(h1("/", &[("host", "a"), ("content-length", "4")]).is_ok());
}

#[test]
fn chunked_is_the_only_coding() {
    for value in ["xchunked", "gzip, chunked", "chunked, identity", "chunked, chunked", "identity", "chunked;x=1", ""] {
        let result = h1("/", &[("host", "a"), ("transfer-encoding", value)]);
        assert_eq!(refused(result), Reason::MalformedRequest, "{value:?}");
    }
    let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
    assert_eq!(refused(h1("/", &twice)), Reason::MalformedRequest);
    let chunked = [("host", "a"), ("transfer-encoding", "Chunked")];
    let admitted = h1("/", &chunked).expect("the usual form");
    assert_eq!((admitted.fields.len(), admitted.length), (0, None), "the next hop frames anew");
    assert_eq!(refused(admit(Version::HTTP_10, "POST", "/", &chunked)), Reason::MalformedRequest);
    assert_eq!(refused(h2("http://a/", &chunked[1..])), Reason::MalformedRequest);
}

#[test]
fn http1_names_exactly_one_valid_host() {
    assert_eq!(refused(h1("/", &[])), Reason::BadHost);
    assert_eq!(refused(h1("/", &[("host", "a"), ("host", "a")])), Reason::BadHost);
    for host in ["", "a@b", "a b", "a/b", "a,b", "a:b", "[::1"] {
        assert_eq!(refused(h1("/", &[("host", host)])), Reason::BadHost, "{host:?}");
    }
    assert_eq!(refused(h1("http://a/", &[])), Reason::BadHost, "an absolute target does not replace the field itself");
    assert_eq!(refused(admit(Version::HTTP_10, "GET", "/", &[])), Reason::BadHost);
}

#[test]
fn an_absolute_target_replaces_host() {
    let admitted = h1("http://right.example:8080/x?y", &[("host", "wrong.example")]).expect("valid");
    assert_eq!((admitted.authority(), admitted.target()), ("right.example:8080", "/x?y"));
    let admitted = h1("http://right.example?x=1", &[("host", "wrong.example")]).expect("valid");
    assert_eq!(admitted.target(), "/?x=1");
    for uri in ["http://right.example", "http://right.example/", "http://right.example#fragment"] {
        let admitted = h1(uri, &[("host", "wrong.example")]).expect("valid");
        assert_eq!(admitted.target(), "/", "{uri}");
    }
    assert_eq!(refused(h1("ftp://a/", &[("host", "a")])), Reason::MalformedRequest);
    assert_eq!(refused(h1("http://user@a/", &[("host", "a")])), Reason::BadHost);
}

#[test]
fn http2_authority_and_host_agree() {
    let admitted = h2("http://a.b/x", &[]).expect("the usual form");
    assert_eq!((admitted.authority(), admitted.target()), ("a.b", "/x"));
    assert!(h2("http://a.b/", &[("host", "A.B:80")]).is_ok());
    assert!(h2("/", &[("host", "a.b")]).is_ok(), "Host alone is enough");
    assert_eq!(refused(h2("http://a.b/", &[("host", "a.c")])), Reason::BadHost);
    assert_eq!(refused(h2("http://a.b/", &[("host", "a.b"), ("host", "a.b")])), Reason::BadHost);
    assert_eq!(refused(h2("/", &[])), Reason::BadHost);
}

#[test]
fn connect_names_its_port_and_has_no_body() {
    let connect = |uri, fields: &[(&str, &str)]| admit(Version::HTTP_11, "CONNECT", uri, fields);
    let admitted = connect("a.b:80", &[("host", "other")]).expect("valid");
    assert_eq!((admitted.authority(), admitted.target()), ("a.b:80", ""));
    assert_eq!(refused(connect("a.b", &[("host", "a.b")])), Reason::BadHost);
    assert_eq!(refused(connect("/", &[("host", "a.b:80")])), Reason::MalformedRequest);
    assert_eq!(refused(connect("http://a.b:80/", &[("host", "a.b:80")])), Reason::MalformedRequest);
    for length in [("content-length", "4"), ("transfer-encoding", "chunked")] {
        assert_eq!(refused(connect("a.b:80", &[("host", "a.b:80"), length])), Reason::MalformedRequest);
    }
    assert_eq!(refused(h1("a.b:80", &[("host", "a.b:80")])), Reason::MalformedRequest);
}

#[test]
fn the_asterisk_is_for_options_only() {
    assert!(admit(Version::HTTP_11, "OPTIONS", "*", &[("host", "a")]).is_ok());
    assert_eq!(refused(h1("*", &[("host", "a")])), Reason::MalformedRequest);
}

#[test]
fn hop_by_hop_fields_go_and_te_trailers_stays() {
    let admitted = h1(
        "/",
        &[
            ("host", "a"),
            ("connection", "keep-alive, X-Mine ,, x-other"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("x-kept", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, Trailers"),
            ("trailer", "x-sum"),
            ("http2-settings", "x"),
        ],
    )
    .expect("valid");
    assert_eq!(names(&admitted.fields), ["x-kept", "trailer", "te"]);
    assert_eq!(admitted.fields.get("te"), Some(&b"trailers"[..]));
    let admitted = h1("/", &[("host", "a"), ("te", "gzip")]).expect("valid");
    assert!(admitted.fields.is_empty());
}

#[test]
fn what_frames_a_message_cannot_be_nominated_away() {
    for name in ["Host", "content-length", "Content-Encoding"] {
        let result = h1("/", &[("host", "a"), ("connection", name)]);
        assert_eq!(refused(result), Reason::MalformedRequest, "{name}");
    }
}

#[test]
fn an_expectation_travels_beside_the_head() {
    for (version, kept) in [(Version::HTTP_10, false), (Version::HTTP_11, true), (Version::HTTP_2, true)] {
        let fields = [("host", "a"), ("expect", "100-Continue")];
        let admitted = admit(version, "POST", "/", &fields).expect("valid");
        assert_eq!((admitted.fields.len(), admitted.expects_continue), (0, kept), "{version:?}");
    }
    let admitted = h1("/", &[("host", "a"), ("expect", "200-maybe")]).expect("valid");
    assert!(admitted.fields.get("expect").is_some(), "the application's to refuse");
}

#[test]
fn an_upgrade_travels_beside_the_head() {
    let fields = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")];
    let admitted = admit(Version::HTTP_11, "GET", "/", &fields).expect("valid");
    assert_eq!((admitted.upgrade(), admitted.fields.len()), (Some(&b"websocket"[..]), 0));
    for fields in [
        [("host", "a"), ("connection", "close"), ("upgrade", "websocket")],
        [("host", "a"), ("connection", "upgrade"), ("upgrade", "h2c")],
    ] {
        let admitted = admit(Version::HTTP_11, "GET", "/", &fields).expect("valid");
        assert!(admitted.upgrade().is_none(), "{fields:?}");
    }
}

#[test]
fn a_head_for_http2_is_admitted_as_it_was() {
    let mut head = h1("/x?y", &[("host", "a.b:81"), ("x", "1"), ("content-length", "3")]).expect("valid");
    let sent = crate::h2_heads::request(&head, &http::uri::Scheme::HTTPS).expect("there is room").into_parts().0;
    assert_eq!(sent.uri, "https://a.b:81/x?y");
    assert!(!sent.headers.contains_key("host"));
    head.version = HttpVersion::Http2;
    assert_eq!(admit_request(&sent), Ok(head));
    let nobody = RequestHead::new(HttpVersion::Http11, "GET", "/", "");
    assert!(crate::h2_heads::request(&nobody, &http::uri::Scheme::HTTP).is_none());
}

#[test]
fn the_target_of_a_link_is_judged_like_any_other() {
    assert_eq!(judge_target("GET", Some("/"), "a.b"), Ok("a.b"));
    assert_eq!(judge_target("CONNECT", None, "a.b:1"), Ok("a.b:1"));
    for (method, path, authority, reason) in [
        ("GET", None, "a.b", Reason::MalformedRequest),
        ("GET", Some("*"), "a.b", Reason::MalformedRequest),
        ("GET", Some("x"), "a.b", Reason::MalformedRequest),
        ("CONNECT", Some("/"), "a.b:1", Reason::MalformedRequest),
        ("CONNECT", None, "a.b", Reason::BadHost),
        ("GET", Some("/"), "u@a.b", Reason::BadHost),
    ] {
        assert_eq!(judge_target(method, path, authority), Err(reason), "{method} {path:?} {authority}");
    }
}

fn answered(status: u16, fields: &[(&str, &str)]) -> Result<ResponseHead, Reason> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    admit_response(&response.body(()).expect("valid").into_parts().0, Asked::default())
}

fn names(fields: &FieldList) -> Vec<String> {
    fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn responses_lose_hop_by_hop_fields_too() {
    let fields = [
        ("connection", "close, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=1"),
        ("proxy-authenticate", "Basic"),
        ("x-kept", "1"),
    ];
    assert_eq!(names(&answered(200, &fields).expect("valid").fields), ["x-kept"]);
}

#[test]
fn a_response_has_one_length() {
    let agreeing = answered(200, &[("content-length", "4"), ("content-length", "4, 4")]).expect("one value");
    assert_eq!((agreeing.length, agreeing.fields.len()), (Some(4), 0));
    for fields in [
        [("content-length", "4"), ("content-length", "5")],
        [("content-length", "+4"), ("x", "y")],
        [("connection", "content-length"), ("content-length", "4")],
        [("content-length", "4"), ("transfer-encoding", "chunked")],
    ] {
        assert_eq!(answered(200, &fields).expect_err("in doubt"), Reason::UpstreamProtocol, "{fields:?}");
    }
    assert_eq!(answered(204, &[("content-length", "0")]).expect("valid").length, None);
    assert_eq!(answered(304, &[("content-length", "9")]).expect("valid").length, Some(9));
}

#[test]
fn trailers_cannot_smuggle_framing_or_words_of_the_mesh() {
    let mut trailers = HeaderMap::new();
    for name in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "grpc-status",
        "te",
        "trailer",
        "eastway-source",
        "eastway_source",
    ] {
        trailers.insert(name, HeaderValue::from_static("0"));
    }
    clean_trailers(&mut trailers);
    assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
}

#[test]
fn raw_heads_are_judged_by_the_same_rules_and_end_in_crlf() {
    let judge = |text: &str| {
        let parsed = parse_request(text.as_bytes(), HeadLimits { bytes: 256, fields: 8 });
        let parsed = parsed.map_err(|refused| refused.reason)?;
        Ok(parsed.map(|parsed| (parsed.head.authority().to_owned(), parsed.head.target().to_owned(), parsed.size)))
    };
    let found = |authority: &str, target: &str, size| Ok(Some((authority.to_owned(), target.to_owned(), size)));
    assert_eq!(judge("GET /a HTTP/1.1\r\nHost: b\r\n\r\nrest"), found("b", "/a", 28));
    assert_eq!(judge("GET http://c?d HTTP/1.1\r\nHost: b\r\n\r\n"), found("c", "/?d", 36));
    assert_eq!(judge("GET HTTP://c/d HTTP/1.1\r\nHost: b\r\n\r\n"), found("c", "/d", 36));
    assert_eq!(judge("CONNECT c:1 HTTP/1.1\r\nHost: b\r\n\r\n"), found("c:1", "", 33));
    assert_eq!(judge("GET /a HTTP/1.1\r\nHost: b\r\n"), Ok(None));
    assert_eq!(judge("GET /a HTTP/1.1\nHost: b\n\n"), Err(Reason::MalformedRequest));
    assert_eq!(judge("GET /a HTTP/1.1\r\nHost: b\r\n c\r\n\r\n"), Err(Reason::MalformedRequest));
    assert_eq!(judge("GET /a HTTP/1.1\r\nHost : b\r\n\r\n"), Err(Reason::MalformedRequest));
    assert_eq!(judge(&format!("GET /{} HTTP/1.1\r\nHost: b\r\n\r\n", "a".repeat(256))), Err(Reason::HeaderTooLarge));
    assert_eq!(judge(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9))), Err(Reason::HeaderTooLarge));
    let both = "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(judge(both), Err(Reason::ConflictingLength));
}

const NAMES: &[&str] = &[
    "host",
    "Host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "x-a",
    "x-b",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
    "eastway-source",
];
const VALUES: &[&str] = &[
    "a.b",
    "a.b:80",
    "a",
    "4",
    "0",
    "+4",
    "4, 4",
    "chunked",
    "gzip, chunked",
    "identity",
    "close",
    "x-a",
    "x-a, host",
    "keep-alive, X-B",
    "upgrade",
    "websocket",
    "h2c",
    "trailers",
    "gzip, trailers",
    "100-continue",
    "",
    "te, x-b",
];
const TARGETS: &[&str] = &["/", "/x?y=z", "*", "http://a.b/x", "http://c.d", "https://a.b:443/", "a.b:80", "a.b"];

fn any_request() -> impl Strategy<Value = request::Parts> {
    let version = prop::sample::select(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][..]);
    let method = prop::sample::select(&["GET", "POST", "CONNECT", "OPTIONS", "PURGE"][..]);
    let fields = prop::collection::vec((prop::sample::select(NAMES), prop::sample::select(VALUES)), 0..8);
    let host = prop::option::weighted(0.8, prop::sample::select(&["a.b", "A.b:80", "c.d"][..]));
    (version, method, prop::sample::select(TARGETS), host, fields).prop_map(
        |(version, method, uri, host, mut fields)| {
            fields.extend(host.map(|host| ("host", host)));
            parts(version, method, uri, &fields)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_admitted_keeps_every_promise(request in any_request()) {
        let before = &request.headers;
        if let Ok(admitted) = admit_request(&request) {
            assert_admitted(&admitted);
            for value in before.get_all("connection") {
                for name in value.to_str().expect("ASCII").split(',').map(str::trim) {
                    let kept = admitted.fields.get(name).is_some() && !name.eq_ignore_ascii_case("te");
                    prop_assert!(!kept, "{name} was nominated");
                }
            }
            let both = before.contains_key("content-length") && before.contains_key("transfer-encoding");
            prop_assert!(!both);
            for (name, value) in admitted.fields.iter() {
                let old = before.get_all(std::str::from_utf8(name).expect("ASCII"));
                let ours = name == b"te";
                prop_assert!(ours || old.iter().any(|old| old == value), "{} was invented", name.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_admitted_can_be_sent_over_both_versions(request in any_request()) {
        if let Ok(admitted) = admit_request(&request) {
            let mut out = Vec::new();
            let length = admitted.length.map_or(Length::Unstated, Length::Known);
            crate::wire::write_request(&mut out, &admitted, length);
            let again = parse_request(&out, HeadLimits::default()).expect("valid").expect("complete").head;
            prop_assert_eq!(again.fields, admitted.fields.clone());
            if admitted.target() != "*" {
                let sent = crate::h2_heads::request(&admitted, &http::uri::Scheme::HTTP).expect("there is room");
                let again = admit_request(&sent.into_parts().0).expect("valid");
                prop_assert_eq!((again.target(), again.authority()), (admitted.target(), admitted.authority()));
                prop_assert_eq!(again.length, admitted.length);
            }
        }
    }
}

#[test]
fn what_is_asked_for_with_tls_is_not_served_without() {
    let plain = parts(Version::HTTP_11, "GET", "https://a.b/", &[("host", "a.b")]);
    assert_eq!(admit_request(&plain), Err(Reason::PlainHttpOnly));
    // Between sidecars the scheme of a session is `https`, and true.
    let session = parts(Version::HTTP_2, "GET", "https://a.b/", &[]);
    assert!(admit_request(&session).is_ok());
}

#[test]
fn the_size_of_a_head_is_that_of_http2() {
    let sized = parts(Version::HTTP_2, "GET", "/", &[("x", "yz")]);
    let empty = parts(Version::HTTP_2, "GET", "/", &[]);
    assert_eq!(head_size(&sized) - head_size(&empty), 1 + 2 + 32);
}
