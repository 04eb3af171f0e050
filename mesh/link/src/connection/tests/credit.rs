//! Credit: what nobody reads stops nobody else, and is never more than its window.

use bytes::Bytes;

use crate::testing::{Pair, events, read_all};
use crate::{Event, LinkOptions, StreamId};

const STREAM: u32 = 65_536;
const CONNECTION: u32 = 4 * STREAM;

fn small() -> LinkOptions {
    LinkOptions {
        stream_window: STREAM,
        connection_window: CONNECTION,
        stream_buffer: 1 << 20,
        connection_buffer: 1 << 20,
        ..LinkOptions::default()
    }
}

/// Reads and consumes everything.
fn drink(pair: &mut Pair, id: StreamId) -> usize {
    let read = read_all(&mut pair.caller, id);
    pair.caller.consume(id, read);
    read
}

#[test]
fn a_stream_that_nobody_reads_stops_at_its_window_and_no_other_stream() {
    let mut pair = Pair::greeted_with(&small(), &small());
    let (unread, other) = (pair.answered(), pair.answered());
    assert_eq!(pair.answer(unread, 1_000_000, false), STREAM as usize);
    let mut received = 0;
    while received < 1_000_000 {
        pair.answer(other, (1_000_000 - received).min(50_000), false);
        pair.run();
        received += drink(&mut pair, other);
    }
    assert_eq!(pair.caller.recv.unread, STREAM as usize, "what nobody reads is all that is kept");
    assert!(!events(&mut pair.called).contains(&Event::Writable(unread)));
    assert_eq!(drink(&mut pair, unread), STREAM as usize);
    assert!(pair.called_events().contains(&Event::Writable(unread)));
    assert!(pair.called.stats().starved >= 1);
}

#[test]
fn all_streams_together_stop_at_the_windows_of_the_connection_and_go_on_when_one_is_read() {
    let mut pair = Pair::greeted_with(&small(), &small());
    let ids: Vec<StreamId> = (0..6).map(|_| pair.answered()).collect();
    let queued: usize = ids.iter().map(|id| pair.answer(*id, 60_000, false)).sum();
    assert_eq!(queued, 360_000);
    pair.run();
    assert_eq!(pair.caller.recv.unread, CONNECTION as usize);
    pair.wait(30);
    assert_eq!(drink(&mut pair, ids[0]), 60_000);
    assert!(!pair.called.has_output(), "less than a portion was consumed: no grant yet");
    drink(&mut pair, ids[1]);
    pair.run();
    assert_eq!(pair.called.stats().blocked.as_millis(), 30);
    for id in &ids {
        drink(&mut pair, *id);
    }
    pair.run();
    assert_eq!(pair.caller.stats().data_received, 360_000);
}

#[test]
fn the_end_of_a_stream_needs_no_credit() {
    let mut pair = Pair::greeted_with(&small(), &small());
    let ids: Vec<StreamId> = (0..6).map(|_| pair.answered()).collect();
    for id in &ids[..5] {
        pair.answer(*id, 60_000, false);
    }
    pair.run();
    events(&mut pair.caller);
    pair.called.finish(ids[5]).expect("an end");
    assert_eq!(pair.caller_events(), [Event::Finished { stream: ids[5], trailers: None }]);
}

#[test]
fn a_stream_that_is_given_up_unread_gives_its_credit_back() {
    let mut pair = Pair::greeted_with(&small(), &small());
    for _ in 0..50 {
        let id = pair.answered();
        assert_eq!(pair.answer(id, 60_000, false), 60_000);
        // The reset crosses data that is still on its way.
        pair.transmit(crate::Side::Accepting);
        pair.caller.reset(id, eastway_core::Reason::CallerGone);
        pair.run();
    }
    assert_eq!((pair.caller.recv.unread, pair.caller.stats().buffered), (0, 0));
    assert!(pair.called.send.left > CONNECTION / 2, "{} left", pair.called.send.left);
    assert!(pair.caller.ended().is_none() && pair.called.ended().is_none());
}

