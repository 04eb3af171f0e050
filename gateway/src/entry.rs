//! The way into the tunnel: CONNECT from the sidecars of this cluster, over mutual TLS. Peers' tunnels over TCP arrive here as well, by
//! other application protocols, and are handed over to those who serve tunnels; so do gateways that have a token, and are no peers yet.
//!
//! A sidecar names a service, perhaps a cluster and a zone; the gateway opens a stream to an endpoint of it, here or
//! through a peer's gateway, and relays bytes that it cannot read.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::endpoint::MAX_EXCLUDED;
use eastway_core::head::{Fields as _, HttpVersion};
use eastway_core::trace::TraceParent;
use eastway_core::{Authority, AuthorityError, EndpointId, Reason, SpiffeId, Timestamp, via};
use eastway_http::server::{Protocol, ServerOptions, serve};
use eastway_http::{Request, RequestHead, Response, refuse};
use eastway_identity::{Expected, ServerTls, server_config};
use eastway_runtime::{clock, throttled};
use eastway_server::JOIN_ALPN;
use eastway_telemetry::trace::{SpanKind, TraceContext, attribute};
use eastway_transport::accept::{self, Handshakes};
use eastway_transport::tunnel::{StreamAccepted, StreamOpen};
use eastway_transport::{Io, tcp_tunnel, tls};
use tokio::net::TcpListener;

use crate::worker::Worker;
use crate::{exit, relay};

/// The protocols that sidecars may choose from, in our order.
const ALPN: &[&[u8]] = &[b"http/1.1", b"h2"];

/// The listener's name in logs.
const LISTENER: &str = "tunnel.listen (tcp)";

/// What a sidecar asks for to get a drain notice: the answer comes when it is time to move.
const DRAIN_NOTICE: &str = "/drain-notice";
/// Names the peer's gateway that a stream leads to, in the answer to CONNECT and in that request.
const VIA: &str = "eastway-via";
/// Names the peer's gateways that a stream should not lead to while there are others, as [`VIA`] names one.
const AVOID: &str = "eastway-avoid";
/// Names that are looked at in [`AVOID`].
const MAX_AVOIDED: usize = 16;

/// Accepts sidecars, and peers' tunnels over TCP, until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let sidecars = server_config(&worker.node.identity, Expected::AnyWorkload, ALPN);
    let gateways = server_config(&worker.node.identity, Expected::AnyGateway, tcp_tunnel::ALPN);
    let tls = Tls { sidecars, gateways: worker.arrivals.is_some().then_some(gateways) };
    let (stop, admit) = (worker.node.draining.wait(), || Some(worker.node.draining.guard()));
    let handshakes = Handshakes::new(LISTENER, &worker.node.config.handshakes());
    accept::each(listener, LISTENER, stop, admit, |stream| {
        connection(Rc::clone(&worker), Arc::clone(&handshakes), stream, tls.clone())
    })
    .await;
}

/// What is expected of those who connect, by what they want to speak: neither a gateway nor a sidecar passes for the other.
#[derive(Clone)]
struct Tls {
    sidecars: ServerTls,
    gateways: Option<ServerTls>,
}

async fn connection(worker: Rc<Worker>, handshakes: Arc<Handshakes>, stream: Io, tls: Tls) {
    let Tls { sidecars, gateways } = tls;
    let node = Arc::clone(&worker.node);
    let shaken = handshakes.shake_by(stream, |hello| match () {
        () if tls::offers(hello, &[JOIN_ALPN]) => node.federation.introduction().unwrap_or(sidecars),
        () => gateways.filter(|_| tls::offers(hello, tcp_tunnel::ALPN)).unwrap_or(sidecars),
    });
    let Some((io, caller)) = shaken.await else { return };
    if io.alpn() == Some(JOIN_ALPN) {
        // It may have shown what it likes: nobody vouches for it yet.
        if let Err(error) = worker.node.federation.introduced(io) {
            throttled!(warn, shown = %caller, %error, "turned a gateway away that introduced itself");
        }
        return;
    }
    if let Some((arrivals, kind)) = worker.arrivals.as_ref().zip(io.alpn().and_then(tcp_tunnel::kind_of)) {
        if let Err(error) = arrivals.of(kind).hand_over(io) {
            throttled!(warn, peer = %caller, %error, "turned a peer's tunnel over TCP away");
        }
        return;
    }
    let Some(_place) = worker.connections.try_acquire() else {
        throttled!(warn, %caller, "turned a sidecar away: the limit of connections is reached");
        return;
    };
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = Protocol::from_alpn(io.alpn());
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    let (stop, sweeper) = (worker.node.draining.wait(), worker.sweeper.clone());
    let handler = move |request| handle(Rc::clone(&worker), Arc::clone(&caller), request);
    let ended = serve(io, &options, &sweeper, stop, handler).await;
    tracing::trace!(?ended, "a sidecar's connection ended");
}

