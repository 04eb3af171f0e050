//! The half of a forwarder towards an upstream: one request at a time over a connection that may be used again.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use eastway_core::Reason;
use eastway_transport::Io;
use http::StatusCode;

use super::HeadLimits;
use super::change::{BadChange, Change};
use super::conn::{BodyFault, Conn, Fill, SendFault, Shared};
use super::decode::Decoder;
use super::request::RequestView;
use super::response::{ResponseHead, ResponseView};
use super::server::{Piece, piece};
use super::write::write_request;
use crate::client::Failure;
use crate::framing::Asked;

/// A connection to an upstream.
pub struct ClientConnection {
    pub(super) conn: Conn,
    limits: HeadLimits,
    asked: Asked,
    /// The response's head that was read last.
    head: Option<ResponseHead>,
    /// Whether its bytes are still there.
    shown: bool,
    /// Whether a request is under way.
    busy: bool,
    /// Requests sent.
    requests: u64,
    /// Bytes that were written before the request that is under way.
    before: u64,
    /// The request asked for 100 (Continue).
    expects: bool,
    /// Something came that rules out another request.
    spoiled: bool,
}

/// What came from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An interim response; others follow.
    Interim,
    /// The head of the response. Its body follows; after a 101, or a success of CONNECT, raw bytes.
    Final,
}

/// A request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no response came: {failure:?}")]
pub struct ClientError {
    /// What failed.
    pub failure: Failure,
    /// Whether the connection had carried a request before: then it may have been closed by an idle limit of the peer, and
    /// nobody is to blame.
    pub reused: bool,
    /// Whether not a byte of the request was sent, so that repeating it is always safe.
    pub unsent: bool,
}

impl ClientError {
    /// The reason towards the caller, if the request is not repeated.
    pub const fn reason(&self) -> Reason {
        match self.failure {
            Failure::Closed | Failure::Refused | Failure::Reset | Failure::Unresponsive => Reason::UpstreamReset,
            Failure::Protocol => Reason::UpstreamProtocol,
            Failure::RequestBody(reason) => reason,
            Failure::Timeout => Reason::ResponseTimeout,
            Failure::Internal => Reason::Internal,
        }
    }
}

impl ClientConnection {
    /// A connection over which nothing was sent yet.
    pub fn new(io: Io, shared: &Shared) -> Self {
        Self {
            conn: Conn::new(io, shared),
            limits: shared.limits.head,
            asked: Asked::default(),
            head: None,
            shown: false,
            busy: false,
            requests: 0,
            before: 0,
            expects: false,
            spoiled: false,
        }
    }

    /// Whether it has carried a request before the one that is under way, or before now if none is.
    pub fn is_reused(&self) -> bool {
        self.requests > u64::from(self.busy)
    }

    /// Whether an idle connection has ended, or something came that nobody asked for. Costs no system call as a rule.
    pub fn is_stale(&mut self) -> bool {
        self.poll_stale(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// As [`ClientConnection::is_stale`], for who waits for it.
    pub fn poll_stale(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.conn.poll_fill(cx).map(|_| self.spoiled = true)
    }

    /// Writes a request's head, with changes. It is sent with what comes next, at the latest when something is waited for.
    /// The connection must be new, or [settled](ClientConnection::settle).
    ///
    /// # Errors
    /// [`BadChange`]; nothing was written then.
    pub fn send<'c>(
        &mut self,
        request: &RequestView<'_>,
        changes: impl Iterator<Item = Change<'c>> + Clone,
    ) -> Result<(), BadChange> {
        self.conn.encoder = write_request(self.conn.output.writer(), request, changes)?;
        self.conn.decoder = Decoder::Ended;
        self.release_head();
        self.head = None;
        self.asked = Asked {
            head: request.head.method == "HEAD",
            connect: request.head.method == "CONNECT",
            upgrade: request.upgrade.is_some(),
        };
        self.expects = request.expects_continue && !self.conn.encoder.is_ended();
        self.busy = true;
        self.requests += 1;
        self.before = self.conn.written;
        Ok(())
    }

    /// Whether the upstream was asked to say when it wants the request's body.
    pub const fn expects_continue(&self) -> bool {
        self.expects
    }

    /// Sends data of the request's body, or gathers it; how much of it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, SendFault>> {
        self.conn.poll_send(cx, data)
    }

    /// Ends the request's body, without trailers.
    ///
    /// # Errors
    /// [`SendFault::WrongLength`] if it is shorter than its head said.
    pub fn end_body(&mut self) -> Result<(), SendFault> {
        self.conn.end_body(crate::head::Lines::default())
    }

