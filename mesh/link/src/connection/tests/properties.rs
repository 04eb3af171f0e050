//! Random traffic in both directions: nothing is lost, changed, or kept beyond its limit, wherever the bytes are cut.

use std::collections::BTreeMap;

use bytes::Bytes;
use eastway_core::Reason;
use proptest::prelude::*;

use crate::testing::{Pair, events, request, response};
use crate::{Connection, Event, FloodLimits, LinkOptions, OpaqueHead, Rate, SendError, Side, StreamId};

/// What stands at a place of a stream's data, so that each receiver knows what must come.
fn byte_at(id: StreamId, from: Side, offset: usize) -> u8 {
    (id.number() as usize * 31 + usize::from(from == Side::Accepting) * 101 + offset * 7 + offset / 251) as u8
}

/// What one side knows of one stream.
#[derive(Debug, Default)]
struct Known {
    sent: usize,
    received: usize,
    answered: bool,
    ended: bool,
    peer_ended: bool,
    /// It was reset, refused or lost: nothing more is promised of it.
    broken: bool,
}

#[derive(Debug)]
struct World {
    pair: Pair,
    known: [BTreeMap<StreamId, Known>; 2],
}

const SIDES: [Side; 2] = [Side::Connecting, Side::Accepting];

impl World {
    fn new(cut: u64) -> Self {
        let options = LinkOptions {
            stream_window: 65_536,
            connection_window: 262_144,
            max_streams: 64,
            stream_buffer: 3000,
            connection_buffer: 9000,
            head_buffer: 2000,
            quantum: 1024,
            floods: FloodLimits { pings: Rate::new(10_000, 1000), ..FloodLimits::default() },
            ..LinkOptions::default()
        };
        let mut pair = Pair::with(&options, &options);
        pair.cutter = Some(fastrand::Rng::with_seed(cut));
        Self { pair, known: [BTreeMap::new(), BTreeMap::new()] }
    }

    fn side(&mut self, side: Side) -> (&mut Connection, &mut BTreeMap<StreamId, Known>) {
        match side {
            Side::Connecting => (&mut self.pair.caller, &mut self.known[0]),
            Side::Accepting => (&mut self.pair.called, &mut self.known[1]),
        }
    }

    fn pick(&mut self, side: Side, place: u8) -> Option<StreamId> {
        let known = &self.side(side).1;
        let open: Vec<StreamId> = known.iter().filter(|(_, known)| !known.broken).map(|(id, _)| *id).collect();
        open.get(usize::from(place) % open.len().max(1)).copied()
    }

    fn open(&mut self, opaque: bool, end: bool) {
        let now = self.pair.now;
        let head = OpaqueHead { authority: "db:1", fields: [("a", "b")] };
        let opened = match opaque {
            true => self.pair.caller.open_opaque(head, now),
            false => self.pair.caller.open_request(request(if end { "GET" } else { "POST" }), end, now),
        };
        if let Ok(id) = opened {
            self.known[0].insert(id, Known { answered: true, ended: end && !opaque, ..Known::default() });
        }
    }

    fn send(&mut self, side: Side, id: StreamId, length: usize, end: bool) {
        let now = self.pair.now;
        let (connection, known) = self.side(side);
        let Some(known) = known.get_mut(&id) else { return };
        let data: Vec<u8> = (known.sent..known.sent + length).map(|at| byte_at(id, side, at)).collect();
        let mut data = Bytes::from(data);
        if let Ok(taken) = connection.send_data(id, &mut data, end, now) {
            known.sent += taken;
            known.ended |= end && data.is_empty();
            assert_eq!(taken + data.len(), length);
        }
    }

    fn answer(&mut self, id: StreamId) {
        if let Some(known) = self.known[1].get_mut(&id).filter(|known| !known.answered) {
            match self.pair.called.send_response(id, response(200), false) {
                Ok(()) => known.answered = true,
                // It may be closed, or told to send nothing more, before its event was polled.
                Err(error) => {
                    assert!(matches!(error, SendError::Busy | SendError::Gone | SendError::State), "{error}");
                }
            }
        }
    }

    fn finish(&mut self, side: Side, id: StreamId, trailers: bool) {
        let (connection, known) = self.side(side);
        let Some(known) = known.get_mut(&id) else { return };
        let result = if trailers { connection.send_trailers(id, [("x-sum", "1")]) } else { connection.finish(id) };
        known.ended |= result.is_ok();
    }

    fn reset(&mut self, side: Side, id: StreamId) {
        let (connection, known) = self.side(side);
        connection.reset(id, Reason::CallerGone);
        known.entry(id).or_default().broken = true;
    }

