//! An answer on its way to the caller, or a stream that is open: what counts it is released when it ends, whichever way.

use std::sync::Arc;

use eastway_balance::{LocalityEndpoints, Pick};
use eastway_core::head::{Fields, grpc_status};
use eastway_core::{Reason, Timestamp};
use eastway_resilience::{Outcome, Permit};

use crate::record::{Recorder, RequestFacts, RequestRecord};
use crate::service::ServiceEntry;

/// How an answer, or a stream, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// All of it has passed, trailers included.
    Complete,
    /// It broke off, for this reason.
    Failed(Reason),
    /// Its reader lost interest before the end.
    Dropped,
}

/// An answer on its way. Tell it what passes, and how it ended.
#[derive(Debug)]
pub struct Answer<R: Recorder> {
    record: RequestRecord<R>,
    /// What an outbound request holds.
    held: Option<Held>,
}

/// What is held for an outbound request until its answer has passed.
#[derive(Debug)]
struct Held {
    entry: Arc<ServiceEntry>,
    /// A place among the requests of the service.
    _permit: Option<Permit>,
    /// The attempt that brought the answer; `None` if it has ended before.
    attempt: Option<Attempt>,
}

/// An attempt whose answer passes.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) pick: Pick,
    pub(crate) outcome: Outcome,
    /// The `grpc-status` of the trailers.
    pub(crate) grpc: Option<u8>,
}

impl<R: Recorder> Answer<R> {
    /// An inbound answer.
    pub(crate) const fn inbound(record: RequestRecord<R>) -> Self {
        Self { record, held: None }
    }

    /// An outbound answer.
    pub(crate) const fn outbound(
        record: RequestRecord<R>,
        entry: Arc<ServiceEntry>,
        permit: Option<Permit>,
        attempt: Option<Attempt>,
    ) -> Self {
        Self { record, held: Some(Held { entry, _permit: permit, attempt }) }
    }

    /// What is known of its request.
    pub fn facts(&self) -> Option<&RequestFacts> {
        self.record.facts()
    }

    /// What serves it, where that was chosen here.
    pub fn pick(&self) -> Option<&Pick> {
        Some(&self.held.as_ref()?.attempt.as_ref()?.pick)
    }

    /// Whether its service has nearer endpoints by now to which all new requests go that would have gone where it goes.
    pub fn is_left_behind(&self) -> bool {
        let Some((held, pick)) = self.held.as_ref().zip(self.pick()) else { return false };
        let localities = held.entry.service().localities();
        let serves = |is_it: &dyn Fn(&LocalityEndpoints) -> bool| {
            localities.iter().any(|(locality, share)| *share > 0 && is_it(locality))
        };
        serves(&|locality| locality.level < pick.locality.level)
            && !serves(&|locality| locality.zone == pick.locality.zone)
    }

    /// So many bytes of the answer have passed.
    pub fn data(&mut self, bytes: usize) {
        self.record.received(bytes as u64);
    }

    /// So many more bytes of a stream have passed.
    pub fn streamed(&mut self, sent: u64, received: u64) {
        self.record.streamed(sent, received);
    }

    /// The trailers have passed.
    pub fn trailers(&mut self, trailers: &dyn Fields) {
        let Some(code) = grpc_status(trailers) else { return };
        self.record.grpc_status(code);
        if let Some(attempt) = self.held.as_mut().and_then(|held| held.attempt.as_mut()) {
            attempt.grpc = Some(code);
        }
    }

    /// It has ended. An answer that is dropped without a word counts as one that its caller let go.
    pub fn end(&mut self, end: AnswerEnd, now: Timestamp) {
        if let Some(held) = self.held.take() {
            held.end(end, &mut self.record, now);
        }
        let mut record = self.record.take();
        record.ended(match end {
            AnswerEnd::Complete => None,
            AnswerEnd::Failed(reason) => Some(reason),
            AnswerEnd::Dropped => Some(Reason::CallerGone),
        });
    }
}

impl Held {
    fn end<R: Recorder>(mut self, end: AnswerEnd, record: &mut RequestRecord<R>, now: Timestamp) {
        let Some(attempt) = self.attempt.take() else { return };
        let outcome = match (end, attempt.grpc) {
            (AnswerEnd::Failed(reason), _) => Outcome::failed(reason),
            (AnswerEnd::Complete, Some(code)) => {
                Outcome::grpc_status(code, attempt.outcome.latency.unwrap_or_default())
            }
            // Whoever stops reading got what it wanted: the head said how the endpoint does.
            (AnswerEnd::Complete | AnswerEnd::Dropped, _) => attempt.outcome,
        };
        match end {
            AnswerEnd::Complete => record.attempt_ended(outcome.failure().is_some()),
            AnswerEnd::Failed(reason) => record.attempt_failed(reason),
            // Nobody knows how it would have ended.
            AnswerEnd::Dropped => {}
        }
        self.entry.service().finish(&attempt.pick, outcome, now);
    }
}
