//! One request and its answer, between the two halves, driven by the one task that holds both.
//!
//! A [`Forwarding`] knows in which order the parts of messages go: the request's body while the answer is waited for, an
//! interim response at once, the answer's body while the request's may still go on. It decides nothing: its user writes the
//! heads.

use std::task::{Context, Poll};

use super::client::{Answer, ClientConnection, ClientError};
use super::conn::{BodyFault, SendFault, Shared};
use super::copy::{CopyFault, poll_copy};
use super::server::{CallerState, ServerConnection};
use crate::sweeper::Deadline;

/// The state between the parts of one exchange.
#[derive(Debug)]
pub struct Forwarding {
    upload: Upload,
    /// Runs while the upstream is to say whether it wants the request's body.
    patience: Option<Deadline>,
}

/// Where the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    /// It waits for 100 (Continue).
    Held,
    Going,
    Done,
    /// The upstream takes no more of it.
    Cut,
}

/// What ended an exchange before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardFault {
    /// The request's body could not be read.
    #[error("the request's body failed")]
    RequestBody(#[source] BodyFault),
    /// The caller's connection failed.
    #[error("the caller has gone")]
    CallerGone,
    /// The answer could not be sent.
    #[error("the answer could not be sent")]
    Answer(#[source] SendFault),
    /// No answer came.
    #[error("the upstream did not answer")]
    Upstream(#[source] ClientError),
    /// The answer's body could not be read.
    #[error("the answer's body failed")]
    AnswerBody(#[source] BodyFault),
}

/// What is known of an exchange before the answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The upstream's answer: its head is to be written to the caller, and then the rest finished.
    Answered,
    /// An interim response came and was passed on.
    Interim,
    /// The caller has ended its direction. It may have gone, or wait for its answer.
    HalfClosed,
    /// The request was sent to its end: from now on only the upstream is waited for.
    Sent,
}

impl Forwarding {
    /// After the request's head was written to `client`.
    pub fn new(client: &ClientConnection, shared: &Shared) -> Self {
        if !client.expects_continue() {
            return Self { upload: Upload::Going, patience: None };
        }
        let patience = shared.sweeper.after(shared.limits.continue_after);
        Self { upload: Upload::Held, patience: Some(patience) }
    }

    /// Sends the request's body and waits for what comes first.
    ///
    /// # Errors
    /// Why there will be no answer.
    pub fn poll_event(
        &mut self,
        server: &mut ServerConnection,
        client: &mut ClientConnection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, ForwardFault>> {
        let sent = matches!(self.upload, Upload::Held | Upload::Going);
        self.poll_upload(server, client, cx)?;
        match client.poll_response(cx) {
            Poll::Ready(Ok(Answer::Final)) => {
                self.answered(client);
                return Poll::Ready(Ok(Event::Answered));
            }
            Poll::Ready(Ok(Answer::Interim)) => {
                self.passed_on(server, client);
                return Poll::Ready(Ok(Event::Interim));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(ForwardFault::Upstream(error))),
            Poll::Pending => {}
        }
        if sent && self.upload == Upload::Done {
            return Poll::Ready(Ok(Event::Sent));
        }
        // An answer to an earlier request may not have been sent yet.
        if let Poll::Ready(Err(_)) = server.poll_flush(cx) {
            return Poll::Ready(Err(ForwardFault::CallerGone));
        }
        if self.upload == Upload::Going {
            return Poll::Pending;
        }
        server.poll_caller(cx).map(|state| match state {
            CallerState::HalfClosed => Ok(Event::HalfClosed),
            CallerState::Gone => Err(ForwardFault::CallerGone),
        })
    }

    /// Sends the answer's body, and what is left of the request's. The last bytes are sent with what comes next, at the
    /// latest when [`ServerConnection::next`] waits.
    ///
    /// # Errors
    /// Why the answer is not complete. Its head has been written, so that the connection can only be cut off.
    pub fn poll_finish(
        &mut self,
        server: &mut ServerConnection,
        client: &mut ClientConnection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ForwardFault>> {
        client.release_head();
        let uploaded = self.poll_upload(server, client, cx);
        // The end of the request's body is sent by nothing else any more. That it cannot be is seen by what comes.
        let _ = client.conn.poll_flush(cx);
        let finished = poll_copy(&mut client.conn, &mut server.conn, cx).map_err(|fault| match fault {
            CopyFault::Source(fault) => ForwardFault::AnswerBody(fault),
            CopyFault::Sink(fault) => ForwardFault::Answer(fault),
        });
        // A body that fails while the answer is complete at hand takes nothing from the answer.
        if finished.is_pending() {
            uploaded?;
            // Who reads nothing and has gone is noticed only so while the upstream is silent.
            let caller = if self.upload == Upload::Going { Poll::Pending } else { server.poll_caller(cx) };
            if caller == Poll::Ready(CallerState::Gone) {
                return Poll::Ready(Err(ForwardFault::CallerGone));
            }
        }
        finished
    }

    /// Whether the request's body was sent to its end.
    pub fn is_sent(&self) -> bool {
        self.upload == Upload::Done
    }

    fn poll_upload(
        &mut self,
        server: &mut ServerConnection,
        client: &mut ClientConnection,
        cx: &mut Context<'_>,
    ) -> Result<(), ForwardFault> {
        if let (Upload::Held, Some(patience)) = (self.upload, &mut self.patience)
            && patience.poll_expired(cx).is_ready()
        {
            // Many upstreams know nothing of the expectation.
            self.begin_upload(server);
        }
        if self.upload != Upload::Going {
            return Ok(());
        }
        match poll_copy(&mut server.conn, &mut client.conn, cx) {
            Poll::Ready(Ok(())) => self.upload = Upload::Done,
            Poll::Ready(Err(CopyFault::Sink(_))) => self.upload = Upload::Cut,
            Poll::Ready(Err(CopyFault::Source(fault))) => return Err(ForwardFault::RequestBody(fault)),
            Poll::Pending => {}
        }
        Ok(())
    }

    fn begin_upload(&mut self, server: &mut ServerConnection) {
        server.send_continue();
        self.upload = Upload::Going;
        self.patience = None;
    }

    fn passed_on(&mut self, server: &mut ServerConnection, client: &ClientConnection) {
        let Some(response) = client.response() else { return };
        server.send_interim(&response);
        if self.upload == Upload::Held && response.status == http::StatusCode::CONTINUE {
            self.begin_upload(server);
        }
    }

    /// An answer without the body that waits for it: a success may be an echo and wants it, anything else never will.
    fn answered(&mut self, client: &ClientConnection) {
        let success = client.response().is_some_and(|response| response.status.is_success());
        if self.upload == Upload::Held && !success {
            self.upload = Upload::Cut;
            self.patience = None;
        }
    }
}
