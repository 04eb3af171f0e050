//! One request on its way: hyper's messages go out and come in, and [`Outbound`] says what is to be done with them.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use eastway_balance::Pick;
use eastway_core::{Chain, Reason, Refusal};
use eastway_http::body::held;
use eastway_http::{Interim, Kept, Request, RequestHead, Response, Upgrading, refuse};
use eastway_request::{BodyState, Judged, Outbound, ServiceEntry, Step};
use eastway_resilience::{AttemptError, Progress};
use eastway_runtime::clock;
use http_body::Body as _;

use super::opaque;
use crate::adapter;
use crate::record::Telemetry;
use crate::upstream::{self, liveness};
use crate::worker::Worker;

/// A request of the application.
pub(super) struct Forward {
    worker: Rc<Worker>,
    request: Outbound<Telemetry>,
    head: RequestHead,
    body: Kept,
    upgrading: Option<Upgrading>,
    interim: Option<Interim>,
    is_grpc: bool,
    /// The answer to fall back on.
    kept: Option<Response>,
}

impl Forward {
    /// A request whose head has just been read.
    pub(super) fn begin(worker: &Rc<Worker>, request: Request) -> Self {
        let Request { head, body, upgrading, interim } = request;
        let is_grpc = head.view().is_grpc();
        let request = worker.random(|rng| {
            Outbound::begin(&worker.telemetry, &worker.outbound_options, &head.view(), clock::now(), rng)
        });
        // A caller that stalls is told so, and nobody else is blamed.
        let body = worker.limited(adapter::count_sent(request.record(), body));
        let body = Kept::new(body, worker.node.config.limits.kept_body);
        Self { worker: Rc::clone(worker), request, head, body, upgrading, interim, is_grpc, kept: None }
    }

    /// What to do next.
    pub(super) fn step(&mut self) -> Step {
        let request = &mut self.request;
        self.worker.random(|rng| request.step(clock::now(), rng))
    }

    /// The service was found, or why it was not.
    pub(super) fn resolved(&mut self, found: Result<Arc<ServiceEntry>, Reason>) {
        let (request, head) = (&mut self.request, &self.head);
        self.worker.random(|rng| request.resolved(found, &head.view(), clock::now(), rng));
    }

    /// Sends the request to what was picked. `None` if that brought no answer to pass on.
    pub(super) async fn attempt(&mut self, pick: Pick) -> Option<Response> {
        if self.head.is_connect() { self.open(pick).await } else { self.send(pick).await }
    }

    async fn send(&mut self, mut pick: Pick) -> Option<Response> {
        let sent = self.exchange(&mut pick).await;
        let (request, body, now) = (&mut self.request, body_state(&self.body), clock::now());
        match sent {
            Ok((response, judged)) => {
                let port = request.port();
                let passes = self.worker.random(|rng| request.answered(pick, &judged, &body, now, rng));
                let Some(passes) = passes else {
                    self.kept = Some(response);
                    return None;
                };
                Some(adapter::pass(&self.worker, response, passes, (self.upgrading.take(), port)))
            }
            Err(error) => {
                self.worker.random(|rng| request.failed(&pick, error, &body, now, rng));
                None
            }
        }
    }

    /// The exchange of one attempt.
    async fn exchange(&self, pick: &mut Pick) -> Result<(Response, Judged), AttemptError> {
        let call = self.request.call().ok_or(AttemptError::said(Reason::Internal))?;
        // If it cannot be sent again, its caller has failed to send it once.
        let body = self.body.attempt().ok_or(AttemptError::said(Reason::CallerGone).blameless())?;
        let mut head = self.head.clone();
        head.fields.apply(&self.request.edits(clock::now()));
        let (endpoint, needs_probe) = (pick.endpoint().cloned(), Cell::new(false));
        let request = Request { interim: self.interim.clone(), ..Request::new(head, body) };
        // Pinned here, once: every function that takes a future by value keeps room for it twice.
        let sent = pin!(upstream::send(&self.worker.upstreams, &call, pick, request, &needs_probe));
        let answered = pin!(async {
            let response = self.in_time(sent).await?;
            self.judge(response).await
        });
        liveness::unless_gone(&self.worker.upstreams, &call, (endpoint.as_ref(), &needs_probe), answered).await
    }

    /// Waits for the response as long as the limits allow.
    async fn in_time(
        &self,
        mut sent: Pin<&mut impl Future<Output = Result<Response, AttemptError>>>,
    ) -> Result<Response, AttemptError> {
        loop {
            let left = self.request.patience(&body_state(&self.body), clock::now())?;
            if let Ok(sent) = self.worker.sweeper.within(left, sent.as_mut()).await {
                return sent;
            }
        }
    }

    /// Tells a node's refusal from an application's answer, and holds a small one until it is whole.
    async fn judge(&self, answer: Response) -> Result<(Response, Judged), AttemptError> {
        let length = answer.body.size_hint().exact();
        let judged = self.request.judge(&answer.head.view(), length, clock::now())?;
        let Some(limit) = judged.hold else { return Ok((answer, judged)) };
        let idle = self.worker.sweeper.after(self.worker.node.config.timeouts.idle);
        let Response { mut head, body, .. } = answer;
        match held::hold(body.idle_limit(idle), limit).await {
            Ok((body, with_trailers)) => {
                if with_trailers {
                    head.length = None;
                }
                Ok((Response::new(head, body), judged))
            }
            Err(error) => Err(AttemptError { progress: Progress::Sent, ..AttemptError::said(error.response_reason()) }),
        }
    }

    /// Opens an opaque stream and answers 200; what follows is relayed until either side has ended.
    async fn open(&mut self, pick: Pick) -> Option<Response> {
        let opened = opaque::open(&self.worker, &mut self.request, pick).await?;
        let opaque::Opened { serving, answer, held, port } = opened;
        let asking = self.upgrading.take();
        let ends = async move {
            let asking = asking?.io().await;
            let asking = asking.inspect_err(|error| tracing::debug!(error = %Chain(error), "the application left"));
            Some((asking.ok()?, serving))
        };
        adapter::relay(&self.worker, ends, (answer, port), held);
        Some(Response::empty(200))
    }

    /// Answers with the answer that was kept.
    pub(super) fn fall_back(mut self) -> Response {
        let Some(answer) = self.kept.take() else { return self.refuse(Reason::Internal.into()) };
        match self.request.fall_back(&answer.head.view()) {
            Some(passes) => adapter::pass(&self.worker, answer, passes, (None, None)),
            None => self.refuse(Reason::Internal.into()),
        }
    }

    /// Refuses the request, and says why.
    pub(super) fn refuse(self, refusal: Refusal) -> Response {
        tracing::debug!(reason = refusal.reason.code(), "refused");
        refuse::response(refusal, &self.worker.node.name, self.is_grpc)
    }
}

/// How far the application's own part has come.
fn body_state(body: &Kept) -> BodyState {
    BodyState { upload: body.upload(), repeatable: body.is_repeatable(), failure: body.failure() }
}
