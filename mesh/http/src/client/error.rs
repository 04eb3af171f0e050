//! What can go wrong between sending a request and receiving the head of its response.

use std::error::Error;
use std::fmt;

use eastway_core::Reason;

use crate::h2_cause::find_h2;
use crate::message::Request;
use crate::sweeper::Elapsed;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendFailure {
    /// The connection had ended, or was ending, before the request went out.
    Closed,
    /// The peer said that it did not process the request: GOAWAY, or `REFUSED_STREAM`.
    Refused,
    /// The connection or the stream ended before the response began.
    Reset,
    /// The peer did not answer our pings.
    Unresponsive,
    /// The response breaks HTTP's rules.
    Protocol,
    /// The request's own body failed, for this reason: the caller is to blame.
    RequestBody(Reason),
    /// The response did not begin in time.
    Timeout,
    /// The request could not be put on the wire; a fault of ours.
    Internal,
}

/// A request that got no response.
pub struct SendError(Box<Inner>);

struct Inner {
    failure: SendFailure,
    reused: bool,
    request: Option<Request>,
    source: Option<hyper::Error>,
}

impl SendError {
    pub(super) fn new(failure: SendFailure, reused: bool) -> Self {
        Self(Box::new(Inner { failure, reused, request: None, source: None }))
    }

    pub(super) fn unsent(failure: SendFailure, reused: bool, request: Request) -> Self {
        Self(Box::new(Inner { failure, reused, request: Some(request), source: None }))
    }

    pub(super) fn classified(
        error: hyper::Error,
        request: Option<Request>,
        fault: Option<Reason>,
        reused: bool,
    ) -> Self {
        let failure = match (&request, fault) {
            (_, Some(reason)) => SendFailure::RequestBody(reason),
            (Some(_), None) => SendFailure::Closed,
            (None, None) => classify(&error),
        };
        Self(Box::new(Inner { failure, reused, request, source: Some(error) }))
    }

    /// What failed.
    pub fn failure(&self) -> SendFailure {
        self.0.failure
    }

    /// Whether the connection had carried a request before. Such a connection may have been closed by an idle limit of
    /// the peer: then nobody is to blame.
    pub fn is_reused(&self) -> bool {
        self.0.reused
    }

    /// Whether the peer surely did not process the request, so that repeating it is always safe.
    pub fn is_unprocessed(&self) -> bool {
        self.0.request.is_some() || matches!(self.0.failure, SendFailure::Closed | SendFailure::Refused)
    }

    /// The request, untouched, if not a byte of it was sent.
    pub fn take_request(&mut self) -> Option<Request> {
        self.0.request.take()
    }

    /// The reason towards the caller, if the request is not repeated.
    pub fn reason(&self) -> Reason {
        match self.0.failure {
            SendFailure::Closed | SendFailure::Refused | SendFailure::Reset | SendFailure::Unresponsive => {
                Reason::UpstreamReset
            }
            SendFailure::Protocol => Reason::UpstreamProtocol,
            SendFailure::RequestBody(reason) => reason,
            SendFailure::Timeout => Reason::ResponseTimeout,
            SendFailure::Internal => Reason::Internal,
        }
    }
}

/// The response did not begin in time. Whether the connection was used before is not known here.
impl From<Elapsed> for SendError {
    fn from(_: Elapsed) -> Self {
        Self::new(SendFailure::Timeout, false)
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("failure", &self.0.failure)
            .field("reused", &self.0.reused)
            .field("unsent", &self.0.request.is_some())
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.failure {
            SendFailure::Closed => "the connection ended before the request was sent",
            SendFailure::Refused => "the peer did not process the request",
            SendFailure::Reset => "the peer ended the request before its response began",
            SendFailure::Unresponsive => "the peer does not answer pings",
            SendFailure::Protocol => "the response breaks HTTP's rules",
            SendFailure::RequestBody(_) => "the request's body failed",
            SendFailure::Timeout => "the response did not begin in time",
            SendFailure::Internal => "the request could not be sent",
        })
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|error| error as _)
    }
}

fn classify(error: &hyper::Error) -> SendFailure {
    if error.is_timeout() {
        return SendFailure::Unresponsive;
    }
    if let Some(h2) = find_h2(error) {
        return classify_h2(h2);
    }
    if error.is_parse() {
        return SendFailure::Protocol;
    }
    // A dispatch task that is gone counts as a user error in hyper's book, but the connection is what ended.
    if error.is_user() && !error.is_canceled() && Error::source(error).is_none() {
        return SendFailure::Internal;
    }
    SendFailure::Reset
}

fn classify_h2(error: &h2::Error) -> SendFailure {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() {
        // A remote GOAWAY fails only the streams that it says were not processed.
        return if refused || error.is_go_away() { SendFailure::Refused } else { SendFailure::Reset };
    }
    match error.reason() {
        // The library itself found fault with what the peer sent.
        Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR | h2::Reason::COMPRESSION_ERROR) => {
            SendFailure::Protocol
        }
        _ => SendFailure::Reset,
    }
}
