//! One record of each request, and one of each attempt, written when it ends, however it ends.
//!
//! What happens to a request is told to its [`RequestRecord`]: by the phases, by the body of its answer, by the relay of its
//! stream. Its `Drop` writes metrics, span and access log, so that a request cannot end without them: one that its caller
//! cancelled, whose answer broke off or that was refused is counted like any other, once.
//!
//! Nothing here knows a socket, or a type of an HTTP library: `exchange` translates. Nothing here decides anything.

mod attempt;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{Reason, ServiceName, Timestamp, ZoneId};
use eastway_runtime::clock;
use eastway_telemetry::metrics::{Code, Direction, InFlight, Party, Route, RouteCache};
use eastway_telemetry::trace::{Span, SpanKind, TraceContext, attribute};

use crate::access_log::{self, now_us};
use crate::node::Node;

pub(crate) use attempt::{AttemptRecord, Going};

/// Where a worker's records are written to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) node: Arc<Node>,
    routes: Rc<RefCell<RouteCache>>,
}

impl Telemetry {
    /// For one worker.
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::clone(node), routes: Rc::new(RefCell::new(node.traffic.cache())) }
    }

    /// Counts what was refused before it could be read as a request.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        let (own, unknown) = (&self.node.own, Party::unknown());
        let (source, destination) = match direction {
            Direction::Inbound => (&unknown, own),
            Direction::Outbound | Direction::Relay => (own, &unknown),
        };
        self.route(direction, source, destination).finish(
            Code::of(reason.status()),
            Some(reason),
            None,
            Duration::ZERO,
        );
    }

    fn route(&self, direction: Direction, source: &Party, destination: &Party) -> Arc<Route> {
        self.routes.borrow_mut().route(direction, source, destination)
    }
}

/// A request's head, as far as records need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// As written.
    pub(crate) method: &'a str,
    /// Without the query, which may hold what nobody must read; empty for CONNECT.
    pub(crate) path: &'a str,
    /// HOST or HOST:PORT.
    pub(crate) authority: &'a str,
    /// `1.0`, `1.1` or `2`.
    pub(crate) version: &'static str,
    pub(crate) is_grpc: bool,
}

impl Asked<'_> {
    /// The host and the port that was asked for; 80 if none was named.
    fn server(&self) -> (&str, i64) {
        let named = self.authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        named.map_or((self.authority, 80), |(host, port)| (host, i64::from(port)))
    }

    /// What OpenTelemetry's conventions want of the spans of both kinds.
    fn describe(&self, span: &mut Span) {
        let (host, port) = self.server();
        span.set(attribute::HTTP_REQUEST_METHOD, attribute::method(self.method));
        span.set(attribute::SERVER_ADDRESS, host.to_owned());
        span.set(attribute::SERVER_PORT, port);
        span.set(attribute::NETWORK_PROTOCOL_VERSION, self.version);
        if self.is_grpc {
            span.set(attribute::RPC_SYSTEM, "grpc");
        }
    }
}

/// Where a request comes from and goes to, as far as that is known when it begins.
pub(crate) enum Way {
    /// From the application beside this sidecar, to wherever the mesh serves it.
    Outbound,
    /// From the caller, with this identity, to the application beside this sidecar.
    Inbound { source: Party, identity: String },
}

/// What becomes of one request. Dropping it writes it.
///
/// An empty one, which is what [`RequestRecord::take`] leaves behind, is told everything in vain and writes nothing.
#[derive(Default)]
pub(crate) struct RequestRecord(Option<Box<Facts>>);

struct Facts {
    telemetry: Telemetry,
    direction: Direction,
    started: Timestamp,
    trace: TraceContext,
    source: Party,
    service: Option<ServiceName>,
    /// The service is one that the mesh knows: only then may its name become a label.
    known: bool,
    /// Where the last attempt went, and its failover level.
    place: Option<(ZoneId, Option<usize>)>,
    /// The status of the answer that was begun.
    status: Option<u16>,
    reason: Option<Reason>,
    /// The answer has come to its end.
    complete: bool,
    is_grpc: bool,
    grpc_status: Option<u8>,
    sent: Rc<Cell<u64>>,
    received: u64,
    span: Option<Span>,
    _in_flight: Option<InFlight>,
    log: Option<Log>,
}

/// What the access log needs; absent where none is kept, so that it costs nothing.
struct Log {
    at_us: u64,
    method: String,
    source: Option<String>,
    attempts: Vec<access_log::Attempt>,
}

