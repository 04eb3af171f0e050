//! Opaque streams: bytes both ways, whoever asked for them.

use std::rc::Rc;

use eastway_balance::Pick;
use eastway_core::Reason;
use eastway_core::head::{HttpVersion, RequestHead};
use eastway_core::resource::ServicePort;
use eastway_request::{Answer, BodyState, Outbound, Step};
use eastway_runtime::clock;
use eastway_transport::Io;

use super::resolve;
use crate::record::Telemetry;
use crate::stream;
use crate::upstream::{self, ConnectionPermit};
use crate::worker::Worker;

/// A stream that is open.
pub(super) struct Opened {
    /// Its other end.
    pub(super) serving: Io,
    /// What is to be told of it.
    pub(super) answer: Answer<Telemetry>,
    /// What to hold for as long.
    pub(super) held: Option<ConnectionPermit>,
    /// The port that it goes to.
    pub(super) port: Option<ServicePort>,
}

/// Opens a stream to what was picked. `None` if there is no way.
pub(super) async fn open(worker: &Worker, request: &mut Outbound<Telemetry>, mut pick: Pick) -> Option<Opened> {
    let call = request.call()?;
    let opened = upstream::open(&worker.upstreams, &call, &mut pick).await;
    let (port, now) = (request.port(), clock::now());
    match opened {
        Ok((serving, held)) => Some(Opened { serving, answer: request.opened(pick, now)?, held, port }),
        Err(error) => {
            worker.random(|rng| request.failed(&pick, error, &BodyState::NONE, now, rng));
            None
        }
    }
}

/// Relays a connection of the application to `target`, as if it had asked for that by CONNECT. One that leads nowhere is
/// reset: there is no other way to say so.
pub(super) async fn connect(worker: Rc<Worker>, application: Io, target: Rc<str>) {
    match reach(&worker, &target).await {
        Ok(Opened { serving, answer, held: _held, port }) => {
            stream::relay(&worker, (application, serving), port.as_ref(), answer).await;
        }
        Err(reason) => {
            tracing::debug!(reason = reason.code(), %target, "a connection of the application leads nowhere");
            application.abort(reason);
        }
    }
}

async fn reach(worker: &Rc<Worker>, target: &str) -> Result<Opened, Reason> {
    let head = RequestHead {
        method: "CONNECT",
        target: "",
        authority: target,
        version: HttpVersion::Http11,
        upgrade: false,
        fields: &(),
    };
    let begin = |rng: &mut _| Outbound::begin(&worker.telemetry, &worker.outbound_options, &head, clock::now(), rng);
    let mut request = worker.random(begin);
    loop {
        match worker.random(|rng| request.step(clock::now(), rng)) {
            Step::Resolve(service) => {
                let found = resolve(worker, &service).await;
                worker.random(|rng| request.resolved(found, &head, clock::now(), rng));
            }
            Step::Wait(wait) => tokio::time::sleep(wait).await,
            Step::Attempt(pick) => {
                if let Some(opened) = open(worker, &mut request, pick).await {
                    return Ok(opened);
                }
            }
            Step::Refuse(refusal) => return Err(refusal.reason),
            Step::FallBack => return Err(Reason::Internal),
        }
    }
}
