//! The inbound side: calls from other sidecars, over mutual TLS, handed to the application on this host.
//!
//! A caller's verified identity goes to the application as `eastway-source`; whatever a caller wrote under that prefix
//! does not. Nothing here retries: the calling sidecar does.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::{Authority, Reason, SpiffeId};
use eastway_http::server::{Protocol, ServerOptions, serve};
use eastway_http::{Body, refuse};
use eastway_identity::{Expected, server_config};
use eastway_runtime::clock;
use eastway_telemetry::metrics::{Code, Direction, Party};
use eastway_transport::{Io, accept};
use http::{Method, Request, Response};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use crate::settings;
use crate::worker::Worker;

mod app;
mod exchange;
mod opaque;
mod spoken;

pub(crate) use app::App;

/// The protocols that callers may choose from, in our order.
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The listener's name in logs.
const LISTENER: &str = "inbound.listen";

/// Accepts callers until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let config = server_config(&worker.node.identity, Expected::AnyWorkload, ALPN);
    let (stop, admit) = (worker.node.draining.wait(), || worker.place());
    accept::each(listener, LISTENER, stop, admit, |stream| connection(Rc::clone(&worker), stream, Arc::clone(&config)))
        .await;
}

async fn connection(worker: Rc<Worker>, stream: Io, config: Arc<ServerConfig>) {
    let limit = worker.node.config.timeouts.header;
    let Some((io, caller)) = accept::handshake(stream, config, limit, LISTENER).await else { return };
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = Protocol::from_alpn(io.alpn());
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    options.h2 = settings::h2(&worker.node.config.limits, None);
    let (stop, sweeper) = (worker.node.draining.wait(), worker.sweeper.clone());
    let handler = move |request| handle(Rc::clone(&worker), Arc::clone(&caller), request);
    let ended = serve(io, &options, &sweeper, stop, handler).await;
    tracing::trace!(?ended, "a caller's connection ended");
}

async fn handle(worker: Rc<Worker>, caller: Arc<SpiffeId>, mut request: Request<Body>) -> Response<Body> {
    let started = clock::now();
    let (version, is_grpc) = (request.version(), exchange::is_grpc(&request));
    let mut span = exchange::span(&worker, &caller, &mut request, started);
    let source = exchange::party(&caller);
    let own = Party { zone: Some(worker.node.zone.clone()), ..worker.node.own.clone() };
    let route = worker.routes.borrow_mut().route(Direction::Inbound, &source, &own);
    let in_flight = route.start();
    let outcome = run(&worker, &caller, request).await;
    let (response, reason) = match outcome {
        Ok(response) => (response, None),
        Err(reason) => {
            tracing::debug!(reason = reason.code(), caller = %caller, "refused");
            (refuse::response(reason, &worker.node.name, is_grpc, version), Some(reason))
        }
    };
    if let Some(mut span) = span.take() {
        match reason {
            Some(reason) => span.fail(reason),
            None => span.status(response.status().as_u16()),
        }
        span.end();
    }
    let latency = clock::now().since(started);
    let code = Code::of(reason.map_or_else(|| response.status().as_u16(), Reason::status));
    route.finish(code, reason, None, latency);
    response.map(|body| body.hold(in_flight))
}

async fn run(worker: &Rc<Worker>, caller: &Arc<SpiffeId>, request: Request<Body>) -> Result<Response<Body>, Reason> {
    admit(worker, &request)?;
    if request.method() == Method::CONNECT {
        return opaque::open(worker, request).await;
    }
    app::forward(worker, caller, request).await
}

/// A request must be for the service that this workload serves: a stale caller must not reach whoever took the address over.
fn admit(worker: &Rc<Worker>, request: &Request<Body>) -> Result<(), Reason> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let wanted = Authority::parse(host, &worker.node.config.suffix).map_err(|_| Reason::ForeignHost)?;
    if Some(&wanted.service) == worker.node.own.service.as_ref() { Ok(()) } else { Err(Reason::UnknownService) }
}
