//! The record of a request and of its attempts: plain facts, handed to a [`Recorder`] when they end.
//!
//! A [`RequestRecord`] is told what happens; its `Drop` hands it over, so that a request cannot end without: one that its
//! caller cancelled, whose answer broke off or that was refused is recorded like any other, once. Nothing here decides
//! anything, and nothing here knows what becomes of a record.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use eastway_core::head::{HttpVersion, RequestHead};
use eastway_core::trace::{TraceContext, TraceParent};
use eastway_core::{EndpointId, Reason, ServiceName, Timestamp, ZoneId};

/// Where records go: metrics, spans and the access log of a node, or the counts of a simulation. One for each connection
/// or worker; cheap to clone.
pub trait Recorder: Clone {
    /// What counts a request or an attempt while it is under way. It comes back when that has ended.
    type Counted;

    /// Decides whether the request is traced, and draws the id of this hop's span.
    fn sample(&self, parent: Option<TraceParent>, rng: &mut fastrand::Rng) -> TraceContext;

    /// Whether somebody wants to know more than counters do of a request with this place in its trace.
    fn wants_details(&self, trace: &TraceContext) -> bool;

    /// A request begins.
    fn begin(&self, request: &RequestFacts) -> Self::Counted;

    /// An attempt begins.
    fn begin_attempt(&self, attempt: &AttemptFacts, request: &RequestFacts) -> Self::Counted;

    /// An attempt has ended.
    fn end_attempt(&self, counted: Self::Counted, attempt: &AttemptFacts, request: &RequestFacts);

    /// A request has ended. Its attempts have before.
    fn end(&self, counted: Self::Counted, request: &RequestFacts);

    /// So many more bytes of a stream have passed, which is still open.
    fn streamed(&self, request: &RequestFacts, sent: u64, received: u64);
}

/// Nobody records anything. Traces are taken for recorded elsewhere, so that attempts draw no ids.
impl Recorder for () {
    type Counted = ();

    fn sample(&self, parent: Option<TraceParent>, rng: &mut fastrand::Rng) -> TraceContext {
        TraceContext::begin(parent, true, false, rng)
    }

    fn wants_details(&self, _: &TraceContext) -> bool {
        false
    }

    fn begin(&self, _: &RequestFacts) {}

    fn begin_attempt(&self, _: &AttemptFacts, _: &RequestFacts) {}

    fn end_attempt(&self, (): (), _: &AttemptFacts, _: &RequestFacts) {}

    fn end(&self, (): (), _: &RequestFacts) {}

    fn streamed(&self, _: &RequestFacts, _: u64, _: u64) {}
}

/// What is known of a request.
#[derive(Debug)]
pub struct RequestFacts {
    /// When it came.
    pub started: Timestamp,
    /// Its place in its trace.
    pub trace: TraceContext,
    /// The caller speaks gRPC.
    pub is_grpc: bool,
    /// The service that it names.
    pub service: Option<ServiceName>,
    /// The service is one that the mesh knows: only then may its name become a label.
    pub known: bool,
    /// Where the last attempt went, or would have gone, and its failover level.
    pub place: Option<(ZoneId, usize)>,
    /// The status of the answer that was begun.
    pub status: Option<u16>,
    /// Why it was refused, or its answer broke off.
    pub reason: Option<Reason>,
    /// The answer has come to its end.
    pub complete: bool,
    /// The `grpc-status` of the answer.
    pub grpc_status: Option<u8>,
    /// Bytes of the request's body, or of the stream towards the destination.
    pub sent: Rc<Cell<u64>>,
    /// Bytes of the answer's body, or of the stream from the destination.
    pub received: u64,
    /// What nobody pays for who does not want it.
    pub details: Option<Box<Details>>,
}

impl RequestFacts {
    /// Why it had no good end. Whoever lets go of a request before its end, without a word, is its caller.
    pub fn failure(&self) -> Option<Reason> {
        self.reason.or_else(|| (!self.complete).then_some(Reason::CallerGone))
    }
}

