//! CONNECT from another sidecar: a byte stream to the application.

use std::rc::Rc;

use eastway_core::{Chain, Reason};
use eastway_http::{Body, Upgrading};
use http::{Request, Response, StatusCode};

use crate::app;
use crate::record::RequestRecord;
use crate::stream;
use crate::worker::Worker;

/// Connects to the application and answers 200; what follows is relayed until either side has ended.
///
/// # Errors
/// [`Reason::AppUnreachable`].
pub(super) async fn open(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    mut request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let upgrading = Upgrading::take(request.extensions_mut()).ok_or(Reason::MalformedRequest)?;
    let in_flight = worker.node.load.enter();
    let application = app::connect(&worker.node).await?;
    record.answered(StatusCode::OK.as_u16());
    let (record, limit) = (record.take(), worker.node.config.timeouts.idle);
    let guard = worker.node.draining.guard();
    tokio::task::spawn_local(async move {
        let _guards = (in_flight, guard);
        match upgrading.io().await {
            Ok(caller) => stream::relay(caller, application, limit, record).await,
            Err(error) => tracing::debug!(error = %Chain(&error), "the caller went away"),
        }
    });
    Ok(Response::new(Body::empty()))
}
