//! Floods: each ends the connection at a known number, and useful work is no flood.

use eastway_core::Reason;

use super::violations::{frame, open};
use crate::frame::{END, Kind, put_number};
use crate::testing::{Pair, events, response};
use crate::{Flood, LinkError, Side, StreamId};

/// Delivers `bytes(n)` for n = 1, 2, ... to the called side of a pair until it ends, and says how often.
fn flood(pair: &mut Pair, read: bool, bytes: impl Fn(u32) -> Vec<u8>) -> (Option<LinkError>, u32) {
    for count in 1..200_000 {
        pair.inject(Side::Accepting, &bytes(count));
        pair.deliver(Side::Accepting);
        events(&mut pair.called);
        if read {
            pair.called.transmit(pair.now, &mut crate::Outgoing::new(), 1000);
        }
        if let Some(error) = pair.called.ended() {
            return (Some(error.clone()), count);
        }
    }
    (None, 200_000)
}

fn number(kind: Kind, stream: u32, number: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    put_number(&mut frame, kind, 0, stream, number);
    frame
}

#[test]
fn streams_that_are_opened_only_to_be_reset() {
    let mut pair = Pair::greeted();
    let (error, count) =
        flood(&mut pair, true, |id| [open(id, true), number(Kind::Reset, id, Reason::CallerGone.number())].concat());
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Resets)), 4097));
}

#[test]
fn streams_with_malformed_heads() {
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |id| frame(Kind::Open, END, id, &[0xff]));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Resets)), 4097));
}

#[test]
fn pings() {
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |_| frame(Kind::Ping, 0, 0, &[1; 8]));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Pings)), 21));
    // A second one before the answer to the first was even written.
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, false, |_| frame(Kind::Ping, 0, 0, &[1; 8]));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Pings)), 2));
}

#[test]
fn grants_of_little_credit() {
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |_| number(Kind::Window, 0, 1));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Windows)), 1001));
}

#[test]
fn frames_for_streams_that_are_closed() {
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    pair.called.send_response(id, response(200), true).expect("a response");
    let (error, count) = flood(&mut pair, true, |_| number(Kind::Window, 1, 1000));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Windows)), 1001));
    let mut pair = Pair::greeted();
    let id = pair.request(true);
    pair.run();
    pair.called.send_response(id, response(200), true).expect("a response");
    let (error, count) = flood(&mut pair, true, |_| number(Kind::Reset, 1, 1));
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Strays)), 16_385));
}

#[test]
fn frames_that_are_to_be_skipped() {
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |_| vec![0, 1, 0x99, 0, 0, 0, 0, 0, 7]);
    assert_eq!((error, count), (Some(LinkError::Flood(Flood::Strays)), 16_385));
}

#[test]
fn empty_frames_and_settings_have_no_budget_because_they_have_no_use() {
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |_| vec![0, 0, Kind::Data as u8, 0, 0, 0, 0, 1]);
    assert!(matches!((error, count), (Some(LinkError::Malformed(_)), 1)));
    let mut pair = Pair::greeted();
    let (error, count) = flood(&mut pair, true, |_| frame(Kind::Hello, 0, 0, &[0, 1]));
    assert_eq!((error, count), (Some(LinkError::Hello), 1));
}

#[test]
fn data_on_a_stream_that_was_given_up_is_no_more_than_was_on_its_way() {
    let mut pair = Pair::greeted();
    pair.inject(Side::Accepting, &open(1, false));
    pair.deliver(Side::Accepting);
    pair.called.reset(StreamId::new(1), Reason::Internal);
    let (error, count) = flood(&mut pair, true, |_| frame(Kind::Data, 0, 1, &[0; 1024]));
    assert_eq!((error, count), (Some(LinkError::State(1)), 1025), "a window of 1 MiB");
}

#[test]
fn interim_heads_without_an_end() {
    let mut pair = Pair::greeted();
    pair.request(true);
    pair.run();
    for _ in 0..33 {
        pair.inject(Side::Connecting, &frame(Kind::Interim, 0, 1, &[0, 0, 103]));
    }
    pair.deliver(Side::Connecting);
    assert_eq!(pair.caller.ended(), Some(&LinkError::Flood(Flood::Interim)));
    let id = {
        let mut pair = Pair::greeted();
        let id = pair.request(true);
        pair.run();
        (0..32).for_each(|_| pair.called.send_interim(id, response(103)).expect("one of the first"));
        assert_eq!(pair.called.send_interim(id, response(103)), Err(crate::SendError::Interim));
        assert_eq!(pair.caller_events().len(), 32);
        id
    };
    assert_eq!(id.number(), 1);
}

#[test]
fn answers_that_the_peer_does_not_read_do_not_pile_up() {
    let mut pair = Pair::greeted();
    pair.called.budgets.resets = crate::budget::Budget::new(crate::Rate::new(u32::MAX, 0), pair.now);
    let (error, count) = flood(&mut pair, false, |id| frame(Kind::Open, END, id, &[0xff]));
    assert_eq!(error, Some(LinkError::Backlog));
    assert!(count < 100_000 && pair.called.stats().buffered < 1000, "{count}");
}

#[test]
fn callers_that_give_up_many_requests_at_a_deadline_flood_nobody() {
    let mut pair = Pair::greeted();
    for _ in 0..20 {
        let ids: Vec<StreamId> = (0..1000).map(|_| pair.request(true)).collect();
        pair.run();
        for id in &ids[..800] {
            pair.called.send_response(*id, response(200), true).expect("a response");
        }
        ids[800..].iter().for_each(|id| pair.caller.reset(*id, Reason::CallerGone));
        pair.run();
        events(&mut pair.caller);
        events(&mut pair.called);
    }
    assert!(pair.called.ended().is_none() && pair.caller.ended().is_none());
    assert_eq!((pair.called.stats().streams, pair.called.stats().failed), (0, 4000));
}