/// A request's head, and its attempts that have ended.
#[derive(Debug)]
pub struct Details {
    /// As written.
    pub method: String,
    /// Without the query, which may hold what nobody must read; empty for CONNECT.
    pub path: String,
    /// HOST or HOST:PORT.
    pub authority: String,
    /// The version that the caller speaks.
    pub version: HttpVersion,
    /// In order.
    pub attempts: Vec<AttemptFacts>,
}

/// What is known of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptFacts {
    /// When it began.
    pub started: Timestamp,
    /// Its place in the trace.
    pub trace: TraceContext,
    /// Which attempt of its request it is, from 1.
    pub number: u32,
    /// It tries something half-open.
    pub probe: bool,
    /// Where it goes.
    pub zone: ZoneId,
    /// The failover level of that locality.
    pub level: usize,
    /// The endpoint, once one was chosen.
    pub endpoint: Option<EndpointId>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// Why it got no answer, or the answer broke off.
    pub reason: Option<Reason>,
    /// How it ended.
    pub result: AttemptResult,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The endpoint answered well.
    Success,
    /// It did not.
    Failure,
    /// The caller went away before that was known.
    Cancelled,
}

/// What becomes of one request. Dropping it hands it to its [`Recorder`].
///
/// An empty one, which is what [`RequestRecord::take`] leaves behind, is told everything in vain and is handed to nobody.
pub struct RequestRecord<R: Recorder>(Option<Box<Open<R>>>);

struct Open<R: Recorder> {
    recorder: R,
    facts: RequestFacts,
    counted: Option<R::Counted>,
    attempt: Option<(AttemptFacts, R::Counted)>,
}

impl<R: Recorder> RequestRecord<R> {
    /// A request whose head has just been read. `service` is the one that it can only be for, if that is known.
    pub fn begin(
        recorder: &R,
        head: &RequestHead<'_>,
        trace: TraceContext,
        service: Option<&ServiceName>,
        now: Timestamp,
    ) -> Self {
        let details = recorder.wants_details(&trace).then(|| {
            Box::new(Details {
                method: head.method.to_owned(),
                path: if head.is_connect() { String::new() } else { head.path().to_owned() },
                authority: head.authority.to_owned(),
                version: head.version,
                attempts: Vec::new(),
            })
        });
        let facts = RequestFacts {
            started: now,
            trace,
            is_grpc: head.is_grpc(),
            service: service.cloned(),
            known: service.is_some(),
            place: None,
            status: None,
            reason: None,
            complete: false,
            grpc_status: None,
            sent: Rc::default(),
            received: 0,
            details,
        };
        let counted = Some(recorder.begin(&facts));
        Self(Some(Box::new(Open { recorder: recorder.clone(), facts, counted, attempt: None })))
    }

    /// The record, for whoever sees the request's end.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// What is known so far; `None` of an empty record.
    pub fn facts(&self) -> Option<&RequestFacts> {
        self.0.as_deref().map(|open| &open.facts)
    }

    fn tell(&mut self, what: impl FnOnce(&mut RequestFacts)) {
        if let Some(open) = &mut self.0 {
            what(&mut open.facts);
        }
    }

    /// Whether anybody wants to know how many bytes passed.
    pub fn wants_bytes(&self) -> bool {
        self.facts().is_some_and(|facts| facts.details.is_some())
    }

    /// Counts the bytes that go towards the destination.
    pub fn counts_sent(&self) -> Rc<Cell<u64>> {
        self.facts().map(|facts| Rc::clone(&facts.sent)).unwrap_or_default()
    }

    /// The request names this service.
    pub fn names(&mut self, service: &ServiceName) {
        self.tell(|facts| facts.service = Some(service.clone()));
    }

    /// The mesh knows that service.
    pub fn known(&mut self) {
        self.tell(|facts| facts.known = true);
    }

    /// The request went, or would have gone, to the locality of `zone`.
    pub fn place(&mut self, zone: &ZoneId, level: usize) {
        self.tell(|facts| facts.place = Some((zone.clone(), level)));
    }