#[test]
fn credit_comes_back_with_what_was_consumed_and_not_with_what_was_read() {
    let mut pair = Pair::greeted_with(&small(), &small());
    let id = pair.answered();
    pair.answer(id, STREAM as usize, false);
    pair.run();
    let taken = read_all(&mut pair.caller, id);
    pair.run();
    assert_eq!(pair.answer(id, 1, false), 0);
    pair.caller.consume(id, taken / 2);
    pair.run();
    assert_eq!(pair.answer(id, STREAM as usize, false), STREAM as usize / 2);
    pair.caller.consume(id, usize::MAX);
    pair.run();
    assert_eq!(pair.called.stats().streams, 1);
}

#[test]
fn what_waits_to_be_written_is_bounded_and_who_waits_longest_is_told_first() {
    let options = LinkOptions { stream_buffer: 20_000, connection_buffer: 50_000, ..LinkOptions::default() };
    let mut pair = Pair::greeted_with(&options, &options);
    let ids: Vec<StreamId> = (0..4).map(|_| pair.answered()).collect();
    let taken: Vec<usize> = ids.iter().map(|id| pair.answer(*id, 30_000, false)).collect();
    assert_eq!(taken, [20_000, 20_000, 10_000, 0]);
    assert_eq!(pair.called.stats().buffered, 50_000);
    let told = pair.called_events();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(ids.iter().all(|id| told.contains(&Event::Writable(*id))));
    assert!(ids.iter().all(|id| pair.answer(*id, 10_000, false) == 10_000));
}

#[test]
fn many_small_pieces_wait_no_longer_than_large_ones() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    let mut pieces = 0;
    while pair.called.send_data(id, &mut Bytes::from_static(b"x"), false, pair.now) == Ok(1) {
        pieces += 1;
    }
    assert_eq!(pieces, super::super::sending::MAX_PIECES);
    assert!(pair.called_events().contains(&Event::Writable(id)));
    assert_eq!(drink(&mut pair, id), pieces);
}

#[test]
fn heads_wait_for_room_as_well() {
    let options = LinkOptions { head_buffer: 2000, ..LinkOptions::default() };
    let mut pair = Pair::greeted_with(&options, &options);
    let mut ids = Vec::new();
    let refused = loop {
        match pair.caller.open_request(crate::testing::request("GET"), true, pair.now) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, ids.len() > 20), (crate::OpenError::Busy, true));
    assert_eq!(pair.caller_events(), [Event::Openable]);
    let busy = ids.iter().find(|id| {
        let fields = [("x", "y".repeat(200))];
        let head = crate::ResponseHead { status: 200, length: None, upgrade: None, fields };
        pair.called.send_response(**id, head, true) == Err(crate::SendError::Busy)
    });
    let busy = *busy.expect("a head that has to wait");
    assert!(pair.called_events().contains(&Event::Writable(busy)));
}

#[test]
fn heads_do_not_wait_for_credit_that_data_waits_for() {
    let options = LinkOptions { head_buffer: 1024, connection_buffer: CONNECTION as usize, ..small() };
    let mut pair = Pair::greeted_with(&options, &options);
    let ids: Vec<StreamId> = (0..8).map(|_| pair.answered()).collect();
    for id in &ids {
        pair.answer(*id, STREAM as usize, false);
    }
    pair.run();
    for id in &ids {
        pair.answer(*id, STREAM as usize, false);
    }
    assert_eq!((pair.called.send.left, pair.called.send.queued), (0, CONNECTION as usize));
    let late: Vec<StreamId> = (0..30)
        .map(|_| {
            let id = pair.request(true);
            pair.run();
            id
        })
        .collect();
    events(&mut pair.called);
    let fields = || [("x", "y".repeat(100))];
    let head = || crate::ResponseHead { status: 200, length: None, upgrade: None, fields: fields() };
    let busy = late.iter().filter(|id| pair.called.send_response(**id, head(), true).is_err());
    let busy: Vec<Event> = busy.map(|id| Event::Writable(*id)).collect();
    assert!(!busy.is_empty());
    assert_eq!(pair.called_events(), busy);
}
