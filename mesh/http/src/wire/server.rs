//! The half of HTTP/1.1 towards a caller: requests come, one after the other, and are answered in order.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use eastway_transport::Io;
use http_body::Frame;

use super::conn::{Conn, Fill, SendFault, Shared};
use super::decode::Decoder;
use super::encode::Encoder;
use super::linger::Lingering;
use super::write::{Caller, write_interim, write_response};
use crate::body::{Body, BodyError};
use crate::framing::{Refused, parse_request};
use crate::message::{RequestHead, ResponseHead};
use crate::refuse;
use crate::sweeper::Deadline;

/// A connection from a caller.
pub struct ServerConnection {
    conn: Conn,
    shared: Shared,
    /// Who made the request that is under way; of the one before, while none is.
    caller: Option<Caller>,
    /// Whether another request may follow this one.
    persistent: bool,
    /// Whether no request was answered yet.
    first: bool,
    /// The final head was written.
    answered: bool,
    /// The caller was told to go on with its body, or did not ask.
    continued: bool,
    /// What cannot be read as a request came, and more of it may.
    refused: bool,
    /// The end of the caller's direction was reported.
    half_close_told: bool,
    /// How many bytes were there when reading a head was last tried.
    tried: usize,
    idle: Deadline,
    /// Runs while a head is incomplete.
    slow: Option<Deadline>,
}

/// Why no further request comes. The connection is to be [closed](ServerConnection::close).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// In good order: the caller has ended it, or was told that no other request may follow.
    Done,
    /// No request came for too long.
    Idle,
    /// A head was begun and did not come in time.
    SlowHead,
    /// The connection failed, or ended within a head.
    CallerGone,
    /// The last answer was not completed.
    Unanswered,
    /// What came is no request, or too large. It may be [refused](ServerConnection::refuse) in words.
    Refused(Refused),
}

/// What became of the caller while an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerState {
    /// It has ended its direction. It may have gone, or wait for its answer (`nc -N`): that is seen only when it is answered.
    HalfClosed,
    /// Its connection is broken.
    Gone,
}

/// Below this every read is followed by an attempt to find a head; above, only when enough has come to be worth it.
const TRIED_ALWAYS: usize = 4 * 1024;

impl ServerConnection {
    /// A connection of which only `ahead` was read yet. Call it on the worker's `LocalSet`.
    pub fn new(io: Io, ahead: &[u8], shared: &Shared) -> Self {
        let silence = Some((shared.sweeper.clone(), shared.limits.silence));
        let mut conn = Conn::new(io, &shared.buffers, shared.limits.head, silence);
        conn.put_back(ahead);
        Self {
            conn,
            caller: None,
            persistent: true,
            first: true,
            answered: false,
            continued: true,
            refused: false,
            half_close_told: false,
            tried: 0,
            // The first head is waited for from the start.
            idle: shared.sweeper.after(shared.limits.head_timeout),
            slow: None,
            shared: shared.clone(),
        }
    }

    /// Whether something of another request is here.
    pub fn has_begun_request(&self) -> bool {
        !self.conn.input.data().is_empty()
    }

