//! The way out of the tunnel: streams from peer gateways, connected to an endpoint of this cluster.
//!
//! The pick is made by the same code as a sidecar's, in the place of a sidecar of the wanted zone.

use std::rc::Rc;
use std::sync::Arc;

use eastway_balance::Endpoint;
use eastway_core::{Authority, Chain, Reason, Timestamp};
use eastway_request::{BodyState, Exit, Outbound, Step};
use eastway_resilience::AttemptError;
use eastway_runtime::{clock, throttled};
use eastway_telemetry::metrics::TunnelPeer;
use eastway_telemetry::trace::{SpanKind, attribute};
use eastway_transport::tunnel::{IncomingTunnel, StreamAccepted, StreamOpen, StreamOpening};
use eastway_transport::{Io, tcp};

use crate::carriers::Carriers;
use crate::relay;
use crate::streams::StreamPlace;
use crate::worker::Worker;

/// Accepts peer gateways' data connections from `carriers` until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, carriers: Carriers) {
    let draining = worker.node.draining.wait();
    tokio::pin!(draining);
    loop {
        let incoming = tokio::select! {
            biased;
            () = &mut draining => return,
            incoming = carriers.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        tokio::task::spawn_local(connection(Rc::clone(&worker), incoming));
    }
}

async fn connection(worker: Rc<Worker>, incoming: Box<dyn IncomingTunnel>) {
    let address = incoming.remote_address();
    let tunnel = match incoming.establish().await {
        Ok(tunnel) => tunnel,
        Err(error) => {
            throttled!(info, peer = %address, error = %Chain(&error), "refused a peer's data connection");
            return;
        }
    };
    let Some(cluster) = worker.node.federation.cluster_of(&tunnel.peer().trust_domain) else {
        throttled!(info, peer = %tunnel.peer(), "refused a data connection: no Peer resource names its trust domain");
        tunnel.close(Reason::IdentityRefused);
        return;
    };
    let transport = tunnel.transport();
    tracing::debug!(peer = %tunnel.peer(), cluster, %transport, "a peer's data connection");
    let metrics = worker.peers.metrics(&worker.node, &cluster, transport);
    let _counted = metrics.connected();
    while let Some(stream) = tunnel.accept().await {
        metrics.rtt(tunnel.stats().rtt);
        // Judged anew for each stream: the resources may have changed since the connection began.
        let Some(cluster) = worker.node.federation.cluster_of(&tunnel.peer().trust_domain) else {
            tunnel.close(Reason::IdentityRefused);
            return;
        };
        let (worker, metrics) = (Rc::clone(&worker), Arc::clone(&metrics));
        tokio::task::spawn_local(async move {
            match stream.opening().await {
                Ok(opening) => serve(&worker, &cluster, opening, metrics).await,
                Err(error) => {
                    tracing::debug!(
                        cluster,
                        error = %Chain(&error),
                        "refused a stream that a peer opened"
                    );
                }
            }
        });
    }
}

async fn serve(worker: &Rc<Worker>, cluster: &str, opening: StreamOpening, metrics: Arc<TunnelPeer>) {
    let started = clock::now();
    let outcome = admitted(worker, cluster, opening.open()).await;
    let authority = opening.open().authority.clone();
    span(worker, cluster, opening.open(), started, outcome.as_ref().err().copied());
    match outcome {
        Ok((accepted, endpoint, place)) => match opening.accept(accepted).await {
            Ok(peer) => {
                let counted = relay::PeerStream::accepted(metrics);
                let withdrawn = export_ends(Rc::clone(worker), cluster.to_owned(), authority);
                relay::spawn(&worker.node, relay::Downstream::Ready(peer), endpoint, (place, Some(counted)), withdrawn);
            }
            Err(error) => tracing::debug!(cluster, %error, "the peer gave the stream up before it was accepted"),
        },
        Err(reason) => {
            metrics.refused(reason);
            tracing::debug!(
                cluster,
                reason = reason.code(),
                authority = opening.open().authority,
                "refused a peer's stream"
            );
            opening.refuse(reason, reason.meaning()).await;
        }
    }
}

/// Completes when the service that a stream to `authority` was admitted to is exported to `cluster` no longer.
async fn export_ends(worker: Rc<Worker>, cluster: String, authority: String) -> Reason {
    match Authority::parse(&authority, &worker.node.config.suffix) {
        Ok(target) => worker.node.federation.export_ends(&target.service, &cluster).await,
        // Such a stream is never admitted.
        Err(_) => std::future::pending().await,
    }
    Reason::NotExported
}

