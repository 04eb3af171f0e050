//! Applications that act only when they are told to: no event is missing, or something would wait for ever.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use crate::testing::{Pair, events, read_all, request, response};
use crate::{Connection, Event, LinkOptions, SendError, Side, StreamId};

/// What one side still has to do on one stream.
#[derive(Debug, Default)]
struct Work {
    /// Data to be sent.
    rest: Bytes,
    head_due: bool,
    done: bool,
    received: usize,
}

#[derive(Debug)]
struct Application {
    work: BTreeMap<StreamId, Work>,
    /// Read, and consumed later.
    unconsumed: VecDeque<(StreamId, usize)>,
}

impl Application {
    const fn new() -> Self {
        Self { work: BTreeMap::new(), unconsumed: VecDeque::new() }
    }

    /// Sends as much as it may; what is left waits for an event.
    fn send(&mut self, connection: &mut Connection, id: StreamId, pair_now: eastway_core::Timestamp) {
        let Some(work) = self.work.get_mut(&id).filter(|work| !work.done) else { return };
        if work.head_due {
            match connection.send_response(id, response(200), false) {
                Ok(()) => work.head_due = false,
                Err(SendError::Busy) => return,
                Err(error) => panic!("{error}"),
            }
        }
        connection.send_data(id, &mut work.rest, true, pair_now).expect("the stream is open");
        work.done = work.rest.is_empty();
    }

    fn read(&mut self, connection: &mut Connection, id: StreamId) {
        let read = read_all(connection, id);
        self.work.entry(id).or_default().received += read;
        self.unconsumed.push_back((id, read));
    }
}

/// Runs `sizes` (uploads and downloads) through a pair whose applications only follow events.
fn run(options: &LinkOptions, sizes: &[(u32, u32)], seed: u64) {
    let mut pair = Pair::with(options, options);
    let mut rng = fastrand::Rng::with_seed(seed);
    pair.cutter = Some(rng.fork());
    let (mut caller, mut called) = (Application::new(), Application::new());
    let mut unopened: VecDeque<usize> = (0..sizes.len()).collect();
    let mut may_open = true;
    for _ in 0..100_000 {
        while may_open && let Some(index) = unopened.front().copied() {
            match pair.caller.open_request(request("POST"), false, pair.now) {
                Ok(id) => {
                    assert_eq!(id.number() as usize, index + 1);
                    unopened.pop_front();
                    let rest = Bytes::from(vec![1; sizes[index].0 as usize]);
                    caller.work.insert(id, Work { rest, ..Work::default() });
                    caller.send(&mut pair.caller, id, pair.now);
                }
                Err(_) => may_open = false,
            }
        }
        for side in [Side::Connecting, Side::Accepting] {
            if rng.u8(..3) > 0 {
                pair.transmit(side);
            }
            pair.deliver(side);
        }
        for event in events(&mut pair.caller) {
            match event {
                Event::Openable => may_open = true,
                Event::Writable(id) => caller.send(&mut pair.caller, id, pair.now),
                Event::Readable(id) => caller.read(&mut pair.caller, id),
                Event::Response { .. } | Event::Finished { .. } => {}
                event => panic!("{event:?}"),
            }
        }
        for event in events(&mut pair.called) {
            match event {
                Event::Request { stream, .. } => {
                    let rest = Bytes::from(vec![2; sizes[stream.number() as usize - 1].1 as usize]);
                    called.work.insert(stream, Work { rest, head_due: true, ..Work::default() });
                    called.send(&mut pair.called, stream, pair.now);
                }
                Event::Writable(id) => called.send(&mut pair.called, id, pair.now),
                Event::Readable(id) => called.read(&mut pair.called, id),
                Event::Finished { .. } => {}
                event => panic!("{event:?}"),
            }
        }
        for (application, connection) in [(&mut caller, &mut pair.caller), (&mut called, &mut pair.called)] {
            // Some is consumed at once, and some later.
            while rng.bool()
                && let Some((id, count)) = application.unconsumed.pop_front()
            {
                connection.consume(id, count);
            }
        }
        let streams = pair.caller.stats().streams + pair.called.stats().streams;
        if unopened.is_empty() && streams == 0 {
            break;
        }
    }
    assert_eq!(unopened.len(), 0, "streams wait to be opened");
    for (index, (upload, download)) in sizes.iter().enumerate() {
        let id = StreamId::new(index as u32 + 1);
        assert_eq!(called.work[&id].received, *upload as usize, "upload of {id}: {:?}", caller.work[&id]);
        assert_eq!(caller.work[&id].received, *download as usize, "download of {id}: {:?}", called.work[&id]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_waits_for_ever(
        sizes in proptest::collection::vec(
            (prop_oneof![0_u32..10, 0_u32..3000, 0_u32..300_000], prop_oneof![0_u32..10, 0_u32..3000, 0_u32..300_000]),
            1..100,
        ),
        stream_buffer in 1024_usize..100_000, connection_buffer in 1024_usize..100_000,
        head_buffer in 1024_usize..4000, quantum in 1024_u16..20_000, seed in any::<u64>(),
    ) {
        let options = LinkOptions {
            stream_window: 65_536,
            connection_window: 262_144,
            max_streams: 64,
            stream_buffer,
            connection_buffer,
            head_buffer,
            quantum,
            ..LinkOptions::default()
        };
        run(&options, &sizes, seed);
    }
}