    /// Whether the request's body was written to its end.
    pub const fn is_body_sent(&self) -> bool {
        self.conn.encoder.is_ended()
    }

    /// Whether not a byte of the request was sent.
    pub const fn is_unsent(&self) -> bool {
        self.conn.written == self.before
    }

    /// Sends what was gathered, and waits for the next response. An upstream may answer before it has read the request's
    /// body, and close: that the rest cannot be sent is no failure while an answer may come.
    ///
    /// # Errors
    /// Why none comes.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, ClientError>> {
        // A failure to send is told by the end of reading.
        let _ = self.conn.poll_flush(cx);
        self.release_head();
        loop {
            let (asked, limits) = (self.asked, self.limits);
            let parsed = self.conn.input.parse(|bytes, places| ResponseHead::parse(bytes, places, asked, limits));
            match parsed.transpose() {
                Ok(head) => {
                    if let Some(head) = head.flatten() {
                        return Poll::Ready(Ok(self.received(head)));
                    }
                }
                Err(_) => return Poll::Ready(Err(self.error(Failure::Protocol))),
            }
            match ready!(self.conn.poll_fill(cx)) {
                Fill::Bytes => {}
                Fill::Full => return Poll::Ready(Err(self.error(Failure::Protocol))),
                Fill::End | Fill::Failed(_) => {
                    let failure = if self.is_unsent() { Failure::Closed } else { Failure::Reset };
                    return Poll::Ready(Err(self.error(failure)));
                }
            }
        }
    }

    /// The response's head that came last, until its body is [finished](super::Forwarding::poll_finish).
    pub fn response(&self) -> Option<ResponseView<'_>> {
        let (bytes, places) = self.conn.input.pinned();
        self.head.as_ref().filter(|_| self.shown).map(|head| head.view(bytes, places))
    }

    /// Nobody looks at the response's head any more: its room is for the body.
    pub fn release_head(&mut self) {
        if std::mem::replace(&mut self.shown, false) {
            self.conn.input.unpin();
        }
    }

    /// What comes next of the response's body; data is shown until it is [consumed](ClientConnection::consume).
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece<'_>, BodyFault>> {
        let next = ready!(self.conn.poll_body(cx))?;
        Poll::Ready(Ok(piece(&self.conn, next)))
    }

    /// So many bytes of what [`ClientConnection::poll_body`] showed were dealt with.
    pub fn consume(&mut self, count: usize) {
        self.conn.taken(count);
    }

    /// Bytes of data that were read, of the bodies of all responses so far.
    pub const fn body_bytes(&self) -> u64 {
        self.conn.body_read
    }

    /// Ends the exchange; whether another request may be sent over the connection. It may if the request was sent and the
    /// response read to the end, neither side wants to close, and nothing came that nobody asked for.
    pub fn settle(&mut self) -> bool {
        let persistent = self.head.is_some_and(|head| head.is_persistent() && !head.status().is_informational());
        let whole = self.conn.decoder.is_ended() && self.conn.encoder.is_ended() && self.conn.is_flushed();
        let quiet = self.conn.input.data().is_empty() && !self.conn.is_half_closed() && !self.spoiled;
        if !(persistent && whole && quiet && !self.is_tunnel()) {
            return false;
        }
        self.head = None;
        self.busy = false;
        self.shown = false;
        self.conn.input.unpin();
        true
    }

    /// Gives the stream away after an upgrade or a CONNECT was agreed to, with what was read ahead put back.
    ///
    /// # Errors
    /// Why the request could not be sent.
    pub async fn into_io(mut self) -> Result<Io, SendFault> {
        poll_fn(|cx| self.conn.poll_flush(cx)).await?;
        Ok(self.conn.take_io())
    }

    /// Whether the connection carries raw bytes now.
    pub fn is_tunnel(&self) -> bool {
        let status = self.head.map(|head| head.status());
        status.is_some_and(|status| {
            status == StatusCode::SWITCHING_PROTOCOLS || (self.asked.connect && status.is_success())
        })
    }

    fn received(&mut self, head: ResponseHead) -> Answer {
        self.conn.input.pin(head.length());
        self.head = Some(head);
        self.shown = true;
        if head.status().is_informational() && head.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Answer::Interim;
        }
        self.conn.decoder = Decoder::of_response(head.body());
        Answer::Final
    }

    fn error(&mut self, failure: Failure) -> ClientError {
        self.spoiled = true;
        ClientError { failure, reused: self.is_reused(), unsent: self.is_unsent() }
    }
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection")
            .field("conn", &self.conn)
            .field("requests", &self.requests)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}
