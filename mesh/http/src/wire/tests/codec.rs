//! Heads and bodies, without any connection.

use eastway_core::Reason;
use eastway_core::head::{Edits, HttpVersion};
use proptest::prelude::*;

use crate::body::Body;
use crate::framing::{Asked, Length, Refused, ResponseLength, TargetByte, parse_request, parse_response};
use crate::limits::HeadLimits;
use crate::testing::channel;
use crate::wire::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 256 };

/// What a request's head becomes for the next hop.
fn forwarded(text: &str, edits: &Edits) -> Result<String, Refused> {
    let mut parsed = parse_request(text.as_bytes(), LIMITS)?.expect("it is complete");
    parsed.head.fields.apply(edits);
    let mut out = Vec::new();
    write_request(&mut out, &parsed.head, parsed.body);
    Ok(String::from_utf8(out).expect("ASCII"))
}

/// What a response's head becomes for the caller, and how its body is framed.
fn answered(text: &str, asked: Asked, version: HttpVersion) -> Result<(String, Written), Reason> {
    let parsed = parse_response(text.as_bytes(), asked, LIMITS)?.expect("it is complete");
    let body = match parsed.body {
        ResponseLength::Nothing => Body::empty(),
        _ => channel().1,
    };
    let caller = Caller { version, head: asked.head, connect: false, persistent: true };
    let mut out = Vec::new();
    let written = write_response(&mut out, &parsed.head, &body, caller);
    Ok((String::from_utf8(out).expect("ASCII"), written))
}

#[test]
fn a_head_goes_on_without_what_concerns_one_hop() {
    let text = "POST /a?b HTTP/1.1\r\nX-Kept:  1 \r\nHOST: a.b:\r\nConnection: x-mine, te\r\nX-Mine: 1\r\nEmpty:\r\n\
                Keep-Alive: 1\r\nTE: gzip, trailers\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
    let expected = "POST /a?b HTTP/1.1\r\nhost: a.b\r\nX-Kept: 1\r\nEmpty: \r\nte: trailers\r\n\
                    expect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(forwarded(text, &Edits::new()), Ok(expected.to_owned()));
    let bodiless = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nUpgrade: ws\r\nConnection: Upgrade\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\n";
    assert_eq!(forwarded(bodiless, &Edits::new()), Ok(expected.to_owned()));
}

#[test]
fn cookies_of_http2_become_one() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nX: y\r\ncookie: b=2\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nhost: a\r\nCookie: a=1; b=2\r\nX: y\r\n\r\n";
    assert_eq!(forwarded(text, &Edits::new()), Ok(expected.to_owned()));
}

#[test]
fn edits_are_made_in_order_and_what_would_break_the_message_is_not() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\nEastway_Source: forged\r\nY: 1\r\n\r\n";
    let mut edits = Edits::new();
    edits.set("z", "gone").drop_prefix("eastway-").set("eastway-source", "true").drop("z").set("x", "3");
    edits.append("y", "2");
    for (name, value) in [("x", "a\r\nb: c"), ("a b", "1"), ("", "1"), ("content-length", "1"), ("connection", "x")] {
        edits.set(name.to_owned(), value.to_owned());
    }
    let expected = "GET / HTTP/1.1\r\nhost: a\r\nY: 1\r\neastway-source: true\r\nx: 3\r\ny: 2\r\n\r\n";
    assert_eq!(forwarded(text, &edits), Ok(expected.to_owned()));
}

#[test]
fn a_target_names_the_byte_that_is_wrong_with_it() {
    let line = |target: &str| forwarded(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), &Edits::new());
    for target in ["/{a}|\"^`<b>[c]", "/a?b\\c", "/%zz", "/a?{}|\"^`<>[]", "//a//b", "/a;b@c:d"] {
        let expected = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(line(target), Ok(expected));
    }
    for (target, byte, at) in
        [("/a\\b", b'\\', 2), ("/a#b", b'#', 2), ("/\u{85}", 0xc2, 1), ("/a\x7f", 0x7f, 2), ("/a b", b' ', 2)]
    {
        let refused = Refused { reason: Reason::MalformedRequest, byte: Some(TargetByte { byte, at }) };
        assert_eq!(line(target), Err(refused), "{target:?}");
        assert!(refused.to_string().ends_with(&format!("byte 0x{byte:02x} at position {at}.")), "{refused}");
    }
    for (target, expected) in [("http://b?x=1", "/?x=1"), ("http://b", "/"), ("HTTP://b/c", "/c")] {
        assert_eq!(line(target), Ok(format!("GET {expected} HTTP/1.1\r\nhost: b\r\n\r\n")));
    }
    assert_eq!(line("?x=1").expect_err("no form").reason, Reason::MalformedRequest);
}

