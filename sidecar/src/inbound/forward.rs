//! One call on its way to the application, and the application's answer on its way back.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::head::{Edits, HttpVersion};
use eastway_core::{Chain, Reason, Refusal, SpiffeId};
use eastway_http::body::{End, Observer};
use eastway_http::head::{Headers, apply, response};
use eastway_http::{Body, Head, Upgrading, refuse};
use eastway_request::{Inbound, InboundStep, Layer};
use eastway_runtime::clock;
use http::{Request, Response, StatusCode, Version};

use super::within;
use crate::load::{InFlight, orca};
use crate::record::Telemetry;
use crate::worker::Worker;
use crate::{adapter, app};

/// A call of another node.
pub(super) struct Forward {
    worker: Rc<Worker>,
    caller: Arc<SpiffeId>,
    telemetry: Telemetry,
    call: Inbound<Telemetry>,
    /// What was read, until it is handed on.
    request: Request<Body>,
    upgrading: Option<Upgrading>,
    /// What the caller speaks: gRPC or not, in which version.
    speaks: (bool, Version),
}

impl Forward {
    /// A call whose head has just been read.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        (caller, telemetry): (&Arc<SpiffeId>, &Telemetry),
        layer: Layer,
        request: Request<Body>,
    ) -> Self {
        let (mut head, body) = request.into_parts();
        let upgrading = Upgrading::take(&mut head.extensions);
        let view = Head::of(&head);
        let speaks = (view.view().is_grpc(), head.version);
        let options = &worker.inbound_options;
        let call =
            worker.random(|rng| Inbound::begin(telemetry, options, (caller, layer), &view.view(), clock::now(), rng));
        let body = worker.limited(adapter::count_sent(call.record(), body));
        let request = Request::from_parts(head, body);
        let (worker, caller, telemetry) = (Rc::clone(worker), Arc::clone(caller), telemetry.clone());
        Self { worker, caller, telemetry, call, request, upgrading, speaks }
    }

    /// Takes it to its answer.
    pub(super) async fn run(mut self) -> Response<Body> {
        loop {
            let done = match self.call.step() {
                InboundStep::Rules(service) => {
                    let found = super::rules_of(&self.worker, &service).await;
                    self.call.ruled(found, &self.worker.node.services.mesh());
                    continue;
                }
                InboundStep::Forward(edits, spoken) => self.forward(edits, spoken).await,
                InboundStep::Stream => self.open().await,
                InboundStep::Serve => self.serve(),
                InboundStep::Refuse(refusal) => return self.refuse(refusal),
            };
            match done {
                Ok(answer) => return answer,
                Err(reason) => self.call.failed(reason),
            }
        }
    }

    /// Hands the call to the application.
    async fn forward(&mut self, edits: Edits, spoken: HttpVersion) -> Result<Response<Body>, Reason> {
        let node = &self.worker.node;
        let mut charged = Charged { in_flight: node.load.enter(), failed: false };
        let mut request = std::mem::take(&mut self.request);
        apply(edits, request.headers_mut());
        let answer = self.worker.app.send(request, spoken).await.inspect_err(|_| charged.failed = true)?;
        let (parts, body) = answer.into_parts();
        let fields = Headers::Map(&parts.headers);
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        charged.failed = parts.status.is_server_error();
        if let Some(utilisation) = fields.text(orca::HEADER).and_then(orca::utilisation) {
            node.load.stated(utilisation, clock::now());
        }
        let load = (!switches).then(|| node.load.report(clock::now()).to_header());
        let passes = self.call.answered(&response(&parts, &fields), load);
        let answer = Response::from_parts(parts, body);
        Ok(adapter::pass(&self.worker, answer, passes, self.upgrading.take(), Some(Box::new(charged))))
    }

    /// Connects to the application and answers 200; what follows is relayed until either side has ended.
    async fn open(&mut self) -> Result<Response<Body>, Reason> {
        let asking = self.upgrading.take().ok_or(Reason::MalformedRequest)?;
        let in_flight = self.worker.node.load.enter();
        let application = app::connect(&self.worker.node).await?;
        let ends = async move {
            let asking = asking.io().await;
            let asking = asking.inspect_err(|error| tracing::debug!(error = %Chain(error), "the caller went away"));
            Some((asking.ok()?, application))
        };
        adapter::relay(&self.worker, ends, self.call.opened(), in_flight);
        Ok(Response::new(Body::empty()))
    }

    /// Answers 200 and serves the requests that follow.
    fn serve(&mut self) -> Result<Response<Body>, Reason> {
        let asking = self.upgrading.take().ok_or(Reason::MalformedRequest)?;
        within::serve(&self.worker, (&self.caller, &self.telemetry), asking, self.call.opened());
        Ok(Response::new(Body::empty()))
    }

    fn refuse(self, refusal: Refusal) -> Response<Body> {
        tracing::debug!(reason = refusal.reason.code(), caller = %self.caller, "refused");
        let (is_grpc, version) = self.speaks;
        refuse::response(refusal, &self.worker.node.name, is_grpc, version)
    }
}

/// A request in flight at the application, and whether it failed there.
struct Charged {
    in_flight: InFlight,
    failed: bool,
}

impl Observer for Charged {
    fn end(&mut self, end: &End<'_>) {
        self.failed |= matches!(end, End::Failed(_));
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if self.failed {
            self.in_flight.fail();
        }
    }
}
