//! Requests, responses and opaque streams from end to end.

use bytes::Bytes;
use eastway_core::Reason;

use crate::testing::{NONE, Pair, events, read_all, request, response};
use crate::{
    Event, HeadError, HttpVersion, OpaqueHead, OpenError, RequestHead, ResponseHead, SendError, Side, StreamId,
};

#[test]
fn a_request_without_a_body_is_answered() {
    let mut pair = Pair::new();
    let id = pair.request(true);
    let told = pair.called_events();
    let [Event::Request { stream, head, end: true }] = told.as_slice() else { panic!("{told:?}") };
    let view = head.view();
    assert_eq!((*stream, view.method, view.target, view.version), (id, "GET", "/charge?id=7", HttpVersion::Http11));
    let head = ResponseHead { status: 200, length: Some(5), upgrade: None, fields: [("Content-Type", "text/plain")] };
    pair.called.send_response(id, head, false).expect("a response");
    let mut body = Bytes::from_static(b"hello");
    assert_eq!(pair.called.send_data(id, &mut body, true, pair.now), Ok(5));
    let told = pair.caller_events();
    let [Event::Response { head, end: false, .. }, Event::Readable(_), Event::Finished { trailers: None, .. }] =
        told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_eq!((head.view().status, head.view().length), (200, Some(5)));
    assert_eq!(head.view().fields.get("content-type"), Some(b"text/plain".as_slice()));
    assert_eq!(pair.caller.read(id), Bytes::from_static(b"hello"));
    assert_eq!((pair.caller.stats().streams, pair.called.stats().streams), (0, 0));
}

#[test]
fn requests_can_be_sent_before_the_peer_has_said_hello() {
    let mut pair = Pair::new();
    let id = pair.request(false);
    assert_eq!(pair.upload(id, 100_000, true), Ok(65_536), "the base window");
    let told = pair.called_events();
    assert!(matches!(told.as_slice(), [Event::Request { .. }, Event::Readable(_)]), "{told:?}");
    assert_eq!(read_all(&mut pair.called, id), 65_536);
    assert_eq!(pair.caller_events(), [Event::Writable(id)]);
    assert_eq!(pair.upload(id, 100_000 - 65_536, true), Ok(100_000 - 65_536));
    let told = pair.called_events();
    assert!(matches!(told.as_slice(), [Event::Readable(_), Event::Finished { .. }]), "{told:?}");
}

#[test]
fn interim_heads_a_body_and_trailers_come_in_order() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    pair.called.send_interim(id, response(103)).expect("an interim head");
    pair.called.send_response(id, response(200), false).expect("a head");
    assert_eq!(pair.called.send_interim(id, response(103)), Err(SendError::State));
    pair.answer(id, 100_000, false);
    pair.called.send_trailers(id, [("grpc-status", "0")]).expect("trailers");
    assert_eq!(pair.called.send_data(id, &mut Bytes::from_static(b"x"), false, pair.now), Err(SendError::State));
    let told = pair.caller_events();
    let [
        Event::Interim { .. },
        Event::Response { .. },
        Event::Readable(_),
        Event::Finished { trailers: Some(trailers), .. },
    ] = told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_eq!(trailers.view().get("grpc-status"), Some(b"0".as_slice()));
    assert_eq!(read_all(&mut pair.caller, id), 100_000);
    assert_eq!(pair.caller.stats().streams, 0);
}

#[test]
fn opaque_streams_carry_bytes_both_ways_and_end_by_halves() {
    let mut pair = Pair::greeted();
    let head = OpaqueHead { authority: "db.us-east.mesh:5432", fields: [("eastway-source", "spiffe://x/y")] };
    let id = pair.caller.open_opaque(head, pair.now).expect("a stream");
    // Early bytes do not wait for the acceptance.
    assert_eq!(pair.upload(id, 10, true), Ok(10));
    let told = pair.called_events();
    let [Event::Opaque { head, end: false, .. }, Event::Readable(_), Event::Finished { .. }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(head.view().authority, "db.us-east.mesh:5432");
    pair.called.send_response(id, response(200), false).expect("an acceptance");
    pair.answer(id, 20, false);
    assert_eq!(pair.called.read(id).len(), 10);
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { .. }, Event::Readable(_)]));
    pair.called.finish(id).expect("an end");
    assert_eq!(pair.caller.read(id).len(), 20);
    assert!(matches!(pair.caller_events().as_slice(), [Event::Finished { .. }]));
    assert_eq!((pair.caller.stats().streams, pair.called.stats().streams), (0, 0));
}

