//! Phases 4 and 5: pick an endpoint, send the request there, and judge what came of it; again elsewhere, if that is
//! safe, within the budget and of use.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Attempts, LocalityEndpoints, Pick};
use eastway_core::{LoadReport, Reason, Timestamp};
use eastway_http::body::{End, Observer, Upload, held};
use eastway_http::{Body, Head, Kept};
use eastway_resilience::attempts::{AttemptEnd, Decision};
use eastway_resilience::deadline::{Deadline, format_grpc_timeout, parse_grpc_timeout, parse_timeout_ms};
use eastway_resilience::{Failed, Outcome, backoff};
use eastway_runtime::clock;
use eastway_telemetry::trace::TraceContext;
use http::header::HeaderValue;
use http::{HeaderMap, Request, Response, Version, request};

use super::Route;
use super::patience::{Patience, Waited};
use super::said::Said;
use crate::exchange::{add_via, asked, grpc_status, pass_on};
use crate::record::{AttemptRecord, Going, RequestRecord};
use crate::services::Entry;
use crate::traffic_policy::TrafficPolicy;
use crate::upstream::{self, Call, silence};
use crate::worker::Worker;

/// The time that the caller gives for the response, in milliseconds.
const EXPECTED_TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";

/// A request, as its attempts need it.
struct Forward<'a> {
    worker: &'a Rc<Worker>,
    record: &'a mut RequestRecord,
    /// The request's place in its trace.
    trace: TraceContext,
    route: &'a Route,
    head: request::Parts,
    kept: Kept,
    began: Timestamp,
    /// By when a gRPC caller wants its whole answer, if it says so.
    stated: Option<Deadline>,
    /// By when the caller wants an answer, whatever it needs to send its request.
    wanted: Deadline,
    attempts: Attempts,
    traffic_policy: TrafficPolicy,
}

/// What one attempt came to.
enum Attempted {
    /// The response for the application.
    Done(Response<Body>),
    /// No usable response, but perhaps one to fall back on.
    Failed { end: AttemptEnd, said: Said },
}

/// Sends the request to the service, with as many attempts as the rules allow.
///
/// # Errors
/// The reason of the last attempt that reached somebody, or why none did.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    route: &Route,
    request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let traffic_policy = route.entry.traffic_policy();
    let policy = traffic_policy.retries;
    let trace = *record.trace().ok_or(Reason::Internal)?;
    let (head, body) = request.into_parts();
    let idempotent = Head::of(&head).is_idempotent();
    let now = clock::now();
    let stated =
        header(&head.headers, "grpc-timeout").and_then(parse_grpc_timeout).map(|after| Deadline::after(after, now));
    let wanted = wanted(&head.headers, stated, now);
    let attempts = Attempts::new(idempotent, Deadline::after(traffic_policy.request, now).or_earlier(wanted));
    // A caller that stalls is told so, and nobody else is blamed.
    let kept = Kept::new(worker.limited(body), policy.kept_body);
    let mut forward =
        Forward { worker, record, trace, route, head, kept, began: now, stated, wanted, attempts, traffic_policy };
    let mut last: Option<Said> = None;
    loop {
        let pick = match forward.pick() {
            Ok(pick) => pick,
            // There is nowhere else to go: the last attempt's own failure says more.
            Err(reason) => {
                forward.missed();
                return last.take().map_or(Err(reason), Said::into_answer);
            }
        };
        match forward.attempt(pick).await {
            Attempted::Done(response) => return Ok(response),
            Attempted::Failed { end, said } => {
                let said = said.over(last.take());
                let service = &route.entry.service;
                forward.postpone();
                let decision = worker.random(|rng| forward.attempts.next(service, &policy, &end, rng, clock::now()));
                match decision {
                    Decision::Retry { after } if after.is_zero() => {}
                    Decision::Retry { after } => tokio::time::sleep(after).await,
                    Decision::GiveUp(_) => return said.into_answer(),
                }
                last = Some(said);
            }
        }
    }
}

