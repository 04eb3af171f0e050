//! Phase 4: the head of one attempt, and how long it is waited for.

use std::time::Duration;

use eastway_core::head::{Edits, HttpVersion};
use eastway_core::{Reason, Timestamp};
use eastway_resilience::{AttemptError, Fault, Patience, Waited};

use super::{BodyState, Outbound};
use crate::record::Recorder;

/// The HTTP version that a caller's application spoke, from its sidecar to the called one, where the session between them
/// speaks another.
pub(crate) const SPOKEN: &str = "eastway-spoken";

impl<R: Recorder> Outbound<R> {
    /// The changes of the request's head for the attempt under way.
    pub fn edits(&self, now: Timestamp) -> Edits {
        let mut edits = self.context.edits.clone();
        let Some(forward) = &self.forward else { return edits };
        // What connections between sidecars speak is not what the application does: the called sidecar is told what its own may
        // expect.
        if self.context.version < HttpVersion::Http2 {
            edits.set(SPOKEN, "http/1.1");
        }
        crate::trace::pass_on(&forward.attempt.1, &mut edits);
        if self.options.via {
            edits.append("via", via(self.context.version));
        }
        self.context.deadlines.pass_on(&mut edits, now);
        edits
    }

    /// How long to wait for the answer of the attempt under way until this is asked again.
    ///
    /// # Errors
    /// The time is over: the attempt has failed.
    pub fn patience(&self, body: &BodyState, now: Timestamp) -> Result<Duration, AttemptError> {
        let Some(forward) = &self.forward else { return Err(AttemptError::said(Reason::Internal)) };
        let patience =
            Patience { request: forward.policy.request, per_try: forward.policy.per_try, idle: self.options.idle };
        let left = patience.left(&Waited {
            in_all: now.since(forward.began),
            this_try: now.since(forward.attempt.0),
            stated: self.context.deadlines.left(now),
            upload: body.upload,
        });
        if left.is_zero() { Err(AttemptError::said(Reason::ResponseTimeout)) } else { Ok(left) }
    }

    /// The error, with whom it is charged to: if the caller's own body failed, no endpoint is to blame. Of a stream that was
    /// not opened nothing was sent.
    pub(super) fn blame(&self, error: AttemptError, body: &BodyState) -> AttemptError {
        let error = match body.failure {
            Some(reason) if error.fault != Fault::Silent => AttemptError::said(reason).blameless(),
            _ => error,
        };
        if self.context.stream {
            return AttemptError { progress: error.progress.min(eastway_resilience::Progress::Unsent), ..error };
        }
        error
    }
}

/// This proxy, of a message that was received in `version` (RFC 9110, section 7.6.3). The called sidecar adds nothing: the
/// two are one proxy, in two places.
pub(super) const fn via(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Http10 => "1.0 eastway",
        HttpVersion::Http11 => "1.1 eastway",
        HttpVersion::Http2 => "2.0 eastway",
    }
}