#[test]
fn a_refused_stream_is_known_to_be_unprocessed_and_a_reset_one_is_not() {
    let mut pair = Pair::greeted();
    let (refused, reset, cancelled) = (pair.request(true), pair.request(true), pair.request(false));
    pair.called_events();
    pair.called.refuse(refused, Reason::Overloaded);
    pair.called.reset(reset, Reason::AppUnreachable);
    pair.caller.reset(cancelled, Reason::CallerGone);
    assert_eq!(
        pair.caller_events(),
        [
            Event::Refused { stream: refused, reason: Reason::Overloaded },
            Event::Reset { stream: reset, reason: Reason::AppUnreachable }
        ]
    );
    assert_eq!(pair.called_events(), [Event::Reset { stream: cancelled, reason: Reason::CallerGone }]);
    assert_eq!((pair.caller.stats().streams, pair.called.stats().streams), (0, 0));
}

#[test]
fn a_refusal_after_the_response_has_begun_is_a_reset() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    pair.called.refuse(id, Reason::Overloaded);
    assert_eq!(pair.caller_events(), [Event::Reset { stream: id, reason: Reason::Overloaded }]);
}

#[test]
fn what_came_of_a_response_before_it_was_given_up_is_handed_over_with_its_end() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    let mut data = Bytes::from_static(b"a part");
    pair.called.send_data(id, &mut data, false, pair.now).expect("credit");
    // Both arrive together, before the application could read.
    pair.transmit(Side::Accepting);
    pair.called.reset(id, Reason::AppUnreachable);
    let events: Vec<_> =
        pair.caller_events().into_iter().filter(|event| !matches!(event, Event::Readable(_))).collect();
    let rest = Event::Rest { stream: id, data: Bytes::from_static(b"a part") };
    assert_eq!(events, [rest, Event::Reset { stream: id, reason: Reason::AppUnreachable }]);
    assert_eq!(pair.caller.stats().streams, 0);
    // Nobody has to say that it was consumed.
    pair.caller.consume(id, 6);
}

#[test]
fn a_complete_response_survives_that_the_rest_of_the_request_is_not_wanted() {
    let mut pair = Pair::greeted();
    let id = pair.request(false);
    pair.run();
    pair.called.send_response(id, response(413), false).expect("a head");
    pair.answer(id, 9, true);
    pair.run();
    events(&mut pair.caller);
    pair.called.reset(id, Reason::HeaderTooLarge);
    assert_eq!(pair.caller_events(), [Event::Stopped { stream: id, reason: Reason::HeaderTooLarge }]);
    assert_eq!(pair.upload(id, 1, false), Err(SendError::State));
    assert_eq!(pair.caller.read(id).len(), 9);
    assert_eq!(pair.caller.stats().streams, 0);
}

#[test]
fn bodies_have_the_length_that_their_heads_state() {
    let mut pair = Pair::greeted();
    let head = RequestHead { length: Some(10), ..request("POST") };
    assert_eq!(pair.caller.open_request(head, true, pair.now), Err(OpenError::Head(HeadError::Length)));
    let id = pair.caller.open_request(head, false, pair.now).expect("a stream");
    assert_eq!(pair.upload(id, 11, false), Err(SendError::Length));
    assert_eq!(pair.upload(id, 9, true), Err(SendError::Length));
    assert_eq!(pair.upload(id, 9, false), Ok(9));
    assert_eq!(pair.caller.finish(id), Err(SendError::Length));
    assert_eq!(pair.caller.send_trailers(id, NONE), Err(SendError::Length));
    assert_eq!(pair.upload(id, 1, true), Ok(1));
    assert_eq!(pair.called_events().len(), 3);
    let head = ResponseHead { length: Some(3), ..response(200) };
    assert_eq!(pair.called.send_response(id, head, true), Err(SendError::Length));
}

