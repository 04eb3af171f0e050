//! The half of a forwarder towards its caller: requests come, one after the other, and are answered in order.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use eastway_core::Reason;
use eastway_transport::Io;
use http::{Response, StatusCode, Version};

use super::change::{BadChange, Change, write_field};
use super::conn::{BodyFault, Conn, Fill, Next, SendFault, Shared};
use super::decode::Decoder;
use super::encode::{Encoder, decimal};
use super::request::{RequestHead, RequestView};
use super::response::ResponseView;
use super::write::{Caller, Written, connection, status_line, write_response};
use crate::body::Body;
use crate::framing::Refused;
use crate::refuse;
use crate::server::linger::Lingering;
use crate::sweeper::Deadline;

/// A connection from a caller.
pub struct ServerConnection {
    pub(super) conn: Conn,
    shared: Shared,
    /// The request that is under way.
    head: Option<RequestHead>,
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

/// What comes next of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Data, to be consumed.
    Data(&'a [u8]),
    /// Trailers as they were sent, with the empty line that ends them: to be consumed whole.
    Trailers(&'a [u8]),
    /// Nothing more.
    End,
}

/// Below this every read is followed by an attempt to find a head; above, only when enough has come to be worth it.
const TRIED_ALWAYS: usize = 4 * 1024;

impl ServerConnection {
    /// A connection of which nothing was read yet. Call it on the worker's `LocalSet`.
    pub fn new(io: Io, shared: &Shared) -> Self {
        Self {
            conn: Conn::new(io, shared),
            head: None,
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

    /// Waits for the next request; what was answered so far is sent before. [`ServerConnection::request`] shows it then.
    ///
    /// # Errors
    /// Why none comes.
    pub async fn next(&mut self) -> Result<(), ServerEnd> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// See [`ServerConnection::next`]. Nothing is lost if it is not polled to the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServerEnd>> {
        if self.head.is_some() {
            self.settle()?;
        }
        if !self.persistent {
            return Poll::Ready(Err(ServerEnd::Done));
        }
        loop {
            if self.conn.is_gathered() {
                ready!(self.conn.poll_flush(cx)).map_err(|_| ServerEnd::CallerGone)?;
            }
            if self.is_worth_trying() && self.read_head().map_err(|refused| self.refusing(refused))? {
                return Poll::Ready(Ok(()));
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

    /// The request that is under way; `None` before the first and after the last.
    pub fn request(&self) -> Option<RequestView<'_>> {
        let (bytes, places) = self.conn.input.pinned();
        self.head.as_ref().map(|head| head.view(bytes, places))
    }

    /// What comes next of the request's body; data is shown until it is [consumed](ServerConnection::consume).
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece<'_>, BodyFault>> {
        let next = ready!(self.conn.poll_body(cx))?;
        Poll::Ready(Ok(piece(&self.conn, next)))
    }

    /// So many bytes of what [`ServerConnection::poll_body`] showed were dealt with.
    pub fn consume(&mut self, count: usize) {
        self.conn.taken(count);
    }

    /// Whether the request's body was read to its end.
    pub const fn is_body_read(&self) -> bool {
        self.conn.decoder.is_ended()
    }

    /// Bytes of data that were read, of the bodies of all requests so far.
    pub const fn body_bytes(&self) -> u64 {
        self.conn.body_read
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

    /// Tells a caller that waits for it to go on with its body.
    pub fn send_continue(&mut self) {
        if !self.answered && !std::mem::replace(&mut self.continued, true) {
            self.conn.output.writer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Passes an interim response on: 100 to who waits for it, others to who knows them.
    pub fn send_interim(&mut self, response: &ResponseView<'_>) {
        if response.status == StatusCode::CONTINUE {
            self.send_continue();
        } else if let Some(caller) = self.caller().filter(|caller| caller.version >= Version::HTTP_11) {
            // Without a change there is none to fail.
            let _ = write_response(self.conn.output.writer(), response, caller, std::iter::empty());
        }
    }

    /// Writes the head of the answer, with changes. It is sent with what comes next, at the latest when something is waited
    /// for. Its body is to follow.
    ///
    /// # Errors
    /// [`BadChange`]; nothing was written then.
    pub fn respond<'c>(
        &mut self,
        response: &ResponseView<'_>,
        changes: impl Iterator<Item = Change<'c>> + Clone,
    ) -> Result<(), BadChange> {
        let Some(caller) = self.caller() else { return Err(BadChange) };
        let written = write_response(self.conn.output.writer(), response, caller, changes)?;
        self.begin_answer(written);
        Ok(())
    }

    /// Sends data of the answer's body, or gathers it; how much of it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, SendFault>> {
        self.conn.poll_send(cx, data)
    }

    /// Ends the answer's body, without trailers.
    ///
    /// # Errors
    /// [`SendFault::WrongLength`] if it is shorter than its head said.
    pub fn end_body(&mut self) -> Result<(), SendFault> {
        self.conn.end_body(crate::head::Lines::default())
    }

    /// Sends everything that was gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        self.conn.poll_flush(cx)
    }

    /// No other request is taken after this one; the answer says so if it was not begun.
    pub const fn take_no_more(&mut self) {
        self.persistent = false;
    }

    /// Whether the answer's head was written already, so that the request cannot be refused any more.
    pub const fn is_answered(&self) -> bool {
        self.answered
    }

    /// Answers by a refusal, of the request that is under way or of what came in place of one. Does nothing once there is an
    /// answer.
    pub fn refuse(&mut self, refused: &Refused, node: &str, is_grpc: bool) {
        if self.answered {
            return;
        }
        let caller = self.caller().unwrap_or(Caller { version: Version::HTTP_11, head: false, persistent: false });
        let persistent = caller.persistent && !refuse::closes(refused.reason);
        let response = refuse::response(refused.reason, node, is_grpc, Version::HTTP_11);
        let line = match refused.byte {
            _ if is_grpc => String::new(),
            Some(_) => format!("{refused} ({})\n", refused.reason.code()),
            None => refuse::line(refused.reason),
        };
        write_refusal(self.conn.output.writer(), &response, &line, Caller { persistent, ..caller });
        self.begin_answer(Written { encoder: Encoder::Ended, persistent });
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

    fn caller(&self) -> Option<Caller> {
        let head = self.request()?.head;
        // A body that was neither asked for nor sent may come or not: where the next request starts is in doubt.
        let doubt = !self.continued && !self.conn.decoder.is_ended();
        let persistent = self.persistent && !doubt;
        Some(Caller { version: head.version, head: head.method == "HEAD", persistent })
    }

    fn begin_answer(&mut self, written: Written) {
        self.answered = true;
        self.persistent = written.persistent;
        self.conn.encoder = written.encoder;
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
        self.head = None;
        self.tried = 0;
        self.conn.input.unpin();
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

    fn read_head(&mut self) -> Result<bool, Refused> {
        let limits = self.shared.limits.head;
        self.tried = self.conn.input.data().len();
        let parsed = self.conn.input.parse(|bytes, places| RequestHead::parse(bytes, places, limits));
        let Some(head) = parsed.transpose()?.flatten() else { return Ok(false) };
        self.conn.input.pin(head.length());
        self.conn.decoder = Decoder::of_request(head.body());
        self.conn.encoder = Encoder::Ended;
        self.slow = None;
        self.answered = false;
        self.head = Some(head);
        let view = self.request();
        let (persistent, expects) = view.map_or((false, false), |view| (view.persistent, view.expects_continue));
        self.persistent &= persistent;
        self.continued = !expects || self.conn.decoder.is_ended();
        Ok(true)
    }

    /// The caller has ended its direction, and no complete head is there.
    fn at_end(&mut self) -> Result<(), ServerEnd> {
        if self.conn.input.data().is_empty() {
            return Err(ServerEnd::Done);
        }
        let read = self.read_head().map_err(|refused| self.refusing(refused))?;
        if read { Ok(()) } else { Err(ServerEnd::CallerGone) }
    }

    const fn refusing(&mut self, refused: Refused) -> ServerEnd {
        self.refused = true;
        self.answered = false;
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
        f.debug_struct("ServerConnection").field("conn", &self.conn).field("head", &self.head).finish_non_exhaustive()
    }
}

/// What [`Conn::poll_body`] found, to be looked at.
pub(super) fn piece(conn: &Conn, next: Next) -> Piece<'_> {
    match next {
        Next::Data => Piece::Data(conn.data()),
        Next::Trailers(len) => Piece::Trailers(conn.input.data().get(..len).unwrap_or_default()),
        Next::End => Piece::End,
    }
}

/// Writes a refusal whole: in hyper's form, which [`refuse`] gives, and with our own words.
fn write_refusal(out: &mut Vec<u8>, response: &Response<Body>, line: &str, caller: Caller) {
    let status = response.status();
    status_line(out, status, status.canonical_reason().unwrap_or_default().as_bytes());
    let ours = |name: &str| name == "connection" || name == "content-length";
    for (name, value) in response.headers().iter().filter(|(name, _)| !ours(name.as_str())) {
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"content-length: ");
    decimal(out, line.len() as u64);
    out.extend_from_slice(b"\r\n");
    connection(out, caller.persistent, caller.version);
    out.extend_from_slice(b"\r\n");
    if !caller.head {
        out.extend_from_slice(line.as_bytes());
    }
}
