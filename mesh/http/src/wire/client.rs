//! The half of HTTP/1.1 towards an upstream: one request at a time over a connection that may be used again.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use eastway_transport::Io;
use eastway_transport::copies::copied;
use http_body::Frame;

use super::buffer::Buffers;
use super::conn::{Conn, Fill};
use super::decode::Decoder;
use super::write::write_request;
use crate::body::BodyError;
use crate::framing::{Asked, Length, parse_response};
use crate::limits::HeadLimits;
use crate::message::{RequestHead, ResponseHead};

/// A connection to an upstream.
pub struct ClientConnection {
    conn: Conn,
    limits: HeadLimits,
    asked: Asked,
    /// Whether the response that came last allows another request.
    persistent: bool,
    /// Bytes that were written before the request that is under way.
    before: u64,
    /// Something came that rules out another request.
    spoiled: bool,
}

/// A request got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// What came is no response, rather than that the connection ended.
    pub malformed: bool,
    /// Not a byte of the request was sent, so that repeating it is always safe.
    pub unsent: bool,
}

impl ClientConnection {
    /// A connection over which nothing was sent yet, to an upstream whose heads are bounded by `limits`. Whoever uses it limits
    /// waiting.
    pub fn new(io: Io, limits: HeadLimits) -> Self {
        Self {
            conn: Conn::new(io, &Buffers::of_this_thread(), limits, None),
            limits,
            asked: Asked::default(),
            persistent: false,
            before: 0,
            spoiled: false,
        }
    }

    /// Ready once an idle connection has ended, or something came that nobody asked for.
    pub fn poll_stale(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.conn.poll_fill(cx).map(|_| self.spoiled = true)
    }

    /// Writes the head of a request whose body has the `length`. It is sent with what comes next, at the latest when something
    /// is waited for. The connection must be new, or [settled](ClientConnection::settle).
    pub fn send(&mut self, head: &RequestHead, length: Length) {
        self.conn.encoder = write_request(self.conn.output.writer(), head, length);
        self.conn.decoder = Decoder::Ended;
        self.asked =
            Asked { head: head.method() == "HEAD", connect: head.is_connect(), upgrade: head.upgrade().is_some() };
        self.before = self.conn.written;
    }

    /// Sends what was gathered, and waits for the next head, interim (1xx but 101) or final. An upstream may answer before it
    /// has read the request's body, and close: that the rest cannot be sent is no failure while an answer may come.
    ///
    /// # Errors
    /// Why none comes.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Unanswered>> {
        // A failure to send is told by the end of reading.
        let _ = self.conn.poll_flush(cx);
        loop {
            let data = self.conn.input.data();
            let parsed = if data.is_empty() { Ok(None) } else { parse_response(data, self.asked, self.limits) };
            match parsed {
                Ok(Some(parsed)) => {
                    self.conn.input.consume(parsed.size);
                    if !is_interim(&parsed.head) {
                        self.conn.decoder = Decoder::of_response(parsed.body);
                        self.persistent = parsed.persistent;
                    }
                    return Poll::Ready(Ok(parsed.head));
                }
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(self.unanswered(true))),
            }
            match ready!(self.conn.poll_fill(cx)) {
                Fill::Bytes => {}
                Fill::Full => return Poll::Ready(Err(self.unanswered(true))),
                Fill::End | Fill::Failed(_) => return Poll::Ready(Err(self.unanswered(false))),
            }
        }
    }

    fn unanswered(&mut self, malformed: bool) -> Unanswered {
        self.spoiled = true;
        Unanswered { malformed, unsent: self.conn.written == self.before }
    }

    /// What the request asked for.
    pub const fn asked(&self) -> Asked {
        self.asked
    }

    /// What comes next of the response's body; `None` after its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.conn.poll_frame(cx)
    }

    /// All of the response's body, if it is here already and has a length.
    pub fn take_body(&mut self) -> Option<Bytes> {
        let here = self.conn.input.data();
        let length = match self.conn.decoder {
            Decoder::Length(length) => usize::try_from(length).ok().filter(|length| *length <= here.len())?,
            Decoder::Ended => 0,
            Decoder::Chunked(_) | Decoder::UntilClose => return None,
        };
        let body = copied(here.get(..length)?);
        self.conn.decoder.taken(length);
        self.conn.input.consume(length);
        Some(body)
    }

    /// Whether the response's body was read to its end.
    pub const fn is_body_read(&self) -> bool {
        self.conn.decoder.is_ended()
    }

    /// Ends the exchange; whether another request may be sent over the connection. It may if the request was sent and the
    /// response read to the end, neither side wants to close, and nothing came that nobody asked for.
    pub fn settle(&mut self) -> bool {
        let whole = self.conn.decoder.is_ended() && self.conn.encoder.is_ended() && self.conn.is_flushed();
        let quiet = self.conn.input.data().is_empty() && !self.conn.is_half_closed() && !self.spoiled;
        self.conn.input.release();
        std::mem::replace(&mut self.persistent, false) && whole && quiet
    }

    /// Gives the stream away, with what was read ahead put back. Nothing of this connection may be used after it.
    pub fn take_io(&mut self) -> Io {
        self.conn.take_io()
    }

    /// For who sends a body over it.
    pub(crate) const fn conn_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Whether another head of the same response follows.
pub const fn is_interim(head: &ResponseHead) -> bool {
    head.status < 200 && !head.is_switch()
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("conn", &self.conn).finish_non_exhaustive()
    }
}
