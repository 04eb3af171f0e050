//! Who sends when many want to.

use bytes::{Buf, Bytes};

use crate::frame::{HEADER_BYTES, Header, Kind};
use crate::testing::Pair;
use crate::{Outgoing, StreamId};

/// The frames of data of one pass of the called side: streams and lengths.
fn pass(pair: &mut Pair, budget: usize) -> Vec<(u32, usize)> {
    let mut out = Outgoing::new();
    pair.called.transmit(pair.now, &mut out, budget);
    let bytes = out.copy_to_bytes(out.remaining());
    let mut rest: &[u8] = &bytes;
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::read(*header, usize::MAX).expect("a frame");
        rest = &after[usize::from(header.length)..];
        if header.kind == Kind::Data {
            frames.push((header.stream, usize::from(header.length)));
        }
    }
    frames
}

fn streams(pair: &mut Pair, count: usize) -> Vec<StreamId> {
    (0..count).map(|_| pair.answered()).collect()
}

#[test]
fn streams_with_much_to_send_get_equal_shares() {
    let mut pair = Pair::greeted();
    let ids = streams(&mut pair, 5);
    ids.iter().for_each(|id| assert_eq!(pair.answer(*id, 100_000, false), 100_000));
    // Each has its first turn.
    assert_eq!(pass(&mut pair, 16_384 * 10).len(), 10);
    let frames = pass(&mut pair, 16_384 * 10);
    assert_eq!(frames.len(), 10);
    for id in &ids {
        let bytes: usize = frames.iter().filter(|(stream, _)| *stream == id.number()).map(|(_, length)| length).sum();
        assert_eq!(bytes, 2 * 16_376);
    }
}

#[test]
fn a_short_response_does_not_wait_behind_long_ones() {
    let mut pair = Pair::greeted();
    let ids = streams(&mut pair, 9);
    for id in &ids[..8] {
        pair.answer(*id, 100_000, false);
    }
    assert_eq!(pass(&mut pair, 16_384 * 16).len(), 16);
    pair.answer(ids[8], 100, true);
    assert_eq!(pass(&mut pair, 1)[0], (ids[8].number(), 100));
}

#[test]
fn a_long_response_gets_every_second_turn_however_many_short_ones_there_are() {
    let mut pair = Pair::greeted();
    let long = pair.answered();
    let ids = streams(&mut pair, 20);
    pair.answer(long, 120_000, false);
    assert_eq!(pass(&mut pair, 1).len(), 1);
    for id in &ids {
        pair.answer(*id, 1000, true);
    }
    let frames = pass(&mut pair, 60_000);
    let turns: Vec<bool> = frames.iter().map(|(stream, _)| *stream == long.number()).collect();
    assert!(turns.len() > 5 && turns.windows(2).all(|pair| pair[0] != pair[1]), "{frames:?}");
}

#[test]
fn control_frames_and_heads_go_before_data() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    pair.answer(id, 100_000, false);
    let other = pair.request(true);
    pair.transmit(crate::Side::Connecting);
    pair.deliver(crate::Side::Accepting);
    pair.called.send_response(other, crate::testing::response(200), false).expect("a head");
    pair.called.ping(pair.now);
    let mut out = Outgoing::new();
    pair.called.transmit(pair.now, &mut out, 1);
    let bytes = out.copy_to_bytes(out.remaining());
    assert_eq!((bytes[2], bytes[HEADER_BYTES + 3 + 2]), (Kind::Response as u8, Kind::Ping as u8));
}

#[test]
fn small_pieces_share_a_frame_and_large_ones_are_not_copied() {
    let mut pair = Pair::greeted();
    let id = pair.answered();
    for _ in 0..10 {
        let mut data = Bytes::from_static(b"0123456789");
        pair.called.send_data(id, &mut data, false, pair.now).expect("room");
    }
    assert_eq!(pass(&mut pair, 60_000), [(id.number(), 100)]);
    let large = Bytes::from(vec![1; 10_000]);
    pair.called.send_data(id, &mut large.clone(), true, pair.now).expect("room");
    let mut out = Outgoing::new();
    pair.called.transmit(pair.now, &mut out, 60_000);
    out.advance(HEADER_BYTES);
    assert_eq!(out.chunk().as_ptr(), large.as_ptr());
}
