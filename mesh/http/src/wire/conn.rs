//! One connection, whichever end of it this is: what was read, what is to be written, and the bodies in both directions.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use eastway_transport::Io;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};

use super::buffer::{Buffers, Input, Output};
use super::decode::{Decoded, Decoder, Malformed, Step};
use super::encode::{Encoder, WrongLength};
use super::patience::Patience;
use crate::limits::HeadLimits;
use crate::sweeper::Sweeper;

/// Data of up to so many bytes is copied behind what is to be sent anyway, so that one write takes both; more goes out from the
/// buffer that it was read into.
const COPIED: usize = 4 * 1024;

/// Data of which so many bytes are to come at least is read into pieces of its own, which go on as they are.
const LARGE: u64 = 64 * 1024;

/// Bytes of such a piece, at most.
const PIECE: usize = 64 * 1024;

/// So many bytes are gathered before they are sent although more may follow.
const GATHERED: usize = 16 * 1024;

/// What the connections of one worker share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The buffers that they rent.
    pub buffers: Buffers,
    /// Who watches their deadlines.
    pub sweeper: Sweeper,
    /// What is allowed.
    pub limits: Rc<Limits>,
}

/// What a connection's peer may ask for and take its time with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Heads.
    pub head: HeadLimits,
    /// How long a head may take from its first byte, and the first head from the start; 10 s by default. A connection that is
    /// closed with something unread is read on for as long.
    pub head_timeout: Duration,
    /// How long a connection may be without a request; 300 s by default.
    pub idle_timeout: Duration,
    /// How long a body that is waited for may be silent, and how long a peer may read nothing of what it is sent; 300 s by
    /// default.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = Duration::from_secs(300);
        Self {
            head: HeadLimits::default(),
            head_timeout: Duration::from_secs(10),
            idle_timeout: minutes,
            silence: minutes,
        }
    }
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// It is no body.
    #[error("the body is malformed")]
    Malformed(#[source] Malformed),
    /// The connection ended before it did.
    #[error("the body is truncated")]
    Truncated,
    /// Nothing came for too long.
    #[error("the body was silent for too long")]
    Silent,
    /// The connection failed.
    #[error("the body's connection failed: {0}")]
    Failed(io::ErrorKind),
}

/// Why something could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// The connection failed.
    #[error("the connection takes nothing more: {0}")]
    Failed(io::ErrorKind),
    /// The peer read nothing for too long.
    #[error("the peer reads nothing")]
    Stalled,
    /// The body is not as long as its head said.
    #[error(transparent)]
    WrongLength(#[from] WrongLength),
}

/// What comes next of a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Data,
    Trailers(usize),
    End,
}

/// What came of reading.
pub(super) enum Fill {
    Bytes,
    End,
    Failed(io::ErrorKind),
    /// There is no room for more.
    Full,
}

/// One connection.
pub(crate) struct Conn {
    io: Io,
    pub(super) input: Input,
    pub(super) output: Output,
    /// Room for the next piece of a large body.
    piece: BytesMut,
    /// The body that comes.
    pub(super) decoder: Decoder,
    /// The body that goes.
    pub(super) encoder: Encoder,
    /// How much data is at the front of the input.
    data: usize,
    /// How much the input may grow to.
    most: usize,
    /// How reading ended.
    ended: Option<Result<(), io::ErrorKind>>,
    /// How writing failed.
    unwritable: Option<SendFault>,
    /// Bytes that the stream took and may not have sent on.
    unflushed: bool,
    /// Bytes written.
    pub(super) written: u64,
    /// Bytes of data read, of all bodies.
    pub(super) body_read: u64,
    silence: Patience,
    stall: Patience,
}

impl Conn {
    /// Whose heads have up to `head` bytes, and whose silence is borne for as long as `silence` says, if it says anything.
    pub(super) fn new(io: Io, buffers: &Buffers, head: HeadLimits, silence: Option<(Sweeper, Duration)>) -> Self {
        Self {
            io,
            input: Input::new(buffers.clone()),
            output: Output::new(buffers.clone()),
            piece: BytesMut::new(),
            decoder: Decoder::Ended,
            encoder: Encoder::Ended,
            data: 0,
            most: head.bytes.saturating_add(buffers.size()),
            ended: None,
            unwritable: None,
            unflushed: false,
            written: 0,
            body_read: 0,
            silence: Patience::new(silence.clone()),
            stall: Patience::new(silence),
        }
    }

