//! One call on its way to the application, and the application's answer on its way back.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::head::{Edits, Fields as _, HttpVersion};
use eastway_core::{Chain, Reason, Refusal, SpiffeId};
use eastway_http::body::{End, Observer};
use eastway_http::{Request, Response, Upgrading, refuse};
use eastway_request::{Inbound, InboundStep, Layer};
use eastway_runtime::clock;

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
    request: Option<Request>,
    upgrading: Option<Upgrading>,
    is_grpc: bool,
}

impl Forward {
    /// A call whose head has just been read.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        (caller, telemetry): (&Arc<SpiffeId>, &Telemetry),
        layer: Layer,
        request: Request,
    ) -> Self {
        let Request { head, body, upgrading, interim } = request;
        let is_grpc = head.view().is_grpc();
        let options = &worker.inbound_options;
        let call =
            worker.random(|rng| Inbound::begin(telemetry, options, (caller, layer), &head.view(), clock::now(), rng));
        let body = worker.limited(adapter::count_sent(call.record(), body));
        let request = Some(Request { interim, ..Request::new(head, body) });
        let (worker, caller, telemetry) = (Rc::clone(worker), Arc::clone(caller), telemetry.clone());
        Self { worker, caller, telemetry, call, request, upgrading, is_grpc }
    }

    /// Takes it to its answer.
    pub(super) async fn run(mut self) -> Response {
        loop {
            let done = match self.call.step() {
                InboundStep::Rules => {
                    let found = self.worker.node.discovery.served().await;
                    self.call.ruled(found, &self.worker.node.services.mesh());
                    continue;
                }
                InboundStep::Forward(edits, spoken) => self.forward(edits, spoken).await,
                InboundStep::Stream => self.open().await,
                InboundStep::Either => self.open_either().await,
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
    async fn forward(&mut self, edits: Edits, spoken: HttpVersion) -> Result<Response, Reason> {
        let node = &self.worker.node;
        let mut charged = Charged { in_flight: node.load.enter(), failed: false };
        let mut request = self.request.take().ok_or(Reason::Internal)?;
        request.head.fields.apply(&edits);
        let answer = self.worker.app.send(request, spoken).await.inspect_err(|_| charged.failed = true)?;
        charged.failed = answer.head.is_server_error();
        if let Some(utilisation) = answer.head.fields.text(orca::HEADER).and_then(orca::utilisation) {
            node.load.stated(utilisation, clock::now());
        }
        let load = (!answer.head.is_switch()).then(|| node.load.report(clock::now()).to_header());
        let passes = self.call.answered(&answer.head.view(), load);
        let answer = answer.map(|body| body.observe(charged));
        Ok(adapter::pass(&self.worker, answer, passes, (self.upgrading.take(), self.call.port().cloned())))
    }

    /// Connects to the application and answers 200; what follows is relayed until either side has ended.
    async fn open(&mut self) -> Result<Response, Reason> {
        let asking = self.upgrading.take().ok_or(Reason::MalformedRequest)?;
        let in_flight = self.worker.node.load.enter();
        let application = app::connect(&self.worker.node).await?;
        let ends = async move {
            let asking = asking.io().await;
            let asking = asking.inspect_err(|error| tracing::debug!(error = %Chain(error), "the caller went away"));
            Some((asking.ok()?, application))
        };
        let port = self.call.port().cloned();
        adapter::relay(&self.worker, ends, (self.call.opened(), port), in_flight);
        Ok(Response::empty(200))
    }

    /// Connects to the application and answers 200; what follows is relayed, or served if it turns out to be requests.
    async fn open_either(&mut self) -> Result<Response, Reason> {
        let asking = self.upgrading.take().ok_or(Reason::MalformedRequest)?;
        let in_flight = self.worker.node.load.enter();
        let application = app::connect(&self.worker.node).await?;
        let port = self.call.port().cloned();
        within::either(&self.worker, self.caller(), (asking, application), (self.call.opened(), port), in_flight);
        Ok(Response::empty(200))
    }

    fn caller(&self) -> within::Caller {
        (Arc::clone(&self.caller), self.telemetry.clone())
    }

    /// Answers 200 and serves the requests that follow.
    fn serve(&mut self) -> Result<Response, Reason> {
        let asking = self.upgrading.take().ok_or(Reason::MalformedRequest)?;
        within::serve(&self.worker, self.caller(), asking, self.call.opened());
        Ok(Response::empty(200))
    }

    fn refuse(self, refusal: Refusal) -> Response {
        tracing::debug!(reason = refusal.reason.code(), caller = %self.caller, "refused");
        refuse::response(refusal, &self.worker.node.name, self.is_grpc)
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