#[test]
fn fields_are_bounded_by_bytes_and_generously_by_number() {
    let with = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(fields - 1));
    let no = Edits::new();
    assert!(forwarded(&with(256), &no).is_ok());
    assert_eq!(forwarded(&with(257), &no).expect_err("too many").reason, Reason::HeaderTooLarge);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(4096));
    assert_eq!(forwarded(&long, &no).expect_err("too long").reason, Reason::HeaderTooLarge);
    let none = Asked::default();
    let response = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(fields));
    assert!(answered(&response(256), none, HttpVersion::Http11).is_ok());
    assert_eq!(answered(&response(257), none, HttpVersion::Http11).expect_err("too many"), Reason::UpstreamProtocol);
}

#[test]
fn a_response_is_framed_for_who_asked() {
    let get = Asked::default();
    let head = Asked { head: true, ..get };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: 1\r\n\r\n";
    let (text, written) = answered(chunked, get, HttpVersion::Http11).expect("valid");
    assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: 1\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(written, Written { encoder: Encoder::Chunked(0), persistent: true });
    let (text, written) = answered(chunked, get, HttpVersion::Http10).expect("valid");
    assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: 1\r\nconnection: close\r\n\r\n");
    assert_eq!(written, Written { encoder: Encoder::UntilClose, persistent: false });
    let twice = "HTTP/1.1 200 Fine\r\nDate: 1\r\nContent-Length: 4\r\ncontent-length: 4, 4\r\n\r\n";
    let (text, written) = answered(twice, get, HttpVersion::Http10).expect("agreeing");
    assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: 1\r\ncontent-length: 4\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!(written.encoder, Encoder::Length(4));
    let (text, written) = answered(twice, head, HttpVersion::Http11).expect("agreeing");
    assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: 1\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(written.encoder, Encoder::Discard);
}

/// Reads a body that comes in pieces of `sizes` in turn: the data, the trailers, and how much was not read.
fn decoded(mut decoder: Decoder, bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), Malformed> {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    let (mut start, mut end, mut turn) = (0, 0, 0);
    loop {
        let Decoded { skip, step } = decoder.step(&bytes[start..end])?;
        start += skip;
        match step {
            Step::Data(len) => {
                // Not all of it at once, either.
                let taken = len.min(3);
                data.extend_from_slice(&bytes[start..start + taken]);
                decoder.taken(taken);
                start += taken;
            }
            Step::Trailers(len) => {
                trailers.extend_from_slice(&bytes[start..start + len]);
                decoder.taken(len);
                start += len;
            }
            Step::End => return Ok((data, trailers, bytes.len() - start)),
            Step::More if end == bytes.len() => return Ok((data, trailers, usize::MAX)),
            Step::More => {
                end = (end + sizes[turn % sizes.len()]).min(bytes.len());
                turn += 1;
            }
        }
    }
}

const CHUNKED: fn() -> Decoder = || Decoder::of_request(Length::Chunked);

