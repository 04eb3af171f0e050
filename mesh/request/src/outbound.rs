//! The outbound side: a request of the application beside a sidecar, to wherever the mesh serves it.
//!
//! The phases, in order, a file each: `identify` which service is meant, `admit` the request within limits and through
//! its route's filters, send an `attempt`, `judge` what came of it, again elsewhere if that is safe, within the budget
//! and of use, and answer. The machine here says what comes next; its shell finds services, sends, waits and answers.
//! Opaque streams go the same way, and so does a gateway's stream to an endpoint ([`Outbound::exit`]).

mod admit;
mod attempt;
mod deadlines;
mod identify;
mod judge;
mod said;

use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Attempts, LocalityEndpoints, Outcome, Pick, Tried};
use eastway_core::head::{Edits, HttpVersion, MESH_PREFIX, RequestHead, ResponseHead};
use eastway_core::resource::ServicePort;
use eastway_core::trace::{TraceContext, TraceParent};
use eastway_core::{Authority, EndpointId, Reason, ServiceName, Timestamp};
use eastway_resilience::attempts::{AttemptEnd, Decision, Repeatable};
use eastway_resilience::deadline::Deadline;
use eastway_resilience::{AttemptError, Permit, Upload};

use crate::answer::{self, Answer};
use crate::record::{AttemptFacts, AttemptResult, Recorder, RequestRecord};
use crate::route::Route;
use crate::service::ServiceEntry;
use crate::traffic_policy::TrafficPolicy;
pub(crate) use attempt::SPOKEN;
use deadlines::Deadlines;
use eastway_core::Refusal;
pub use judge::Judged;
use said::FailedAttempt;

/// What holds for all requests of one node.
#[derive(Clone, Debug)]
pub struct OutboundOptions {
    /// The domain of the mesh's names.
    pub suffix: String,
    /// The own cluster.
    pub cluster: Arc<str>,
    /// Whether this proxy adds itself to `Via`.
    pub via: bool,
    /// How long an endpoint may take nothing of a request.
    pub idle: Duration,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Find this service, and tell with [`Outbound::resolved`].
    Resolve(ServiceName),
    /// Send the request to what was picked; in a remote locality, choose a session and bind the pick to its endpoint. Tell
    /// with [`Outbound::answered`], [`Outbound::opened`] or [`Outbound::failed`].
    Attempt(Pick),
    /// Wait for so long.
    Wait(Duration),
    /// Refuse the request. The record knows.
    Refuse(Refusal),
    /// Answer with the response that was kept last: see [`Outbound::answered`] and [`Outbound::fall_back`].
    FallBack,
}

/// What is known of the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyState {
    /// How far it has come.
    pub upload: Upload,
    /// It can be sent once more, or there is none.
    pub repeatable: bool,
    /// Why the caller failed to send it, if it did: then no endpoint is to blame.
    pub failure: Option<Reason>,
}

impl BodyState {
    /// There is no body.
    pub const NONE: Self = Self { upload: Upload::Complete(None), repeatable: true, failure: None };
}

/// What whoever sends an attempt needs to know of its request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service.
    pub entry: &'a Arc<ServiceEntry>,
    /// The service port that the caller asked for.
    pub port: u16,
    /// What to keep away from.
    pub tried: &'a Tried,
    /// Whether the request may be repeated without harm.
    pub idempotent: bool,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// The trace context that goes on.
    pub traceparent: TraceParent,
}

/// A stream that arrived at a gateway of the called cluster.
#[derive(Clone, Copy, Debug)]
pub struct Exit<'a> {
    /// The name that was asked for.
    pub authority: &'a str,
    /// The service, as callers of the wanted zone see it.
    pub entry: &'a Arc<ServiceEntry>,
    /// The service port that was asked for.
    pub port: u16,
    /// Endpoints to keep away from.
    pub exclude: &'a [EndpointId],
    /// The trace that the stream belongs to.
    pub parent: Option<TraceParent>,
}

/// An outbound request, from its head to its answer.
#[derive(Debug)]
pub struct Outbound<R: Recorder> {
    options: Arc<OutboundOptions>,
    context: RequestContext,
    record: RequestRecord<R>,
    next: Next,
    /// From admission on.
    forward: Option<Box<Forward>>,
}

