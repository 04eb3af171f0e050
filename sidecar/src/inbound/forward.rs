//! A call on its way to the application, and the application's answer on its way back.

use std::rc::Rc;

use eastway_core::{Reason, SpiffeId};
use eastway_http::body::{End, Observer};
use eastway_http::refuse::PROXY_STATUS;
use eastway_http::reserved::MESH_PREFIX;
use eastway_http::{Body, Edits, Upgrading};
use eastway_runtime::clock;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};

use crate::load::{InFlight, orca};
use crate::record::RequestRecord;
use crate::stream;
use crate::worker::Worker;

/// The verified identity of the caller.
const SOURCE: HeaderName = HeaderName::from_static("eastway-source");
/// This endpoint's load, for the caller's next choice.
const LOAD: HeaderName = HeaderName::from_static("eastway-load");

/// Hands a call to the application.
///
/// # Errors
/// The reason why there is no response.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    caller: &SpiffeId,
    record: &mut RequestRecord,
    request: Request<Body>,
) -> Result<Response<Body>, Reason> {
    let in_flight = worker.node.load.enter();
    let (mut parts, body) = request.into_parts();
    let spoken = if parts.headers.contains_key(crate::SPOKEN) { Version::HTTP_11 } else { parts.version };
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX);
    if let Ok(source) = HeaderValue::try_from(caller.to_string()) {
        edits.set(SOURCE, source);
    }
    edits.apply(&mut parts.headers);
    let mut request = Request::from_parts(parts, worker.limited(body));
    let from_caller = Upgrading::take(request.extensions_mut());
    let mut charged = Charged { in_flight, failed: false };
    match worker.app.send(request, spoken).await {
        Ok(response) => Ok(answer(worker, record, response, charged, from_caller)),
        Err(reason) => {
            charged.failed = true;
            Err(reason)
        }
    }
}

/// The application's response with this endpoint's load; nothing in it may pass for a word of the mesh.
fn answer(
    worker: &Rc<Worker>,
    record: &mut RequestRecord,
    mut response: Response<Body>,
    mut charged: Charged,
    from_caller: Option<Upgrading>,
) -> Response<Body> {
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX).drop(PROXY_STATUS);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        edits.apply(response.headers_mut());
        if let (Some(caller), Some(app)) = (from_caller, Upgrading::take(response.extensions_mut())) {
            record.answered(response.status().as_u16());
            relay(worker, caller, app, (charged, record.take()));
        }
        return response;
    }
    charged.failed = response.status().is_server_error();
    let stated = response.headers().get(orca::HEADER).and_then(|value| value.to_str().ok());
    if let Some(utilisation) = stated.and_then(orca::utilisation) {
        worker.node.load.stated(utilisation, clock::now());
    }
    if let Ok(load) = HeaderValue::try_from(worker.node.load.report(clock::now()).to_header()) {
        edits.set(LOAD, load);
    }
    edits.apply(response.headers_mut());
    worker.passing(response.map(|body| body.observe(Box::new(charged))))
}

fn relay(worker: &Rc<Worker>, caller: Upgrading, app: Upgrading, (charged, record): (Charged, RequestRecord)) {
    let (guard, limit) = (worker.node.draining.guard(), worker.node.config.timeouts.idle);
    tokio::task::spawn_local(async move {
        let _guards = (charged, guard);
        if let (Ok(caller), Ok(app)) = tokio::join!(caller.io(), app.io()) {
            stream::relay(caller, app, limit, record).await;
        }
    });
}

/// A request in flight at the application, and whether it failed there.
struct Charged {
    in_flight: InFlight,
    failed: bool,
}

impl Observer for Charged {
    fn end(&mut self, end: &End<'_>) {
        self.failed |= matches!(end, End::Failed(_));
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if self.failed {
            self.in_flight.fail();
        }
    }
}