async fn handle(worker: Rc<Worker>, caller: Arc<SpiffeId>, request: Request) -> Response {
    match open(&worker, &caller, request, clock::now()).await {
        Ok(response) => response,
        Err(reason) => {
            tracing::debug!(reason = reason.code(), caller = %caller, "refused a stream");
            refuse::response(reason, &worker.node.name, false)
        }
    }
}

/// Opens the stream, answers 200, and relays in the background.
async fn open(
    worker: &Rc<Worker>,
    caller: &Arc<SpiffeId>,
    request: Request,
    started: Timestamp,
) -> Result<Response, Reason> {
    let node = &worker.node;
    if caller.trust_domain != node.config.trust_domain {
        return Err(Reason::IdentityRefused);
    }
    let Request { head, upgrading, .. } = request;
    match head.method() {
        "CONNECT" => {}
        // One at a time on a connection, of which there are only so many: each is woken by every change of a path.
        "GET" if head.view().path() == DRAIN_NOTICE && head.version < HttpVersion::Http2 => {
            return Ok(drain_notice(worker, &head).await);
        }
        _ => return Err(Reason::MalformedRequest),
    }
    let upgrading = upgrading.ok_or(Reason::MalformedRequest)?;
    let (target, mut open) = read(worker, caller, &head)?;
    let place = worker.streams.of_workload(caller).ok_or(Reason::Overloaded)?;
    let trace = worker.random(|rng| node.tracer.sample(open.traceparent, rng));
    open.traceparent = Some(trace.traceparent());
    let outcome = connect(worker, &target, &open, &avoided(&head)).await;
    span(worker, &target, &open, &trace, started, outcome.as_ref().err().copied());
    let (accepted, upstream, counted) = outcome?;
    let response = accepted_response(&accepted, counted.as_ref().and_then(|counted| counted.via.as_deref()));
    relay::spawn(node, relay::Downstream::Upgrading(upgrading), upstream, (place, counted), std::future::pending());
    Ok(response)
}

