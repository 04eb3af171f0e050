//! One direction of a relay: reads from one side, writes to the other, and passes the regular end on.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::buffers;
use super::recorder::Tap;
use crate::io::Io;
use crate::quic::QuicStream;

/// The state of a direction.
pub(super) struct Direction {
    phase: Phase,
    /// Read and not yet written. Empty while nothing moves.
    pending: VecDeque<Bytes>,
    /// What pending bytes were read into, and its size class; rented.
    buffer: Option<(usize, BytesMut)>,
    /// Whether something was written that may still sit in a TLS session.
    unflushed: bool,
    moved: u64,
    counter: Option<Arc<AtomicU64>>,
    tap: Option<Tap>,
    /// Bytes moved up to the last look, if others waited then.
    last_look: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Moving,
    /// The source has ended, and everything is written: the other side is being told.
    Ending,
    Over,
}

/// Why a direction broke.
#[derive(Debug)]
pub(super) enum RelayFailure {
    Reading(io::Error),
    Writing(io::Error),
}

impl Direction {
    /// `first` was read already and goes before everything else.
    pub(super) fn new(first: Bytes, counter: Option<Arc<AtomicU64>>, mut tap: Option<Tap>) -> Self {
        let pending: VecDeque<_> = Some(first).filter(|first| !first.is_empty()).into_iter().collect();
        if let Some(tap) = &mut tap {
            pending.iter().for_each(|chunk| tap.record(chunk));
        }
        Self { phase: Phase::Moving, pending, buffer: None, unflushed: false, moved: 0, counter, tap, last_look: None }
    }

    /// Bytes written so far.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Moves what can be moved. Ready when the direction is over: with `Ok` once the end was passed on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io) -> Poll<Result<(), RelayFailure>> {
        let polled = self.poll_moving(cx, from, to);
        if let Poll::Ready(Err(_)) = polled {
            self.phase = Phase::Over;
            self.pending.clear();
        }
        if self.pending.is_empty() {
            self.rest();
        }
        polled
    }

    fn poll_moving(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io) -> Poll<Result<(), RelayFailure>> {
        for _ in 0..ROUNDS {
            match self.phase {
                Phase::Moving if self.pending.is_empty() => match self.poll_read(cx, from) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => self.phase = Phase::Ending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(RelayFailure::Reading(error))),
                    Poll::Pending if self.unflushed => {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(RelayFailure::Writing)?;
                        self.unflushed = false;
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Phase::Moving => match self.poll_write(cx, to) {
                    Poll::Ready(written) => written.map_err(RelayFailure::Writing)?,
                    // Nobody reads from the source meanwhile, which would tell.
                    Poll::Pending => return from.poll_revoked(cx).map(|error| Err(RelayFailure::Reading(error))),
                },
                Phase::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(RelayFailure::Writing)?;
                    self.phase = Phase::Over;
                }
                Phase::Over => return Poll::Ready(Ok(())),
            }
        }
        // Others want the thread as well.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Fills `pending`; `false` at the regular end.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Io) -> Poll<io::Result<bool>> {
        let read = match from {
            Io::Quic(stream) => ready!(self.poll_read_chunks(cx, stream))?,
            Io::Chunked(stream) => {
                let chunk = ready!(stream.poll_read_chunk(cx))?;
                let ended = chunk.is_empty();
                self.pending.extend(Some(chunk).filter(|_| !ended));
                !ended
            }
            from => ready!(self.poll_read_bytes(cx, from))?,
        };
        if let Some(tap) = &mut self.tap {
            self.pending.iter().for_each(|chunk| tap.record(chunk));
        }
        Poll::Ready(Ok(read))
    }

    fn poll_read_chunks(&mut self, cx: &mut Context<'_>, stream: &mut QuicStream) -> Poll<io::Result<bool>> {
        let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
        let count = ready!(stream.poll_read_chunks(cx, &mut chunks))?;
        self.pending.extend(chunks.into_iter().take(count).filter(|chunk| !chunk.is_empty()));
        Poll::Ready(Ok(count > 0))
    }

    /// Reads until the buffer is full or nothing is there. TLS gives out a record at a time, and several are worth one
    /// write.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, from: &mut Io) -> Poll<io::Result<bool>> {
        let class = buffers::class_for(self.moved);
        let rented = self.buffer.take().filter(|(of, _)| *of == class).map(|(_, buffer)| buffer);
        let buffer = rented.and_then(|buffer| buffers::usable(class, buffer)).unwrap_or_else(|| buffers::rent(class));
        let (_, buffer) = self.buffer.insert((class, buffer));
        loop {
            let room = buffer.capacity() - buffer.len();
            match poll_read_buf(Pin::new(&mut *from), cx, buffer) {
                Poll::Ready(Ok(0)) if buffer.is_empty() => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(read)) if read > 0 && read < room && matches!(from, Io::Tls(_)) => {}
                // The end, or an error, comes again with the next read.
                Poll::Ready(Err(error)) if buffer.is_empty() => return Poll::Ready(Err(error)),
                Poll::Pending if buffer.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        self.pending.push_back(buffer.split().freeze());
        Poll::Ready(Ok(true))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut Io) -> Poll<io::Result<()>> {
        let written = match to {
            Io::Quic(stream) => ready!(stream.poll_write_chunks(cx, self.pending.make_contiguous()))?,
            Io::Chunked(stream) => match self.pending.front_mut() {
                Some(chunk) => ready!(stream.poll_write_chunk(cx, chunk))?,
                None => return Poll::Ready(Ok(())),
            },
            to => {
                let mut slices = [IoSlice::new(&[]); CHUNKS];
                for (slice, chunk) in slices.iter_mut().zip(&self.pending) {
                    *slice = IoSlice::new(chunk);
                }
                let slices = &slices[..self.pending.len().min(CHUNKS)];
                let written = ready!(Pin::new(to).poll_write_vectored(cx, slices))?;
                advance(&mut self.pending, written);
                written
            }
        };
        while self.pending.front().is_some_and(Bytes::is_empty) {
            self.pending.pop_front();
        }
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        self.moved += written as u64;
        if let Some(counter) = &self.counter {
            counter.fetch_add(written as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Holds nothing while nothing moves.
    fn rest(&mut self) {
        if self.pending.capacity() > KEPT_CHUNKS {
            self.pending = VecDeque::new();
        }
        if let Some((class, buffer)) = self.buffer.take() {
            buffers::give_back(class, buffer);
        }
    }

    /// Looks whether bytes have waited here since the last look, and whether so many streams of the tunnel that feeds this
    /// direction do that they starve its other streams.
    pub(super) fn starves_others(&mut self, from: &mut Io) -> bool {
        let waited = !self.pending.is_empty() && self.last_look == Some(self.moved);
        self.last_look = Some(self.moved).filter(|_| !self.pending.is_empty());
        match from {
            Io::Quic(stream) => stream.set_stalled(waited),
            Io::Chunked(stream) => stream.set_stalled(waited),
            _ => false,
        }
    }
}

/// Cuts `written` bytes off the front.
fn advance(pending: &mut VecDeque<Bytes>, mut written: usize) {
    for chunk in pending {
        let cut = written.min(chunk.len());
        chunk.advance(cut);
        written -= cut;
        if written == 0 {
            return;
        }
    }
}

/// Reads and writes in a row before other tasks get their turn.
const ROUNDS: usize = 32;
/// Chunks that are moved at once.
const CHUNKS: usize = 32;
/// Room for chunks that an idle direction keeps.
const KEPT_CHUNKS: usize = 4;
