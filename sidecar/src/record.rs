//! What becomes of the records of requests and attempts: metrics, spans, and lines of the access log.
//!
//! [`RequestRecord`](eastway_request::RequestRecord) sees to it that each comes here once, however it ended. Nothing here
//! decides anything, and nothing here knows a socket or a type of an HTTP library.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::spiffe::Principal;
use eastway_core::trace::{TraceContext, TraceParent};
use eastway_core::view::MeshView;
use eastway_core::{Reason, ServiceName, SpiffeId, ZoneId};
use eastway_request::record::Details;
use eastway_request::{AttemptFacts, AttemptResult, Recorder, RequestFacts};
use eastway_runtime::clock;
use eastway_telemetry::metrics::{self, AttemptKind, Code, Direction, InFlight, Party, Route, RouteCache, UNKNOWN};
use eastway_telemetry::trace::{Span, SpanKind, attribute};

use crate::access_log::{self, now_us};
use crate::node::SidecarNode;

/// Where a worker's records are written to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Telemetry {
    node: Arc<SidecarNode>,
    routes: Rc<RefCell<RouteCache>>,
    /// Who calls, on a connection of another node's; `None` for the application beside this sidecar.
    caller: Option<Rc<Caller>>,
}

/// Another workload, as records name it.
struct Caller {
    identity: String,
    party: Party,
}

/// What counts a request or an attempt while it is under way.
pub(crate) struct Counted(Option<(Arc<Route>, InFlight)>);

impl Telemetry {
    /// For one worker, and the requests of the application beside it.
    pub(crate) fn new(node: &Arc<SidecarNode>) -> Self {
        Self { node: Arc::clone(node), routes: Rc::new(RefCell::new(node.traffic.cache())), caller: None }
    }

    /// The same, for the requests of `caller`.
    pub(crate) fn of(&self, caller: &SpiffeId) -> Self {
        let party = party(caller, &self.node.services.mesh());
        Self { caller: Some(Rc::new(Caller { identity: caller.to_string(), party })), ..self.clone() }
    }

    /// Counts what was refused before it could be read as a request.
    pub(crate) fn refused(&self, reason: Reason) {
        let (own, unknown) = (&self.node.own, Party::unknown());
        let route = match self.caller {
            Some(_) => self.route(Direction::Inbound, &unknown, own),
            None => self.route(Direction::Outbound, own, &unknown),
        };
        route.finish(Code::of(reason.status()), Some(reason), None, Duration::ZERO);
    }

    fn route(&self, direction: Direction, source: &Party, destination: &Party) -> Arc<Route> {
        self.routes.borrow_mut().route(direction, source, destination)
    }

    /// The metrics of requests from here to where this one went last.
    fn route_of(&self, request: &RequestFacts) -> Arc<Route> {
        match &self.caller {
            Some(caller) => self.route(Direction::Inbound, &caller.party, &self.node.own),
            None => {
                let destination = match &request.service {
                    Some(service) if request.known => {
                        destination(service, request.place.as_ref().map(|place| &place.0))
                    }
                    _ => Party::unknown(),
                };
                self.route(Direction::Outbound, &self.node.own, &destination)
            }
        }
    }

    fn write_span(&self, request: &RequestFacts) {
        let Some(details) = request.details.as_deref().filter(|_| request.trace.is_recorded()) else { return };
        let (node, name) = (&self.node, attribute::span_name(&details.method));
        let Some(mut span) = node.tracer.span(SpanKind::Server, name, &request.trace, request.started) else { return };
        describe(&mut span, details, request.is_grpc);
        span.set(attribute::URL_SCHEME, "http");
        if !details.path.is_empty() {
            span.set(attribute::URL_PATH, details.path.clone());
        }
        match &self.caller {
            None => set_source(&mut span, node),
            Some(caller) => {
                set_caller(&mut span, caller);
                span.set(attribute::DESTINATION_CLUSTER, node.zone.cluster.clone());
                span.set(attribute::DESTINATION_ZONE, node.zone.zone.clone());
            }
        }
        if let Some(service) = &request.service {
            span.set(attribute::DESTINATION_SERVICE, service.to_string());
        }
        span.set(attribute::BYTES_SENT, request.sent.get() as i64);
        span.set(attribute::BYTES_RECEIVED, request.received as i64);
        if let Some(code) = request.grpc_status {
            span.set(attribute::RPC_GRPC_STATUS_CODE, i64::from(code));
        }
        let failure = request.failure();
        if failure == Some(Reason::CallerGone) {
            span.set(attribute::CANCELLED, true);
        }
        if let Some(reason) = failure {
            span.fail(reason);
        }
        if let Some(status) = request.status {
            span.status(status);
        }
        span.end();
    }

