//! One connection between two sidecars, as a state machine.
//!
//! The shell hands in what it read ([`Connection::receive`]) and the time, polls what happened ([`Connection::poll_event`]), acts
//! on streams, and writes what [`Connection::transmit`] gives it. One such pass for everything that is ready at a time makes few
//! large writes of many small frames: that, and not the format, is where the speed comes from.
//!
//! A connection never blocks and never grows without a bound: what a peer may make it keep is limited by the windows that it
//! stated, and what the shell may make it keep by its buffers, beyond which calls say that they have to wait.

mod closing;
mod frames;
mod heads;
mod opening;
mod reading;
mod receiving;
mod sending;
mod transmitting;

use std::collections::VecDeque;

use eastway_core::Timestamp;

use crate::budget::Budget;
use crate::error::LinkError;
use crate::event::Event;
use crate::head::Spares;
use crate::hello::Hello;
use crate::liveness::Liveness;
use crate::options::{FloodLimits, LinkOptions};
use crate::schedule::Schedule;
use crate::stats::LinkStats;
use crate::stream::{Phase, Stream, StreamId};
use crate::streams::Streams;
use receiving::Assembly;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It made the connection, and opens the streams.
    Connecting,
    /// It accepted the connection, and serves the streams.
    Accepting,
}

/// One side of a connection. The crate says how it is driven.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    options: LinkOptions,
    /// The peer's limits: the least that every peer has, until its HELLO has come.
    peer: Hello,
    greeted: bool,
    streams: Streams,
    schedule: Schedule,
    assembly: Assembly,
    events: VecDeque<Event>,
    /// Frames that go before all data: control, heads, ends.
    urgent: Vec<u8>,
    /// The answer to the peer's ping; it has one at a time.
    pong: Option<[u8; 8]>,
    /// Streams that wait for room for data in the buffer of the connection, the longest first.
    waiting: VecDeque<StreamId>,
    /// Streams that wait for room for a head.
    waiting_heads: VecDeque<StreamId>,
    /// The shell waits to open a stream.
    wants_open: bool,
    send: SendCredit,
    recv: ReceiveCredit,
    budgets: Budgets,
    liveness: Liveness,
    /// The last stream that was opened.
    last: u32,
    /// Of those, the last that was handed out to be written.
    last_written: u32,
    /// The last stream that the application was told of.
    last_served: u32,
    drain: Drain,
    ended: Option<LinkError>,
    spares: Spares,
    stats: LinkStats,
}

/// What the connection may send.
#[derive(Debug)]
struct SendCredit {
    /// Bytes of data.
    left: u32,
    /// Bytes of data that wait in all streams together.
    queued: usize,
    /// Since when data waits because nothing is left.
    blocked_since: Option<Timestamp>,
    /// Bytes sent that have not earned the peer a grant yet.
    unearned: usize,
}

/// What the connection may receive.
#[derive(Debug)]
struct ReceiveCredit {
    /// Bytes that the peer may still send.
    left: u32,
    /// Bytes that were consumed and are not granted again yet.
    owed: u32,
    /// Bytes that were received and not read.
    unread: usize,
    /// Bytes that may still come on streams that this side closed before their end.
    late: u64,
}

/// What is left of [`FloodLimits`].
#[derive(Debug)]
struct Budgets {
    resets: Budget,
    pings: Budget,
    windows: Budget,
    strays: Budget,
}

impl Budgets {
    const fn new(limits: &FloodLimits, now: Timestamp) -> Self {
        Self {
            resets: Budget::new(limits.resets, now),
            pings: Budget::new(limits.pings, now),
            windows: Budget::new(limits.windows, now),
            strays: Budget::new(limits.strays, now),
        }
    }
}

/// Up to which stream each side goes.
#[derive(Debug, Default)]
struct Drain {
    /// The last that this side serves or opens, once it said so.
    ours: Option<u32>,
    /// The last that the peer serves or opens, once it said so.
    theirs: Option<u32>,
}

