//! The outbound side: the application's calls, taken as an HTTP proxy and sent to where the mesh serves them.
//!
//! What happens to a request is decided by [`Outbound`](eastway_request::Outbound); here it is done: services are found, attempts sent and waited for,
//! streams relayed, and the application is answered.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::{Authority, Reason, ServiceName};
use eastway_http::server::{Ended, Protocol, ServerOptions, serve};
use eastway_http::{Request, Response};
use eastway_request::{ServiceEntry, Step};
use eastway_transport::{Io, accept};
use tokio::net::TcpListener;

use crate::adapter;
use crate::h2;
use crate::worker::Worker;
use forward::Forward;
use target::Target;

pub(crate) mod captured;
mod detect;
mod forward;
pub(crate) mod named;
mod opaque;
mod target;

/// Accepts the application's connections until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let options = options(&worker);
    let (stop, admit) = (worker.node.draining.wait(), || worker.outbound_place());
    accept::each(listener, "outbound.proxy", stop, admit, |stream| {
        let (worker, options) = (Rc::clone(&worker), Rc::clone(&options));
        async move { connection(worker, stream, &options, None).await }
    })
    .await;
}

/// How the application's connections are served.
fn options(worker: &Worker) -> Rc<ServerOptions> {
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = Protocol::Detect;
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    options.h2 = h2::options(&worker.node.config.limits, None);
    Rc::new(options)
}

/// Serves a connection. At a name's own address all of its requests lead to `target`.
async fn connection(worker: Rc<Worker>, io: Io, options: &ServerOptions, target: Option<Rc<Target>>) {
    let stop = worker.node.draining.wait();
    let sweeper = worker.sweeper.clone();
    let telemetry = worker.telemetry.clone();
    let handle = move |mut request: Request| {
        if let Some(target) = &target {
            target.direct(&mut request.head);
        }
        handle(Rc::clone(&worker), request)
    };
    let handler = adapter::Counting { telemetry: telemetry.clone(), handle };
    let ended = serve(io, options, &sweeper, stop, handler).await;
    if let Ended::Malformed(reason) = ended {
        telemetry.refused(reason);
    }
    tracing::trace!(?ended, "an application's connection ended");
}

/// Accepts connections of the application that lead to `target`, until draining begins.
pub(crate) async fn listen_for(worker: Rc<Worker>, listener: TcpListener, target: Authority) {
    let (stop, admit) = (worker.node.draining.wait(), || worker.outbound_place());
    let target: Rc<str> = target.to_text(&worker.node.config.suffix).into();
    accept::each(listener, "outbound.listeners", stop, admit, |stream| {
        opaque::connect(Rc::clone(&worker), stream, Rc::clone(&target))
    })
    .await;
}

/// Takes one request to its answer.
async fn handle(worker: Rc<Worker>, request: Request) -> Response {
    let mut request = Forward::begin(&worker, request);
    loop {
        match request.step() {
            Step::Resolve(service) => {
                let found = resolve(&worker, &service).await;
                request.resolved(found);
            }
            Step::Wait(wait) => tokio::time::sleep(wait).await,
            Step::Attempt(pick) => {
                if let Some(answer) = request.attempt(pick).await {
                    return answer;
                }
            }
            Step::FallBack => return request.fall_back(),
            Step::Refuse(refusal) => return request.refuse(refusal),
        }
    }
}

/// The service, from the discovery cache; the first use of a name waits for it.
///
/// # Errors
/// [`Reason::UnknownService`] or [`Reason::DiscoveryTimeout`].
async fn resolve(worker: &Rc<Worker>, service: &ServiceName) -> Result<Arc<ServiceEntry>, Reason> {
    let node = &worker.node;
    if let Some(entry) = node.services.entry(service) {
        return Ok(entry);
    }
    node.discovery.resolve(service).await?;
    node.services.entry(service).ok_or(Reason::UnknownService)
}