/// What later phases need to know of a head that was read.
#[derive(Debug)]
struct RequestContext {
    /// Bytes both ways, or a request that asks for another protocol: they are counted as streams.
    long_lived: bool,
    /// Bytes both ways, of which nothing is sent before the way is open.
    stream: bool,
    idempotent: bool,
    version: HttpVersion,
    deadlines: Deadlines,
    trace: TraceContext,
    /// The changes of the head that hold for every attempt.
    edits: Edits,
}

impl RequestContext {
    fn new(head: &RequestHead<'_>, trace: TraceContext, edits: Edits) -> Self {
        Self {
            long_lived: head.is_connect() || head.upgrade,
            stream: head.is_connect(),
            idempotent: head.is_idempotent(),
            version: head.version,
            deadlines: Deadlines::stated(head),
            trace,
            edits,
        }
    }
}

/// What the machine waits to say.
#[derive(Debug)]
enum Next {
    Resolve(Authority),
    Wait(Duration),
    Pick,
    Refuse(Refusal),
    /// The same, after a wait.
    RefuseAfter(Refusal, Duration),
    FallBack,
    /// It is the shell's turn.
    Told,
}

/// A request on its way: where to, by which rules, and what came of it so far.
#[derive(Debug)]
struct Forward {
    entry: Arc<ServiceEntry>,
    /// Only that cluster, if the name says so.
    cluster: Option<Arc<str>>,
    port: u16,
    route: Option<Arc<Route>>,
    policy: TrafficPolicy,
    permit: Option<Permit>,
    attempts: Attempts,
    /// When it was admitted.
    began: Timestamp,
    /// When the attempt under way began, and its place in the trace.
    attempt: (Timestamp, TraceContext),
    said: Option<FailedAttempt>,
}

impl<R: Recorder> Outbound<R> {
    /// A request whose head has just been read.
    pub fn begin(
        recorder: &R,
        options: &Arc<OutboundOptions>,
        head: &RequestHead<'_>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut edits = Edits::new();
        // Only nodes of the mesh set these: an application's own are not believed.
        edits.drop_prefix(MESH_PREFIX);
        let parent = crate::trace::stated(head.fields, &mut edits);
        let trace = recorder.sample(parent, rng);
        let mut record = RequestRecord::begin(recorder, head, trace, None, now);
        let next = match identify::target(head, &options.suffix) {
            Ok(target) => {
                record.names(&target.service);
                Next::Resolve(target)
            }
            Err(reason) => Next::Refuse(reason.into()),
        };
        let context = RequestContext::new(head, trace, edits);
        Self { options: Arc::clone(options), context, record, next, forward: None }
    }

