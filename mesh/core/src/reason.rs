//! Why a request or a stream was refused: one closed list, shared by the `Proxy-Status` header, the tunnel's refusal,
//! the metric label, the access log and `docs/reasons.md`.
//!
//! A code, once released, keeps its meaning and its number forever.

use serde::{Deserialize, Serialize};

/// Who caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The caller's request itself.
    Caller,
    /// The sidecar beside the caller.
    LocalSidecar,
    /// The way between two nodes.
    Tunnel,
    /// A gateway.
    Gateway,
    /// The called endpoint: its sidecar or its application.
    Endpoint,
    /// A rule that an operator wrote.
    Policy,
}

impl Blame {
    /// The name in labels and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::LocalSidecar => "local_sidecar",
            Self::Tunnel => "tunnel",
            Self::Gateway => "gateway",
            Self::Endpoint => "endpoint",
            Self::Policy => "policy",
        }
    }
}

/// What a breaker charges for a failure; see "Who is charged" in `docs/balancing.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The path to a cluster.
    Tunnel,
    /// The path: its gateway has no room.
    GatewayOverload,
    /// The locality: no endpoint of it can serve.
    NoEndpoint,
    /// The endpoint, double: its sidecar cannot reach its application.
    UpstreamConnect,
    /// The endpoint, and its locality once enough endpoints contribute.
    Upstream5xx,
    /// Nobody's health; a latency penalty.
    RateLimited,
    /// Nobody.
    Caller,
}

/// The facts that go with one reason.
struct Facts {
    number: u32,
    code: &'static str,
    status: u16,
    grpc: u8,
    proxy_error: &'static str,
    blame: Blame,
    attribution: Attribution,
    nothing_sent: bool,
    meaning: &'static str,
}

