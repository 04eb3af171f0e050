//! Two connections joined in memory, for tests: nothing is lost, and everything may be cut anywhere.

use std::time::Duration;

use bytes::{Buf, Bytes};
use eastway_core::Timestamp;

use crate::{
    Connection, Event, HttpVersion, LinkOptions, Outgoing, RequestHead, ResponseHead, SendError, Side, StreamId,
};

/// Fields without any.
pub(crate) const NONE: [(&str, &str); 0] = [];

/// The budget of one pass.
pub(crate) const PASS: usize = 64 * 1024;

/// A calling and a called sidecar.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) caller: Connection,
    pub(crate) called: Connection,
    pub(crate) now: Timestamp,
    /// On the way to the called side, and to the caller.
    wires: [Vec<u8>; 2],
    outgoing: Outgoing,
    /// Cuts what is delivered, if there is one.
    pub(crate) cutter: Option<fastrand::Rng>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&LinkOptions::default(), &LinkOptions::default())
    }

    pub(crate) fn with(caller: &LinkOptions, called: &LinkOptions) -> Self {
        let now = Timestamp::from_millis(1000);
        Self {
            caller: Connection::new(Side::Connecting, caller, now),
            called: Connection::new(Side::Accepting, called, now),
            now,
            wires: [Vec::new(), Vec::new()],
            outgoing: Outgoing::new(),
            cutter: None,
        }
    }

    /// A pair that has exchanged its hellos.
    pub(crate) fn greeted() -> Self {
        Self::greeted_with(&LinkOptions::default(), &LinkOptions::default())
    }

    pub(crate) fn greeted_with(caller: &LinkOptions, called: &LinkOptions) -> Self {
        let mut pair = Self::with(caller, called);
        pair.run();
        pair
    }

    /// Moves what `side` has to write onto the wire.
    pub(crate) fn transmit(&mut self, side: Side) {
        let (connection, wire) = match side {
            Side::Connecting => (&mut self.caller, &mut self.wires[0]),
            Side::Accepting => (&mut self.called, &mut self.wires[1]),
        };
        connection.transmit(self.now, &mut self.outgoing, PASS);
        while self.outgoing.has_remaining() {
            let chunk = self.outgoing.chunk();
            wire.extend_from_slice(chunk);
            let length = chunk.len();
            self.outgoing.advance(length);
        }
    }

    /// Delivers what is on the way to `side`, or a part of it if there is a cutter.
    pub(crate) fn deliver(&mut self, side: Side) {
        let (connection, wire) = match side {
            Side::Accepting => (&mut self.called, &mut self.wires[0]),
            Side::Connecting => (&mut self.caller, &mut self.wires[1]),
        };
        let count = match &mut self.cutter {
            Some(rng) if !wire.is_empty() => {
                let most = if rng.bool() { wire.len().min(40) } else { wire.len() };
                rng.usize(1..=most)
            }
            _ => wire.len(),
        };
        let bytes: Vec<u8> = wire.drain(..count).collect();
        // An ended connection answers with its error; events tell it, too.
        let _ = connection.receive(&bytes, self.now);
        connection.assert_consistent();
    }

    /// What is on the way to `to`.
    pub(crate) fn on_wire(&self, to: Side) -> &[u8] {
        &self.wires[usize::from(to == Side::Connecting)]
    }

    /// Puts bytes on the way to `to` that no connection wrote.
    pub(crate) fn inject(&mut self, to: Side, bytes: &[u8]) {
        self.wires[usize::from(to == Side::Connecting)].extend_from_slice(bytes);
    }

    /// Exchanges until nothing more is on the way.
    pub(crate) fn run(&mut self) {
        loop {
            self.transmit(Side::Connecting);
            self.transmit(Side::Accepting);
            if self.wires.iter().all(Vec::is_empty) {
                return;
            }
            self.deliver(Side::Accepting);
            self.deliver(Side::Connecting);
        }
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// Runs, and gives what the called side was told.
    pub(crate) fn called_events(&mut self) -> Vec<Event> {
        self.run();
        events(&mut self.called)
    }

    /// Runs, and gives what the caller was told.
    pub(crate) fn caller_events(&mut self) -> Vec<Event> {
        self.run();
        events(&mut self.caller)
    }

    /// Opens a stream for a request with a body, or without one.
    pub(crate) fn request(&mut self, end: bool) -> StreamId {
        let method = if end { "GET" } else { "POST" };
        self.caller.open_request(request(method), end, self.now).expect("a stream")
    }

    /// Opens a stream for a request, and has it answered with a head.
    pub(crate) fn answered(&mut self) -> StreamId {
        let id = self.request(true);
        self.run();
        self.called.send_response(id, response(200), false).expect("a response");
        self.run();
        events(&mut self.called);
        events(&mut self.caller);
        id
    }

    /// Sends data from the called side, as much as is taken.
    pub(crate) fn answer(&mut self, id: StreamId, bytes: usize, end: bool) -> usize {
        let mut data = Bytes::from(vec![7; bytes]);
        self.called.send_data(id, &mut data, end, self.now).expect("a stream that is open")
    }

    /// Sends data from the caller, as much as is taken.
    pub(crate) fn upload(&mut self, id: StreamId, bytes: usize, end: bool) -> Result<usize, SendError> {
        self.caller.send_data(id, &mut Bytes::from(vec![7; bytes]), end, self.now)
    }
}

/// Reads everything that came on a stream; how many bytes.
pub(crate) fn read_all(connection: &mut Connection, id: StreamId) -> usize {
    connection.read_into(id, &mut Vec::new())
}

pub(crate) fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

pub(crate) const fn request(method: &str) -> RequestHead<'_, [(&'static str, &'static str); 0]> {
    RequestHead {
        version: HttpVersion::Http11,
        method,
        authority: "payments.us-east.mesh:80",
        target: "/charge?id=7",
        length: None,
        upgrade: None,
        fields: NONE,
    }
}

pub(crate) const fn response(status: u16) -> ResponseHead<'static, [(&'static str, &'static str); 0]> {
    ResponseHead { status, length: None, upgrade: None, fields: NONE }
}
