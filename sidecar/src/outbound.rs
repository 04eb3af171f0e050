//! The outbound side: the application's calls, taken as an HTTP proxy and sent to where the mesh serves them.
//!
//! The phases, in order, a file each: [`identify`] which service is meant, [`route`] to its view, [`admit`] within
//! limits, pick and [`forward`] with retries, and [`respond`]. Each returns a value or the [`Reason`] of a refusal; only
//! the driver here turns either into a response. CONNECT leaves the path after admission for [`opaque`].

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_http::head::is_grpc;
use eastway_http::server::{Ended, Protocol, ServerOptions, serve};
use eastway_http::{Body, Upgrading};
use eastway_telemetry::metrics::Direction;
use eastway_transport::{Io, accept};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::exchange;
use crate::record::RequestRecord;
use crate::traffic_policy;
use crate::worker::Worker;

mod admit;
mod forward;
mod identify;
mod opaque;
mod patience;
mod respond;
mod route;
mod said;

/// Accepts the application's connections until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = Protocol::Detect;
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    options.h2 = traffic_policy::h2(&worker.node.config.limits, None);
    let options = Rc::new(options);
    let (stop, admit) = (worker.node.draining.wait(), || worker.outbound_place());
    accept::each(listener, "outbound.proxy", stop, admit, |stream| {
        let (worker, options) = (Rc::clone(&worker), Rc::clone(&options));
        async move { connection(worker, stream, &options).await }
    })
    .await;
}

async fn connection(worker: Rc<Worker>, io: Io, options: &ServerOptions) {
    let stop = worker.node.draining.wait();
    let sweeper = worker.sweeper.clone();
    let telemetry = worker.telemetry.clone();
    let handle = move |request| handle(Rc::clone(&worker), request);
    let handler = exchange::Counting { telemetry: telemetry.clone(), direction: Direction::Outbound, handle };
    let ended = serve(io, options, &sweeper, stop, handler).await;
    if let Ended::Malformed(reason) = ended {
        telemetry.refused(Direction::Outbound, reason);
    }
    tracing::trace!(?ended, "an application's connection ended");
}

/// Takes one request through its phases.
async fn handle(worker: Rc<Worker>, mut request: Request<Body>) -> Response<Body> {
    let mut record = exchange::outbound(&worker, &mut request);
    let content_type = request.headers().get("content-type").map(http::HeaderValue::as_bytes);
    let asked = (is_grpc(content_type), request.version());
    match run(&worker, &mut record, &mut request).await {
        Ok(response) => respond::answer(&worker, record, response),
        Err(reason) => respond::refuse(&worker, record, reason, asked),
    }
}

async fn run(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    request: &mut Request<Body>,
) -> Result<Response<Body>, Reason> {
    let target = identify::identify(worker, request)?;
    record.names(&target.service);
    let route = route::route(worker, target).await?;
    record.known();
    let permit = admit::admit(&route, request)?;
    let mut request = std::mem::take(request);
    if request.method() == Method::CONNECT {
        return opaque::open(worker, record, &route, request, permit).await;
    }
    let application = Upgrading::take(request.extensions_mut());
    let response = forward::forward(worker, record, &route, request).await?;
    // The place is taken until the answer has passed, or the stream that follows it.
    let mut response = response.map(|body| body.hold(permit));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let (Some(application), Some(upstream)) = (application, Upgrading::take(response.extensions_mut()))
    {
        // There is no body, but it holds whatever counts the request.
        let held = std::mem::take(response.body_mut());
        record.answered(response.status().as_u16());
        opaque::switched(worker, application, upstream, (held, record.take()));
    }
    Ok(response)
}

/// A request's destination, once its service is known.
pub(crate) struct Route {
    pub(crate) entry: Arc<crate::services::Entry>,
    /// Only that cluster, if the name says so.
    pub(crate) cluster: Option<Arc<str>>,
    /// The service port.
    pub(crate) port: u16,
}
