//! The inbound side: calls from other sidecars, over mutual TLS, handed to the application on this host.
//!
//! A caller's verified identity goes to the application as `eastway-source`; whatever a caller wrote under that prefix
//! does not, on whichever way it comes: a CONNECT carries bytes only to a port that this cluster declares for them, and
//! requests to any other. Nothing here retries: the calling sidecar does.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::view::InboundRules;
use eastway_core::{Authority, Reason, ServiceName, SpiffeId};
use eastway_http::head::is_grpc;
use eastway_http::server::{Ended, Protocol, ServerOptions, serve};
use eastway_http::{Body, refuse};
use eastway_identity::{Expected, ServerTls, server_config};
use eastway_runtime::throttled;
use eastway_telemetry::metrics::Direction;
use eastway_transport::Io;
use eastway_transport::accept::{self, HandshakeLimits, Handshakes};
use http::{Method, Request, Response};
use tokio::net::TcpListener;

use crate::exchange;
use crate::record::RequestRecord;
use crate::traffic_policy;
use crate::worker::Worker;

mod forward;
mod opaque;
mod rules;
mod within;

use rules::Carried;

/// The protocols that callers may choose from, in our order.
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The listener's name in logs.
const LISTENER: &str = "inbound.listen";

/// Accepts callers until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let tls = server_config(&worker.node.identity, Expected::AnyWorkload, ALPN);
    let (stop, admit) = (worker.node.draining.wait(), || Some(worker.node.draining.guard()));
    let (limits, timeout) = (&worker.node.config.limits, worker.node.config.timeouts.handshake);
    let handshakes = HandshakeLimits { places: limits.handshakes, per_address: limits.address_handshakes, timeout };
    let handshakes = Handshakes::new(LISTENER, &handshakes);
    accept::each(listener, LISTENER, stop, admit, |stream| {
        connection(Rc::clone(&worker), Arc::clone(&handshakes), stream, tls.clone())
    })
    .await;
}

async fn connection(worker: Rc<Worker>, handshakes: Arc<Handshakes>, stream: Io, tls: ServerTls) {
    let Some((io, caller)) = handshakes.shake(stream, tls).await else { return };
    let Some(_place) = worker.inbound.try_acquire() else {
        throttled!(warn, %caller, "turned a caller away: the limit of inbound connections is reached");
        return;
    };
    let options = options(&worker, Protocol::from_alpn(io.alpn()));
    let (stop, sweeper) = (worker.node.draining.wait(), worker.sweeper.clone());
    let telemetry = worker.telemetry.clone();
    let handle = move |request| handle(Rc::clone(&worker), Arc::clone(&caller), request, Layer::Connection);
    let handler = exchange::Counting { telemetry: telemetry.clone(), direction: Direction::Inbound, handle };
    let ended = serve(io, &options, &sweeper, stop, handler).await;
    if let Ended::Malformed(reason) = ended {
        telemetry.refused(Direction::Inbound, reason);
    }
    tracing::trace!(?ended, "a caller's connection ended");
}

/// How callers are served that speak `protocol`.
fn options(worker: &Worker, protocol: Protocol) -> ServerOptions {
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = protocol;
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    options.h2 = traffic_policy::h2(&worker.node.config.limits, None);
    options
}

/// Where a request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// On the caller's connection.
    Connection,
    /// Inside the stream of a CONNECT, which holds no other CONNECT.
    Connected,
}

async fn handle(worker: Rc<Worker>, caller: Arc<SpiffeId>, mut request: Request<Body>, layer: Layer) -> Response<Body> {
    let mut record = exchange::inbound(&worker, &caller, &mut request);
    let content_type = request.headers().get("content-type").map(http::HeaderValue::as_bytes);
    let (version, is_grpc) = (request.version(), is_grpc(content_type));
    match run(&worker, &caller, &mut record, request, layer).await {
        Ok(response) => exchange::answered(record, response),
        Err(reason) => {
            tracing::debug!(reason = reason.code(), caller = %caller, "refused");
            record.refused(reason);
            refuse::response(reason, &worker.node.name, is_grpc, version)
        }
    }
}

async fn run(
    worker: &Rc<Worker>,
    caller: &Arc<SpiffeId>,
    record: &mut RequestRecord,
    request: Request<Body>,
    layer: Layer,
) -> Result<Response<Body>, Reason> {
    let target = admit(worker, &request)?;
    let is_connect = request.method() == Method::CONNECT;
    let is_own = caller.trust_domain == worker.node.identity.id().trust_domain;
    if is_own && !is_connect {
        return forward::forward(worker, caller, record, request).await;
    }
    let rules = rules_of(worker, &target.service).await?;
    if !is_own {
        rules::let_in(&rules, &worker.node.services.mesh(), caller)?;
    }
    match (is_connect, layer) {
        (false, _) => forward::forward(worker, caller, record, request).await,
        (true, Layer::Connected) => Err(Reason::MalformedRequest),
        (true, Layer::Connection) => match rules::carried(&rules, target.port)? {
            Carried::Bytes => opaque::open(worker, record, request).await,
            Carried::Http => within::open(worker, caller, record, request),
        },
    }
}

/// A request must be for the service that this workload serves: a stale caller must not reach whoever took the address over.
fn admit(worker: &Rc<Worker>, request: &Request<Body>) -> Result<Authority, Reason> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let wanted = Authority::parse(host, &worker.node.config.suffix).map_err(|_| Reason::ForeignHost)?;
    if Some(&wanted.service) == worker.node.own.service.as_ref() { Ok(wanted) } else { Err(Reason::UnknownService) }
}

/// What this cluster declares of the workload's service. Only a sidecar that has just started waits for it.
async fn rules_of(worker: &Rc<Worker>, service: &ServiceName) -> Result<Arc<InboundRules>, Reason> {
    let node = &worker.node;
    if node.services.entry(service).is_none() {
        node.discovery.resolve(service).await?;
    }
    let entry = node.services.entry(service).ok_or(Reason::DiscoveryTimeout)?;
    entry.inbound().ok_or(Reason::DiscoveryTimeout)
}
