//! What is remembered of one request while it passes: when it came, its trace, its attempts.

use std::rc::Rc;

use eastway_core::trace::TraceParent;
use eastway_core::{Authority, Reason, ServiceName, Timestamp, ZoneId};
use eastway_http::Body;
use eastway_runtime::clock;
use eastway_telemetry::trace::{Span, SpanKind, TraceContext, attribute};
use http::{Request, Version};

use crate::access_log::{Attempt, Record, now_us};
use crate::node::Node;
use crate::worker::Worker;

/// A request under way.
pub(crate) struct Exchange {
    pub(crate) started: Timestamp,
    pub(crate) is_grpc: bool,
    pub(crate) version: Version,
    pub(crate) trace: TraceContext,
    pub(crate) span: Option<Span>,
    pub(crate) service: Option<ServiceName>,
    /// The service is one that the mesh knows: only then may its name become a label.
    pub(crate) known: bool,
    /// Where the last attempt went, and its failover level.
    pub(crate) destination: Option<(ZoneId, usize)>,
    log: Option<Log>,
}

/// What the access log needs; absent where none is kept, so that it costs nothing.
struct Log {
    at_us: u64,
    method: String,
    attempts: Vec<Attempt>,
}

impl Exchange {
    pub(super) fn begin(worker: &Rc<Worker>, request: &Request<Body>) -> Self {
        let node = &worker.node;
        let started = clock::now();
        let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let trace = worker.random(|rng| node.tracer.sample(parent.and_then(TraceParent::parse), rng));
        let method = request.method().as_str();
        let span = node.tracer.span(SpanKind::Server, attribute::span_name(method), &trace, started).map(|mut span| {
            span.set(attribute::HTTP_REQUEST_METHOD, attribute::method(method));
            span_source(&mut span, node);
            span
        });
        let log =
            node.access_log.is_some().then(|| Log { at_us: now_us(), method: method.to_owned(), attempts: Vec::new() });
        let content_type = request.headers().get("content-type").map(http::HeaderValue::as_bytes);
        Self {
            started,
            is_grpc: eastway_http::head::is_grpc(content_type),
            version: request.version(),
            trace,
            span,
            service: None,
            known: false,
            destination: None,
            log,
        }
    }

    pub(super) fn identified(&mut self, target: &Authority) {
        if let Some(span) = &mut self.span {
            span.set(attribute::DESTINATION_SERVICE, target.service.to_string());
        }
        self.service = Some(target.service.clone());
    }

    /// Notes that an attempt begins in the lane of `zone`.
    pub(super) fn attempt(&mut self, kind: &'static str, zone: &ZoneId, level: usize) {
        self.destination = Some((zone.clone(), level));
        if let Some(log) = &mut self.log {
            let result = String::new();
            log.attempts.push(Attempt { at_us: now_us(), kind, zone: zone.to_string(), endpoint: None, result });
        }
    }

    /// Notes how the current attempt ended.
    pub(super) fn attempt_ended(&mut self, endpoint: Option<&str>, result: impl FnOnce() -> String) {
        if let Some(attempt) = self.log.as_mut().and_then(|log| log.attempts.last_mut()) {
            attempt.endpoint = endpoint.map(str::to_owned);
            attempt.result = result();
        }
    }

    /// Writes the access log's line, if one is kept.
    pub(super) fn log(&mut self, node: &Node, status: u16, reason: Option<Reason>) {
        let (Some(log), Some(writer)) = (self.log.take(), &node.access_log) else { return };
        writer.write(Record {
            at_us: log.at_us,
            service: self.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            method: log.method,
            status,
            reason: reason.map(Reason::code),
            duration_us: clock::now().since(self.started).as_micros() as u64,
            trace_id: Some(format!("{:032x}", self.trace.trace_id())),
            attempts: log.attempts,
        });
    }
}

/// Where the spans of this node's calls come from.
pub(super) fn span_source(span: &mut Span, node: &Node) {
    span.set(attribute::SOURCE_CLUSTER, node.zone.cluster.clone());
    span.set(attribute::SOURCE_ZONE, node.zone.zone.clone());
    if let Some(service) = &node.own.service {
        span.set(attribute::SOURCE_SERVICE, service.to_string());
    }
}

/// Whether the method may be repeated without harm (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(request: &Request<Body>) -> bool {
    matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
