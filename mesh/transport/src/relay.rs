//! Joins two streams: what one side sends, the other gets, in both directions, with each end passed on as what it was.
//!
//! | ends as | TCP, TLS | tunnel stream |
//! |---|---|---|
//! | regularly, one direction | FIN, `close_notify` | FIN |
//! | broken | RST, TLS without `close_notify` | RESET_STREAM with the reason's number |
//! | the reader is gone | RST | STOP_SENDING with the reason's number |
//!
//! A TCP connection can only break as a whole, a tunnel stream by halves: a half that breaks takes the rest with it unless
//! both sides are tunnel streams.
//!
//! Never looks into the bytes, never retries, and holds no buffer while nothing moves. Gateways relay between sidecars and
//! tunnels with it, sidecars opaque TCP.

mod buffers;
mod direction;
mod recorder;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use eastway_core::Reason;
use tokio::time::{Instant, Sleep};

pub use recorder::Recorder;

use crate::error::StreamError;
use crate::io::Io;
use direction::{Direction, RelayFailure};

/// How two streams are joined.
#[derive(Clone, Debug)]
pub struct SpliceOptions {
    /// Silence in both directions after which both sides are aborted. It is noticed up to a quarter late. Default: 300 s.
    pub idle: Duration,
    /// How long a side may take nothing of what a tunnel brings, once so many streams of that tunnel wait like this that
    /// they may hold half of its window. Default: 30 s.
    pub stall: Duration,
    /// Counts bytes from A to B.
    pub forward: Option<Arc<AtomicU64>>,
    /// Counts bytes from B to A.
    pub backward: Option<Arc<AtomicU64>>,
    /// Writes down what is relayed; for tests.
    pub recorder: Option<Arc<Recorder>>,
}

impl Default for SpliceOptions {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(30),
            forward: None,
            backward: None,
            recorder: None,
        }
    }
}

/// What was relayed, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from A to B.
    pub forward: u64,
    /// Bytes from B to A.
    pub backward: u64,
    /// How it ended.
    pub end: End,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions came to their regular end.
    Finished,
    /// Nothing moved for too long.
    Idle,
    /// What allowed it was withdrawn.
    Withdrawn(Reason),
    /// A side broke; of several, the first.
    Failed {
        /// Which.
        side: Side,
        /// Why, as far as it is known; the other side was told the same.
        reason: Reason,
    },
}

/// The sides of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that asked for the connection.
    A,
    /// The one that serves it.
    B,
}

/// Relays between `a`, which asked for the connection, and `b`, which serves it, until both directions have ended or one
/// breaks. Dropping the future aborts both sides.
pub async fn splice(a: Io, b: Io, options: SpliceOptions) -> Relayed {
    splice_until(a, b, options, std::future::pending()).await
}

/// As [`splice`], until `withdrawn` completes: then both sides are aborted with its reason.
pub async fn splice_until(a: Io, b: Io, options: SpliceOptions, withdrawn: impl Future<Output = Reason>) -> Relayed {
    let mut withdrawn = pin!(withdrawn);
    let mut splice = Splice::new(a, b, &options);
    let mut watch = Watch::new(&options);
    let mut timer = pin!(tokio::time::sleep(watch.tick));
    poll_fn(|cx| {
        let end = match splice.poll(cx) {
            Poll::Ready(end) => end,
            Poll::Pending => match withdrawn.as_mut().poll(cx) {
                Poll::Ready(reason) => {
                    splice.abort(reason);
                    End::Withdrawn(reason)
                }
                Poll::Pending => ready!(watch.poll(timer.as_mut(), cx, &mut splice)),
            },
        };
        splice.ended = true;
        Poll::Ready(Relayed { forward: splice.forward.moved(), backward: splice.backward.moved(), end })
    })
    .await
}

struct Splice {
    a: Io,
    b: Io,
    forward: Direction,
    backward: Direction,
    failed: Option<End>,
    ended: bool,
}

