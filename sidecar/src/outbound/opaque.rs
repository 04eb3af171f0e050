//! CONNECT: a byte stream to the service, balanced per connection.

use std::rc::Rc;

use eastway_balance::{Attempts, Pick};
use eastway_core::{Chain, Reason};
use eastway_http::{Body, Upgrading};
use eastway_resilience::Outcome;
use eastway_resilience::attempts::{AttemptEnd, Decision};
use eastway_resilience::deadline::Deadline;
use eastway_resilience::limits::Permit;
use eastway_runtime::clock;
use eastway_transport::Io;
use eastway_transport::relay::{SpliceOptions, splice};
use http::{Request, Response, StatusCode};

use super::Route;
use super::exchange::Exchange;
use super::said::Said;
use crate::upstream::{self, Call, Place};
use crate::worker::Worker;

/// Opens the stream and answers 200; what follows is relayed until either side has ended, and `permit` taken for so long.
///
/// # Errors
/// The reason of the last attempt that found somebody, or why none did.
pub(super) async fn open(
    worker: &Rc<Worker>,
    exchange: &mut Exchange,
    route: &Route,
    mut request: Request<Body>,
    permit: Permit,
) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let (io, held) = reach(worker, exchange, route).await?;
    let options = SpliceOptions { idle: worker.node.config.timeouts.idle, ..SpliceOptions::default() };
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (permit, held, guard);
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

/// Relays what follows an answer that changes the protocol, with `held` for as long as it goes on.
pub(super) fn switched(worker: &Rc<Worker>, application: Upgrading, upstream: Upgrading, held: Body) {
    let options = SpliceOptions { idle: worker.node.config.timeouts.idle, ..SpliceOptions::default() };
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (held, guard);
        if let (Ok(application), Ok(upstream)) = tokio::join!(application.io(), upstream.io()) {
            let relayed = splice(application, upstream, options).await;
            tracing::debug!(?relayed, "a stream of another protocol ended");
        }
    });
}

/// What counts an opaque stream for as long as it is held.
type Held = (Pick, Option<Place>);

/// The stream, and what counts it. Whatever fails here, nothing of the stream was sent.
async fn reach(worker: &Rc<Worker>, exchange: &mut Exchange, route: &Route) -> Result<(Io, Held), Reason> {
    let (service, policy) = (&route.entry.service, route.entry.settings().retries);
    let mut attempts = Attempts::new(false, Deadline::NONE);
    let mut last: Option<Said> = None;
    loop {
        let started = clock::now();
        let picked = worker.random(|rng| attempts.pick(service, route.cluster.as_deref(), rng, started));
        let mut pick = picked.map_err(|none| last.as_ref().map_or(none.reason, Said::reason))?;
        let kind = if attempts.begun() == 1 { "first" } else { "retry" };
        exchange.attempt(kind, &pick.lane.zone, pick.lane.level);
        let call = Call {
            entry: &route.entry,
            port: route.port,
            tried: attempts.tried(),
            idempotent: attempts.idempotent(),
            attempt: attempts.begun(),
            traceparent: exchange.trace.traceparent().to_string(),
        };
        let opened = upstream::open(worker, &call, &mut pick).await;
        let now = clock::now();
        let failed = match opened {
            Ok((io, place)) => {
                let outcome = Outcome::success(now.since(started));
                attempts.answered(service, &pick, StatusCode::OK.as_u16(), outcome, now);
                service.finish(&pick, outcome, now);
                exchange.attempt_ended(pick.endpoint().map(|endpoint| endpoint.id.as_str()), || "200".to_owned());
                return Ok((io, (pick, place)));
            }
            Err(failed) => failed,
        };
        exchange.attempt_ended(None, || failed.reason.code().to_owned());
        let end = attempts.failed(service, &pick, &failed, now.since(started), now);
        let end = AttemptEnd { nothing_sent: true, ..end };
        drop(pick);
        let said = Said::failed(failed.reason).over(last.take());
        match worker.random(|rng| attempts.next(service, &policy, &end, rng, now)) {
            Decision::Retry { after } if after.is_zero() => {}
            Decision::Retry { after } => tokio::time::sleep(after).await,
            Decision::GiveUp(_) => return Err(said.reason()),
        }
        last = Some(said);
    }
}
