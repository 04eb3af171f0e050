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
use http::{Request, Response, StatusCode};

use super::Route;
use super::said::Said;
use crate::exchange::asked;
use crate::record::{AttemptRecord, Going, RequestRecord};
use crate::stream;
use crate::upstream::{self, Call, Place};
use crate::worker::Worker;

/// Opens the stream and answers 200; what follows is relayed until either side has ended, and `permit` taken for so long.
///
/// # Errors
/// The reason of the last attempt that found somebody, or why none did.
pub(super) async fn open(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    route: &Route,
    mut request: Request<Body>,
    permit: Permit,
) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let (io, held) = reach(worker, record, route, &request).await?;
    record.answered(StatusCode::OK.as_u16());
    let (record, limit) = (record.take(), worker.node.config.timeouts.idle);
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (permit, held, guard);
        match upgrading.io().await {
            Ok(application) => stream::relay(application, io, limit, record).await,
            Err(error) => tracing::debug!(error = %Chain(&error), "the application went away"),
        }
    });
    Ok(Response::new(Body::empty()))
}

/// Relays what follows an answer that changes the protocol, with `held` for as long as it goes on.
pub(super) fn switched(
    worker: &Rc<Worker>,
    application: Upgrading,
    upstream: Upgrading,
    (held, record): (Body, RequestRecord),
) {
    let (guard, limit) = (worker.node.draining.guard(), worker.node.config.timeouts.idle);
    tokio::task::spawn_local(async move {
        let _guards = (held, guard);
        if let (Ok(application), Ok(upstream)) = tokio::join!(application.io(), upstream.io()) {
            stream::relay(application, upstream, limit, record).await;
        }
    });
}

/// What counts an opaque stream for as long as it is held.
type Held = (Pick, Option<Place>);

/// The stream, and what counts it. Whatever fails here, nothing of the stream was sent.
async fn reach(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    route: &Route,
    request: &Request<Body>,
) -> Result<(Io, Held), Reason> {
    let (service, policy) = (&route.entry.service, route.entry.traffic_policy().retries);
    let request_trace = *record.trace().ok_or(Reason::Internal)?;
    let mut attempts = Attempts::new(false, Deadline::NONE);
    let mut last: Option<Said> = None;
    loop {
        let started = clock::now();
        let picked = worker.random(|rng| attempts.pick(service, route.cluster.as_deref(), rng, started));
        let mut pick = picked.map_err(|none| last.as_ref().map_or(none.reason, Said::reason))?;
        let (zone, level) = (&pick.locality.zone, pick.locality.level);
        let going = Going { service: service.name(), zone, level, probe: pick.probe, number: attempts.begun() };
        record.attempt(going.kind().as_str(), zone, level);
        let trace = worker.random(|rng| request_trace.child(rng));
        let asked = asked(request.method(), request.uri(), request.headers(), request.version());
        let mut attempt = AttemptRecord::begin(&worker.telemetry, &asked, &trace, &going, started);
        let call = Call {
            entry: &route.entry,
            port: route.port,
            tried: attempts.tried(),
            idempotent: attempts.idempotent(),
            attempt: attempts.begun(),
            traceparent: trace.traceparent().to_string(),
        };
        let opened = upstream::open(&worker.upstreams, &call, &mut pick).await;
        let now = clock::now();
        let endpoint = pick.endpoint().map(|endpoint| endpoint.id.as_str());
        endpoint.iter().for_each(|endpoint| attempt.endpoint(endpoint));
        let failed = match opened {
            Ok((io, place)) => {
                let outcome = Outcome::success(now.since(started));
                attempts.answered(service, &pick, StatusCode::OK.as_u16(), outcome, now);
                service.finish(&pick, outcome, now);
                record.attempted(endpoint, || "200".to_owned());
                attempt.answered(StatusCode::OK.as_u16());
                attempt.ended(false);
                return Ok((io, (pick, place)));
            }
            Err(failed) => failed,
        };
        record.attempted(endpoint, || failed.reason.code().to_owned());
        attempt.failed(failed.reason);
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
