//! The one task that reads and writes a connection.

use std::cell::RefCell;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use eastway_core::Timestamp;
use eastway_link::{LinkError, Outgoing};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Sleep;

use super::state::{Opened, Shared};
use crate::{Io, tcp};

/// Bytes that are gathered for one write, beyond the heads.
const BUDGET: usize = 128 * 1024;
/// Reads in a row, before others have their turn.
const READS: usize = 8;
/// Pieces that are written at once.
const PIECES: usize = 64;
/// Bytes that are read at once.
const READ: usize = 64 * 1024;
/// How often the kernel is asked what was lost, at most.
const ASK_AFTER: Duration = Duration::from_millis(100);
/// How long the last word of a connection may take: the other side may read nothing.
const LAST_WORD: Duration = Duration::from_secs(1);

thread_local! {
    /// What is read is taken in at once, so that all connections of a worker share the room for it.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Reads and writes a connection.
#[derive(Debug)]
pub struct Driver {
    io: Io,
    /// The connection.
    pub shared: Shared,
    outgoing: Outgoing,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Timestamp>,
    /// The stream below takes nothing more.
    deaf: bool,
    /// Something waits because the other side does not read.
    stalled: bool,
    /// Bytes that were written.
    written: u64,
    losses: Option<Losses>,
    /// What reading failed with.
    cause: Option<std::io::Error>,
}

/// What the network has lost.
#[derive(Debug, Default)]
struct Losses {
    packets: u32,
    /// When to ask again.
    ask_at: Timestamp,
}

impl Losses {
    fn have_grown(&mut self, io: &Io, now: Timestamp) -> bool {
        if now < self.ask_at {
            return false;
        }
        self.ask_at = now + ASK_AFTER;
        let lost = io.tcp().and_then(tcp::lost_packets).unwrap_or_default();
        lost > std::mem::replace(&mut self.packets, lost)
    }
}

impl Driver {
    /// Of the connection `shared` over `io`. Nothing moves before it is polled.
    pub fn new(io: Io, shared: Shared) -> Self {
        Self {
            io,
            shared,
            outgoing: Outgoing::new(),
            timer: None,
            armed: None,
            deaf: false,
            stalled: false,
            written: 0,
            losses: None,
            cause: None,
        }
    }

    /// Also tells when packets are lost.
    #[must_use]
    pub fn telling_losses(self) -> Self {
        Self { losses: Some(Losses::default()), ..self }
    }

    /// Does what can be done; what opens a stream goes to `opened`. Ready when the connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut opened: impl FnMut(Opened)) -> Poll<LinkError> {
        self.shared.lock().set_driver(cx.waker());
        let more = self.poll_read(cx);
        self.poll_timer(cx);
        self.take_in(&mut opened);
        let written = self.poll_write(cx).is_ready();
        self.stalled = !written;
        // Writing makes room, of which those who wait are told.
        self.take_in(&mut opened);
        let link = self.shared.lock();
        if let Some(error) = &link.ended {
            return Poll::Ready(error.clone());
        }
        if more || link.connection.has_output() && written {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take_in(&self, opened: &mut impl FnMut(Opened)) {
        loop {
            let mut link = self.shared.lock();
            let Some(event) = link.connection.poll_event() else { return };
            let event = link.take_in(event);
            drop(link);
            if let Some(event) = event {
                opened(event);
            }
        }
    }

    /// Whether there may be more to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        ROOM.with_borrow_mut(|room| {
            for _ in 0..READS {
                if self.shared.lock().ended.is_some() {
                    return false;
                }
                let mut buffer = ReadBuf::new(room);
                match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        let mut link = self.shared.lock();
                        let now = link.now();
                        // What is wrong with it ends the connection, which is told as an event.
                        let _ = link.connection.receive(buffer.filled(), now);
                    }
                    Poll::Ready(read) => {
                        self.cause = read.err();
                        self.shared.lock().connection.lost();
                        return false;
                    }
                }
            }
            true
        })
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        loop {
            let (due, at) = {
                let link = self.shared.lock();
                let Some(due) = link.connection.next_timeout() else { return };
                (due, link.instant(due))
            };
            // A timer that is too early costs less than one that is moved with every frame.
            let timer = match &mut self.timer {
                Some(timer) => {
                    if self.armed.is_none_or(|armed| armed > due) {
                        timer.as_mut().reset(at);
                        self.armed = Some(due);
                    }
                    timer
                }
                None => {
                    self.armed = Some(due);
                    self.timer.insert(Box::pin(tokio::time::sleep_until(at)))
                }
            };
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = None;
            let mut link = self.shared.lock();
            let now = link.now();
            link.connection.handle_timeout(now);
        }
    }

    /// Ready with why, once the other side's identity is accepted no longer; the task is woken when that comes.
    pub(crate) fn poll_revoked(&self, cx: &Context<'_>) -> Poll<std::io::Error> {
        self.io.poll_revoked(cx)
    }

    /// What reading failed with, if that ended the connection.
    pub(crate) const fn cause(&self) -> Option<&std::io::Error> {
        self.cause.as_ref()
    }

    /// How many bytes were written when the other side stopped reading; `None` if none wait.
    pub fn stalled_at(&self) -> Option<u64> {
        self.stalled.then_some(self.written)
    }

    /// Writes what waits. Ready when all of it went, or nothing goes any more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.deaf {
            if self.outgoing.len() < BUDGET {
                let mut link = self.shared.lock();
                let now = link.now();
                if let Some(losses) = &mut self.losses
                    && losses.have_grown(&self.io, now)
                {
                    link.lost_at = Some(now);
                }
                link.connection.transmit(now, &mut self.outgoing, BUDGET);
            }
            if self.outgoing.is_empty() {
                // What is wrong with it shows with the next read or write.
                return Pin::new(&mut self.io).poll_flush(cx).map(drop);
            }
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let count = self.outgoing.chunks_vectored(&mut pieces);
            match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces[..count])) {
                Ok(written) if written > 0 => {
                    self.outgoing.advance(written);
                    self.written += written as u64;
                }
                _ => {
                    self.deaf = true;
                    self.shared.lock().connection.lost();
                }
            }
        }
        Poll::Ready(())
    }

    /// Writes the last word of a connection that has ended, and ends the stream below in order.
    pub async fn finish(mut self) {
        let finished = std::future::poll_fn(|cx| {
            ready!(self.poll_write(cx));
            // The other side may have gone before, which is as good.
            Pin::new(&mut self.io).poll_shutdown(cx).map(drop)
        });
        if tokio::time::timeout(LAST_WORD, finished).await.is_err() {
            tracing::debug!("the other side of a link that has ended reads nothing");
        }
    }
}
