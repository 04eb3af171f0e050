//! The names of span attributes: OpenTelemetry's HTTP conventions where they have one, `eastway.*` where not.

/// The request's method, one of the known ones or `_OTHER`.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// The answer's status code.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// How many times the request was sent before this attempt; only on the spans of repeated attempts.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The host that was asked for.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port that was asked for.
pub const SERVER_PORT: &str = "server.port";
/// The request's path, without its query.
pub const URL_PATH: &str = "url.path";
/// Scheme, host, port and path of what an attempt asks for, without the query; HOST:PORT of a CONNECT.
pub const URL_FULL: &str = "url.full";
/// `http`: what the application speaks, whatever the mesh encrypts.
pub const URL_SCHEME: &str = "url.scheme";
/// `1.1` or `2`.
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// Why the operation failed: a reason's code, or the status code.
pub const ERROR_TYPE: &str = "error.type";
/// `grpc` for gRPC calls.
pub const RPC_SYSTEM: &str = "rpc.system";
/// A gRPC call's status code.
pub const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";

/// The calling service, `NAMESPACE/SERVICE`.
pub const SOURCE_SERVICE: &str = "eastway.source.service";
/// The caller's cluster.
pub const SOURCE_CLUSTER: &str = "eastway.source.cluster";
/// The caller's zone.
pub const SOURCE_ZONE: &str = "eastway.source.zone";
/// The caller's verified identity.
pub const SOURCE_IDENTITY: &str = "eastway.source.identity";
/// The called service, `NAMESPACE/SERVICE`.
pub const DESTINATION_SERVICE: &str = "eastway.destination.service";
/// The cluster that the request was sent to.
pub const DESTINATION_CLUSTER: &str = "eastway.destination.cluster";
/// The zone that the request was sent to.
pub const DESTINATION_ZONE: &str = "eastway.destination.zone";
/// The endpoint that the request was sent to.
pub const DESTINATION_ENDPOINT: &str = "eastway.destination.endpoint";
/// The failover level: 0 is the caller's own zone.
pub const LEVEL: &str = "eastway.level";
/// The same, by the name of earlier releases.
pub const FORMER_LEVEL: &str = "eastway.tier";
/// Which attempt of its request this is, from 1.
pub const ATTEMPT: &str = "eastway.attempt";
/// Why the request was refused or failed; see `docs/reasons.md`.
pub const REASON: &str = "eastway.reason";
/// The cluster at the other end of a tunnel.
pub const PEER_CLUSTER: &str = "eastway.peer.cluster";
/// Bytes of a request's body, or of a stream towards its destination.
pub const BYTES_SENT: &str = "eastway.bytes.sent";
/// Bytes of an answer's body, or of a stream from its destination.
pub const BYTES_RECEIVED: &str = "eastway.bytes.received";
/// Whether the work was given up before it came to an end.
pub const CANCELLED: &str = "eastway.cancelled";
/// `sidecar` or `gateway`; an attribute of the resource.
pub const ROLE: &str = "eastway.role";
/// The node's cluster; an attribute of the resource.
pub const CLUSTER: &str = "eastway.cluster";
/// The node's zone; an attribute of the resource.
pub const ZONE: &str = "eastway.zone";

/// The value of [`HTTP_REQUEST_METHOD`]: any method that is not known becomes `_OTHER`.
pub fn method(method: &str) -> &'static str {
    known(method).unwrap_or("_OTHER")
}

/// The name of a request's span: its method, or `HTTP` if that is not known.
pub fn span_name(method: &str) -> &'static str {
    known(method).unwrap_or("HTTP")
}

fn known(method: &str) -> Option<&'static str> {
    const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    METHODS.into_iter().find(|known| *known == method)
}