    fn read(&mut self, side: Side, id: StreamId, copy: bool) {
        let from = if side == Side::Connecting { Side::Accepting } else { Side::Connecting };
        let (connection, known) = self.side(side);
        let data = if copy {
            let mut data = Vec::new();
            connection.read_into(id, &mut data);
            data
        } else {
            connection.read(id).to_vec()
        };
        let Some(known) = known.get_mut(&id) else { return assert!(data.is_empty()) };
        for byte in data {
            assert_eq!(byte, byte_at(id, from, known.received), "stream {id} at {}", known.received);
            known.received += 1;
        }
    }

    /// Looks at the events of a side.
    fn poll(&mut self, side: Side) {
        while let Some(event) = self.side(side).0.poll_event() {
            let known = &mut self.side(side).1;
            match event {
                Event::Request { stream, end, .. } | Event::Opaque { stream, end, .. } => {
                    known.insert(stream, Known { peer_ended: end, ..Known::default() });
                }
                Event::Response { stream, end, .. } => known.entry(stream).or_default().peer_ended |= end,
                Event::Finished { stream, .. } => known.entry(stream).or_default().peer_ended = true,
                Event::Refused { stream, .. } | Event::Reset { stream, .. } | Event::Stopped { stream, .. } => {
                    known.entry(stream).or_default().broken = true;
                }
                Event::Lost(_) | Event::Closed(_) | Event::Draining => panic!("{event:?}"),
                Event::Interim { .. }
                | Event::Readable(_)
                | Event::Writable(_)
                | Event::Openable
                | Event::Rest { .. } => {}
            }
        }
    }

    fn step(&mut self, (kind, place, size): (u8, u8, u16)) {
        let side = SIDES[usize::from(place & 1)];
        let flag = size.is_multiple_of(3);
        match (kind, self.pick(side, place >> 1)) {
            (0 | 1, _) => self.open(size.is_multiple_of(5), flag),
            (2..=4, Some(id)) => self.send(side, id, usize::from(size), flag),
            (5, Some(id)) => self.finish(side, id, flag),
            (6, Some(id)) if flag => self.reset(side, id),
            (6 | 7, Some(id)) => self.answer(id),
            (8 | 9, Some(id)) => self.read(side, id, flag),
            (10, Some(id)) => self.side(side).0.consume(id, usize::from(size) * 4),
            (11, _) => {
                let now = self.pair.now;
                self.side(side).0.ping(now);
            }
            (12, _) => self.poll(side),
            (13 | 14, _) => self.pair.transmit(side),
            (15.., _) => self.pair.deliver(side),
            (_, None) => {}
        }
        self.check();
    }

    fn check(&mut self) {
        for side in SIDES {
            let connection = self.side(side).0;
            connection.assert_consistent();
            let buffered = connection.stats().buffered;
            // The window, the buffers, and the heads and answers that wait, of which there is a bound of their own.
            assert!(buffered < 262_144 + 9000 + 4000 + 65_535, "{buffered} bytes");
        }
    }

