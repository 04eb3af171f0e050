//! Phase 5: what an answer's head says of its endpoint, and whether the answer is held until it is whole.

use std::time::Duration;

use eastway_core::head::ResponseHead;
use eastway_core::{LoadReport, Reason, Timestamp};
use eastway_resilience::{AttemptError, Outcome, backoff};

use super::Outbound;
use crate::record::Recorder;

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The HTTP status.
    pub status: u16,
    /// The `grpc-status`, of an answer that has nothing but a head.
    pub grpc: Option<u8>,
    /// What it says of the endpoint.
    pub outcome: Outcome,
    /// Read the answer to its end, which is not beyond so many bytes, before it is told with [`Outbound::answered`]: if its
    /// endpoint dies meanwhile, another attempt can be made.
    pub hold: Option<u64>,
    /// What its `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

impl<R: Recorder> Outbound<R> {
    /// Judges the head of an answer to the attempt under way, whose body is `length` bytes long if that is known.
    ///
    /// # Errors
    /// A node on the way refused the request, and nobody answered.
    pub fn judge(&self, head: &ResponseHead<'_>, length: Option<u64>, now: Timestamp) -> Result<Judged, AttemptError> {
        let Some(forward) = &self.forward else { return Err(AttemptError::said(Reason::Internal)) };
        // An application's own never gets here: its sidecar removes it.
        if let Some(reason) = head.fields.text("proxy-status").and_then(Reason::from_proxy_status) {
            return Err(AttemptError::said(reason));
        }
        let latency = now.since(forward.attempt.0);
        let grpc = head.grpc_status();
        let outcome = match grpc {
            Some(code) => Outcome::grpc_status(code, latency),
            None => Outcome::status(head.status, latency),
        };
        let load = head.fields.text("eastway-load").and_then(LoadReport::from_header);
        let limit = forward.policy.retries.held_response as u64;
        let small = length.is_some_and(|length| (1..=limit).contains(&length));
        Ok(Judged {
            status: head.status,
            grpc,
            outcome: outcome.with_load(load),
            hold: (small && forward.attempts.idempotent()).then_some(limit),
            retry_after: head.fields.text("retry-after").and_then(backoff::retry_after),
        })
    }
}