    /// A stream that a gateway leads to an endpoint of its own cluster, in the place of a sidecar there: nothing of it was
    /// sent yet, so another endpoint is as good, and a probe does no harm.
    pub fn exit(
        recorder: &R,
        options: &Arc<OutboundOptions>,
        exit: &Exit<'_>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let head = RequestHead {
            method: "CONNECT",
            target: "",
            authority: exit.authority,
            version: HttpVersion::Http11,
            upgrade: false,
            fields: &(),
        };
        let trace = recorder.sample(exit.parent, rng);
        let record = RequestRecord::begin(recorder, &head, trace, Some(exit.entry.service().name()), now);
        let mut context = RequestContext::new(&head, trace, Edits::new());
        context.idempotent = true;
        let mut attempts = Attempts::new(true, Deadline::NONE);
        attempts.avoid(exit.exclude);
        let forward = Forward {
            entry: Arc::clone(exit.entry),
            cluster: Some(Arc::clone(&options.cluster)),
            port: exit.port,
            route: None,
            policy: exit.entry.traffic_policy(),
            permit: None,
            attempts,
            began: now,
            attempt: (now, trace),
            said: None,
        };
        let (options, forward) = (Arc::clone(options), Some(Box::new(forward)));
        Self { options, context, record, next: Next::Pick, forward }
    }

    /// What to do next. After [`Step::Attempt`] and the last steps, it is the shell's turn to tell.
    pub fn step(&mut self, now: Timestamp, rng: &mut fastrand::Rng) -> Step {
        match std::mem::replace(&mut self.next, Next::Told) {
            Next::Resolve(target) => {
                let service = target.service.clone();
                self.next = Next::Resolve(target);
                Step::Resolve(service)
            }
            Next::Wait(wait) => {
                self.next = Next::Pick;
                Step::Wait(wait)
            }
            Next::RefuseAfter(refusal, wait) => {
                self.next = Next::Refuse(refusal);
                Step::Wait(wait)
            }
            Next::Pick => self.pick(now, rng),
            Next::FallBack => Step::FallBack,
            Next::Refuse(refusal) => self.refuse(refusal),
            // The shell asks although it has something to tell, which is a fault of ours.
            Next::Told => self.refuse(Reason::Internal.into()),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Step {
        self.record.refused(refusal.reason, refusal.status, refusal.grpc_status);
        Step::Refuse(refusal)
    }

    /// The service was found, or why it was not. `head` is the same as in the beginning.
    pub fn resolved(
        &mut self,
        found: Result<Arc<ServiceEntry>, Reason>,
        head: &RequestHead<'_>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) {
        let Next::Resolve(target) = std::mem::replace(&mut self.next, Next::Told) else { return };
        let admitted = found.map_err(Refusal::from).and_then(|entry| {
            let destination = admit::destination(&entry, target, &self.options.cluster)?;
            entry.touch();
            self.record.known();
            Ok((entry, destination))
        });
        self.next = match admitted {
            Ok((entry, destination)) => self.admit(entry, destination, head, now, rng),
            Err(refusal) => Next::Refuse(refusal),
        };
    }

    /// What whoever sends the attempt under way needs to know; `None` before there is one.
    pub fn call(&self) -> Option<Call<'_>> {
        let forward = self.forward.as_deref()?;
        Some(Call {
            entry: &forward.entry,
            port: forward.port,
            tried: forward.attempts.tried(),
            idempotent: forward.attempts.idempotent(),
            attempt: forward.attempts.begun(),
            traceparent: forward.attempt.1.traceparent(),
        })
    }

    /// The service's port that it goes to, once that is known.
    pub fn port(&self) -> Option<ServicePort> {
        let forward = self.forward.as_deref()?;
        forward.entry.port(Some(forward.port))
    }

    /// The record of the request.
    pub fn record(&self) -> &RequestRecord<R> {
        &self.record
    }

    fn pick(&mut self, now: Timestamp, rng: &mut fastrand::Rng) -> Step {
        let Some(forward) = &mut self.forward else { return self.refuse(Reason::Internal.into()) };
        if forward.attempts.begun() == 0 && self.context.deadlines.are_over(now) {
            // Only a filter can have waited for so long, and no endpoint is to be charged with that.
            let timeout = Reason::ResponseTimeout;
            let refusal = Refusal::from(Reason::FaultInjected);
            return self.refuse(refusal.with_status(timeout.status(), timeout.grpc_status()));
        }
        let (entry, cluster) = (&forward.entry, forward.cluster.as_deref());
        match forward.attempts.pick(entry.service(), cluster, rng, now) {
            Ok(pick) => {
                let trace = self.context.trace.child(rng);
                forward.attempt = (now, trace);
                self.record.begin_attempt(AttemptFacts {
                    started: now,
                    trace,
                    number: forward.attempts.begun(),
                    probe: pick.probe,
                    zone: pick.locality.zone.clone(),
                    level: pick.locality.level,
                    endpoint: None,
                    status: None,
                    reason: None,
                    result: AttemptResult::Cancelled,
                });
                Step::Attempt(pick)
            }
            // There is nowhere else to go: the last attempt's own failure says more.
            Err(none) => {
                if forward.attempts.begun() == 0
                    && let Some(nearest) = forward.nearest()
                {
                    self.record.place(&nearest.zone, nearest.level);
                }
                match forward.said.take() {
                    Some(FailedAttempt { answered: true, .. }) => Step::FallBack,
                    Some(said) => self.refuse(said.reason.into()),
                    None => self.refuse(none.reason.into()),
                }
            }
        }
    }

    /// An answer to the attempt at `pick` came, and was judged. `Some` if it passes to the caller, with changes of its head;
    /// otherwise keep it as the answer to fall back on, in place of any that was kept before: another may be better.
    pub fn answered(
        &mut self,
        pick: Pick,
        judged: &Judged,
        body: &BodyState,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Option<(Edits, Answer<R>)> {
        let forward = self.forward.as_deref_mut()?;
        tell_endpoint(&mut self.record, &pick);
        self.record.attempt_answered(judged.status);
        let ended = forward.attempts.answered(forward.entry.service(), &pick, judged.status, judged.outcome, now);
        let Some(end) = ended else {
            let attempt = answer::Attempt { pick, outcome: judged.outcome, grpc: judged.grpc };
            return Some(self.pass(judged.status, judged.grpc, Some(attempt)));
        };
        self.record.attempt_ended(true);
        let end = AttemptEnd { retry_after: judged.retry_after, ..end };
        self.again(end, FailedAttempt::answered(), body, now, rng);
        None
    }

    /// The way for an opaque stream to what was picked is open.
    pub fn opened(&mut self, pick: Pick, now: Timestamp) -> Option<Answer<R>> {
        let forward = self.forward.as_deref_mut()?;
        tell_endpoint(&mut self.record, &pick);
        let outcome = Outcome::success(now.since(forward.attempt.0));
        forward.attempts.answered(forward.entry.service(), &pick, OK, outcome, now);
        forward.entry.service().finish(&pick, outcome, now);
        self.record.attempt_answered(OK);
        self.record.attempt_ended(false);
        // The pick counts at its endpoint for as long as the stream is open.
        Some(self.pass(OK, None, Some(answer::Attempt { pick, outcome, grpc: None })).1)
    }

    /// The answer that was kept passes to the caller, with changes of its head.
    pub fn fall_back(&mut self, head: &ResponseHead<'_>) -> Option<(Edits, Answer<R>)> {
        self.forward.is_some().then(|| self.pass(head.status, head.grpc_status(), None))
    }

    fn pass(&mut self, status: u16, grpc: Option<u8>, attempt: Option<answer::Attempt>) -> (Edits, Answer<R>) {
        self.record.answered(status);
        if let Some(code) = grpc {
            self.record.grpc_status(code);
        }
        let mut edits = Edits::new();
        edits.drop_prefix(MESH_PREFIX);
        let record = self.record.take();
        let Some(forward) = self.forward.take() else { return (edits, Answer::inbound(record)) };
        if let Some(route) = &forward.route {
            route.filters.iter().rev().for_each(|filter| filter.response(&mut edits));
        }
        if self.options.via {
            edits.append("via", attempt::via(HttpVersion::Http11));
        }
        (edits, Answer::outbound(record, forward.entry, forward.permit, attempt))
    }

    /// The attempt at `pick` got no usable answer.
    pub fn failed(
        &mut self,
        pick: &Pick,
        error: AttemptError,
        body: &BodyState,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) {
        let error = self.blame(error, body);
        let Some(forward) = self.forward.as_deref_mut() else { return };
        tell_endpoint(&mut self.record, pick);
        self.record.attempt_failed(error.reason);
        let latency = now.since(forward.attempt.0);
        let end = forward.attempts.failed(forward.entry.service(), pick, &error, latency, now);
        self.again(end, FailedAttempt::unanswered(error.reason), body, now, rng);
    }

    /// Another attempt, or none.
    fn again(
        &mut self,
        end: AttemptEnd,
        said: FailedAttempt,
        body: &BodyState,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) {
        let Some(forward) = self.forward.as_deref_mut() else { return };
        let said = said.over(forward.said.take());
        let deadline = self.context.deadlines.postponed(&forward.policy, forward.began, body.upload, now);
        forward.attempts.postpone(deadline);
        // A body that stalls does so at every endpoint.
        let kept = body.repeatable && said.reason != Reason::BodyTimeout;
        let end = if kept { end } else { AttemptEnd { repeatable: Repeatable::Never, ..end } };
        let (service, policy) = (forward.entry.service(), &forward.policy.retries);
        self.next = match forward.attempts.next(service, policy, &end, rng, now) {
            Decision::Retry { after } if after.is_zero() => Next::Pick,
            Decision::Retry { after } => Next::Wait(after),
            Decision::GiveUp(_) if said.answered => Next::FallBack,
            Decision::GiveUp(_) => Next::Refuse(said.reason.into()),
        };
        forward.said = Some(said);
    }
}

impl Forward {
    /// The nearest place that was asked for.
    fn nearest(&self) -> Option<Arc<LocalityEndpoints>> {
        let localities = self.entry.service().localities().into_iter().map(|(locality, _)| locality);
        let mut wanted = localities
            .filter(|locality| self.cluster.as_deref().is_none_or(|cluster| *cluster == *locality.zone.cluster));
        wanted.next()
    }
}

fn tell_endpoint<R: Recorder>(record: &mut RequestRecord<R>, pick: &Pick) {
    if let Some(endpoint) = pick.endpoint() {
        record.endpoint(&endpoint.id);
    }
}

const OK: u16 = 200;

#[cfg(test)]
mod tests;
