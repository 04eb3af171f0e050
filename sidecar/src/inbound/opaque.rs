//! CONNECT from another sidecar: a byte stream to the application.

use std::rc::Rc;

use eastway_core::{Chain, Reason};
use eastway_http::{Body, Upgrading};
use eastway_transport::relay::{SpliceOptions, splice};
use http::{Request, Response};

use super::app;
use crate::worker::Worker;

/// Connects to the application and answers 200; what follows is relayed until either side has ended.
///
/// # Errors
/// [`Reason::AppUnreachable`].
pub(super) async fn open(worker: &Rc<Worker>, mut request: Request<Body>) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let in_flight = worker.node.load.enter();
    let application = app::connect(&worker.node).await?;
    let options = SpliceOptions { idle: worker.node.config.timeouts.idle, ..SpliceOptions::default() };
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (in_flight, guard);
        match upgrading.io().await {
            Ok(caller) => {
                let relayed = splice(caller, application, options).await;
                tracing::debug!(?relayed, "an opaque stream ended");
            }
            Err(error) => tracing::debug!(error = %Chain(&error), "the caller went away"),
        }
    });
    Ok(Response::new(Body::empty()))
}
