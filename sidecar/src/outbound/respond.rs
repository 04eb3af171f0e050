//! Phase 6: the answer to the application. Nothing else answers it.

use std::rc::Rc;

use eastway_core::Reason;
use eastway_http::reserved::MESH_PREFIX;
use eastway_http::{Body, Edits, refuse};
use eastway_telemetry::metrics::{Code, Direction};
use http::Response;

use super::exchange::Exchange;
use crate::node::Node;
use crate::worker::Worker;

/// Passes an endpoint's response on.
pub(super) fn answer(worker: &Rc<Worker>, mut exchange: Exchange, response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let mut edits = Edits::new();
    edits.drop_prefix(MESH_PREFIX);
    edits.apply(&mut parts.headers);
    let status = parts.status.as_u16();
    finish(worker, &mut exchange, Code::of(status), None);
    if let Some(mut span) = exchange.span.take() {
        span.status(status);
        span.end();
    }
    exchange.log(&worker.node, status, None);
    Response::from_parts(parts, body)
}

/// Refuses the request, and says why.
pub(super) fn refuse(worker: &Rc<Worker>, mut exchange: Exchange, reason: Reason) -> Response<Body> {
    tracing::debug!(
        reason = reason.code(),
        service = exchange.service.as_ref().map(tracing::field::display),
        "refused"
    );
    finish(worker, &mut exchange, Code::of(reason.status()), Some(reason));
    if let Some(mut span) = exchange.span.take() {
        span.fail(reason);
        span.end();
    }
    exchange.log(&worker.node, reason.status(), Some(reason));
    refuse::response(reason, &worker.node.name, exchange.is_grpc, exchange.version)
}

fn finish(worker: &Rc<Worker>, exchange: &mut Exchange, code: Code, reason: Option<Reason>) {
    let node = &worker.node;
    let latency = eastway_runtime::clock::now().since(exchange.started);
    let (zone, level) = exchange.destination.take().unzip();
    let destination = match &exchange.service {
        Some(service) if exchange.known => Node::destination(service, zone.as_ref()),
        _ => eastway_telemetry::metrics::Party::unknown(),
    };
    let mut routes = worker.routes.borrow_mut();
    routes.route(Direction::Outbound, &node.own, &destination).finish(code, reason, level, latency);
}
