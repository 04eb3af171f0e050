//! A connection and its streams, as the tasks that use them share it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use eastway_core::{Reason, Timestamp};
use eastway_link::{
    Connection, Event, LinkError, LinkOptions, OpaqueBuf, OpaqueHead, OpenError, RequestBuf, ResponseBuf, Side,
    StreamId, TrailersBuf,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A connection that several tasks use. Those of a data worker run on one thread, those of the control runtime on several.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Link>>);

/// A connection and its streams.
pub struct Link {
    /// The protocol's state.
    pub connection: Connection,
    streams: HashMap<StreamId, State, BuildHasherDefault<StreamHasher>>,
    driver: Option<Waker>,
    /// Those who wait until a stream can be opened.
    openers: Vec<Waker>,
    /// When the connection's time began.
    epoch: Instant,
    /// When the network lost a packet last.
    pub lost_at: Option<Timestamp>,
    /// Why it has ended, once it has.
    pub ended: Option<LinkError>,
}

/// Spreads the numbers of streams: they follow one another, so that nobody can choose some that meet.
#[derive(Default)]
struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // The golden ratio's digits, as in Fibonacci hashing.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is known of a stream that somebody uses.
#[derive(Debug, Default)]
pub struct State {
    /// The final head of the answer, and whether that is all of it.
    pub head: Option<(ResponseBuf, bool)>,
    /// The answerer asked for the request's body.
    pub wants_body: bool,
    /// Other interim heads that came before that of the answer.
    pub interim: Vec<ResponseBuf>,
    /// Nothing more comes but what was received already.
    pub finished: bool,
    /// The fields behind what was received.
    pub trailers: Option<TrailersBuf>,
    /// What had come before it broke off, and was not read.
    pub rest: Bytes,
    /// Why it broke off.
    pub fault: Option<StreamFault>,
    /// Why the other side takes nothing more, though it may still send.
    pub stopped: Option<Reason>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    answerer: Option<Waker>,
}

/// Why a stream broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// The other side's application has seen nothing of it.
    Refused(Reason),
    /// The other side gave it up.
    Reset(Reason),
    /// What this side was sending on it failed.
    Unsent(Reason),
    /// The connection went, and its host is silent.
    Silent,
    /// The connection went.
    Lost,
}

/// A stream that the other side opened, for a driver's user to deal with.
#[derive(Debug)]
pub enum Opened {
    /// A request.
    Request {
        /// Its stream.
        stream: StreamId,
        /// Its head.
        head: RequestBuf,
        /// Whether it has no body.
        end: bool,
    },
    /// A stream of opaque bytes.
    Opaque {
        /// The stream.
        stream: StreamId,
        /// Whom it is for.
        head: OpaqueBuf,
    },
}

impl Shared {
    /// A connection over a byte stream that was just established, for its [`Driver`](super::Driver) and those who use its streams.
    pub fn new(side: Side, options: &LinkOptions) -> Self {
        Self(Arc::new(Mutex::new(Link {
            connection: Connection::new(side, options, Timestamp::ZERO),
            streams: HashMap::default(),
            driver: None,
            openers: Vec::new(),
            epoch: Instant::now(),
            lost_at: None,
            ended: None,
        })))
    }