    fn write_attempt_span(&self, attempt: &AttemptFacts, request: &RequestFacts) {
        let Some(details) = request.details.as_deref().filter(|_| attempt.trace.is_recorded()) else { return };
        let (node, name) = (&self.node, attribute::span_name(&details.method));
        let Some(mut span) = node.tracer.span(SpanKind::Client, name, &attempt.trace, attempt.started) else { return };
        describe(&mut span, details, request.is_grpc);
        let scheme = if details.path.is_empty() { "" } else { "http://" };
        span.set(attribute::URL_FULL, format!("{scheme}{}{}", details.authority, details.path));
        set_source(&mut span, node);
        if let Some(service) = &request.service {
            span.set(attribute::DESTINATION_SERVICE, service.to_string());
        }
        span.set(attribute::DESTINATION_CLUSTER, attempt.zone.cluster.clone());
        span.set(attribute::DESTINATION_ZONE, attempt.zone.zone.clone());
        span.set(attribute::LEVEL, attempt.level as i64);
        span.set(attribute::FORMER_LEVEL, attempt.level as i64);
        span.set(attribute::ATTEMPT, i64::from(attempt.number));
        if attempt.number > 1 {
            span.set(attribute::HTTP_REQUEST_RESEND_COUNT, i64::from(attempt.number - 1));
        }
        if let Some(endpoint) = &attempt.endpoint {
            span.set(attribute::DESTINATION_ENDPOINT, endpoint.to_string());
        }
        if let Some(status) = attempt.status {
            span.status(status);
        }
        if let Some(reason) = attempt.reason {
            span.fail(reason);
        }
        if attempt.result == AttemptResult::Cancelled {
            span.set(attribute::CANCELLED, true);
        }
        span.end();
    }

    fn write_log(&self, request: &RequestFacts, latency: Duration) {
        let (Some(details), Some(writer)) = (request.details.as_deref(), &self.node.access_log) else { return };
        let ended_us = now_us();
        let duration_us = latency.as_micros() as u64;
        let now = clock::now();
        let at_us = |started| ended_us.saturating_sub(now.since(started).as_micros() as u64);
        let attempts = details.attempts.iter().map(|attempt| logged(attempt, at_us(attempt.started)));
        let reason = request.failure();
        writer.write(access_log::Record {
            at_us: at_us(request.started),
            direction: if self.caller.is_some() { Direction::Inbound } else { Direction::Outbound }.as_str(),
            source: self.caller.as_ref().map(|caller| caller.identity.clone()),
            service: request.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            method: details.method.clone(),
            status: request.status.unwrap_or_else(|| reason.map_or(0, Reason::status)),
            reason: reason.map(Reason::code),
            duration_us,
            sent_bytes: request.sent.get(),
            received_bytes: request.received,
            trace_id: Some(format!("{:032x}", request.trace.trace_id())),
            attempts: attempts.collect(),
        });
    }
}

/// An attempt as the access log has it.
fn logged(attempt: &AttemptFacts, at_us: u64) -> access_log::Attempt {
    access_log::Attempt {
        at_us,
        kind: kind(attempt).as_str(),
        zone: attempt.zone.to_string(),
        endpoint: attempt.endpoint.as_ref().map(ToString::to_string),
        result: match (attempt.status, attempt.reason) {
            (Some(status), _) => status.to_string(),
            (None, Some(reason)) => reason.code().to_owned(),
            (None, None) => String::new(),
        },
    }
}

impl Recorder for Telemetry {
    type Counted = Counted;

    fn sample(&self, parent: Option<TraceParent>, rng: &mut fastrand::Rng) -> TraceContext {
        self.node.tracer.sample(parent, rng)
    }

    fn wants_details(&self, trace: &TraceContext) -> bool {
        trace.is_recorded() || self.node.access_log.is_some()
    }

    fn begin(&self, request: &RequestFacts) -> Counted {
        // Where an outbound request goes is not known yet: its attempts are counted.
        Counted(self.caller.is_some().then(|| {
            let route = self.route_of(request);
            let in_flight = route.start();
            (route, in_flight)
        }))
    }

    fn begin_attempt(&self, attempt: &AttemptFacts, request: &RequestFacts) -> Counted {
        let destination = match &request.service {
            Some(service) => destination(service, Some(&attempt.zone)),
            None => Party::unknown(),
        };
        let route = self.route(Direction::Outbound, &self.node.own, &destination);
        let in_flight = route.start();
        Counted(Some((route, in_flight)))
    }

    fn end_attempt(&self, counted: Counted, attempt: &AttemptFacts, request: &RequestFacts) {
        if let Counted(Some((route, _in_flight))) = counted {
            let result = match attempt.result {
                AttemptResult::Success => metrics::AttemptResult::Success,
                AttemptResult::Failure => metrics::AttemptResult::Failure,
                AttemptResult::Cancelled => metrics::AttemptResult::Cancelled,
            };
            route.attempt(kind(attempt), result);
        }
        self.write_attempt_span(attempt, request);
    }