#[test]
fn responses_to_head_and_not_modified_have_no_body_whatever_length_they_state() {
    let mut pair = Pair::greeted();
    let id = pair.caller.open_request(request("HEAD"), true, pair.now).expect("a stream");
    pair.run();
    let head = ResponseHead { length: Some(1 << 40), ..response(200) };
    pair.called.send_response(id, head, false).expect("a head");
    let mut data = Bytes::from_static(b"x");
    assert_eq!(pair.called.send_data(id, &mut data, false, pair.now), Err(SendError::Length));
    pair.called.finish(id).expect("an end");
    let told = pair.caller_events();
    assert!(matches!(told.as_slice(), [Event::Response { end: false, .. }, Event::Finished { .. }]), "{told:?}");
    let id = pair.request(true);
    pair.run();
    pair.called.send_response(id, ResponseHead { length: Some(9), ..response(304) }, true).expect("a head");
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { end: true, .. }]));
}

#[test]
fn an_upgrade_and_a_connect_turn_into_bytes() {
    let mut pair = Pair::greeted();
    let head = RequestHead { upgrade: Some("websocket"), ..request("GET") };
    let id = pair.caller.open_request(head, false, pair.now).expect("a stream");
    pair.run();
    let told = events(&mut pair.called);
    assert!(matches!(&told[0], Event::Request { head, .. } if head.view().upgrade == Some("websocket")));
    let head = ResponseHead { upgrade: Some("websocket"), ..response(101) };
    pair.called.send_response(id, head, false).expect("a head");
    assert_eq!((pair.answer(id, 3, false), pair.upload(id, 4, false)), (3, Ok(4)));
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { .. }, Event::Readable(_)]));
    let head = RequestHead { target: "", ..request("CONNECT") };
    let id = pair.caller.open_request(head, false, pair.now).expect("a stream");
    pair.run();
    // A length of a granted CONNECT says nothing about its bytes (RFC 9110, section 9.3.6).
    pair.called.send_response(id, ResponseHead { length: Some(1), ..response(200) }, false).expect("a head");
    assert_eq!(pair.answer(id, 100, false), 100);
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { .. }, Event::Readable(_)]));
}

#[test]
fn calls_that_are_out_of_turn_change_nothing() {
    let mut pair = Pair::greeted();
    assert_eq!(pair.called.open_request(request("GET"), true, pair.now), Err(OpenError::Side));
    let id = pair.request(true);
    assert_eq!(pair.caller.send_response(id, response(200), true), Err(SendError::State));
    assert_eq!(pair.upload(id, 1, false), Err(SendError::State));
    let unknown = StreamId::new(77);
    assert_eq!(pair.caller.finish(unknown), Err(SendError::Gone));
    assert!(pair.caller.read(unknown).is_empty());
    pair.caller.consume(unknown, 7);
    pair.caller.reset(unknown, Reason::CallerGone);
    pair.run();
    assert_eq!(pair.called.send_data(id, &mut Bytes::from_static(b"x"), false, pair.now), Err(SendError::State));
    assert_eq!(pair.called.send_response(id, response(100), false), Err(SendError::State));
    assert_eq!(pair.called.send_interim(id, response(200)), Err(SendError::State));
    assert_eq!(pair.called_events().len(), 1);
    assert_eq!(pair.called.side(), Side::Accepting);
}

#[test]
fn buffers_of_heads_are_used_again() {
    let mut pair = Pair::greeted();
    pair.request(true);
    let Some(Event::Request { head, .. }) = pair.called_events().pop() else { panic!("a request") };
    let buffer: Vec<u8> = head.into();
    let place = buffer.as_ptr();
    pair.called.recycle(buffer);
    pair.request(true);
    let Some(Event::Request { head, .. }) = pair.called_events().pop() else { panic!("a request") };
    let buffer: Vec<u8> = head.into();
    assert_eq!(buffer.as_ptr(), place);
}