impl Connection {
    /// A connection over a transport that was just established, with the peer verified. Its HELLO waits to be written.
    pub fn new(side: Side, options: &LinkOptions, now: Timestamp) -> Self {
        let options = options.bounded();
        let hello = options.hello();
        let mut urgent = Vec::new();
        hello.put(&mut urgent);
        Self {
            side,
            peer: Hello::BASE,
            greeted: false,
            streams: Streams::default(),
            schedule: Schedule::default(),
            assembly: Assembly::default(),
            events: VecDeque::new(),
            urgent,
            pong: None,
            waiting: VecDeque::new(),
            waiting_heads: VecDeque::new(),
            wants_open: false,
            send: SendCredit { left: Hello::BASE.connection_window, queued: 0, blocked_since: None, unearned: 0 },
            recv: ReceiveCredit { left: hello.connection_window, owed: 0, unread: 0, late: 0 },
            budgets: Budgets::new(&options.floods, now),
            liveness: Liveness::new(&options, now),
            last: 0,
            last_written: 0,
            last_served: 0,
            drain: Drain::default(),
            ended: None,
            spares: Spares::default(),
            stats: LinkStats::default(),
            options,
        }
    }

    /// Which side this is.
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Whether the peer's HELLO has come. Of a connection over TLS, the peer has accepted this side's identity before it says that.
    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// What happened, the oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives back the buffer of a head that is not needed any more (`head.into()`), so that the next head needs no memory of its
    /// own. It is a courtesy: nothing breaks without it.
    pub fn recycle(&mut self, head: impl Into<Vec<u8>>) {
        self.spares.give(head.into());
    }

    /// What the connection did so far.
    pub fn stats(&self) -> LinkStats {
        let (rtt, min_rtt) = self.liveness.rtt();
        let buffered = self.recv.unread + self.send.queued + self.urgent.len() + self.assembly.kept();
        LinkStats { streams: self.streams.len(), rtt, min_rtt, buffered, ..self.stats }
    }

    /// Why the connection has ended; `None` while it lives.
    pub const fn ended(&self) -> Option<&LinkError> {
        self.ended.as_ref()
    }

    /// Whether one side said that no more streams are opened.
    pub const fn is_draining(&self) -> bool {
        self.drain.ours.is_some() || self.drain.theirs.is_some()
    }

    /// Takes a stream out, and gives its credit back to the connection.
    fn close_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let unread = stream.recv.data.len();
        let returned = unread + stream.recv.taken;
        self.recv.unread -= unread;
        self.send.queued -= stream.send.queued;
        if stream.recv.phase != Phase::Ended {
            self.liveness.got();
        }
        if stream.send.starved {
            self.liveness.got();
        }
        self.streams.remove(id);
        self.grant_connection(returned);
        if self.wants_open && self.may_open().is_ok() {
            self.wants_open = false;
            self.events.push_back(Event::Openable);
        }
    }

    /// Takes a stream out if nothing can happen on it any more.
    fn retire(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_done) {
            self.close_stream(id);
            self.budgets.resets.earn(1);
            self.budgets.strays.earn(STRAYS_OF_A_STREAM);
        }
    }
}

#[cfg(test)]
impl Connection {
    /// Compares every sum with what it sums up.
    pub(crate) fn assert_consistent(&self) {
        let streams: Vec<&Stream> = self.streams.ids().into_iter().filter_map(|id| self.streams.get(id)).collect();
        let sum = |of: fn(&Stream) -> usize| streams.iter().map(|stream| of(stream)).sum::<usize>();
        assert_eq!(self.recv.unread, sum(|stream| stream.recv.data.len()));
        assert_eq!(self.send.queued, sum(|stream| stream.send.queued));
        assert!(streams.len() <= 2 * self.options.max_streams.max(self.peer.max_streams) as usize);
        assert!(self.send.queued <= self.options.connection_buffer);
        let window = self.options.connection_window as usize;
        let missing = self.assembly.missing();
        let kept = sum(|stream| stream.recv.data.len() + stream.recv.taken);
        if self.ended.is_none() {
            assert_eq!(self.recv.left as usize + self.recv.owed as usize + kept + missing.1, window);
            let blocked = usize::from(self.send.blocked_since.is_some());
            let awaited =
                sum(|stream| usize::from(stream.recv.phase != Phase::Ended) + usize::from(stream.send.starved));
            assert_eq!(self.liveness.awaited(), awaited + blocked);
        }
        for id in self.streams.ids() {
            let Some(Stream { send, recv, .. }) = self.streams.get(id) else { continue };
            assert!(send.queued <= self.options.stream_buffer);
            let missing = if missing.0 == Some(id) { missing.1 } else { 0 };
            let all = recv.credit as usize + recv.owed as usize + recv.taken + recv.data.len() + missing;
            assert_eq!(all, self.options.stream_window as usize, "{id}");
        }
    }
}

/// So many frames without effect may cross the end of a stream: grants of credit, and a reset.
const STRAYS_OF_A_STREAM: u32 = 4;

#[cfg(test)]
mod tests;