impl RequestRecord {
    /// A request whose head has just been read.
    pub(crate) fn begin(telemetry: &Telemetry, asked: &Asked<'_>, trace: TraceContext, way: Way) -> Self {
        let (node, started) = (&telemetry.node, clock::now());
        let span = node.tracer.span(SpanKind::Server, attribute::span_name(asked.method), &trace, started);
        let (direction, source, identity) = match way {
            Way::Outbound => (Direction::Outbound, node.own.clone(), None),
            Way::Inbound { source, identity } => (Direction::Inbound, source, Some(identity)),
        };
        let mut facts = Facts {
            telemetry: telemetry.clone(),
            direction,
            started,
            trace,
            source,
            service: None,
            known: false,
            place: None,
            status: None,
            reason: None,
            complete: false,
            is_grpc: asked.is_grpc,
            grpc_status: None,
            sent: Rc::default(),
            received: 0,
            span,
            _in_flight: None,
            log: None,
        };
        if direction == Direction::Inbound {
            facts.service.clone_from(&node.own.service);
            facts.known = true;
            facts.place = Some((node.zone.clone(), None));
            let route = facts.route();
            facts._in_flight = Some(route.start());
        }
        facts.describe(asked, identity.as_deref());
        facts.log = node.access_log.is_some().then(|| Log {
            at_us: now_us(),
            method: asked.method.to_owned(),
            source: identity,
            attempts: Vec::new(),
        });
        Self(Some(Box::new(facts)))
    }

    /// The record, for whoever sees the request's end.
    #[must_use]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// When the request came, and its place in its trace; `None` of an empty record.
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.0.as_deref().map(|facts| &facts.trace)
    }

    /// Whether anybody wants to know how many bytes passed.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.0.as_deref().is_some_and(|facts| facts.span.is_some() || facts.log.is_some())
    }

    /// The service that the request names.
    pub(crate) fn names(&mut self, service: &ServiceName) {
        let Some(facts) = &mut self.0 else { return };
        if let Some(span) = &mut facts.span {
            span.set(attribute::DESTINATION_SERVICE, service.to_string());
        }
        facts.service = Some(service.clone());
    }

    /// The mesh knows that service.
    pub(crate) fn known(&mut self) {
        if let Some(facts) = &mut self.0 {
            facts.known = true;
        }
    }

    /// The request went, or would have gone, to the locality of `zone`.
    pub(crate) fn place(&mut self, zone: &ZoneId, level: usize) {
        if let Some(facts) = &mut self.0 {
            facts.place = Some((zone.clone(), Some(level)));
        }
    }

    /// An attempt of the kind `first`, `retry` or `probe` begins in the locality of `zone`.
    pub(crate) fn attempt(&mut self, kind: &'static str, zone: &ZoneId, level: usize) {
        self.place(zone, level);
        if let Some(log) = self.0.as_mut().and_then(|facts| facts.log.as_mut()) {
            let result = String::new();
            let zone = zone.to_string();
            log.attempts.push(access_log::Attempt { at_us: now_us(), kind, zone, endpoint: None, result });
        }
    }

    /// How the last attempt went that was begun: an HTTP status, or the code of a reason.
    pub(crate) fn attempted(&mut self, endpoint: Option<&str>, result: impl FnOnce() -> String) {
        let log = self.0.as_mut().and_then(|facts| facts.log.as_mut());
        if let Some(attempt) = log.and_then(|log| log.attempts.last_mut()) {
            attempt.endpoint = endpoint.map(str::to_owned);
            attempt.result = result();
        }
    }

    /// The head of the answer passes. What comes of the rest is told by [`RequestRecord::ended`].
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(facts) = &mut self.0 {
            facts.status = Some(status);
        }
    }

    /// The request was refused, and that is its answer.
    pub(crate) fn refused(&mut self, reason: Reason) {
        if let Some(facts) = &mut self.0 {
            facts.status = Some(reason.status());
            facts.reason = Some(reason);
            facts.grpc_status = facts.is_grpc.then(|| reason.grpc_status());
            facts.complete = true;
        }
    }

    /// The `grpc-status` of the answer.
    pub(crate) fn grpc_status(&mut self, code: u8) {
        if let Some(facts) = &mut self.0 {
            facts.grpc_status = Some(code);
        }
    }

    /// Counts the bytes that go towards the destination.
    pub(crate) fn counts_sent(&self) -> Rc<Cell<u64>> {
        self.0.as_deref().map(|facts| Rc::clone(&facts.sent)).unwrap_or_default()
    }

    /// So many bytes of the answer came from the destination.
    pub(crate) fn received(&mut self, bytes: u64) {
        if let Some(facts) = &mut self.0 {
            facts.received += bytes;
        }
    }

    /// So many more bytes of a stream passed, which is still open: metrics count them at once.
    pub(crate) fn streamed(&mut self, sent: u64, received: u64) {
        let Some(facts) = &mut self.0 else { return };
        facts.sent.set(facts.sent.get() + sent);
        facts.received += received;
        if sent + received > 0 {
            facts.route().streamed(sent, received);
        }
    }

    /// The answer, or the stream, has ended: well, or for this reason.
    pub(crate) fn ended(&mut self, reason: Option<Reason>) {
        if let Some(facts) = &mut self.0 {
            facts.complete = reason.is_none();
            facts.reason = reason;
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if let Some(facts) = self.0.take() {
            facts.write();
        }
    }
}

