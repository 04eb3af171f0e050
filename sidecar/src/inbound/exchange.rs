//! What is said of an inbound call: its span, and who called.

use std::rc::Rc;

use eastway_core::spiffe::Principal;
use eastway_core::trace::TraceParent;
use eastway_core::{ServiceName, SpiffeId, Timestamp};
use eastway_http::Body;
use eastway_telemetry::metrics::Party;
use eastway_telemetry::trace::{Span, SpanKind, attribute};
use http::Request;
use http::header::HeaderValue;

use crate::worker::Worker;

/// The server span of a call, as a child of the caller's attempt; the request goes on with this hop as its parent.
pub(super) fn span(
    worker: &Rc<Worker>,
    caller: &SpiffeId,
    request: &mut Request<Body>,
    started: Timestamp,
) -> Option<Span> {
    let node = &worker.node;
    let parent =
        request.headers().get("traceparent").and_then(|value| value.to_str().ok()).and_then(TraceParent::parse);
    let trace = worker.random(|rng| node.tracer.sample(parent, rng));
    if let Ok(value) = HeaderValue::try_from(trace.traceparent().to_string()) {
        request.headers_mut().insert("traceparent", value);
    }
    let method = request.method().as_str();
    let mut span = node.tracer.span(SpanKind::Server, attribute::span_name(method), &trace, started)?;
    span.set(attribute::HTTP_REQUEST_METHOD, attribute::method(method));
    span.set(attribute::DESTINATION_CLUSTER, node.zone.cluster.clone());
    span.set(attribute::DESTINATION_ZONE, node.zone.zone.clone());
    span.set(attribute::SOURCE_CLUSTER, cluster(caller).to_owned());
    if let Some(service) = &node.own.service {
        span.set(attribute::DESTINATION_SERVICE, service.to_string());
    }
    Some(span)
}

/// Whether the call speaks gRPC.
pub(super) fn is_grpc(request: &Request<Body>) -> bool {
    eastway_http::head::is_grpc(request.headers().get("content-type").map(HeaderValue::as_bytes))
}

/// The caller in metric labels: its account stands for its service.
pub(super) fn party(caller: &SpiffeId) -> Party {
    match &caller.principal {
        Principal::Workload { namespace, account } => {
            Party::service_only(ServiceName::new(namespace.as_str(), account.as_str()))
        }
        Principal::Gateway(_) | Principal::Operator(_) => Party::unknown(),
    }
}

/// The cluster that a trust domain belongs to by convention.
fn cluster(caller: &SpiffeId) -> &str {
    caller.trust_domain.split('.').next().unwrap_or(&caller.trust_domain)
}
