//! What a proper peer never sends, and what it costs.

use eastway_core::Reason;

use crate::frame::{END, Header, Kind, OPAQUE, put_number};
use crate::head::encode_request;
use crate::testing::{Pair, events, request};
use crate::{Event, LinkError, Malformed, RequestHead, Side};

/// A frame with this payload.
pub(super) fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Header::new(kind, flags, stream, payload.len() as u16).bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// An OPEN with a proper head.
pub(super) fn open(stream: u32, end: bool) -> Vec<u8> {
    let mut head = Vec::new();
    encode_request(request(if end { "GET" } else { "POST" }), 65_535, &mut head).expect("a head");
    frame(Kind::Open, if end { END } else { 0 }, stream, &head)
}

/// How the called side ends after these bytes.
fn called_after(bytes: &[&[u8]]) -> Option<LinkError> {
    let mut pair = Pair::greeted();
    pair.inject(Side::Accepting, &bytes.concat());
    pair.deliver(Side::Accepting);
    pair.called.ended().cloned()
}

/// How a caller with one stream ends after these bytes.
fn caller_after(bytes: &[&[u8]]) -> Option<LinkError> {
    let mut pair = Pair::greeted();
    pair.request(true);
    pair.transmit(Side::Connecting);
    pair.inject(Side::Connecting, &bytes.concat());
    pair.deliver(Side::Connecting);
    pair.caller.ended().cloned()
}

fn number(kind: Kind, stream: u32, number: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    put_number(&mut frame, kind, 0, stream, number);
    frame
}

#[test]
fn frames_that_break_the_rules_end_the_connection_and_say_why() {
    let state = |stream| Some(LinkError::State(stream));
    let data = |stream, flags, bytes: &[u8]| frame(Kind::Data, flags, stream, bytes);
    let head = frame(Kind::Response, 0, 1, &[0, 0, 200]);
    for (bytes, expected) in [
        (vec![open(2, true)], Some(LinkError::StreamOrder { expected: 1, found: 2 })),
        (vec![open(1, true), open(1, true)], Some(LinkError::StreamOrder { expected: 2, found: 1 })),
        (vec![data(1, 0, b"x")], state(1)),
        (vec![open(1, true), data(1, 0, b"x")], state(1)),
        (vec![open(1, false), data(1, END, b"x"), data(1, 0, b"x")], state(1)),
        (vec![head.clone()], state(1)),
        (vec![open(1, true), frame(Kind::Trailers, 0, 1, &[])], state(1)),
        (vec![number(Kind::Reset, 5, 1)], state(5)),
        (vec![number(Kind::Window, 5, 1)], state(5)),
        (vec![number(Kind::Window, 0, 0)], Some(Malformed::NoCredit.into())),
        (vec![number(Kind::Window, 0, 0x7fff_ffff)], Some(LinkError::CreditOverflow)),
        (vec![open(1, false), number(Kind::Window, 1, 0x7fff_ffff)], Some(LinkError::CreditOverflow)),
        (vec![frame(Kind::Hello, 0, 0, &[0, 1])], Some(LinkError::Hello)),
        (vec![frame(Kind::Pong, 0, 0, &[0; 8])], Some(Malformed::Pong.into())),
        (vec![number(Kind::Drain, 0, 3)], state(3)),
        (vec![number(Kind::Drain, 0, 0), open(1, true)], state(1)),
        (vec![vec![0, 0, 0x20, 0, 0, 0, 0, 0]], Some(Malformed::Kind(0x20).into())),
        (vec![vec![0, 0, 5, 0, 0, 0, 0, 1]], Some(Malformed::Length(0).into())),
        (vec![vec![0, 3, 0x80, 0xff, 0, 0, 0, 1, 1, 2, 3]], None),
    ] {
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        assert_eq!(called_after(&bytes), expected, "{bytes:?}");
    }
    let interim = frame(Kind::Interim, 0, 1, &[0, 0, 103]);
    for (bytes, expected) in [
        (vec![open(2, true)], state(2)),
        (vec![data(1, 0, b"x")], state(1)),
        (vec![head.clone(), head.clone()], state(1)),
        (vec![head.clone(), interim], state(1)),
        (vec![frame(Kind::Response, 0, 2, &[0, 0, 200])], state(2)),
    ] {
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        assert_eq!(caller_after(&bytes), expected, "{bytes:?}");
    }
}

#[test]
fn the_peer_is_told_what_it_did() {
    let mut pair = Pair::greeted();
    pair.inject(Side::Accepting, &number(Kind::Window, 0, 0));
    pair.deliver(Side::Accepting);
    let text = "the peer sent a malformed frame: it grants no credit".to_owned();
    assert_eq!(pair.caller_events(), [Event::Closed(LinkError::Goodbye { code: 1, text })]);
}