    fn end(&self, counted: Counted, request: &RequestFacts) {
        let route = counted.0.map_or_else(|| self.route_of(request), |(route, _in_flight)| route);
        let code = request.status.filter(|_| request.complete).map_or(Code::NoAnswer, Code::of);
        let latency = clock::now().since(request.started);
        let level = request.place.as_ref().map(|(_, level)| *level);
        route.finish(code, request.failure(), level, latency);
        self.write_span(request);
        self.write_log(request, latency);
    }

    fn streamed(&self, request: &RequestFacts, sent: u64, received: u64) {
        self.route_of(request).streamed(sent, received);
    }
}

/// The other side of metric labels for a service.
fn destination(service: &ServiceName, zone: Option<&ZoneId>) -> Party {
    match zone {
        Some(zone) => Party::new(service.clone(), zone.clone()),
        None => Party::service_only(service.clone()),
    }
}

/// Which attempt of its request it is.
const fn kind(attempt: &AttemptFacts) -> AttemptKind {
    match (attempt.probe, attempt.number) {
        (true, _) => AttemptKind::Probe,
        (false, 1) => AttemptKind::First,
        (false, _) => AttemptKind::Retry,
    }
}

/// The caller in metric labels: its account stands for its service, and its trust domain for the cluster that the mesh
/// knows by it.
fn party(caller: &SpiffeId, mesh: &MeshView) -> Party {
    let Principal::Workload { namespace, account } = &caller.principal else { return Party::unknown() };
    let clusters = std::iter::once(&mesh.cluster).chain(mesh.peers.iter().map(|peer| &peer.cluster));
    let mut named = clusters.filter(|cluster| cluster.trust_domain == caller.trust_domain);
    Party {
        service: Some(ServiceName::new(namespace.as_str(), account.as_str())),
        zone: named.next().map(|cluster| ZoneId::new(cluster.name.as_str(), UNKNOWN)),
    }
}

/// What OpenTelemetry's conventions want of the spans of both kinds.
fn describe(span: &mut Span, details: &Details, is_grpc: bool) {
    let (host, port) = server(&details.authority);
    span.set(attribute::HTTP_REQUEST_METHOD, attribute::method(&details.method));
    span.set(attribute::SERVER_ADDRESS, host.to_owned());
    span.set(attribute::SERVER_PORT, port);
    span.set(attribute::NETWORK_PROTOCOL_VERSION, details.version.as_str());
    if is_grpc {
        span.set(attribute::RPC_SYSTEM, "grpc");
    }
}

/// The host and the port that was asked for; 80 if none was named.
fn server(authority: &str) -> (&str, i64) {
    let named = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    named.map_or((authority, 80), |(host, port)| (host, i64::from(port)))
}

/// Where the spans of this node's calls come from.
fn set_source(span: &mut Span, node: &SidecarNode) {
    span.set(attribute::SOURCE_CLUSTER, node.zone.cluster.clone());
    span.set(attribute::SOURCE_ZONE, node.zone.zone.clone());
    if let Some(service) = &node.own.service {
        span.set(attribute::SOURCE_SERVICE, service.to_string());
    }
}

/// Where the spans of other workloads' calls come from.
fn set_caller(span: &mut Span, caller: &Caller) {
    span.set(attribute::SOURCE_IDENTITY, caller.identity.clone());
    if let Some(zone) = &caller.party.zone {
        span.set(attribute::SOURCE_CLUSTER, zone.cluster.clone());
    }
    if let Some(service) = &caller.party.service {
        span.set(attribute::SOURCE_SERVICE, service.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eastway_core::resource::ClusterMeta;

    use super::*;

    #[test]
    fn the_port_that_was_asked_for_is_the_schemes_own_if_none_was_named() {
        for (authority, host, port) in [
            ("payments.shop.mesh.internal", "payments.shop.mesh.internal", 80),
            ("payments.shop.mesh.internal:8080", "payments.shop.mesh.internal", 8080),
            ("[::1]:81", "[::1]", 81),
            ("[::1]", "[::1]", 80),
            ("", "", 80),
        ] {
            assert_eq!(server(authority), (host, port), "{authority}");
        }
    }

    #[test]
    fn the_callers_cluster_is_the_one_that_the_mesh_knows_by_its_trust_domain() {
        let cluster = |name: &str, trust_domain: &str| ClusterMeta {
            name: name.to_owned(),
            uid: String::new(),
            region: name.to_owned(),
            trust_domain: trust_domain.to_owned(),
            zones: BTreeMap::new(),
        };
        let mesh = MeshView { cluster: cluster("us-east", "prod.example.org"), peers: Vec::new() };
        let of = |trust_domain: &str| party(&SpiffeId::workload(trust_domain, "shop", "storefront"), &mesh).zone;
        assert_eq!(of("prod.example.org").map(|zone| zone.cluster.to_string()).as_deref(), Some("us-east"));
        assert_eq!(of("us-east.mesh.internal"), None, "no guess by its first label");
    }
}
