//! Heads that are encoded and read again, and heads that nobody may send.

use proptest::prelude::*;

use super::encode::{encode_opaque, encode_request, encode_response, encode_trailers};
use super::*;

const MAX: usize = 16_384;

type Pairs<'a> = &'a [(&'a str, &'a [u8])];

fn head<'a>(fields: Pairs<'a>) -> RequestHead<'a, impl Iterator<Item = (&'a str, &'a [u8])> + use<'a>> {
    RequestHead {
        version: HttpVersion::Http11,
        method: "GET",
        authority: "a.b",
        target: "/",
        length: None,
        upgrade: None,
        fields: fields.iter().copied(),
    }
}

fn encoded(fields: Pairs<'_>) -> Result<Vec<u8>, HeadError> {
    let mut out = Vec::new();
    encode_request(head(fields), MAX, &mut out).map(|()| out)
}

/// The fields of a request whose encoding ends in `fields`.
fn decoded(fields: &[u8]) -> Result<Vec<(String, Vec<u8>)>, HeadError> {
    let mut bytes = encoded(&[]).expect("a head");
    bytes.extend_from_slice(fields);
    let head = RequestHead::decode(&bytes, MAX)?;
    Ok(head.fields.map(|(name, value)| (name.to_owned(), value.to_vec())).collect())
}