impl Splice {
    fn new(a: Io, b: Io, options: &SpliceOptions) -> Self {
        let (from_a, a) = a.unwind();
        let (from_b, b) = b.unwind();
        let (tap_a, tap_b) = options.recorder.as_deref().map(Recorder::taps).unwrap_or_default();
        let forward = Direction::new(from_a, options.forward.clone(), tap_a);
        let backward = Direction::new(from_b, options.backward.clone(), tap_b);
        Self { a, b, forward, backward, failed: None, ended: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let forward = match self.forward.poll(cx, &mut self.a, &mut self.b) {
            Poll::Ready(Err(failure)) => self.broken(failure, Side::A),
            other => other.is_ready(),
        };
        if self.ended {
            return self.failed.map_or(Poll::Pending, Poll::Ready);
        }
        let backward = match self.backward.poll(cx, &mut self.b, &mut self.a) {
            Poll::Ready(Err(failure)) => self.broken(failure, Side::B),
            other => other.is_ready(),
        };
        match self.failed {
            Some(end) if self.ended || (forward && backward) => Poll::Ready(end),
            None if forward && backward => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    }

    /// Passes the failure of the direction that reads from `source` on. Whether that direction is over: always.
    fn broken(&mut self, failure: RelayFailure, source: Side) -> bool {
        let (side, error) = match &failure {
            RelayFailure::Reading(error) => (source, error),
            RelayFailure::Writing(error) => (source.other(), error),
        };
        let reason = reason_of(error, side);
        self.failed.get_or_insert(End::Failed { side, reason });
        let half = StreamError::of(error).cloned();
        let (from, to) = match source {
            Side::A => (&mut self.a, &mut self.b),
            Side::B => (&mut self.b, &mut self.a),
        };
        match (failure, half, from, to) {
            // The source's half was reset: so is the half that passes it on. The other direction may go on.
            (RelayFailure::Reading(_), Some(StreamError::Reset(_)), _, Io::Quic(to)) => to.reset(reason),
            // The reader is gone: nobody needs the source any more.
            (RelayFailure::Writing(_), Some(StreamError::Stopped(_)), Io::Quic(from), _) => from.stop(reason),
            // A source that cannot be told is not read any further; it learns it when the other direction has ended.
            (RelayFailure::Writing(_), Some(StreamError::Stopped(_)), ..) => {}
            _ => self.abort(reason),
        }
        true
    }

    /// Ends both sides, so that neither takes it for a regular end.
    fn abort(&mut self, reason: Reason) {
        self.ended = true;
        self.a.condemn(reason);
        self.b.condemn(reason);
    }

    fn moved(&self) -> u64 {
        self.forward.moved() + self.backward.moved()
    }

    /// The side that takes nothing, if that starves other streams of the tunnel on the other side.
    fn starves_others(&mut self) -> Option<Side> {
        let (forward, backward) = (self.forward.starves_others(&mut self.a), self.backward.starves_others(&mut self.b));
        if forward { Some(Side::B) } else { backward.then_some(Side::A) }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        if !self.ended {
            self.abort(Reason::TunnelLost);
        }
    }
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The reason for what a side's error says: a tunnel names it, and otherwise it follows from the side.
fn reason_of(error: &io::Error, side: Side) -> Reason {
    if error.get_ref().is_some_and(|cause| cause.is::<eastway_identity::Revoked>()) {
        return Reason::IdentityRefused;
    }
    match (StreamError::of(error), side) {
        (Some(error), _) => error.reason(),
        (None, Side::A) => Reason::CallerGone,
        (None, Side::B) => Reason::UpstreamReset,
    }
}

/// Notices that nothing moves, by comparing counts at long intervals: the hot path never looks at the clock.
struct Watch {
    tick: Duration,
    idle: Duration,
    silent: Duration,
    moved: u64,
}

impl Watch {
    fn new(options: &SpliceOptions) -> Self {
        let tick = (options.idle / 4).min(options.stall).max(MIN_TICK);
        Self { tick, idle: options.idle, silent: Duration::ZERO, moved: 0 }
    }

    fn poll(&mut self, mut timer: std::pin::Pin<&mut Sleep>, cx: &mut Context<'_>, splice: &mut Splice) -> Poll<End> {
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + self.tick);
            let moved = splice.moved();
            self.silent = if moved == self.moved { self.silent + self.tick } else { Duration::ZERO };
            self.moved = moved;
            if self.silent >= self.idle {
                splice.abort(Reason::IdleTimeout);
                return Poll::Ready(End::Idle);
            }
            if let Some(side) = splice.starves_others() {
                splice.abort(Reason::Overloaded);
                return Poll::Ready(End::Failed { side, reason: Reason::Overloaded });
            }
        }
        Poll::Pending
    }
}

/// The shortest interval between two looks at a relay.
const MIN_TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