    /// Waits for the next request; what was answered so far is sent before. Nothing is lost if it is not polled to the end.
    ///
    /// # Errors
    /// Why none comes.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestHead, ServerEnd>> {
        if self.caller.is_some() {
            self.settle()?;
        }
        if !self.persistent {
            return Poll::Ready(Err(ServerEnd::Done));
        }
        loop {
            if self.conn.is_gathered() {
                ready!(self.conn.poll_flush(cx)).map_err(|_| ServerEnd::CallerGone)?;
            }
            if self.is_worth_trying()
                && let Some(head) = self.read_head().map_err(|refused| self.refusing(refused))?
            {
                return Poll::Ready(Ok(head));
            }
            let sent = self.conn.poll_flush(cx).map_err(|_| ServerEnd::CallerGone)?;
            match self.conn.poll_fill(cx) {
                Poll::Ready(Fill::Bytes) => {}
                Poll::Ready(Fill::End) => {
                    ready!(sent);
                    return Poll::Ready(self.at_end());
                }
                Poll::Ready(Fill::Failed(_)) => return Poll::Ready(Err(ServerEnd::CallerGone)),
                Poll::Ready(Fill::Full) => {
                    let refused = self.refusing(Reason::HeaderTooLarge.into());
                    return Poll::Ready(Err(refused));
                }
                Poll::Pending => return self.poll_limits(cx).map(Err),
            }
        }
    }

    /// What comes next of the request's body; `None` after its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.conn.poll_frame(cx)
    }

    /// Whether the request's body was read to its end.
    pub const fn is_body_read(&self) -> bool {
        self.conn.decoder.is_ended()
    }

    /// Looks after the caller while its answer is waited for: ready once if it ends its direction, and always if it is
    /// gone. It may send other requests meanwhile, as far as there is room for them.
    pub fn poll_caller(&mut self, cx: &mut Context<'_>) -> Poll<CallerState> {
        loop {
            match self.conn.poll_ahead(cx) {
                Poll::Ready(Fill::Bytes) => {}
                Poll::Ready(Fill::Failed(_)) => return Poll::Ready(CallerState::Gone),
                Poll::Ready(Fill::End) if !std::mem::replace(&mut self.half_close_told, true) => {
                    return Poll::Ready(CallerState::HalfClosed);
                }
                Poll::Ready(Fill::End | Fill::Full) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Tells a caller that waits for it to go on with its body. Whether there is something to send now.
    pub fn send_continue(&mut self) -> bool {
        let asks = !self.answered && !std::mem::replace(&mut self.continued, true);
        if asks {
            self.conn.output.writer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        asks
    }

    /// Writes an interim response, unless the answer has begun.
    pub fn interim(&mut self, head: &ResponseHead) {
        if !self.answered {
            write_interim(self.conn.output.writer(), head);
        }
    }

    /// Writes the head of the answer. It is sent with what comes next, at the latest when something is waited for. Whether its
    /// body is to follow.
    pub fn answer(&mut self, head: &ResponseHead, body: &Body) -> bool {
        // A body that was neither asked for nor sent may come or not: where the next request starts is in doubt.
        let doubt = !self.continued && !self.conn.decoder.is_ended();
        let caller = self.caller.unwrap_or(NOBODY);
        let caller = Caller { persistent: self.persistent && caller.persistent && !doubt, ..caller };
        let written = write_response(self.conn.output.writer(), head, body, caller);
        self.answered = true;
        self.persistent = written.persistent;
        self.conn.encoder = written.encoder;
        !matches!(written.encoder, Encoder::Ended | Encoder::Discard)
    }

    /// Sends everything that was gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        self.conn.poll_flush(cx)
    }

    /// No other request is taken after this one; the answer says so if it was not begun.
    pub const fn take_no_more(&mut self) {
        self.persistent = false;
    }

    /// Answers what came in place of a request by a refusal, after which the connection is to be closed. Does nothing once
    /// there is an answer.
    pub fn refuse(&mut self, refused: &Refused, node: &str) {
        if self.answered && self.caller.is_some() {
            return;
        }
        let mut response = refuse::response(refused.reason, node, false);
        response.head.closes = true;
        if refused.byte.is_some() {
            response.body = Body::full(format!("{refused} ({})\n", refused.reason.code()));
        }
        let written = write_response(self.conn.output.writer(), &response.head, &response.body, NOBODY);
        if let Some(line) = response.body.at_hand() {
            self.conn.output.writer().extend_from_slice(&line);
        }
        self.answered = true;
        self.persistent = written.persistent;
        self.conn.encoder = Encoder::Ended;
    }

    /// Ends the connection: what was answered is sent, and a caller that still sends is read on for a while, so that a reset
    /// does not overtake its answer. An answer that broke off is cut off.
    pub async fn close(mut self) {
        if poll_fn(|cx| self.conn.poll_flush(cx)).await.is_err() || self.is_cut_off() {
            return;
        }
        let unread = self.refused || !self.conn.decoder.is_ended() || !self.conn.input.data().is_empty();
        let limit = self.shared.limits.head_timeout;
        let mut lingering = Lingering::new(limit);
        let finishing = poll_fn(|cx| lingering.poll_finish(self.conn.io_mut(), cx));
        let finished = self.shared.sweeper.within(limit, finishing).await;
        if matches!(finished, Ok(Ok(()))) && unread && !self.conn.is_half_closed() {
            poll_fn(|cx| lingering.poll(self.conn.io_mut(), cx)).await;
        }
    }

    /// Gives the stream away after an upgrade or a CONNECT was answered, with what was read ahead put back.
    ///
    /// # Errors
    /// Why the answer could not be sent.
    pub async fn into_io(mut self) -> Result<Io, SendFault> {
        poll_fn(|cx| self.conn.poll_flush(cx)).await?;
        Ok(self.conn.take_io())
    }

    /// For who sends a body over it.
    pub(crate) const fn conn_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Ends the exchange that was under way, if another may follow.
    fn settle(&mut self) -> Result<(), ServerEnd> {
        if !self.answered || !self.conn.encoder.is_ended() && self.conn.encoder != Encoder::Discard {
            return Err(ServerEnd::Unanswered);
        }
        // What is here of a body that nobody wanted is passed over; the rest is not waited for.
        if !self.persistent || !self.conn.skip_body() {
            self.persistent = false;
            return Err(ServerEnd::Done);
        }
        self.caller = None;
        self.tried = 0;
        self.conn.input.release();
        if std::mem::replace(&mut self.first, false) {
            self.idle.reset(self.shared.limits.idle_timeout);
        } else {
            self.idle.restart();
        }
        Ok(())
    }

    /// Whether reading a head may give another result than the last time. A head that trickles in would otherwise be read
    /// over and over again.
    fn is_worth_trying(&self) -> bool {
        let data = self.conn.input.data();
        let news = data.get(self.tried.saturating_sub(3)..).unwrap_or_default();
        let ends = || news.windows(2).any(|two| two == b"\n\n") || news.windows(3).any(|three| three == b"\n\r\n");
        data.len() > self.tried && (data.len() <= TRIED_ALWAYS || data.len() >= 2 * self.tried || ends())
    }

    fn read_head(&mut self) -> Result<Option<RequestHead>, Refused> {
        let data = self.conn.input.data();
        self.tried = data.len();
        let Some(parsed) = parse_request(data, self.shared.limits.head)? else { return Ok(None) };
        let head = parsed.head;
        self.conn.input.consume(parsed.size);
        self.conn.decoder = Decoder::of_request(parsed.body);
        self.conn.encoder = Encoder::Ended;
        self.slow = None;
        self.answered = false;
        self.caller = Some(Caller {
            version: head.version,
            head: head.method() == "HEAD",
            connect: head.is_connect(),
            persistent: parsed.persistent,
        });
        self.continued = !head.expects_continue || self.conn.decoder.is_ended();
        Ok(Some(head))
    }

    /// The caller has ended its direction, and no complete head is there.
    fn at_end(&mut self) -> Result<RequestHead, ServerEnd> {
        if self.conn.input.data().is_empty() {
            return Err(ServerEnd::Done);
        }
        self.read_head().map_err(|refused| self.refusing(refused))?.ok_or(ServerEnd::CallerGone)
    }

    const fn refusing(&mut self, refused: Refused) -> ServerEnd {
        self.refused = true;
        ServerEnd::Refused(refused)
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<ServerEnd> {
        if self.conn.input.data().is_empty() {
            return self.idle.poll_expired(cx).map(|()| ServerEnd::Idle);
        }
        let timeout = self.shared.limits.head_timeout;
        let slow = self.slow.get_or_insert_with(|| self.shared.sweeper.after(timeout));
        slow.poll_expired(cx).map(|()| ServerEnd::SlowHead)
    }

    /// Whether an answer broke off whose end only the connection's end would tell.
    fn is_cut_off(&self) -> bool {
        self.conn.encoder == Encoder::UntilClose
    }
}

/// Who sent what is no request.
const NOBODY: Caller = Caller { version: HttpVersion::Http11, head: false, connect: false, persistent: false };

/// Whoever reads to the end of the connection must not take a response that broke off for a whole one.
impl Drop for ServerConnection {
    fn drop(&mut self) {
        if self.is_cut_off() {
            self.conn.take_io().abort(Reason::UpstreamReset);
        }
    }
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").field("conn", &self.conn).finish_non_exhaustive()
    }
}