#[test]
fn a_typical_request_is_short() {
    let fields: [(&str, &[u8]); 8] = [
        ("accept", b"application/json"),
        ("accept-encoding", b"gzip, deflate, br"),
        ("content-type", b"application/json"),
        ("user-agent", b"payments/1.2"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-request-id", b"5f1c6dbe"),
        ("TE", b"trailers"),
        ("x-own", b"1"),
    ];
    let bytes = encoded(&fields).expect("a head");
    assert_eq!(bytes.len(), 2 + 4 + 2 + 3 + (2 + 12) + (2 + 55) + (2 + 8) + 1 + (1 + 1 + 5 + 1 + 1));
    let head = RequestHead::decode(&bytes, MAX).expect("a head");
    let lower = fields.map(|(name, value)| (name.to_lowercase(), value));
    assert!(head.fields.eq(lower.iter().map(|(name, value)| (name.as_str(), *value))));
}

#[test]
fn names_become_lower_case_and_blanks_around_values_go() {
    let fields: [(&str, &[u8]); 3] = [("X-Own", b" a b\t"), ("Accept", b"\t*/*  "), ("COOKIE", b"")];
    let bytes = encoded(&fields).expect("a head");
    let read = RequestHead::decode(&bytes, MAX).expect("a head");
    let expected: [(&str, &[u8]); 3] = [("x-own", b"a b"), ("accept", b"*/*"), ("cookie", b"")];
    assert!(read.fields.eq(expected));
}

#[test]
fn fields_that_frame_or_route_or_concern_one_connection_cannot_be_sent() {
    for name in [
        "host",
        "Content-Length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "proxy-authorization",
        "proxy-authenticate",
    ] {
        assert_eq!(encoded(&[(name, b"1")]), Err(HeadError::FieldForbidden), "{name}");
        let lower = name.to_lowercase();
        let mut literal = vec![0, lower.len() as u8];
        literal.extend_from_slice(lower.as_bytes());
        literal.extend_from_slice(&[1, b'1']);
        assert_eq!(decoded(&literal), Err(HeadError::FieldForbidden), "{name}");
    }
    assert_eq!(encoded(&[("te", b"gzip")]), Err(HeadError::FieldForbidden));
    assert_eq!(decoded(b"\0\x02te\x04gzip"), Err(HeadError::FieldForbidden));
    assert_eq!(decoded(b"\0\x02te\x08Trailers").map(|fields| fields.len()), Ok(1));
}

#[test]
fn nothing_can_end_a_line_or_hide_in_a_name() {
    for value in [&b"a\r\nb"[..], b"a\n", b"\ra", b"a\0b", b"\x7f", b"a\x1b[0m"] {
        assert_eq!(encoded(&[("x-own", value)]), Err(HeadError::FieldValue), "{value:?}");
        assert_eq!(encoded(&[("accept", value)]), Err(HeadError::FieldValue), "{value:?}");
        let mut bytes = vec![1, value.len() as u8];
        bytes.extend_from_slice(value);
        assert_eq!(decoded(&bytes), Err(HeadError::FieldValue), "{value:?}");
    }
    for value in [&b" a"[..], b"a ", b"\t"] {
        let mut bytes = vec![1, value.len() as u8];
        bytes.extend_from_slice(value);
        assert_eq!(decoded(&bytes), Err(HeadError::FieldValue), "{value:?}");
    }
    for name in ["", ":path", "a b", "a:", "a\r\n", "ä", "a\0"] {
        assert_eq!(encoded(&[(name, b"1")]), Err(HeadError::FieldName), "{name:?}");
    }
    assert_eq!(decoded(b"\0\x01A\x011"), Err(HeadError::FieldName), "capitals are not sent");
    assert_eq!(decoded(b"\0\x01\xff\x011"), Err(HeadError::FieldName));
    assert_eq!(encoded(&[("x-own", b"\xe4\xff caf\xc3\xa9\t!")]).map(|bytes| bytes.len()), Ok(8 + 18));
}

#[test]
fn targets_methods_and_authorities_have_one_reading() {
    let check = |method, target, authority, upgrade| {
        let head = RequestHead { method, target, authority, upgrade, ..head(&[]) };
        let mut out = vec![9];
        let result = encode_request(head, MAX, &mut out);
        assert!(result.is_ok() || out == [9], "a head that is refused leaves nothing behind");
        result
    };
    for (method, target, authority, upgrade) in [
        ("GET", "/", "a", None),
        ("PURGE", "/a?b=c%20#d/é", "[::1]:80", None),
        ("OPTIONS", "*", "a", None),
        ("CONNECT", "", "a:443", None),
        ("CONNECT", "/chat", "a:443", Some("websocket")),
        ("GET", "/", "a", Some("h2c/1")),
    ] {
        assert_eq!(check(method, target, authority, upgrade), Ok(()), "{method} {target}");
    }
    for (method, target, authority, upgrade, error) in [
        ("", "/", "a", None, HeadError::Method),
        ("G T", "/", "a", None, HeadError::Method),
        ("GET", "", "a", None, HeadError::Target),
        ("GET", "*", "a", None, HeadError::Target),
        ("GET", "a", "a", None, HeadError::Target),
        ("GET", "http://a/", "a", None, HeadError::Target),
        ("GET", "/ HTTP/1.1", "a", None, HeadError::Target),
        ("GET", "/\r\nx: y", "a", None, HeadError::Target),
        ("CONNECT", "/", "a", None, HeadError::Target),
        ("GET", "/", "", None, HeadError::Authority),
        ("GET", "/", "a/b", None, HeadError::Authority),
        ("GET", "/", "u@a", None, HeadError::Authority),
        ("GET", "/", "a\r\n", None, HeadError::Authority),
        ("GET", "/", "a", Some("web socket"), HeadError::Upgrade),
        ("GET", "/", "a", Some("h2c/"), HeadError::Upgrade),
    ] {
        assert_eq!(check(method, target, authority, upgrade), Err(error), "{method} {target} {authority}");
    }
    for (method, target, upgrade) in [("CONNECT", "", None), ("GET", "/", Some("websocket"))] {
        let stated = RequestHead { method, target, upgrade, length: Some(0), ..head(&[]) };
        assert_eq!(
            encode_request(stated, MAX, &mut Vec::new()),
            Err(HeadError::Length),
            "{method}: nothing is its body"
        );
    }
    let stated = [0x01 | 0x04 | 0x08, 1, 1, b'a', 1, b'/', 0, 1, b'x'];
    assert_eq!(RequestHead::decode(&stated, MAX).map(|_| ()), Err(HeadError::Length));
}

#[test]
fn responses_state_what_they_may() {
    let check = |status, length, upgrade| {
        let head = ResponseHead { status, length, upgrade, fields: [("server", "x")] };
        let mut out = Vec::new();
        encode_response(head, MAX, &mut out)?;
        let read = ResponseHead::decode(&out, MAX)?;
        assert_eq!((read.status, read.length, read.upgrade), (status, length, upgrade));
        Ok(read.is_interim())
    };
    assert_eq!(check(200, Some(0), None), Ok(false));
    assert_eq!(check(103, None, None), Ok(true));
    assert_eq!(check(101, None, Some("websocket")), Ok(false));
    assert_eq!(check(999, Some((1 << 62) - 1), None), Ok(false));
    for (status, length, upgrade, error) in [
        (99, None, None, HeadError::Status),
        (1000, None, None, HeadError::Status),
        (204, Some(0), None, HeadError::Length),
        (100, Some(1), None, HeadError::Length),
        (200, Some(1 << 62), None, HeadError::Length),
        (200, None, Some("websocket"), HeadError::Upgrade),
    ] {
        assert_eq!(check(status, length, upgrade), Err(error), "{status}");
    }
    assert_eq!(decode_interim(&[0, 0, 200], true, MAX).map(|_| ()), Err(HeadError::Status));
    assert_eq!(decode_interim(&[0, 0, 103], false, MAX).map(|_| ()), Err(HeadError::Status));
}

#[test]
fn trailers_do_not_speak_of_the_head() {
    let mut out = Vec::new();
    encode_trailers([("grpc-status", "0"), ("x-sum", "1")], MAX, &mut out).expect("trailers");
    assert_eq!(decode_trailers(&out, MAX).map(|fields| fields.count()), Ok(2));
    for name in ["te", "trailer", "content-length", "host"] {
        let result = encode_trailers([(name, "trailers")], MAX, &mut Vec::new());
        assert_eq!(result, Err(HeadError::FieldForbidden), "{name}");
    }
    assert_eq!(decode_trailers(&[table::TE_TRAILERS], MAX).map(|_| ()), Err(HeadError::FieldForbidden));
}

#[test]
fn codes_without_an_entry_and_cut_heads_are_refused() {
    for bytes in [&[0x7f, 0][..], &[0xff], &[0], &[0, 5, b'a'], &[1, 3, b'a'], &[1, 0x40, 1, b'a'], &[0xc0]] {
        assert_eq!(decoded(bytes), Err(HeadError::Encoding), "{bytes:?}");
    }
    let whole = encoded(&[("x-own", b"value")]).expect("a head");
    for cut in 0..whole.len() {
        let result = RequestHead::decode(&whole[..cut], MAX);
        assert!(result.is_err() || cut == 8, "{cut}: {result:?}");
    }
    for first in [3, 0x10, 0x80] {
        let mut bytes = whole.clone();
        bytes[0] = first;
        assert_eq!(RequestHead::decode(&bytes, MAX), Err(HeadError::Encoding));
    }
}

#[test]
fn a_short_frame_cannot_become_a_large_head() {
    let field = table::FIRST_PAIR + 16;
    let (name, value) = table::pair(field).expect("an entry");
    let most = (MAX - encode::HEAD_COST - 3 - 1 - 3) / (name.len() + value.len() + encode::FIELD_COST);
    assert_eq!(decoded(&vec![field; most]).map(|fields| fields.len()), Ok(most));
    assert_eq!(decoded(&vec![field; most + 1]), Err(HeadError::TooLarge));
    let long = vec![b'a'; MAX];
    assert_eq!(encoded(&[("x-own", &long)]), Err(HeadError::TooLarge));
}

#[test]
fn the_values_of_heads_are_not_shown() {
    let bytes = encoded(&[("authorization", b"Bearer secret")]).expect("a head");
    assert_eq!(format!("{:?}", RequestBuf::checked(Vec::new(), &bytes)), format!("RequestBuf({} bytes)", bytes.len()));
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(table::NAMES.to_vec()).prop_map(str::to_owned),
        "[a-z0-9!#$%&'*+.^_`|~-]{1,20}"
            .prop_filter("it may be passed on", |name| check::literal_name(name.as_bytes()).is_ok() && name != "te"),
    ]
}

