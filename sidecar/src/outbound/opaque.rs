//! CONNECT: a byte stream to the service, balanced per connection.

use std::rc::Rc;

use eastway_balance::{Pick, Tried};
use eastway_core::{Attribution, Chain, Reason};
use eastway_http::{Body, Upgrading};
use eastway_resilience::Outcome;
use eastway_runtime::clock;
use eastway_transport::Io;
use eastway_transport::relay::{SpliceOptions, splice};
use http::{Request, Response};

use super::Route;
use super::exchange::Exchange;
use crate::upstream::{self, Call, Place};
use crate::worker::Worker;

/// Attempts to reach an endpoint; nothing of the stream was sent in any of them.
const ATTEMPTS: u32 = 4;

/// Opens the stream and answers 200; what follows is relayed until either side has ended.
///
/// # Errors
/// The reason of the last attempt, or why there was none.
pub(super) async fn open(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    route: &Route,
    mut request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let (io, held) = reach(worker, exchange, route).await?;
    let options = SpliceOptions { idle: worker.node.config.timeouts.idle, ..SpliceOptions::default() };
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (held, guard);
        match upgrading.io().await {
            Ok(application) => {
                let relayed = splice(application, io, options).await;
                tracing::debug!(?relayed, "an opaque stream ended");
            }
            Err(error) => tracing::debug!(error = %Chain(&error), "the application went away"),
        }
    });
    Ok(Response::new(Body::empty()))
}

/// Relays what follows an answer that changes the protocol.
pub(super) fn switched(worker: &Rc<Worker>, application: Upgrading, upstream: Upgrading) {
    let options = SpliceOptions { idle: worker.node.config.timeouts.idle, ..SpliceOptions::default() };
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guard = guard;
        if let (Ok(application), Ok(upstream)) = tokio::join!(application.io(), upstream.io()) {
            let relayed = splice(application, upstream, options).await;
            tracing::debug!(?relayed, "a stream of another protocol ended");
        }
    });
}

/// What counts an opaque stream for as long as it is held.
type Held = (Pick, Option<Place>);

/// The stream, and what counts it.
async fn reach(worker: &Rc<Worker>, exchange: &mut Exchange, route: &Route) -> Result<(Io, Held), Reason> {
    let mut tried = Tried::new();
    let mut last = None;
    let service = &route.entry.service;
    for attempt in 1..=ATTEMPTS {
        let now = clock::now();
        let picked = worker.random(|rng| service.pick(rng, now, &tried, route.cluster.as_deref(), false));
        let mut pick = match picked {
            Ok(pick) => pick,
            Err(none) => return Err(last.unwrap_or(none.reason)),
        };
        exchange.attempt(if attempt == 1 { "first" } else { "retry" }, &pick.lane.zone, pick.lane.level);
        let call = Call {
            entry: &route.entry,
            port: route.port,
            tried: &tried,
            idempotent: false,
            attempt,
            traceparent: exchange.trace.traceparent().to_string(),
        };
        let failed = match upstream::open(worker, &call, &mut pick).await {
            Ok((io, place)) => {
                service.finish(&pick, Outcome::success(clock::now().since(now)), clock::now());
                exchange.attempt_ended(pick.endpoint().map(|endpoint| endpoint.id.as_str()), || "200".to_owned());
                return Ok((io, (pick, place)));
            }
            Err(failed) => failed,
        };
        exchange.attempt_ended(None, || failed.reason.code().to_owned());
        service.finish(&pick, failed.outcome(), clock::now());
        if let Some(endpoint) = pick.endpoint() {
            tried.push_endpoint(endpoint);
        }
        match failed.reason.attribution() {
            Attribution::Tunnel | Attribution::GatewayOverload => tried.push_cluster(&pick.lane.zone.cluster),
            _ => tried.push_lane(&pick.lane.zone),
        }
        last = Some(failed.reason);
    }
    Err(last.unwrap_or(Reason::NoReadyEndpoint))
}