    /// Both applications read everything and end what they have open, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..2000 {
            for side in SIDES {
                self.poll(side);
                let ids: Vec<StreamId> = self.side(side).1.keys().copied().collect();
                for id in ids {
                    self.read(side, id, false);
                    self.side(side).0.consume(id, usize::MAX);
                    self.answer(id);
                    if !self.side(side).1[&id].ended {
                        self.finish(side, id, false);
                    }
                }
            }
            self.pair.run();
            if SIDES.iter().all(|side| self.side(*side).0.stats().streams == 0) {
                break;
            }
        }
        SIDES.into_iter().for_each(|side| self.poll(side));
    }

    fn assert_complete(&self) {
        for (id, caller) in &self.known[0] {
            let Some(called) = self.known[1].get(id) else {
                assert!(caller.broken, "stream {id} never arrived");
                continue;
            };
            if !caller.broken && !called.broken {
                assert_eq!((caller.sent, called.sent), (called.received, caller.received), "stream {id}");
                assert!(caller.peer_ended && called.peer_ended, "stream {id}");
            }
        }
        let (caller, called) = (&self.pair.caller, &self.pair.called);
        assert_eq!((caller.stats().streams, called.stats().streams), (0, 0));
        assert_eq!((caller.send.left, called.send.left), (called.recv.left, caller.recv.left));
        for side in [caller, called] {
            assert_eq!(side.recv.left + side.recv.owed, 262_144);
            assert_eq!((side.recv.unread, side.send.queued), (0, 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_both_sides_do_every_byte_arrives_in_order_and_within_the_limits(
        steps in proptest::collection::vec((0_u8..20, any::<u8>(), 0_u16..5000), 1..400), cut in any::<u64>(),
    ) {
        let mut world = World::new(cut);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        world.assert_complete();
    }

    #[test]
    fn wherever_bytes_are_cut_the_same_is_told(seed in any::<u64>(), cut in any::<u64>()) {
        let (to_called, to_caller, opened) = conversation(seed);
        for (side, bytes) in [(Side::Accepting, &to_called), (Side::Connecting, &to_caller)] {
            let whole = replay(side, bytes, opened, None);
            prop_assert!(!whole.is_empty() || side == Side::Connecting);
            let parts = replay(side, bytes, opened, Some(fastrand::Rng::with_seed(cut)));
            prop_assert_eq!(&whole, &parts);
            let single = replay(side, bytes, opened, Some(fastrand::Rng::with_seed(ONE_BY_ONE)));
            prop_assert_eq!(&whole, &single);
        }
    }
}

/// This seed cuts after every byte.
const ONE_BY_ONE: u64 = 0;

/// What a caller and a called side sent in a random conversation of half a dozen streams, and how many were opened.
fn conversation(seed: u64) -> (Vec<u8>, Vec<u8>, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut pair = Pair::new();
    let opened = rng.usize(1..8);
    let ids: Vec<StreamId> = (0..opened).map(|_| pair.request(false)).collect();
    let mut wires = [Vec::new(), Vec::new()];
    let mut exchange = |pair: &mut Pair| {
        for (side, wire) in SIDES.into_iter().zip(&mut wires) {
            pair.transmit(side);
            let to = if side == Side::Connecting { Side::Accepting } else { Side::Connecting };
            wire.extend_from_slice(pair.on_wire(to));
            pair.deliver(to);
        }
    };
    exchange(&mut pair);
    for round in 0..20 {
        let id = ids[rng.usize(..ids.len())];
        let (size, end) = (rng.usize(..3000), rng.u8(..8) == 0);
        let mut data = Bytes::from(vec![round; size]);
        // Calls that come at the wrong time are refused, and nothing is sent.
        let _ = match rng.u8(..6) {
            0 => pair.called.send_interim(id, response(103)),
            1 => pair.called.send_response(id, response(200), end),
            2 => pair.called.send_data(id, &mut data, end, pair.now).map(drop),
            3 => pair.caller.send_data(id, &mut data, end, pair.now).map(drop),
            4 => pair.caller.send_trailers(id, [("x-sum", "1")]),
            _ if end => {
                pair.caller.reset(id, Reason::CallerGone);
                Ok(())
            }
            _ => Ok(()),
        };
        exchange(&mut pair);
    }
    let [to_called, to_caller] = wires;
    (to_called, to_caller, opened)
}

/// What a side is told when it receives these bytes: for each stream its events, with the data between them.
fn replay(side: Side, bytes: &[u8], opened: usize, mut cutter: Option<fastrand::Rng>) -> BTreeMap<u32, Vec<String>> {
    let mut pair = Pair::new();
    let one_by_one =
        cutter.as_ref().is_some_and(|rng| rng.get_seed() == fastrand::Rng::with_seed(ONE_BY_ONE).get_seed());
    if side == Side::Connecting {
        for _ in 0..opened {
            pair.request(false);
        }
    }
    let connection = if side == Side::Connecting { &mut pair.caller } else { &mut pair.called };
    let mut told: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = match &mut cutter {
            Some(_) if one_by_one => 1,
            Some(rng) => rng.usize(1..=rest.len()),
            None => rest.len(),
        };
        let (piece, after) = rest.split_at(count);
        rest = after;
        connection.receive(piece, pair.now).expect("a valid stream of bytes");
        for event in events(connection) {
            let stream = match &event {
                Event::Request { stream, .. } | Event::Response { stream, .. } | Event::Interim { stream, .. } => {
                    *stream
                }
                Event::Finished { stream, .. } | Event::Reset { stream, .. } => *stream,
                Event::Readable(stream) => {
                    // How often there is something to read depends on the cuts; what is read does not. A reset takes away
                    // what was not read, so that only the streams without one compare their data.
                    let mut data = Vec::new();
                    connection.read_into(*stream, &mut data);
                    let log = told.entry(stream.number()).or_default();
                    let before = log.pop_if(|last| last.starts_with("data ")).unwrap_or_else(|| "data ".to_owned());
                    log.push(before + &data.iter().map(|byte| char::from(b'a' + byte % 26)).collect::<String>());
                    continue;
                }
                _ => continue,
            };
            told.entry(stream.number()).or_default().push(format!("{event:?}"));
        }
    }
    for log in told.values_mut().filter(|log| log.iter().any(|entry| entry.starts_with("Reset"))) {
        log.retain(|entry| !entry.starts_with("data "));
    }
    told
}