fn any_field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let value = "[!-~é-ü]([ -~\t]{0,30}[!-~])?".prop_map(String::into_bytes);
    let pair = proptest::sample::select(table::PAIRS.to_vec());
    prop_oneof![
        (any_name(), prop_oneof![value, Just(Vec::new())]),
        pair.prop_map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())),
    ]
}

proptest! {
    #[test]
    fn requests_read_back(
        fields in proptest::collection::vec(any_field(), 0..20),
        method in "[A-Z]{1,8}", target in "/[!-~]{0,40}", authority in "[a-z0-9.:-]{1,30}",
        length in proptest::option::of(0_u64..1 << 62), version in 0_u8..3,
    ) {
        prop_assume!(method != "CONNECT");
        let version = [HttpVersion::Http10, HttpVersion::Http11, HttpVersion::Http2][usize::from(version)];
        let pairs = fields.iter().map(|(name, value)| (name, value));
        let (method, target, authority) = (method.as_str(), target.as_str(), authority.as_str());
        let head = RequestHead { version, method, authority, target, length, upgrade: None, fields: pairs };
        let mut out = Vec::new();
        encode_request(head, MAX, &mut out).expect("a head");
        let read = RequestHead::decode(&out, MAX).expect("the same head");
        let parts = (read.version, read.method, read.authority, read.target, read.length);
        prop_assert_eq!(parts, (version, method, authority, target, length));
        prop_assert!(read.fields.eq(fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))));
        let mut again = Vec::new();
        encode_request(read, MAX, &mut again).expect("a head that was read can be sent on");
        prop_assert_eq!(&out, &again, "one head has one encoding");
        let kept = RequestBuf::checked(Vec::new(), &out);
        prop_assert_eq!(kept.view(), read);
    }

    #[test]
    fn opaque_heads_and_trailers_read_back(fields in proptest::collection::vec(any_field(), 0..20)) {
        let pairs = || fields.iter().map(|(name, value)| (name, value)).filter(|(name, _)| *name != "te");
        let mut out = Vec::new();
        encode_opaque(OpaqueHead { authority: "a:1", fields: pairs() }, MAX, &mut out).expect("a head");
        let read = OpaqueHead::decode(&out, MAX).expect("the same head");
        prop_assert!(read.fields.eq(pairs().map(|(name, value)| (name.as_str(), value.as_slice()))));
        let mut out = Vec::new();
        encode_trailers(pairs(), MAX, &mut out).expect("trailers");
        let read = decode_trailers(&out, MAX).expect("the same trailers");
        prop_assert!(read.eq(pairs().map(|(name, value)| (name.as_str(), value.as_slice()))));
    }
}
