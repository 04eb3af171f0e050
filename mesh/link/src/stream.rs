//! The state of one stream.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use eastway_core::Reason;

use crate::head::ResponseHead;
use crate::inbox::Inbox;

/// The number of a stream: 1, 2, 3, ... in the order of opening. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// So many interim heads may precede the head of a response.
pub const MAX_INTERIM: u8 = 32;

/// How far one direction of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its head has to come.
    Head,
    /// Data and trailers may come.
    Body,
    /// Nothing comes any more.
    Ended,
}

/// What the request says about the body of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A body as its head says.
    Request,
    /// No body, whatever its head says.
    Head,
    /// Bytes without a length, if it is granted.
    Tunnel,
}

impl Asked {
    pub(crate) fn by(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Tunnel,
            _ => Self::Request,
        }
    }

    /// How many bytes follow a response's head; `None` if that is not known.
    pub(crate) fn body_of<F>(self, head: &ResponseHead<'_, F>) -> Option<u64> {
        match (self, head.status) {
            (Self::Tunnel, 200..=299) | (_, 101) => None,
            (Self::Head, _) | (_, 204 | 304) => Some(0),
            _ => head.length,
        }
    }
}

/// The direction that this side sends.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) phase: Phase,
    /// Data that has its stream's credit and waits for its turn.
    pub(crate) queue: VecDeque<Bytes>,
    /// Bytes of it.
    pub(crate) queued: usize,
    /// Credit of the stream that is left, with what is queued taken off.
    pub(crate) credit: u32,
    /// How many bytes of body must follow, if the head stated it.
    pub(crate) left: Option<u64>,
    /// What follows the queue.
    pub(crate) tail: Tail,
    /// Interim heads that were sent.
    pub(crate) interim: u8,
    /// The application waits for an event.
    pub(crate) wants_room: bool,
    /// It waits for the peer's credit: this counts among what is awaited.
    pub(crate) starved: bool,
    /// Once everything was written, the peer is told for this reason that the rest of what it sends is not wanted.
    pub(crate) stops: Option<Reason>,
}

/// What follows the data that is queued.
#[derive(Debug, Default)]
pub(crate) enum Tail {
    /// More data, as far as known.
    #[default]
    Open,
    /// The end, with the last data.
    End,
    /// Trailers, encoded.
    Trailers(Vec<u8>),
    /// Nothing: the end was handed out.
    Written,
}

/// The direction that the peer sends.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) phase: Phase,
    /// What was received and not read.
    pub(crate) data: Inbox,
    /// What was read and is not consumed yet, in bytes.
    pub(crate) taken: usize,
    /// What was consumed and is not granted again yet, in bytes.
    pub(crate) owed: u32,
    /// What the peer may still send, in bytes.
    pub(crate) credit: u32,
    /// How many bytes of body must follow, if the head stated it.
    pub(crate) left: Option<u64>,
    /// Interim heads that came.
    pub(crate) interim: u8,
    /// The application knows that there is something to read.
    pub(crate) told: bool,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) asked: Asked,
    pub(crate) send: Sending,
    pub(crate) recv: Receiving,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self {
            asked: Asked::Request,
            send: Sending {
                phase: Phase::Head,
                queue: VecDeque::new(),
                queued: 0,
                credit: 0,
                left: None,
                tail: Tail::Open,
                interim: 0,
                wants_room: false,
                starved: false,
                stops: None,
            },
            recv: Receiving {
                phase: Phase::Head,
                data: Inbox::default(),
                taken: 0,
                owed: 0,
                credit: 0,
                left: None,
                interim: 0,
                told: false,
            },
        }
    }

    /// Makes it another stream that has done nothing, with the same buffers.
    pub(crate) fn renew(&mut self) {
        let mut fresh = Self::new();
        self.clear();
        std::mem::swap(&mut fresh.send.queue, &mut self.send.queue);
        std::mem::swap(&mut fresh.recv.data, &mut self.recv.data);
        *self = fresh;
    }

    /// Lets go of what it holds, except of small buffers.
    pub(crate) fn clear(&mut self) {
        self.send.queue.clear();
        self.send.queue.shrink_to(KEPT_CHUNKS);
        self.recv.data.clear();
        self.send.tail = Tail::Written;
    }

    /// Whether both directions have ended: the peer does not count it any more.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.send.tail, Tail::Written) && self.recv.phase == Phase::Ended
    }

    /// Whether nothing can happen on it any more, also on this side.
    pub(crate) fn is_done(&self) -> bool {
        self.is_closed() && self.recv.data.is_empty()
    }
}

impl Sending {
    /// Whether a body of so many more bytes, and no more after them if `end`, is what the head stated.
    pub(crate) fn fits(&self, length: usize, end: bool) -> bool {
        fits(self.left, length as u64, end)
    }
}

impl Receiving {
    /// Whether a body of so many more bytes, and no more after them if `end`, is what the head stated.
    pub(crate) fn fits(&self, length: u64, end: bool) -> bool {
        fits(self.left, length, end)
    }
}

fn fits(left: Option<u64>, length: u64, end: bool) -> bool {
    left.is_none_or(|left| if end { left == length } else { left >= length })
}

/// Room for chunks of a closed stream that is kept for the next one.
const KEPT_CHUNKS: usize = 16;
