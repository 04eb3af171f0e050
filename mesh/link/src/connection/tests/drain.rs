//! Ends: drained, closed, failed and lost.

use eastway_core::Reason;

use crate::head::encode_request;
use crate::testing::{Pair, events, request, response};
use crate::{Event, LinkError, OpenError, RequestBuf, Side, StreamId};

#[test]
fn a_called_side_that_drains_serves_what_is_open_and_on_its_way() {
    let mut pair = Pair::greeted();
    let open = pair.request(true);
    pair.run();
    let on_its_way = pair.request(true);
    pair.called.drain();
    assert!(!pair.called.is_drained());
    let told = pair.called_events();
    assert!(matches!(told.as_slice(), [Event::Request { .. }, Event::Request { .. }, Event::Draining]), "{told:?}");
    assert_eq!(events(&mut pair.caller), [Event::Draining]);
    assert_eq!(pair.caller.open_request(request("GET"), true, pair.now), Err(OpenError::Draining));
    for id in [open, on_its_way] {
        assert!(!pair.called.is_drained());
        pair.called.send_response(id, response(200), true).expect("a response");
    }
    assert!(pair.called.is_drained());
    assert_eq!(pair.caller_events().len(), 2);
    assert!(pair.caller.is_drained());
    pair.called.close();
    assert_eq!(pair.caller_events(), [Event::Closed(LinkError::Goodbye { code: 0, text: String::new() })]);
    assert_eq!(pair.called_events(), [Event::Closed(LinkError::Closed)]);
    assert!(pair.caller.ended().is_some_and(LinkError::is_orderly));
}

#[test]
fn a_called_side_without_time_refuses_what_is_on_its_way() {
    let mut pair = Pair::greeted();
    let open = pair.request(true);
    pair.run();
    let on_its_way = [pair.request(true), pair.request(false)];
    pair.upload(on_its_way[1], 5000, false).expect("room");
    pair.called.drain();
    pair.called.drain_now();
    let told = pair.called_events();
    assert!(matches!(told.as_slice(), [Event::Request { .. }, Event::Draining]), "{told:?}");
    let told = pair.caller_events();
    assert_eq!(told.len(), 3);
    for id in on_its_way {
        assert!(told.contains(&Event::Refused { stream: id, reason: Reason::Draining }));
    }
    pair.called.send_response(open, response(200), true).expect("a response");
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { .. }]));
    assert!(pair.caller.is_drained() && pair.called.is_drained());
}

#[test]
fn a_caller_that_drains_opens_no_more() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.caller.drain();
    assert_eq!(pair.caller.may_open(), Err(OpenError::Draining));
    assert!(matches!(pair.called_events().as_slice(), [Event::Request { .. }, Event::Draining]));
    assert!(!pair.called.is_drained());
    pair.called.send_response(id, response(200), true).expect("a response");
    pair.run();
    assert!(pair.caller.is_drained() && pair.called.is_drained());
}

#[test]
fn the_last_end_is_written_before_the_goodbye() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    pair.answer(id, 10, false);
    pair.run();
    pair.called.drain();
    pair.run();
    pair.called.finish(id).expect("an end");
    assert!(pair.called.is_drained());
    pair.called.close();
    let told = pair.caller_events();
    let [Event::Readable(_), Event::Draining, Event::Finished { .. }, Event::Closed(_)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(pair.caller.read(id).len(), 10, "a complete response outlives the connection");
    assert_eq!(pair.caller.stats().streams, 0);
}

#[test]
fn streams_that_were_never_written_or_never_read_are_known_to_be_unprocessed() {
    let mut pair = Pair::greeted();
    let seen = pair.request(true);
    pair.run();
    let on_its_way = pair.request(true);
    pair.transmit(Side::Connecting);
    let unwritten = pair.request(true);
    pair.caller.lost();
    let refused = |stream| Event::Refused { stream, reason: Reason::ConnectFailed };
    let expected = [Event::Lost(seen), Event::Lost(on_its_way), refused(unwritten), Event::Closed(LinkError::Lost)];
    assert_eq!(events(&mut pair.caller), expected);
    assert_eq!(pair.caller.receive(b"x", pair.now), Err(LinkError::Lost));
    assert!(!pair.caller.has_output() && pair.caller.next_timeout().is_none());
    assert_eq!(pair.caller.open_request(request("GET"), true, pair.now), Err(OpenError::Closed));

    // A goodbye says which streams the application has seen.
    let mut pair = Pair::greeted();
    let seen = pair.request(true);
    pair.run();
    let unseen = pair.request(true);
    pair.called.close();
    pair.transmit(Side::Accepting);
    pair.transmit(Side::Connecting);
    pair.deliver(Side::Connecting);
    let told = events(&mut pair.caller);
    assert_eq!(told[..2], [Event::Lost(seen), refused(unseen)]);
    assert_eq!(pair.called_events(), [request_event(seen), Event::Lost(seen), Event::Closed(LinkError::Closed)]);
}

fn request_event(stream: StreamId) -> Event {
    let mut head = Vec::new();
    encode_request(request("GET"), 65_535, &mut head).expect("a head");
    Event::Request { stream, head: RequestBuf::checked(Vec::new(), &head), end: true }
}

#[test]
fn loss_after_a_goodbye_is_no_loss() {
    let mut pair = Pair::greeted();
    pair.called.close();
    pair.run();
    pair.caller.lost();
    assert_eq!(events(&mut pair.caller).len(), 1);
    assert!(pair.caller.ended().is_some_and(LinkError::is_orderly));
}