#[test]
fn chunks_are_read_strictly() {
    let read = |text: &str| decoded(CHUNKED(), text.as_bytes(), &[1]);
    let whole = |data: &str, trailers: &str, rest| Ok((data.into(), trailers.into(), rest));
    assert_eq!(read("3\r\nabc\r\n0\r\n\r\nGET"), whole("abc", "", 3));
    assert_eq!(read("1;a=\"b\"\r\na\r\n0002 \t\r\nbc\r\n0\r\nX: y\r\n\r\n"), whole("abc", "X: y\r\n\r\n", 0));
    assert_eq!(read("A\r\n0123456789\r\n000\r\n\r\n"), whole("0123456789", "", 0));
    for (text, malformed) in [
        ("\r\n", Malformed::Size),
        ("g\r\n", Malformed::Size),
        ("-1\r\n", Malformed::Size),
        ("+1\r\n", Malformed::Size),
        ("0x1\r\n", Malformed::Size),
        (" 1\r\n", Malformed::Size),
        ("1 1\r\n", Malformed::Size),
        ("1\n", Malformed::Size),
        ("1\rx", Malformed::Size),
        ("10000000000000000\r\n", Malformed::Size),
        ("1;\n", Malformed::Extension),
        ("1\r\nab", Malformed::ChunkEnd),
        ("1\r\na\n", Malformed::ChunkEnd),
        ("1\r\na\r\r", Malformed::ChunkEnd),
        ("0\r\nno field\r\n\r\n", Malformed::Trailers),
        ("0\r\nX: y\n\r\n", Malformed::Trailers),
        ("0\r\nX : y\r\n\r\n", Malformed::Trailers),
        ("0\r\nX: y\r\n folded\r\n\r\n", Malformed::Trailers),
        ("0\r\nContent-Length: 3\r\n\r\n", Malformed::Trailers),
        ("0\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Trailers),
        ("0\r\nHost: a\r\n\r\n", Malformed::Trailers),
    ] {
        assert_eq!(read(text), Err(malformed), "{text:?}");
        assert_eq!(decoded(CHUNKED(), text.as_bytes(), &[99]), Err(malformed), "{text:?} at once");
    }
}

#[test]
fn what_costs_the_sender_nothing_is_bounded() {
    for (text, malformed) in [
        (format!("1;{}", "x".repeat(16 * 1024)), Malformed::Extension),
        (format!("1{}", " ".repeat(16 * 1024)), Malformed::Extension),
        ("0".repeat(17 * 1024), Malformed::Extension),
        ("1;abcdefgh\r\na\r\n".repeat(4 * 1024), Malformed::Extension),
        (format!("0\r\nX: {}", "y".repeat(16 * 1024)), Malformed::Trailers),
        (format!("0\r\n{}\r\n", "x: y\r\n".repeat(65)), Malformed::Trailers),
    ] {
        assert_eq!(decoded(CHUNKED(), text.as_bytes(), &[4096]), Err(malformed), "{}", &text[..20]);
    }
}

#[test]
fn lengths_and_closes_end_a_body() {
    assert_eq!(decoded(Decoder::of_request(Length::Known(3)), b"abcd", &[2]), Ok((b"abc".to_vec(), vec![], 1)));
    assert_eq!(decoded(Decoder::of_request(Length::Unstated), b"abcd", &[2]), Ok((vec![], vec![], 4)));
    let mut open = Decoder::of_response(ResponseLength::UntilClose);
    assert_eq!(open.step(b"abc"), Ok(Decoded { skip: 0, step: Step::Data(3) }));
    assert!(open.is_complete_at_close() && open.is_ended());
    assert!(!Decoder::of_response(ResponseLength::Known(1)).is_complete_at_close());
    assert!(!CHUNKED().is_complete_at_close());
}

#[test]
fn a_body_is_written_as_promised() {
    let mut out = Vec::new();
    let mut chunked = Encoder::Chunked(0);
    assert_eq!(chunked.begin(&mut out, 300), Ok(300));
    // Only a part could be written, and now there is more data.
    chunked.wrote(&mut out, 290);
    assert_eq!(chunked.begin(&mut out, 500), Ok(10));
    assert_eq!(chunked.end(&mut out, std::iter::empty()), Err(WrongLength));
    chunked.wrote(&mut out, 10);
    assert_eq!(chunked.end(&mut out, std::iter::empty()), Ok(()));
    assert_eq!(out, b"12c\r\n\r\n0\r\n\r\n");
    let mut length = Encoder::Length(5);
    assert_eq!(length.begin(&mut out, 6), Err(WrongLength));
    assert_eq!(length.begin(&mut out, 4), Ok(4));
    length.wrote(&mut out, 4);
    assert_eq!(length.end(&mut out, std::iter::empty()), Err(WrongLength));
    length.wrote(&mut out, 1);
    assert_eq!((length.end(&mut out, std::iter::empty()), length), (Ok(()), Encoder::Ended));
    assert_eq!(Encoder::Ended.begin(&mut out, 1), Err(WrongLength));
}

/// Pieces of chunked bodies, whole and broken.
const PIECES: &[&str] = &[
    "3\r\nabc\r\n",
    "1;x\r\na\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "\r\n",
    "\n",
    "5",
    "a",
    ";",
    " ",
    "x",
    "\r",
    "Host: a\r\n",
    "fffffffffffffff\r\n",
    "0002\r\nzz\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_a_body_is_cut_into_pieces_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
        sizes in prop::collection::vec(1..9usize, 1..6),
    ) {
        let text = pieces.concat();
        let whole = decoded(CHUNKED(), text.as_bytes(), &[usize::MAX]);
        prop_assert_eq!(decoded(CHUNKED(), text.as_bytes(), &sizes), whole);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decoded(CHUNKED(), &bytes, &[7]);
        let _ = parse_request(&bytes, LIMITS);
        let _ = parse_response(&bytes, Asked::default(), LIMITS);
    }
}
