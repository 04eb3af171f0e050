//! Pings between two sides.

use std::time::Duration;

use crate::testing::{Pair, events, response};
use crate::{Event, LinkError, Side};

#[test]
fn a_peer_that_is_slow_to_answer_and_alive_keeps_its_streams() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    let due = pair.called.next_timeout().map(|due| due - pair.now);
    assert_eq!(due, Some(Duration::from_secs(30)), "nothing is awaited from a caller that has sent everything");
    for _ in 0..50 {
        let due = pair.caller.next_timeout().expect("a response is awaited");
        assert_eq!(due - pair.now, Duration::from_millis(200));
        pair.now = due;
        pair.caller.handle_timeout(pair.now);
        pair.transmit(Side::Connecting);
        pair.wait(20);
        pair.run();
    }
    assert_eq!(pair.caller.stats().rtt, Some(Duration::from_millis(20)));
    pair.called.send_response(id, response(200), true).expect("it is still open");
    assert!(matches!(pair.caller_events().as_slice(), [Event::Response { .. }]));
    assert_eq!(pair.caller.next_timeout(), None, "nothing is awaited any more");
}

#[test]
fn a_peer_that_stands_still_is_given_up() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    for after in [200, 250] {
        let due = pair.caller.next_timeout().expect("something is awaited");
        assert_eq!(due - pair.now, Duration::from_millis(after));
        pair.now = due;
        pair.caller.handle_timeout(pair.now);
        pair.transmit(Side::Connecting);
    }
    let silence = LinkError::Unresponsive(Duration::from_millis(250));
    assert_eq!(events(&mut pair.caller), [Event::Lost(id), Event::Closed(silence)]);
}

#[test]
fn any_data_is_a_sign_of_life_though_the_answer_to_the_ping_is_late() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    pair.wait(200);
    pair.caller.handle_timeout(pair.now);
    for _ in 0..10 {
        pair.wait(200);
        pair.answer(id, 10, false);
        pair.called.transmit(pair.now, &mut crate::Outgoing::new(), 0);
        pair.transmit(Side::Accepting);
        pair.deliver(Side::Connecting);
        pair.caller.handle_timeout(pair.now);
        assert!(pair.caller.ended().is_none());
    }
}

#[test]
fn credit_that_is_awaited_is_a_reason_to_ask() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    let mut sent = 0;
    while sent < 1 << 20 {
        sent += pair.answer(id, 1 << 20, false);
        pair.run();
    }
    assert_eq!(pair.answer(id, 1, false), 0);
    let due = pair.called.next_timeout().expect("a grant is awaited");
    assert_eq!(due - pair.now, Duration::from_millis(200));
}

#[test]
fn a_peer_that_never_says_hello_is_given_up() {
    let mut pair = Pair::new();
    let due = pair.called.next_timeout().expect("a hello is awaited");
    assert_eq!(due - pair.now, Duration::from_secs(5));
    pair.called.handle_timeout(due);
    assert!(matches!(pair.called.ended(), Some(LinkError::Unresponsive(_))));
}

#[test]
fn nothing_follows_a_goodbye() {
    let mut pair = Pair::greeted();
    pair.caller.ping(pair.now);
    pair.transmit(Side::Connecting);
    pair.deliver(Side::Accepting);
    pair.called.close();
    pair.transmit(Side::Accepting);
    assert_eq!(pair.on_wire(Side::Connecting).len(), 16, "a goodbye, and no answer to the ping");
}