    /// An attempt begins. The one before it has ended: as cancelled, if nobody said how.
    pub fn begin_attempt(&mut self, attempt: AttemptFacts) {
        self.place(&attempt.zone, attempt.level);
        self.end_attempt();
        if let Some(open) = &mut self.0 {
            let counted = open.recorder.begin_attempt(&attempt, &open.facts);
            open.attempt = Some((attempt, counted));
        }
    }

    /// The attempt under way went to this endpoint.
    pub fn endpoint(&mut self, endpoint: &EndpointId) {
        self.tell_attempt(|attempt| attempt.endpoint = Some(endpoint.clone()));
    }

    /// The head of an answer to the attempt under way is there. How it ends is known at the answer's end.
    pub fn attempt_answered(&mut self, status: u16) {
        self.tell_attempt(|attempt| attempt.status = Some(status));
    }

    /// The attempt under way has ended with an answer, which tells that the endpoint failed, or does not.
    pub fn attempt_ended(&mut self, failed: bool) {
        let result = if failed { AttemptResult::Failure } else { AttemptResult::Success };
        self.tell_attempt(|attempt| attempt.result = result);
        self.end_attempt();
    }

    /// The attempt under way has ended without a whole answer.
    pub fn attempt_failed(&mut self, reason: Reason) {
        let cancelled = reason == Reason::CallerGone;
        self.tell_attempt(|attempt| {
            attempt.result = if cancelled { AttemptResult::Cancelled } else { AttemptResult::Failure };
            attempt.reason = Some(reason);
        });
        self.end_attempt();
    }

    fn tell_attempt(&mut self, what: impl FnOnce(&mut AttemptFacts)) {
        if let Some((attempt, _)) = self.0.as_mut().and_then(|open| open.attempt.as_mut()) {
            what(attempt);
        }
    }

    fn end_attempt(&mut self) {
        if let Some(open) = &mut self.0 {
            open.end_attempt();
        }
    }

    /// The head of the answer passes. What comes of the rest is told by [`RequestRecord::ended`].
    pub fn answered(&mut self, status: u16) {
        self.tell(|facts| facts.status = Some(status));
    }

    /// The request was refused, and that is its answer.
    pub fn refused(&mut self, reason: Reason, status: u16, grpc_status: u8) {
        self.tell(|facts| {
            facts.status = Some(status);
            facts.reason = Some(reason);
            facts.grpc_status = facts.is_grpc.then_some(grpc_status);
            facts.complete = true;
        });
    }

    /// The answer has this `grpc-status`.
    pub fn grpc_status(&mut self, code: u8) {
        self.tell(|facts| facts.grpc_status = Some(code));
    }

    /// So many bytes of the answer came from the destination.
    pub fn received(&mut self, bytes: u64) {
        self.tell(|facts| facts.received += bytes);
    }

    /// So many more bytes of a stream have passed, which is still open: metrics count them at once.
    pub fn streamed(&mut self, sent: u64, received: u64) {
        let Some(open) = &mut self.0 else { return };
        open.facts.sent.set(open.facts.sent.get() + sent);
        open.facts.received += received;
        if sent + received > 0 {
            open.recorder.streamed(&open.facts, sent, received);
        }
    }

    /// The answer, or the stream, has ended: well, or for this reason.
    pub fn ended(&mut self, reason: Option<Reason>) {
        self.tell(|facts| {
            facts.complete = reason.is_none();
            facts.reason = reason;
        });
    }
}

impl<R: Recorder> fmt::Debug for RequestRecord<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestRecord").field(&self.facts()).finish()
    }
}

impl<R: Recorder> Open<R> {
    fn end_attempt(&mut self) {
        let Some((attempt, counted)) = self.attempt.take() else { return };
        self.recorder.end_attempt(counted, &attempt, &self.facts);
        if let Some(details) = &mut self.facts.details {
            details.attempts.push(attempt);
        }
    }
}

impl<R: Recorder> Drop for RequestRecord<R> {
    fn drop(&mut self) {
        let Some(mut open) = self.0.take() else { return };
        open.end_attempt();
        if let Some(counted) = open.counted.take() {
            open.recorder.end(counted, &open.facts);
        }
    }
}