macro_rules! reasons {
    ($($name:ident = $number:literal $code:literal $status:literal $grpc:literal $proxy:literal
       $blame:ident $attribution:ident $nothing_sent:literal $meaning:literal;)*) => {
        /// Why a request or a stream was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$name => Facts {
                        number: $number, code: $code, status: $status, grpc: $grpc, proxy_error: $proxy,
                        blame: Blame::$blame, attribution: Attribution::$attribution, nothing_sent: $nothing_sent,
                        meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

// number, code, HTTP status, gRPC status, RFC 9209 error, blame, attribution, nothing was sent upstream, meaning
reasons! {
    MalformedRequest = 1 "malformed_request" 400 13 "http_request_error" Caller Caller true
        "The request breaks HTTP's rules.";
    ConflictingLength = 2 "conflicting_length" 400 13 "http_request_error" Caller Caller true
        "The request states its length twice or in contradiction.";
    BadHost = 3 "bad_host" 400 13 "http_request_error" Caller Caller true
        "The request names no host, several, or two that differ.";
    HeaderTooLarge = 4 "header_too_large" 431 8 "http_request_error" Caller Caller true
        "The request's head exceeds the limit.";
    BodyTimeout = 5 "body_timeout" 408 4 "http_request_error" Caller Caller true
        "The caller did not send its request in time.";
    UnknownService = 6 "unknown_service" 404 12 "destination_not_found" Caller Caller true
        "No cluster known here offers the service.";
    ForeignHost = 7 "foreign_host" 404 12 "destination_not_found" Caller Caller true
        "The host is not a name of the mesh.";
    UnknownPort = 8 "unknown_port" 404 12 "destination_not_found" Caller Caller true
        "The service has no such port.";
    CallerGone = 9 "caller_gone" 499 1 "http_request_error" Caller Caller false
        "The caller went away before the answer was complete.";
    Forbidden = 10 "forbidden" 403 7 "http_request_denied" Policy Caller true
        "A policy denies the call.";
    NotExported = 11 "not_exported" 403 7 "http_request_denied" Policy NoEndpoint true
        "The called cluster does not export the service to the caller's cluster.";
    IdentityRefused = 12 "identity_refused" 403 7 "http_request_denied" Policy Tunnel true
        "The identity shown may not do this.";
    WrongIdentity = 13 "wrong_identity" 502 14 "tls_certificate_error" Endpoint UpstreamConnect true
        "The answering identity may not serve the service.";
    NoReadyEndpoint = 14 "no_ready_endpoint" 503 14 "destination_unavailable" Endpoint NoEndpoint true
        "The service is known, but no endpoint of it can serve.";
    DiscoveryTimeout = 15 "discovery_timeout" 503 14 "destination_unavailable" Gateway Caller true
        "No gateway answered in time which endpoints the service has.";
    ConnectFailed = 16 "connect_failed" 502 14 "connection_refused" Endpoint UpstreamConnect true
        "The endpoint refused the connection or did not answer.";
    ConnectTimeout = 17 "connect_timeout" 504 14 "connection_timeout" Endpoint UpstreamConnect true
        "The endpoint did not accept the connection in time.";
    TlsFailed = 18 "tls_failed" 502 14 "tls_protocol_error" Endpoint UpstreamConnect true
        "The TLS handshake with the endpoint failed.";
    AppUnreachable = 19 "app_unreachable" 503 14 "destination_unavailable" Endpoint UpstreamConnect true
        "The called sidecar cannot reach its application.";
    UpstreamReset = 20 "upstream_reset" 502 14 "connection_terminated" Endpoint Upstream5xx false
        "The endpoint closed the connection before its answer was complete.";
    UpstreamProtocol = 21 "upstream_protocol" 502 13 "http_protocol_error" Endpoint Upstream5xx false
        "The endpoint's answer breaks HTTP's rules.";
    ResponseTimeout = 22 "response_timeout" 504 4 "http_response_timeout" Endpoint Upstream5xx false
        "The endpoint did not answer in time.";
    IdleTimeout = 23 "idle_timeout" 504 4 "connection_read_timeout" Endpoint Upstream5xx false
        "The stream was silent for longer than its limit.";
    PathDown = 24 "path_down" 503 14 "destination_ip_unroutable" Tunnel Tunnel true
        "No gateway of the called cluster can be reached.";
    TunnelLost = 25 "tunnel_lost" 502 14 "connection_terminated" Tunnel Tunnel false
        "The tunnel to the called cluster broke while the stream was open.";
    StreamOpenTimeout = 26 "stream_open_timeout" 504 14 "connection_timeout" Tunnel Tunnel true
        "The called cluster's gateway did not accept the stream in time.";
    GatewayUnreachable = 27 "gateway_unreachable" 503 14 "connection_refused" Gateway Tunnel true
        "The sidecar cannot reach a gateway of its own cluster.";
    Overloaded = 28 "overloaded" 503 8 "connection_limit_reached" Gateway GatewayOverload true
        "A limit of the node on streams or connections is reached.";
    PendingLimit = 29 "pending_limit" 503 8 "connection_limit_reached" LocalSidecar Caller true
        "Too many requests wait for this service already.";
    Draining = 30 "draining" 503 14 "destination_unavailable" Gateway Tunnel true
        "The node is shutting down and takes no new work.";
    MalformedOpen = 31 "malformed_open" 400 13 "http_protocol_error" Gateway Tunnel true
        "The tunnel stream's opening message cannot be read.";
    Internal = 32 "internal" 500 13 "proxy_internal_error" LocalSidecar Caller false
        "A fault of Eastway itself; the log has the details.";
    StaleConnection = 33 "stale_connection" 502 14 "connection_terminated" Endpoint Caller false
        "The application closed a kept connection just as the request was sent over it.";
    PlainHttpOnly = 41 "plain_http_only" 404 12 "destination_not_found" Caller Caller true
        "A name of the mesh is called by plain http:// and its own port: the mesh encrypts from sidecar to sidecar.";
    NotOffered = 42 "not_offered" 404 12 "destination_not_found" Caller Caller true
        "The service is known, but the cluster that was named does not offer it.";
    RequestLimit = 43 "request_limit" 503 8 "connection_limit_reached" LocalSidecar Caller true
        "Too many requests to this service, or to each of its endpoints, are under way already.";
    StreamLimit = 44 "stream_limit" 503 8 "connection_limit_reached" LocalSidecar Caller true
        "Too many opaque streams to this service are open already.";
    FaultInjected = 45 "fault_injected" 503 14 "http_request_denied" Policy Caller true
        "An operator wants this request to fail, to see what its caller does.";
    RateLimited = 46 "rate_limited" 429 8 "http_request_denied" Policy Caller true
        "The rate of requests that an operator allows is exceeded.";
    NoRoute = 47 "no_route" 404 12 "destination_not_found" Caller Caller true
        "The service is known, but no route of it is for this request.";
}

impl Reason {
    /// The code in headers, labels and logs.
    pub const fn code(self) -> &'static str {
        self.facts().code
    }

    /// The number on the wire (in `StreamRefused`, and as the code of a reset).
    pub const fn number(self) -> u32 {
        self.facts().number
    }

    /// The HTTP status towards the caller.
    pub const fn status(self) -> u16 {
        self.facts().status
    }

    /// The gRPC status towards a caller that speaks gRPC.
    pub const fn grpc_status(self) -> u8 {
        self.facts().grpc
    }

    /// The error type of RFC 9209, section 2.3.
    pub const fn proxy_error(self) -> &'static str {
        self.facts().proxy_error
    }

    /// Who caused it.
    pub const fn blame(self) -> Blame {
        self.facts().blame
    }

    /// What a breaker charges for it.
    pub const fn attribution(self) -> Attribution {
        self.facts().attribution
    }

    /// Whether no byte of the request can have reached the application, so that repeating it is always safe.
    pub const fn nothing_sent(self) -> bool {
        self.facts().nothing_sent
    }

    /// One sentence for the operator.
    pub const fn meaning(self) -> &'static str {
        self.facts().meaning
    }

    /// The reason with this number; `None` for numbers of newer versions.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.number() == number)
    }

    /// The reason with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }

    /// The value of a `Proxy-Status` header by the node `node` (RFC 9209).
    pub fn proxy_status(self, node: &str) -> String {
        format!("{node}; error={}; details=\"{}\"", self.proxy_error(), self.code())
    }

    /// The reason that a `Proxy-Status` header's value states, if an Eastway node wrote it.
    pub fn from_proxy_status(value: &str) -> Option<Self> {
        let details = value.split(';').find_map(|part| part.trim().strip_prefix("details=\""))?;
        Self::from_code(details.strip_suffix('"')?)
    }

    /// The reference table, as Markdown, that `docs/reasons.md` holds.
    pub fn table() -> String {
        let mut table = String::from(
            "| Code | Number | HTTP | gRPC | `Proxy-Status` error | Blame | Retry always safe | Meaning |\n|---|---|---|---|---|---|---|---|\n",
        );
        for reason in Self::ALL {
            let safe = if reason.nothing_sent() { "yes" } else { "no" };
            table.push_str(&format!(
                "| `{}` | {} | {} | {} | `{}` | {} | {safe} | {} |\n",
                reason.code(),
                reason.number(),
                reason.status(),
                reason.grpc_status(),
                reason.proxy_error(),
                reason.blame().as_str(),
                reason.meaning(),
            ));
        }
        table
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_and_numbers_are_unique_and_read_back() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        let numbers: BTreeSet<_> = Reason::ALL.iter().map(|r| r.number()).collect();
        assert_eq!((codes.len(), numbers.len()), (Reason::ALL.len(), Reason::ALL.len()));
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
            assert_eq!(Reason::from_proxy_status(&reason.proxy_status("eastway-gw-x")), Some(reason));
        }
    }

    #[test]
    fn a_foreign_proxy_status_is_not_mistaken_for_ours() {
        for value in ["", "squid; error=dns_timeout", "x; details=\"nonsense\"", "x; details=\"internal"] {
            assert_eq!(Reason::from_proxy_status(value), None, "{value}");
        }
    }

    #[test]
    fn what_an_application_said_never_blames_a_gateway() {
        for reason in [Reason::UpstreamReset, Reason::AppUnreachable, Reason::ResponseTimeout] {
            assert_eq!(reason.blame(), Blame::Endpoint);
        }
    }

    #[test]
    fn the_written_table_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reasons.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written.ends_with(&Reason::table()),
            "docs/reasons.md is stale; it must end with:\n{}",
            Reason::table()
        );
    }
}