/// Answers when streams that came this way should be replaced by others: when this gateway drains, or when the peer's
/// gateway that they lead to does, or is known not to answer. Until then the request waits.
async fn drain_notice(worker: &Rc<Worker>, head: &RequestHead) -> Response {
    let node = &worker.node;
    let via = head.fields.text(VIA).and_then(via::gateway);
    let peer = async {
        match via {
            Some((cluster, address)) => node.federation.path_ends(cluster, address).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = node.draining.wait() => {}
        () = peer => {}
    }
    Response::empty(200)
}

/// What a stream to a peer keeps counted while it is relayed.
pub(crate) type Counted = Option<relay::PeerStream>;

async fn connect(
    worker: &Rc<Worker>,
    target: &Authority,
    open: &StreamOpen,
    avoid: &[String],
) -> Result<(StreamAccepted, Io, Counted), Reason> {
    let own: &str = &worker.node.config.cluster;
    match target.cluster.as_deref() {
        Some(cluster) if cluster != own => {
            let (accepted, io, counted) = worker.peers.open(&worker.node, cluster, open, avoid).await?;
            Ok((accepted, io, Some(counted)))
        }
        _ => {
            let (accepted, io) = exit::connect_local(worker, target, open).await?;
            Ok((accepted, io, None))
        }
    }
}

fn read(worker: &Rc<Worker>, caller: &Arc<SpiffeId>, head: &RequestHead) -> Result<(Authority, StreamOpen), Reason> {
    let authority = head.authority();
    let target = Authority::parse(authority, &worker.node.config.suffix).map_err(|error| match error {
        AuthorityError::Foreign(_) => Reason::ForeignHost,
        AuthorityError::Malformed(_) => Reason::BadHost,
    })?;
    let text = |name: &str| head.fields.text(name);
    let open = StreamOpen {
        authority: authority.to_owned(),
        source: SpiffeId::clone(caller),
        zone: text("eastway-zone").map(str::to_owned),
        exclude: excluded(text("eastway-exclude").unwrap_or_default())?,
        attempt: text("eastway-attempt").and_then(|attempt| attempt.parse().ok()).unwrap_or(1),
        traceparent: text("traceparent").and_then(TraceParent::parse),
        tracestate: text("tracestate").unwrap_or_default().to_owned(),
        baggage: text("baggage").unwrap_or_default().to_owned(),
    };
    Ok((target, open))
}

/// The endpoints that the list `ids` names.
///
/// # Errors
/// [`Reason::MalformedOpen`] if there are more than [`MAX_EXCLUDED`].
fn excluded(ids: &str) -> Result<Vec<EndpointId>, Reason> {
    let named = ids.split(',').map(str::trim).filter(|id| !id.is_empty());
    let named: Vec<EndpointId> = named.take(MAX_EXCLUDED + 1).map(EndpointId::new).collect();
    if named.len() > MAX_EXCLUDED { Err(Reason::MalformedOpen) } else { Ok(named) }
}

/// The peer's gateways that the stream should not lead to. What is beyond the bound is not avoided, which does no harm.
fn avoided(head: &RequestHead) -> Vec<String> {
    let named = head.fields.text(AVOID).unwrap_or_default().split(',').map(str::trim);
    named.filter(|name| !name.is_empty()).take(MAX_AVOIDED).map(str::to_owned).collect()
}

fn accepted_response(accepted: &StreamAccepted, via: Option<&str>) -> Response {
    let mut response = Response::empty(200);
    let mut set = |name: &str, value: &str| response.head.fields.append(name, value.as_bytes());
    set("eastway-endpoint", accepted.endpoint.as_str());
    if let Some(zone) = &accepted.zone {
        set("eastway-zone", zone);
    }
    if let Some(load) = &accepted.load {
        set("eastway-load", &load.to_header());
    }
    if let Some(via) = via {
        set(VIA, via);
    }
    response
}

fn span(
    worker: &Rc<Worker>,
    target: &Authority,
    open: &StreamOpen,
    trace: &TraceContext,
    started: Timestamp,
    failed: Option<Reason>,
) {
    let node = &worker.node;
    let Some(mut span) = node.tracer.span(SpanKind::Internal, "tunnel entry", trace, started) else { return };
    span.set(attribute::DESTINATION_SERVICE, target.service.to_string());
    span.set(attribute::SOURCE_CLUSTER, node.config.cluster.clone());
    span.set(attribute::ATTEMPT, i64::from(open.attempt));
    if let Some(cluster) = &target.cluster {
        span.set(attribute::DESTINATION_CLUSTER, cluster.clone());
        if **cluster != *node.config.cluster {
            span.set(attribute::PEER_CLUSTER, cluster.clone());
        }
    }
    if let Some(reason) = failed {
        span.fail(reason);
    }
    span.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_name_32_endpoints_to_avoid_and_no_more() {
        let list = |count: usize| (0..count).map(|n| format!("p-{n}")).collect::<Vec<_>>().join(", ");
        assert_eq!(excluded("").map(|ids| ids.len()), Ok(0));
        assert_eq!(excluded(&list(32)).map(|ids| ids[31].to_string()), Ok("p-31".to_owned()));
        for count in [33, 14_000] {
            assert_eq!(excluded(&list(count)), Err(Reason::MalformedOpen), "{count}");
        }
    }
}
