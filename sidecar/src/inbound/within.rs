//! HTTP inside the stream of a CONNECT: served here like any other call, because what an application is told of its caller
//! must not depend on the way that the caller chose.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::{Chain, SpiffeId};
use eastway_http::Upgrading;
use eastway_http::server::{Protocol, serve as serve_http};
use eastway_request::{Answer, AnswerEnd, Layer};
use eastway_runtime::clock;

use super::{handler, options};
use crate::record::Telemetry;
use crate::worker::Worker;

/// Serves the requests in the stream that is about to open, until either side has ended.
pub(super) fn serve(
    worker: &Rc<Worker>,
    (caller, telemetry): (&Arc<SpiffeId>, &Telemetry),
    asking: Upgrading,
    mut answer: Answer<Telemetry>,
) {
    let (worker, caller, telemetry) = (Rc::clone(worker), Arc::clone(caller), telemetry.clone());
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guard = guard;
        match asking.io().await {
            Ok(io) => {
                let (options, sweeper) = (options(&worker, Protocol::Detect), worker.sweeper.clone());
                let stop = worker.node.draining.wait();
                let handler = handler(&worker, &caller, &telemetry, Layer::Connected);
                let ended = serve_http(io, &options, &sweeper, stop, handler).await;
                answer.end(AnswerEnd::Complete, clock::now());
                tracing::trace!(?ended, "a stream of requests ended");
            }
            Err(error) => tracing::debug!(error = %Chain(&error), "the caller went away"),
        }
    });
}