impl Facts {
    fn describe(&mut self, asked: &Asked<'_>, identity: Option<&str>) {
        let Some(span) = &mut self.span else { return };
        let node = &self.telemetry.node;
        asked.describe(span);
        span.set(attribute::URL_SCHEME, "http");
        if !asked.path.is_empty() {
            span.set(attribute::URL_PATH, asked.path.to_owned());
        }
        match identity {
            None => span_source(span, node),
            Some(identity) => {
                span.set(attribute::SOURCE_IDENTITY, identity.to_owned());
                if let Some(zone) = &self.source.zone {
                    span.set(attribute::SOURCE_CLUSTER, zone.cluster.clone());
                }
                if let Some(service) = &self.source.service {
                    span.set(attribute::SOURCE_SERVICE, service.to_string());
                }
                span.set(attribute::DESTINATION_CLUSTER, node.zone.cluster.clone());
                span.set(attribute::DESTINATION_ZONE, node.zone.zone.clone());
                if let Some(service) = &node.own.service {
                    span.set(attribute::DESTINATION_SERVICE, service.to_string());
                }
            }
        }
    }

    /// The metrics of requests from here to where this one went last.
    fn route(&self) -> Arc<Route> {
        let destination = match &self.service {
            Some(service) if self.known => Node::destination(service, self.place.as_ref().map(|(zone, _)| zone)),
            _ => Party::unknown(),
        };
        self.telemetry.route(self.direction, &self.source, &destination)
    }

    fn write(mut self: Box<Self>) {
        // Whoever lets go of a request before its end, without a word, is its caller.
        let reason = self.reason.or_else(|| (!self.complete).then_some(Reason::CallerGone));
        let code = self.status.filter(|_| self.complete).map_or(Code::NoAnswer, Code::of);
        let latency = clock::now().since(self.started);
        let level = self.place.as_ref().and_then(|(_, level)| *level);
        self.route().finish(code, reason, level, latency);
        self.end_span(reason);
        self.write_log(reason, latency.as_micros() as u64);
    }

    fn end_span(&mut self, reason: Option<Reason>) {
        let Some(mut span) = self.span.take() else { return };
        span.set(attribute::BYTES_SENT, self.sent.get() as i64);
        span.set(attribute::BYTES_RECEIVED, self.received as i64);
        if let Some(code) = self.grpc_status {
            span.set(attribute::RPC_GRPC_STATUS_CODE, i64::from(code));
        }
        if reason == Some(Reason::CallerGone) {
            span.set(attribute::CANCELLED, true);
        }
        if let Some(reason) = reason {
            span.fail(reason);
        }
        if let Some(status) = self.status {
            span.status(status);
        }
        span.end();
    }

    fn write_log(&mut self, reason: Option<Reason>, duration_us: u64) {
        let (Some(log), Some(writer)) = (self.log.take(), &self.telemetry.node.access_log) else { return };
        writer.write(access_log::Record {
            at_us: log.at_us,
            direction: self.direction.as_str(),
            source: log.source,
            service: self.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            method: log.method,
            status: self.status.unwrap_or_else(|| reason.map_or(0, Reason::status)),
            reason: reason.map(Reason::code),
            duration_us,
            sent_bytes: self.sent.get(),
            received_bytes: self.received,
            trace_id: Some(format!("{:032x}", self.trace.trace_id())),
            attempts: log.attempts,
        });
    }
}

/// Where the spans of this node's calls come from.
fn span_source(span: &mut Span, node: &Node) {
    span.set(attribute::SOURCE_CLUSTER, node.zone.cluster.clone());
    span.set(attribute::SOURCE_ZONE, node.zone.zone.clone());
    if let Some(service) = &node.own.service {
        span.set(attribute::SOURCE_SERVICE, service.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(authority: &str) -> Asked<'_> {
        Asked { method: "GET", path: "/", authority, version: "1.1", is_grpc: false }
    }

    #[test]
    fn the_port_that_was_asked_for_is_the_schemes_own_if_none_was_named() {
        for (authority, host, port) in [
            ("payments.shop.mesh.internal", "payments.shop.mesh.internal", 80),
            ("payments.shop.mesh.internal:8080", "payments.shop.mesh.internal", 8080),
            ("[::1]:81", "[::1]", 81),
            ("[::1]", "[::1]", 80),
            ("", "", 80),
        ] {
            assert_eq!(asked(authority).server(), (host, port), "{authority}");
        }
    }
}