    /// Was read before the connection came here.
    pub(super) fn put_back(&mut self, ahead: &[u8]) {
        if !ahead.is_empty() {
            let room = self.input.room(self.most);
            let count = ahead.len().min(room.len());
            room[..count].copy_from_slice(&ahead[..count]);
            self.input.filled(count);
        }
    }

    /// Reads once. Without anything to read, an empty buffer goes back.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        self.poll_read(cx, self.most)
    }

    /// Reads ahead, as far as there is room without a larger buffer.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        self.poll_read(cx, 0)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Fill> {
        match self.ended {
            Some(Ok(())) => return Poll::Ready(Fill::End),
            Some(Err(kind)) => return Poll::Ready(Fill::Failed(kind)),
            None => {}
        }
        let mut room = ReadBuf::new(self.input.room(most));
        if room.remaining() == 0 {
            return Poll::Ready(Fill::Full);
        }
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let filled = room.filled().len();
        self.input.filled(filled);
        match polled {
            Poll::Ready(Ok(())) if filled > 0 => return Poll::Ready(Fill::Bytes),
            Poll::Ready(ended) => self.ended = Some(ended.map_err(|error| error.kind())),
            Poll::Pending => {
                self.input.release();
                return Poll::Pending;
            }
        }
        self.input.release();
        self.poll_read(cx, most)
    }

    /// Whether the peer has ended its direction in good order.
    pub(super) const fn is_half_closed(&self) -> bool {
        matches!(self.ended, Some(Ok(())))
    }

    /// What comes next of the body. Its data is [`Conn::data`].
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, BodyFault>> {
        loop {
            let Decoded { skip, step } = self.decoder.step(self.input.data()).map_err(BodyFault::Malformed)?;
            self.input.consume(skip);
            self.data = 0;
            match step {
                Step::Data(len) => {
                    self.data = len;
                    return Poll::Ready(Ok(Next::Data));
                }
                Step::Trailers(len) => return Poll::Ready(Ok(Next::Trailers(len))),
                Step::End => {
                    self.silence.stop();
                    self.input.release();
                    self.piece = BytesMut::new();
                    return Poll::Ready(Ok(Next::End));
                }
                Step::More => ready!(self.poll_more(cx))?,
            }
        }
    }

    /// Reads a piece of a large body, of which nothing was read ahead. `None` if there is none, or it did not come yet:
    /// [`Conn::poll_body`] tells.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let left = self.decoder.data_left();
        if left < LARGE || !self.input.data().is_empty() || self.ended.is_some() {
            return None;
        }
        if self.piece.capacity() < PIECE / 4 && !self.piece.try_reclaim(PIECE) {
            self.piece = BytesMut::with_capacity(PIECE);
        }
        let mut room = (&mut self.piece).limit(usize::try_from(left).unwrap_or(usize::MAX));
        match pin!(self.io.read_buf(&mut room)).poll(cx) {
            Poll::Ready(Ok(0)) => self.ended = Some(Ok(())),
            Poll::Ready(Ok(read)) => {
                self.silence.progressed();
                self.decoder.taken(read);
                self.body_read += read as u64;
                return Some(self.piece.split().freeze());
            }
            Poll::Ready(Err(error)) => self.ended = Some(Err(error.kind())),
            // Nothing is held while nothing comes.
            Poll::Pending => self.piece = BytesMut::new(),
        }
        None
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        match self.poll_fill(cx) {
            Poll::Ready(Fill::Bytes) => {
                self.silence.progressed();
                Poll::Ready(Ok(()))
            }
            // An end after a failed write is no orderly one: a body that only it would end is not known to be whole.
            Poll::Ready(Fill::End) if self.unwritable.is_none() && self.decoder.is_complete_at_close() => {
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Fill::End) => Poll::Ready(Err(BodyFault::Truncated)),
            Poll::Ready(Fill::Failed(kind)) => Poll::Ready(Err(BodyFault::Failed(kind))),
            // Data leaves room behind it, so that only trailers can be too long.
            Poll::Ready(Fill::Full) => Poll::Ready(Err(BodyFault::Malformed(Malformed::Trailers))),
            Poll::Pending => self.silence.poll(cx).map(|()| Err(BodyFault::Silent)),
        }
    }

    /// The data that [`Conn::poll_body`] found.
    pub(super) fn data(&self) -> &[u8] {
        self.input.data().get(..self.data).unwrap_or_default()
    }

    /// So many bytes of what [`Conn::poll_body`] found were dealt with.
    pub(super) fn taken(&mut self, count: usize) {
        self.decoder.taken(count);
        self.body_read += count.min(self.data) as u64;
        self.input.consume(count);
        self.data = self.data.saturating_sub(count);
    }

    /// Passes over what is left of the body, as far as it is here; whether that was all.
    pub(super) fn skip_body(&mut self) -> bool {
        loop {
            let Ok(Decoded { skip, step }) = self.decoder.step(self.input.data()) else { return false };
            self.input.consume(skip);
            match step {
                Step::Data(len) | Step::Trailers(len) => self.taken(len),
                Step::End => return true,
                Step::More => return false,
            }
        }
    }

    /// Sends data of the body, or gathers it to be sent; how much of it. Nothing may be in the way of it but what was
    /// gathered before.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, SendFault>> {
        if self.encoder == Encoder::Discard {
            return Poll::Ready(Ok(data.len()));
        }
        if let Some(fault) = self.unwritable {
            return Poll::Ready(Err(fault));
        }
        let count = self.encoder.begin(self.output.writer(), data.len())?;
        let data = data.get(..count).unwrap_or_default();
        if count <= COPIED && self.output.pending().len() + count <= GATHERED {
            self.output.writer().extend_from_slice(data);
            self.encoder.wrote(self.output.writer(), count);
            return Poll::Ready(Ok(count));
        }
        let sent = ready!(self.poll_write(cx, data))?;
        self.encoder.wrote(self.output.writer(), sent);
        Poll::Ready(Ok(sent))
    }

    /// Ends the body that goes.
    pub(super) fn end_body<'a>(
        &mut self,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), SendFault> {
        Ok(self.encoder.end(self.output.writer(), trailers)?)
    }

    /// Sends what was gathered and, with it, as much of `data` as goes.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, SendFault>> {
        loop {
            let pending = self.output.pending();
            let before = pending.len();
            let io = Pin::new(&mut self.io);
            let polled = match (before, data.len()) {
                (0, 0) => return Poll::Ready(Ok(0)),
                (0, _) => io.poll_write(cx, data),
                (_, 0) => io.poll_write(cx, pending),
                _ => io.poll_write_vectored(cx, &[IoSlice::new(pending), IoSlice::new(data)]),
            };
            let sent = match polled {
                Poll::Ready(Ok(0)) => return self.failed(SendFault::Failed(io::ErrorKind::WriteZero)),
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => return self.failed(SendFault::Failed(error.kind())),
                Poll::Pending => return self.poll_stalled(cx).map(Err),
            };
            self.stall.progressed();
            self.written += sent as u64;
            self.unflushed = true;
            self.output.sent(sent.min(before));
            if sent > before {
                return Poll::Ready(Ok(sent - before));
            }
        }
    }

    /// Sends everything that was gathered, and gives the buffer back.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        if let Some(fault) = self.unwritable {
            return Poll::Ready(Err(fault));
        }
        ready!(self.poll_write(cx, &[]))?;
        self.output.release();
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return self.failed(SendFault::Failed(error.kind())),
                Poll::Pending => return self.poll_stalled(cx).map(Err),
            }
        }
        self.stall.stop();
        Poll::Ready(Ok(()))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<SendFault> {
        ready!(self.stall.poll(cx));
        self.unwritable = Some(SendFault::Stalled);
        Poll::Ready(SendFault::Stalled)
    }

    /// Nothing can be written any more: nothing is kept for it.
    fn failed<T>(&mut self, fault: SendFault) -> Poll<Result<T, SendFault>> {
        self.unwritable = Some(fault);
        self.output.sent(usize::MAX);
        self.output.release();
        Poll::Ready(Err(fault))
    }

    /// Whether more is gathered than should be before it is sent.
    pub(super) fn is_gathered(&self) -> bool {
        self.output.pending().len() >= GATHERED
    }

    /// Whether everything was sent, and could be.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.pending().is_empty() && !self.unflushed && self.unwritable.is_none()
    }

    /// The stream itself, with what was read of it put back. Nothing of this connection may be used after it.
    pub(super) fn take_io(&mut self) -> Io {
        let rest = self.input.take_rest();
        std::mem::replace(&mut self.io, Io::other(tokio::io::empty())).rewound(rest)
    }

    /// The stream, to be ended.
    pub(super) const fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("io", &self.io)
            .field("unread", &self.input.data().len())
            .field("unsent", &self.output.pending().len())
            .field("decoder", &self.decoder)
            .field("encoder", &self.encoder)
            .finish_non_exhaustive()
    }
}
