//! HTTP's messages as records see them: what is read of a head, and what a body tells when it has passed.

use std::cell::Cell;
use std::rc::Rc;

use eastway_core::spiffe::Principal;
use eastway_core::trace::TraceParent;
use eastway_core::view::MeshView;
use eastway_core::{Reason, ServiceName, SpiffeId, ZoneId};
use eastway_http::Body;
use eastway_http::body::{BodyError, End, Observer};
use eastway_http::head::is_grpc;
use eastway_http::server::Handler;
use eastway_telemetry::metrics::{Direction, Party, UNKNOWN};
use eastway_telemetry::trace::TraceContext;
use http::header::{HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Method, Request, Response, Uri, Version};

use crate::record::{Asked, RequestRecord, Telemetry, Way};
use crate::worker::Worker;

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The same between sidecars, for a trace that the mesh began and does not record: see [`TraceContext::announced`].
const MESH_TRACEPARENT: HeaderName = HeaderName::from_static("eastway-traceparent");

/// What records need of a head that was admitted.
pub(crate) fn asked<'a>(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap, version: Version) -> Asked<'a> {
    let host = || headers.get("host").and_then(|host| host.to_str().ok());
    Asked {
        method: method.as_str(),
        path: if *method == Method::CONNECT { "" } else { uri.path() },
        authority: uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default(),
        version: match version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
        is_grpc: is_grpc(headers.get("content-type").map(HeaderValue::as_bytes)),
    }
}

/// Answers the requests of one side's connections by `handle`, and counts what never became a request.
pub(crate) struct Counting<H> {
    pub(crate) telemetry: Telemetry,
    pub(crate) direction: Direction,
    pub(crate) handle: H,
}

impl<H, F> Handler for Counting<H>
where
    H: Fn(Request<Body>) -> F + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + 'static + use<H, F> {
        (self.handle)(request)
    }

    fn refused(&self, reason: Reason) {
        self.telemetry.refused(self.direction, reason);
    }
}

/// The record of a request of the application beside this sidecar.
pub(crate) fn outbound(worker: &Rc<Worker>, request: &mut Request<Body>) -> RequestRecord {
    let parent = callers_trace(request.headers_mut());
    let trace = worker.random(|rng| worker.telemetry.node.tracer.sample(parent, rng));
    let asked = asked(request.method(), request.uri(), request.headers(), request.version());
    let mut record = RequestRecord::begin(&worker.telemetry, &asked, trace, Way::Outbound);
    count_sent(&mut record, request);
    record
}

/// The record of a call of `caller`; the request goes on with this hop as the parent of what follows.
pub(crate) fn inbound(worker: &Rc<Worker>, caller: &SpiffeId, request: &mut Request<Body>) -> RequestRecord {
    let node = &worker.node;
    let parent = callers_trace(request.headers_mut());
    let told = parent.is_some();
    let parent = parent.or_else(|| parse(request.headers().get(MESH_TRACEPARENT)?));
    let trace = worker.random(|rng| node.tracer.sample(parent, rng));
    let trace = if told { trace } else { trace.unannounced() };
    pass_on(&trace, request.headers_mut());
    let asked = asked(request.method(), request.uri(), request.headers(), request.version());
    let source = party(caller, &node.services.mesh());
    let way = Way::Inbound { source, identity: caller.to_string() };
    let mut record = RequestRecord::begin(&worker.telemetry, &asked, trace, way);
    count_sent(&mut record, request);
    record
}

/// Adds this proxy to a message that was received in `version` (RFC 9110, section 7.6.3). The called sidecar adds nothing:
/// the two are one proxy, in two places.
pub(crate) fn add_via(headers: &mut HeaderMap, version: Version) {
    let entry = match version {
        Version::HTTP_2 => "2.0 eastway",
        Version::HTTP_10 => "1.0 eastway",
        _ => "1.1 eastway",
    };
    headers.append(VIA, HeaderValue::from_static(entry));
}