async fn admitted(
    worker: &Rc<Worker>,
    cluster: &str,
    open: &StreamOpen,
) -> Result<(StreamAccepted, Io, StreamPlace), Reason> {
    if worker.node.draining.started() {
        return Err(Reason::Draining);
    }
    worker.node.federation.settled().await;
    let place = worker.streams.of_peer(cluster).ok_or(Reason::Overloaded)?;
    let target = Authority::parse(&open.authority, &worker.node.config.suffix).map_err(|_| Reason::MalformedOpen)?;
    if target.cluster.as_deref().is_some_and(|wanted| wanted != worker.node.config.cluster) {
        // Streams are not passed on: the caller's gateway has a path of its own, or none.
        return Err(Reason::UnknownService);
    }
    worker.node.federation.check_export(&target.service, cluster)?;
    let (accepted, io) = connect_local(worker, &target, open).await?;
    Ok((accepted, io, place))
}

/// A TCP connection to the sidecar of an endpoint of this cluster, chosen as a sidecar in the wanted zone would.
///
/// # Errors
/// Why there is none.
pub(crate) async fn connect_local(
    worker: &Rc<Worker>,
    target: &Authority,
    open: &StreamOpen,
) -> Result<(StreamAccepted, Io), Reason> {
    let node = &worker.node;
    let entry = node.services.arriving(&target.service, open.zone.as_deref()).ok_or(Reason::UnknownService)?;
    let exit = Exit {
        authority: &open.authority,
        entry: &entry,
        port: target.port.unwrap_or_default(),
        exclude: &open.exclude,
        parent: open.traceparent,
    };
    let mut stream = worker.random(|rng| Outbound::exit(&(), &worker.exit_options, &exit, clock::now(), rng));
    loop {
        match worker.random(|rng| stream.step(clock::now(), rng)) {
            Step::Attempt(pick) => match dial(worker, pick.endpoint()).await {
                Ok((io, endpoint)) => {
                    entry.service().revive(&endpoint, clock::now());
                    // The gateway does not count sessions: they balance by what their callers and endpoints say.
                    drop(stream.opened(pick, clock::now()));
                    let accepted = StreamAccepted {
                        endpoint: endpoint.id.clone(),
                        zone: Some(endpoint.zone.zone.to_string()),
                        load: node.services.load(&target.service, &endpoint.id),
                    };
                    return Ok((accepted, io));
                }
                Err(error) => {
                    worker.random(|rng| stream.failed(&pick, error, &BodyState::NONE, clock::now(), rng));
                }
            },
            Step::Wait(wait) => tokio::time::sleep(wait).await,
            Step::Refuse(refusal) => return Err(refusal.reason),
            Step::Resolve(_) | Step::FallBack => return Err(Reason::Internal),
        }
    }
}

async fn dial(worker: &Rc<Worker>, endpoint: Option<&Arc<Endpoint>>) -> Result<(Io, Arc<Endpoint>), AttemptError> {
    // In the own cluster, every endpoint is known with its address.
    let known = endpoint.and_then(|endpoint| Some((endpoint, endpoint.address?)));
    let (endpoint, address) = known.ok_or(AttemptError::said(Reason::Internal))?;
    let timeouts = &worker.node.config.timeouts;
    let options = tcp::DialOptions::data(timeouts.connect, timeouts.tcp_keepalive, timeouts.tcp_user);
    match tcp::dial(address, &options).await {
        Ok(stream) => Ok((Io::watched(stream, timeouts.tcp_user), Arc::clone(endpoint))),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(AttemptError::gone(Reason::ConnectTimeout)),
        // This gateway has no descriptors left: that says nothing about the endpoint.
        Err(error) if tcp::is_exhaustion(&error) => Err(AttemptError::full(Reason::Overloaded)),
        Err(_) => Err(AttemptError::gone(Reason::ConnectFailed)),
    }
}

fn span(worker: &Rc<Worker>, cluster: &str, open: &StreamOpen, started: Timestamp, failed: Option<Reason>) {
    let node = &worker.node;
    let trace = worker.random(|rng| node.tracer.sample(open.traceparent, rng));
    let Some(mut span) = node.tracer.span(SpanKind::Internal, "tunnel exit", &trace, started) else { return };
    span.set(attribute::SOURCE_CLUSTER, cluster.to_owned());
    span.set(attribute::PEER_CLUSTER, cluster.to_owned());
    span.set(attribute::DESTINATION_CLUSTER, node.config.cluster.clone());
    span.set(attribute::ATTEMPT, i64::from(open.attempt));
    if let Some(reason) = failed {
        span.fail(reason);
    }
    span.end();
}