    /// Nobody else changes it meanwhile: to be held for a moment, and never while waiting.
    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock()
    }

    /// The stream, for one of those that use it. If it has `finished`, nothing comes on it any more.
    pub fn stream(&self, id: StreamId, finished: bool) -> Stream {
        self.lock().streams.entry(id).or_default().finished |= finished;
        Stream(Arc::new(Used { shared: self.clone(), id }))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("streams", &self.streams.len()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Link {
    /// The time of the connection, which began with it.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    /// The instant of the runtime that `at` stands for.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.epoch + at.since(Timestamp::ZERO)
    }

    /// The task that drives the connection is woken by this.
    pub fn set_driver(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(known) => known.clone_from(waker),
            None => self.driver = Some(waker.clone()),
        }
    }

    /// Has the driver write what waits, after the tasks that are ready now.
    pub fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// What is known of a stream, while somebody uses it.
    pub fn state(&mut self, id: StreamId) -> Option<&mut State> {
        self.streams.get_mut(&id)
    }

    /// Takes an event in. What opens a stream is for the connection's user.
    pub fn take_in(&mut self, event: Event) -> Option<Opened> {
        match event {
            Event::Request { stream, head, end } => return Some(Opened::Request { stream, head, end }),
            Event::Opaque { stream, head, .. } => return Some(Opened::Opaque { stream, head }),
            Event::Interim { stream, head } => self.tell(stream, |state| match head.view().status {
                CONTINUE => state.wants_body = true,
                _ => state.interim.push(head),
            }),
            Event::Response { stream, head, end } => self.tell(stream, |state| {
                // What was given up while it was on its way is not answered.
                state.head = Some((head, end)).filter(|_| state.fault.is_none());
                state.finished |= end;
            }),
            Event::Readable(stream) => self.tell(stream, |_| {}),
            Event::Finished { stream, trailers } => self.tell(stream, |state| {
                state.finished = true;
                state.trailers = trailers;
            }),
            Event::Writable(stream) => {
                if let Some(writer) = self.streams.get_mut(&stream).and_then(|state| state.writer.take()) {
                    writer.wake();
                }
            }
            Event::Refused { stream, reason } => self.fail(stream, StreamFault::Refused(reason)),
            Event::Rest { stream, data } => self.tell(stream, |state| state.rest = data),
            Event::Reset { stream, reason } => self.fail(stream, StreamFault::Reset(reason)),
            Event::Stopped { stream, reason } => self.tell(stream, |state| state.stopped = Some(reason)),
            Event::Lost(stream) => {
                let silent = matches!(self.connection.ended(), Some(LinkError::Unresponsive(_)));
                self.fail(stream, if silent { StreamFault::Silent } else { StreamFault::Lost });
            }
            Event::Closed(error) => {
                self.ended = Some(error);
                self.wake_openers();
            }
            Event::Openable | Event::Draining => self.wake_openers(),
        }
        None
    }

    /// Opens a stream of opaque bytes to nobody in particular; waits while the other side has as many as it allows.
    pub(crate) fn poll_open_opaque(&mut self, cx: &Context<'_>) -> Poll<Result<StreamId, OpenError>> {
        let (head, now) = (OpaqueHead { authority: TUNNEL, fields: [("", ""); 0] }, self.now());
        let opened = self.connection.open_opaque(head, now);
        if let Err(OpenError::StreamLimit | OpenError::Busy) = opened {
            self.openers.retain(|waker| !waker.will_wake(cx.waker()));
            self.openers.push(cx.waker().clone());
            return Poll::Pending;
        }
        self.wake_driver();
        Poll::Ready(opened)
    }

    fn wake_openers(&mut self) {
        self.openers.drain(..).for_each(Waker::wake);
    }

    /// Says that a stream broke off, unless it did before.
    pub fn fail(&mut self, stream: StreamId, fault: StreamFault) {
        self.tell(stream, |state| {
            state.fault.get_or_insert(fault);
        });
    }

    /// Changes what is known of a stream, and wakes those who use it.
    fn tell(&mut self, stream: StreamId, what: impl FnOnce(&mut State)) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        what(state);
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        let given_up = self.is_given_up();
        let answerer = self.answerer.take_if(|_| given_up);
        [self.reader.take(), self.writer.take(), answerer].into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits for something to read, or the head of an answer.
    pub fn wait_to_read<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        set(&mut self.reader, cx)
    }

    /// Waits until something more can be sent, or the stream ends.
    pub fn wait_to_write<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        set(&mut self.writer, cx)
    }

    /// Waits until the stream breaks off.
    pub fn wait_until_given_up<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        set(&mut self.answerer, cx)
    }

    /// Whether the other side, or the connection, ended it before its time.
    pub const fn is_given_up(&self) -> bool {
        !matches!(self.fault, None | Some(StreamFault::Unsent(_)))
    }

    /// Whether nothing more can be sent.
    pub const fn takes_nothing(&self) -> bool {
        self.stopped.is_some() || self.fault.is_some()
    }
}

fn set<T>(waker: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match waker {
        Some(known) => known.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}

/// A stream that somebody uses. What is known of it is forgotten with the last clone.
#[derive(Clone, Debug)]
pub struct Stream(Arc<Used>);

#[derive(Debug)]
struct Used {
    shared: Shared,
    id: StreamId,
}

impl Stream {
    /// Its number.
    pub fn id(&self) -> StreamId {
        self.0.id
    }

    /// Its connection.
    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.shared.lock()
    }

    /// Gives the stream up, unless it has ended.
    pub fn reset(&self, reason: Reason) {
        let mut link = self.lock();
        link.connection.reset(self.0.id, reason);
        link.fail(self.0.id, StreamFault::Reset(reason));
        link.wake_driver();
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut link = self.shared.lock();
        link.streams.remove(&self.id);
        // What nobody reads any more must not keep room from other streams.
        while !link.connection.read(self.id).is_empty() {}
        if link.connection.has_output() {
            link.wake_driver();
        }
    }
}

/// Whom the streams of a tunnel are for: what that is, their first bytes say.
const TUNNEL: &str = "tunnel";
/// The status of an interim head that asks for the body.
const CONTINUE: u16 = 100;