/// The trace that a request belongs to. One that states it twice, or not in the proper form, belongs to none, and what
/// vendors added to it means nothing any more.
fn callers_trace(headers: &mut HeaderMap) -> Option<TraceParent> {
    let mut stated = headers.get_all(TRACEPARENT).iter();
    let parent = stated.next().filter(|_| stated.next().is_none()).and_then(parse);
    if parent.is_none() {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
    parent
}

fn parse(value: &HeaderValue) -> Option<TraceParent> {
    TraceParent::parse(value.to_str().ok()?)
}

/// Tells the next hop the trace. An application is not told of one that the mesh began and does not record.
pub(crate) fn pass_on(trace: &TraceContext, headers: &mut HeaderMap) {
    let name = if trace.announced().is_some() { TRACEPARENT } else { MESH_TRACEPARENT };
    if let Ok(value) = HeaderValue::try_from(trace.traceparent().to_string()) {
        headers.insert(name, value);
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

/// Counts the bytes of the request's body, if anybody wants to know.
fn count_sent(record: &mut RequestRecord, request: &mut Request<Body>) {
    use http_body::Body as _;
    if record.wants_bytes() && !request.body().is_end_stream() {
        let counter = record.counts_sent();
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = body.observe(Box::new(Sent(counter)));
    }
}

/// A request's body on its way.
struct Sent(Rc<Cell<u64>>);

impl Observer for Sent {
    fn data(&mut self, len: usize) {
        self.0.set(self.0.get() + len as u64);
    }

    fn end(&mut self, _: &End<'_>) {}
}

/// The answer, which takes the record with it to its end.
pub(crate) fn answered(mut record: RequestRecord, response: Response<Body>) -> Response<Body> {
    record.answered(response.status().as_u16());
    if let Some(code) = grpc_status(response.headers()) {
        record.grpc_status(code);
    }
    response.map(|body| body.observe(Box::new(Answer(record))))
}

/// The `grpc-status` of a trailers-only answer, or of trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// An answer's body on its way. If its reader lets go of it before its end, it ends as cancelled.
struct Answer(RequestRecord);

impl Observer for Answer {
    fn data(&mut self, len: usize) {
        self.0.received(len as u64);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(code) = grpc_status(trailers) {
            self.0.grpc_status(code);
        }
    }

    fn end(&mut self, end: &End<'_>) {
        match end {
            End::Complete => self.0.ended(None),
            End::Failed(BodyError::Unread) | End::Dropped => self.0.ended(Some(Reason::CallerGone)),
            End::Failed(error) => self.0.ended(Some(error.response_reason())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eastway_core::resource::ClusterMeta;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_trace_that_is_stated_twice_or_in_a_wrong_form_is_none_and_takes_its_state_along() {
        let state = ("tracestate", "vendor=1");
        for stated in [
            &[("traceparent", PARENT), ("traceparent", PARENT), state][..],
            &[("traceparent", "00-x"), state],
            &[state],
        ] {
            let mut headers = headers(stated);
            assert_eq!(callers_trace(&mut headers), None, "{stated:?}");
            assert!(headers.is_empty(), "{headers:?}");
        }
        let mut headers = headers(&[("traceparent", PARENT), state]);
        assert!(callers_trace(&mut headers).is_some() && headers.len() == 2);
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

    #[test]
    fn a_proxy_adds_itself_to_those_before_it() {
        let mut headers = headers(&[("via", "1.1 other")]);
        add_via(&mut headers, Version::HTTP_2);
        let all: Vec<_> = headers.get_all("via").iter().filter_map(|value| value.to_str().ok()).collect();
        assert_eq!(all, ["1.1 other", "2.0 eastway"]);
    }

    #[test]
    fn a_connect_has_no_path_and_any_other_request_none_of_its_query() {
        let (get, uri, version) = (Method::GET, Uri::from_static("/a?token=b"), Version::HTTP_11);
        let host = headers(&[("host", "payments.shop.mesh.internal")]);
        let seen = asked(&get, &uri, &host, version);
        assert_eq!((seen.path, seen.authority), ("/a", "payments.shop.mesh.internal"));
        let (connect, uri) = (Method::CONNECT, Uri::from_static("payments.shop.mesh.internal:80"));
        let seen = asked(&connect, &uri, &host, version);
        assert_eq!((seen.path, seen.authority), ("", "payments.shop.mesh.internal:80"));
    }
}