#[test]
fn a_connection_begins_with_one_hello() {
    let mut pair = Pair::new();
    pair.inject(Side::Accepting, &open(1, true));
    pair.deliver(Side::Accepting);
    assert_eq!(pair.called.ended(), Some(&LinkError::Hello));
    let mut pair = Pair::new();
    pair.inject(Side::Accepting, &frame(Kind::Hello, 0, 0, &[0, 9]));
    pair.deliver(Side::Accepting);
    assert_eq!(pair.called.ended(), Some(&LinkError::Version(9)));
    let mut pair = Pair::new();
    pair.inject(Side::Accepting, b"GET / HTTP/1.1\r\n");
    pair.deliver(Side::Accepting);
    assert!(matches!(pair.called.ended(), Some(LinkError::Malformed(_))));
}

#[test]
fn more_data_than_there_is_credit_for_ends_the_connection() {
    for (streams, expected) in [(1, 17), (200, 129)] {
        let mut pair = Pair::greeted();
        (1..=streams).for_each(|id| pair.inject(Side::Accepting, &open(id, false)));
        let mut sent = 0;
        while pair.called.ended().is_none() && sent < 1000 {
            let id = sent % streams + 1;
            pair.inject(Side::Accepting, &frame(Kind::Data, 0, id, &[0; 65_535]));
            pair.deliver(Side::Accepting);
            sent += 1;
        }
        assert_eq!(pair.called.ended(), Some(&LinkError::Credit));
        assert_eq!(sent, expected, "of 65,535 bytes, with windows of 1 MiB and of 8 MiB");
    }
}

#[test]
fn a_malformed_head_costs_its_stream_and_not_the_connection() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    events(&mut pair.called);
    pair.inject(Side::Accepting, &frame(Kind::Open, END, 2, &[9, 9, 9]));
    pair.inject(Side::Accepting, &frame(Kind::Open, OPAQUE, 3, &[0]));
    pair.inject(Side::Accepting, &frame(Kind::Data, END, 3, b"early bytes"));
    pair.deliver(Side::Accepting);
    assert_eq!(events(&mut pair.called), []);
    pair.inject(Side::Connecting, &frame(Kind::Response, 0, 1, &[0, 0, 50]));
    pair.deliver(Side::Connecting);
    let expected = Event::Reset { stream: id, reason: Reason::UpstreamProtocol };
    assert_eq!(events(&mut pair.caller), [expected]);
    assert!(pair.called.ended().is_none() && pair.caller.ended().is_none());
}

#[test]
fn a_body_that_is_not_as_long_as_stated_is_passed_on_to_nobody() {
    let head = |length| {
        let mut head = Vec::new();
        let stated = RequestHead { length: Some(length), ..request("POST") };
        encode_request(stated, 65_535, &mut head).expect("a head");
        frame(Kind::Open, 0, 1, &head)
    };
    for rest in [
        vec![frame(Kind::Data, 0, 1, b"123456")],
        vec![frame(Kind::Data, END, 1, b"1234")],
        vec![frame(Kind::Data, 0, 1, b"12345"), frame(Kind::Data, 0, 1, b"GET / HTTP/1.1\r\n")],
        vec![frame(Kind::Data, 0, 1, b"1234"), frame(Kind::Trailers, 0, 1, &[])],
    ] {
        let mut pair = Pair::greeted();
        pair.inject(Side::Accepting, &head(5));
        pair.inject(Side::Accepting, &rest.concat());
        pair.deliver(Side::Accepting);
        let told = events(&mut pair.called);
        let reset = told.last().expect("events");
        assert!(matches!(reset, Event::Reset { reason: Reason::MalformedRequest, .. }), "{told:?}");
        assert!(!told.iter().any(|event| matches!(event, Event::Finished { .. })), "{told:?}");
        assert!(pair.called.ended().is_none());
    }
}

#[test]
fn a_stream_beyond_the_limit_is_refused_and_may_be_repeated_elsewhere() {
    let mut pair = Pair::greeted();
    (1..=1025).for_each(|id| pair.inject(Side::Accepting, &open(id, false)));
    pair.deliver(Side::Accepting);
    assert_eq!(events(&mut pair.called).len(), 1024);
    pair.transmit(Side::Accepting);
    let expected = [0, 4, Kind::Reset as u8, crate::frame::UNPROCESSED, 0, 0, 4, 1, 0, 0, 0, 28];
    assert_eq!(pair.on_wire(Side::Connecting), expected);
}