/// By when the first byte of the response must be there, if the caller says so.
fn wanted(headers: &HeaderMap, stated: Option<Deadline>, now: Timestamp) -> Deadline {
    let expected = || header(headers, EXPECTED_TIMEOUT).and_then(parse_timeout_ms);
    stated.or_else(|| expected().map(|after| Deadline::after(after, now))).unwrap_or_default()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Forward<'_> {
    fn pick(&mut self) -> Result<Pick, Reason> {
        let (service, cluster) = (&self.route.entry.service, self.route.cluster.as_deref());
        let picked = self.worker.random(|rng| self.attempts.pick(service, cluster, rng, clock::now()));
        picked.map_err(|none| none.reason)
    }

    /// There was no attempt: the nearest place that was asked for is where the request did not go.
    fn missed(&mut self) {
        if self.attempts.begun() == 0 {
            let wanted = |locality: &LocalityEndpoints| {
                self.route.cluster.as_deref().is_none_or(|cluster| cluster == &*locality.zone.cluster)
            };
            let localities = self.route.entry.service.localities();
            let nearest = localities.iter().map(|(locality, _)| locality).find(|locality| wanted(locality));
            if let Some(locality) = nearest {
                self.record.place(&locality.zone, locality.level);
            }
        }
    }

    async fn attempt(&mut self, mut pick: Pick) -> Attempted {
        let started = clock::now();
        let trace = self.worker.random(|rng| self.trace.child(rng));
        let mut record = self.begin(&pick, &trace, started);
        let Some(request) = self.request(&trace, &pick) else {
            let reason = self.kept.failure().unwrap_or(Reason::CallerGone);
            record.failed(reason);
            return self.failed_before(reason);
        };
        let call = Call {
            entry: &self.route.entry,
            port: self.route.port,
            tried: self.attempts.tried(),
            idempotent: self.attempts.idempotent(),
            attempt: self.attempts.begun(),
            traceparent: trace.traceparent().to_string(),
        };
        let mute = upstream::mute(&pick, request.version());
        let result = {
            // Pinned here, once: every function that takes a future by value keeps room for it twice.
            let sent = pin!(upstream::send(&self.worker.upstreams, &call, &mut pick, request));
            let answered = pin!(async {
                match self.in_time(sent, started).await {
                    Ok(response) => self.judge(response, started).await,
                    Err(failed) => Err(self.caller_failed().unwrap_or(failed)),
                }
            });
            silence::unless_gone(&self.worker.upstreams, &call, mute.as_ref(), answered).await
        };
        if let Some(endpoint) = pick.endpoint() {
            record.endpoint(endpoint.id.as_str());
        }
        self.conclude(pick, record, started, result)
    }

    /// Waits for the response as long as the limits allow.
    async fn in_time(
        &self,
        mut sent: Pin<&mut impl Future<Output = Result<Response<Body>, Failed>>>,
        started: Timestamp,
    ) -> Result<Response<Body>, Failed> {
        let (request, per_try) = (self.traffic_policy.request, self.traffic_policy.per_try);
        let patience = Patience { request, per_try, idle: self.worker.node.config.timeouts.idle };
        loop {
            let now = clock::now();
            let (in_all, this_try) = (now.since(self.began), now.since(started));
            let stated = self.wanted.remaining(now);
            let left = patience.left(&Waited { in_all, this_try, stated, upload: self.kept.upload() });
            if left.is_zero() {
                return Err(Failed { blameless: false, ..Failed::said(Reason::ResponseTimeout) });
            }
            if let Ok(sent) = self.worker.sweeper.within(left, sent.as_mut()).await {
                return sent;
            }
        }
    }

    /// The time for another attempt counts from the end of the request, too.
    fn postpone(&mut self) {
        let now = clock::now();
        let since = match self.kept.upload() {
            Upload::Complete(since) => since.unwrap_or(Duration::MAX).min(now.since(self.began)),
            Upload::Waiting | Upload::Untaken(_) => Duration::ZERO,
        };
        let limit = self.traffic_policy.request.saturating_sub(since);
        self.attempts.postpone(Deadline::after(limit, now).or_earlier(self.wanted));
    }

    /// The request of this attempt; `None` if the body cannot be sent again.
    fn request(&self, trace: &TraceContext, pick: &Pick) -> Option<Request<Body>> {
        let body = self.kept.attempt()?;
        let mut head = self.head.clone();
        // A session speaks HTTP/2 whatever the application does: the called sidecar is told what its own may expect.
        if pick.endpoint().is_none() && head.version < Version::HTTP_2 {
            head.headers.insert(crate::SPOKEN, HeaderValue::from_static("http/1.1"));
        }
        pass_on(trace, &mut head.headers);
        if self.worker.node.config.outbound.via {
            add_via(&mut head.headers, head.version);
        }
        self.pass_on_deadline(&mut head.headers);
        Some(Request::from_parts(head, body))
    }

    /// The next hop learns how much time is left of what the caller stated. A gRPC deadline is for the whole answer, so this
    /// sidecar's own limit, which is for its beginning, has no part in it: streams without a deadline stay without one.
    fn pass_on_deadline(&self, headers: &mut HeaderMap) {
        let now = clock::now();
        let stated = match self.stated {
            Some(stated) => stated.remaining(now).map(|left| ("grpc-timeout", format_grpc_timeout(left))),
            None if headers.contains_key(EXPECTED_TIMEOUT) => {
                let left = self.wanted.remaining(now);
                left.map(|left| (EXPECTED_TIMEOUT, left.as_millis().max(1).to_string()))
            }
            None => None,
        };
        if let Some((name, Ok(value))) = stated.map(|(name, text)| (name, HeaderValue::try_from(text))) {
            headers.insert(name, value);
        }
    }

    /// If the caller's own body failed, no endpoint is to blame.
    fn caller_failed(&self) -> Option<Failed> {
        self.kept.failure().map(|reason| Failed { blameless: true, ..Failed::said(reason) })
    }

    fn failed_before(&self, reason: Reason) -> Attempted {
        Attempted::Failed { end: AttemptEnd::default(), said: Said::failed(reason) }
    }

    /// The record of an attempt that goes to `pick`.
    fn begin(&mut self, pick: &Pick, trace: &TraceContext, started: Timestamp) -> AttemptRecord {
        let going = Going {
            service: self.route.entry.service.name(),
            zone: &pick.locality.zone,
            level: pick.locality.level,
            probe: pick.probe,
            number: self.attempts.begun(),
        };
        self.record.attempt(going.kind().as_str(), going.zone, going.level);
        let asked = asked(&self.head.method, &self.head.uri, &self.head.headers, self.head.version);
        AttemptRecord::begin(&self.worker.telemetry, &asked, trace, &going, started)
    }

    /// Holds a small response until it is whole, and tells a node's refusal from an application's answer.
    async fn judge(&self, response: Response<Body>, started: Timestamp) -> Result<(Response<Body>, Outcome), Failed> {
        let latency = clock::now().since(started);
        let stated = upstream::connect::stated_reason(response.headers());
        if let Some(reason) = stated {
            return Err(Failed::said(reason));
        }
        let load = response.headers().get("eastway-load").and_then(|value| value.to_str().ok());
        let load = load.and_then(LoadReport::from_header);
        let status = response.status().as_u16();
        let grpc = grpc_status(response.headers());
        let outcome = grpc.map_or_else(|| Outcome::status(status, latency), |code| Outcome::grpc_status(code, latency));
        let limit = self.traffic_policy.retries.held_response as u64;
        if !self.attempts.idempotent() || !held::is_small(&response, limit) {
            return Ok((response, outcome.with_load(load)));
        }
        let idle = self.worker.sweeper.after(self.worker.node.config.timeouts.idle);
        match held::hold(response.map(|body| body.idle_limit(idle)), limit).await {
            Ok(response) => Ok((response, outcome.with_load(load))),
            Err(error) => Err(Failed { nothing_sent: false, ..Failed::said(error.response_reason()) }),
        }
    }

    /// Tells the breakers and the records; answers what the driver needs.
    fn conclude(
        &mut self,
        pick: Pick,
        mut record: AttemptRecord,
        started: Timestamp,
        result: Result<(Response<Body>, Outcome), Failed>,
    ) -> Attempted {
        self.record.attempted(pick.endpoint().map(|endpoint| endpoint.id.as_str()), || match &result {
            Ok((response, _)) => response.status().as_u16().to_string(),
            Err(failed) => failed.reason.code().to_owned(),
        });
        let (service, now) = (&self.route.entry.service, clock::now());
        match result {
            Ok((response, outcome)) => {
                let status = response.status().as_u16();
                record.answered(status);
                match self.attempts.answered(service, &pick, status, outcome, now) {
                    None => Attempted::Done(self.streaming(pick, record, outcome, response)),
                    Some(end) => {
                        record.ended(true);
                        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                        let retry_after = retry_after.and_then(backoff::retry_after);
                        let end = AttemptEnd { retry_after, body_kept: self.kept.is_repeatable(), ..end };
                        Attempted::Failed { end, said: Said::answered(response) }
                    }
                }
            }
            Err(failed) => {
                record.failed(failed.reason);
                let end = self.attempts.failed(service, &pick, &failed, now.since(started), now);
                let stale = end.stale && self.kept.failure().is_none();
                // A body that stalls does so at every endpoint.
                let body_kept = self.kept.is_repeatable() && failed.reason != Reason::BodyTimeout;
                let end = AttemptEnd { stale, body_kept, ..end };
                Attempted::Failed { end, said: Said::failed(failed.reason) }
            }
        }
    }

    /// The response on its way to the application: the attempt ends with its body.
    fn streaming(
        &self,
        pick: Pick,
        record: AttemptRecord,
        outcome: Outcome,
        response: Response<Body>,
    ) -> Response<Body> {
        let entry = Arc::clone(&self.route.entry);
        let finish = Finish { entry, pick, outcome, grpc: None, record: Some(record) };
        self.worker.passing(response.map(|body| body.observe(Box::new(finish))))
    }
}

/// Ends a pick when the response's body has ended.
struct Finish {
    entry: Arc<Entry>,
    pick: Pick,
    outcome: Outcome,
    grpc: Option<u8>,
    /// Until the end; one that is dropped was cancelled.
    record: Option<AttemptRecord>,
}

impl Observer for Finish {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc = grpc_status(trailers);
    }

    fn end(&mut self, end: &End<'_>) {
        let outcome = match (end, self.grpc) {
            (End::Failed(error), _) => Outcome::failed(error.response_reason()),
            (End::Complete, Some(code)) => {
                let latency = self.outcome.latency.unwrap_or_default();
                Outcome::grpc_status(code, latency)
            }
            // Whoever stops reading got what it wanted: the head said how the endpoint does.
            (End::Complete | End::Dropped, _) => self.outcome,
        };
        if let Some(record) = self.record.take() {
            match end {
                End::Complete => record.ended(outcome.failure().is_some()),
                End::Failed(error) => record.failed(error.response_reason()),
                End::Dropped => drop(record),
            }
        }
        self.entry.service.finish(&self.pick, outcome, clock::now());
    }
}
