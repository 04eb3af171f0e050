//! By when a request must have its answer: what its caller states, and what this node allows.

use std::time::Duration;

use eastway_core::Timestamp;
use eastway_core::head::{Edits, RequestHead};
use eastway_resilience::Upload;
use eastway_resilience::deadline::{Deadline, format_grpc_timeout, parse_grpc_timeout, parse_timeout_ms};

use crate::traffic_policy::TrafficPolicy;

const GRPC_TIMEOUT: &str = "grpc-timeout";
/// The time that the caller gives for the response, in milliseconds.
const EXPECTED_TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";

/// The deadlines of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    /// What a gRPC caller gives for its whole answer.
    grpc: Option<Duration>,
    /// What another caller gives for the answer's beginning.
    expected: Option<Duration>,
    /// The moment that either comes to.
    wanted: Deadline,
}

impl Deadlines {
    /// Those that the head states.
    pub(super) fn stated(head: &RequestHead<'_>) -> Self {
        let grpc = head.fields.text(GRPC_TIMEOUT).and_then(parse_grpc_timeout);
        let expected = head.fields.text(EXPECTED_TIMEOUT).and_then(parse_timeout_ms);
        Self { grpc, expected, wanted: Deadline::NONE }
    }

    /// The time that the caller states begins to run. Streams live by idleness.
    pub(super) fn begin(&mut self, now: Timestamp, stream: bool) {
        let stated = self.grpc.or(self.expected).filter(|_| !stream);
        self.wanted = stated.map_or(Deadline::NONE, |after| Deadline::after(after, now));
    }

    /// By when the first byte of the response must be there, of a request that goes on at `began`.
    pub(super) fn first(&self, policy: &TrafficPolicy, began: Timestamp) -> Deadline {
        Deadline::after(policy.request, began).or_earlier(self.wanted)
    }

    /// Whether the time that the caller stated is over.
    pub(super) fn are_over(&self, now: Timestamp) -> bool {
        self.wanted.passed(now)
    }

    /// The same after an attempt: the node's own limit counts from the end of the request.
    pub(super) fn postponed(
        &self,
        policy: &TrafficPolicy,
        began: Timestamp,
        upload: Upload,
        now: Timestamp,
    ) -> Deadline {
        let since = upload.complete_for(now.since(began)).unwrap_or_default();
        Deadline::after(policy.request.saturating_sub(since), now).or_earlier(self.wanted)
    }

    /// What is left of the time that the caller stated.
    pub(super) fn left(&self, now: Timestamp) -> Option<Duration> {
        self.wanted.remaining(now)
    }

    /// The next hop learns how much time is left of what the caller stated. A gRPC deadline is for the whole answer, so this
    /// node's own limit, which is for its beginning, has no part in it: streams without a deadline stay without one.
    pub(super) fn pass_on(&self, edits: &mut Edits, now: Timestamp) {
        let Some(left) = self.left(now) else { return };
        if self.grpc.is_some() {
            edits.set(GRPC_TIMEOUT, format_grpc_timeout(left));
        } else {
            edits.set(EXPECTED_TIMEOUT, left.as_millis().max(1).to_string());
        }
    }
}
