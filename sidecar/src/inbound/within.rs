//! HTTP inside the stream of a CONNECT: served here like any other call, because what an application is told of its caller
//! must not depend on the way that the caller chose.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::{Chain, Reason, SpiffeId};
use eastway_http::server::{Protocol, serve};
use eastway_http::{Body, Upgrading};
use eastway_telemetry::metrics::Direction;
use http::{Request, Response, StatusCode};

use super::{Layer, handle, options};
use crate::exchange::Counting;
use crate::record::RequestRecord;
use crate::worker::Worker;

/// Answers 200, and serves the requests that follow until either side has ended.
///
/// # Errors
/// [`Reason::MalformedRequest`] if the connection cannot become a stream.
pub(super) fn open(
    worker: &Rc<Worker>,
    caller: &Arc<SpiffeId>,
    record: &mut RequestRecord,
    mut request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let (worker, caller) = (Rc::clone(worker), Arc::clone(caller));
    record.answered(StatusCode::OK.as_u16());
    let mut record = record.take();
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guard = guard;
        match upgrading.io().await {
            Ok(io) => {
                let (options, sweeper) = (options(&worker, Protocol::Detect), worker.sweeper.clone());
                let stop = worker.node.draining.wait();
                let telemetry = worker.telemetry.clone();
                let handle = move |request| handle(Rc::clone(&worker), Arc::clone(&caller), request, Layer::Connected);
                let handler = Counting { telemetry, direction: Direction::Inbound, handle };
                let ended = serve(io, &options, &sweeper, stop, handler).await;
                record.ended(None);
                tracing::trace!(?ended, "a stream of requests ended");
            }
            Err(error) => tracing::debug!(error = %Chain(&error), "the caller went away"),
        }
    });
    Ok(Response::new(Body::empty()))
}
