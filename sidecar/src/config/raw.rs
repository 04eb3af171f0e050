//! The file of a sidecar's configuration, as it is written. The documentation of these fields is the reference.

use std::collections::BTreeMap;

use eastway_documents::{AddressText, DurationText, FileText};
use eastway_runtime::sections::{RawAdmin, RawIdentity, RawLog, RawMetrics, RawOtlp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The configuration of a sidecar.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawConfig {
    /// The cluster that the sidecar belongs to, as its gateway names it.
    pub cluster: String,
    /// The zone of the cluster that it runs in, as the gateway names it.
    pub zone: String,
    /// The workload beside the sidecar.
    pub workload: RawWorkload,
    /// The workload's identity, in PEM files. They are read again when they change and at SIGHUP.
    pub identity: RawIdentity,
    /// The cluster's gateways. Their order means nothing: each sidecar has one of its own, so that they spread over all.
    #[schemars(length(min = 1, max = 32))]
    pub gateways: Vec<RawGateway>,
    /// What is taken from callers. To be given if, and only if, `workload.service` is.
    pub inbound: Option<RawInbound>,
    /// What is taken from the workload.
    #[serde(default)]
    pub outbound: RawOutbound,
    /// Names of the mesh by DNS, each with an address of its own: what the application calls by such a name needs no proxy.
    /// Not served if not given.
    pub dns: Option<RawDns>,
    /// What the host captures, by rules that `eastway sidecar capture install` sets: connections to names' addresses
    /// (with `dns.addresses: captured`), and callers that go around the sidecar. Nothing if not given.
    pub capture: Option<RawCapture>,
    /// How the application is probed. Only with `workload.service`.
    pub health: Option<RawHealth>,
    /// The administration server.
    #[serde(default)]
    pub admin: RawAdmin,
    /// The server for scrapers and probes: `/metrics`, `/live`, `/ready`.
    #[serde(default)]
    pub metrics: RawMetrics,
    /// The folder where the last view of the mesh is kept, created if missing. Without one, a sidecar that starts while no
    /// gateway answers knows no service.
    pub state: Option<FileText>,
    /// The suffix of mesh names: `SERVICE.NAMESPACE.SUFFIX`.
    #[serde(default = "default_suffix")]
    pub suffix: String,
    /// Time limits.
    #[serde(default)]
    pub timeouts: RawTimeouts,
    /// Bounds.
    #[serde(default)]
    pub limits: RawLimits,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: RawTelemetry,
}

fn default_suffix() -> String {
    eastway_core::name::DEFAULT_SUFFIX.to_owned()
}

/// The workload beside the sidecar.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawWorkload {
    /// Its name, unique in its cluster: the name of its endpoint.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service that it serves. Without one it only calls.
    pub service: Option<String>,
    /// How much it takes, relative to the other endpoints of its service. 1 if not given.
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub weight: Option<f64>,
    /// Requests that it can serve at once, to tell how utilised it is. Unknown if not given.
    #[schemars(range(min = 1))]
    pub capacity: Option<u32>,
    /// The folder of its control group (version 2), such as `/sys/fs/cgroup/system.slice/payments.service`: its processor
    /// time then counts as utilisation.
    pub cgroup: Option<FileText>,
    /// Labels of its registration, shown with the endpoint.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where callers and gateways reach `inbound.listen`, if not at that address itself. Needed if that is `0.0.0.0` or
    /// `[::]`.
    pub address: Option<AddressText>,
}

/// A gateway of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawGateway {
    /// Its `discovery.listen`, as reached from here.
    pub discovery: AddressText,
    /// Its `tunnel.listen`, as reached from here.
    pub tunnel: AddressText,
}

/// What is taken from callers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawInbound {
    /// Where callers' sidecars and gateways connect to, by mutual TLS. Customary port: 15008.
    pub listen: AddressText,
    /// Where the application listens. It should be reachable from this machine only.
    pub app: AddressText,
    /// What the application speaks.
    #[serde(default)]
    pub protocol: AppProtocol,
}

/// What an application speaks. Streams to ports that are declared for `tcp` (CONNECT) are handed to it as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    H2c,
    /// To each request the version that its caller used, so the application must speak all that its callers do.
    #[default]
    Auto,
}

/// What is taken from the workload.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawOutbound {
    /// Where the HTTP proxy listens. Whoever reaches it acts with the workload's identity, so only loopback addresses are
    /// accepted.
    pub proxy: AddressText,
    /// Whether requests and answers get a `Via: 1.1 eastway`, one for both sidecars, as RFC 9110 asks of proxies. Some
    /// servers do not compress what they answer to a request that has one (nginx with its default of `gzip_proxied`).
    pub via: bool,
    /// Listeners that lead to one service each, for what speaks no HTTP: a database's client connects here as if it were the
    /// database. At most 64.
    pub listeners: Vec<RawListener>,
}

/// A listener for the connections to one service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawListener {
    /// Where it listens. As for the proxy, only loopback addresses are accepted.
    pub listen: AddressText,
    /// `NAMESPACE/SERVICE`.
    pub service: String,
    /// The service's port, one that is declared for `tcp`.
    pub port: u16,
    /// The only cluster that may serve it. Any if not given.
    pub cluster: Option<String>,
}

impl Default for RawOutbound {
    fn default() -> Self {
        Self { proxy: "127.0.0.1:15080".into(), via: true, listeners: Vec::new() }
    }
}

/// Names of the mesh by DNS.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawDns {
    /// Where questions are answered, over UDP and TCP. Only loopback addresses are accepted.
    pub listen: AddressText,
    /// Which addresses names get.
    pub addresses: DnsAddresses,
    /// The servers for all other names: the one that has answered fastest is asked, and another when it fails. Those of
    /// `/etc/resolv.conf` if not given. At most 8.
    pub upstreams: Option<Vec<AddressText>>,
    /// The first address of a /96, such as `fd00:ea57::`: names get an IPv6 address out of it as well, captured like the
    /// other. None if not given.
    pub prefix: Option<String>,
}

/// Which addresses names get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsAddresses {
    /// Those of 127.64.0.0/10, at which the sidecar listens. Ports below 1024 need the capability CAP_NET_BIND_SERVICE.
    #[default]
    Loopback,
    /// Those of 240.0.0.0/4, connections to which the host captures (`capture`). No port needs a capability, and several
    /// sidecars of a host can answer for the same names.
    Captured,
}

impl Default for RawDns {
    fn default() -> Self {
        Self { listen: "127.0.0.1:15053".into(), addresses: DnsAddresses::default(), upstreams: None, prefix: None }
    }
}

/// What the host captures.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawCapture {
    /// Where captured connections to names' addresses come to. Only loopback addresses are accepted; with `dns.prefix` it
    /// listens at the same port of `[::1]` as well.
    pub listen: AddressText,
    /// How a connection's first destination is kept.
    pub via: CaptureBy,
    /// What becomes of connections to what is no name of the mesh.
    pub unknown: Unknown,
    /// The table of nftables in which the rules are. Sidecars that share a host need one each.
    pub table: String,
    /// The user that the sidecar runs as, whose connections are never captured or refused. Needed for `unknown: deny`.
    pub user: Option<String>,
    /// Whose connections are captured. Those of the whole host, or of the container's network, if nothing is given.
    pub only: RawWhose,
    /// What is never captured or refused.
    pub exclude: RawExclude,
    /// Callers that go around the sidecar: what becomes of connections from other hosts to the application's own ports.
    /// They are left alone if not given.
    pub inbound: Option<RawCaptureInbound>,
}

impl Default for RawCapture {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:15001".into(),
            via: CaptureBy::default(),
            unknown: Unknown::default(),
            table: "eastway".to_owned(),
            user: None,
            only: RawWhose::default(),
            exclude: RawExclude::default(),
            inbound: None,
        }
    }
}

/// How a captured connection's first destination is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureBy {
    /// The kernel rewrites the destination, and remembers it with the connection (conntrack). The sidecar needs no privilege.
    #[default]
    Redirect,
    /// The destination stays as it is, and nothing is remembered. The sidecar needs the capability CAP_NET_ADMIN.
    Tproxy,
}

/// What becomes of connections to what is no name of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Unknown {
    /// They go where they go, untouched: no byte of them passes through the sidecar.
    #[default]
    PassThrough,
    /// They are refused. What stays on the host is not concerned.
    Deny,
}

/// Whose connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawWhose {
    /// Users, by name or number.
    #[schemars(length(max = 64))]
    pub users: Vec<String>,
    /// Groups, by name or number.
    #[schemars(length(max = 64))]
    pub groups: Vec<String>,
    /// Control groups (version 2), by their paths below the root of that hierarchy, such as `system.slice/payments.service`.
    #[schemars(length(max = 64))]
    pub cgroups: Vec<String>,
}

/// What is never captured.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawExclude {
    /// Ports of destinations.
    #[schemars(length(max = 64))]
    pub ports: Vec<u16>,
    /// Addresses and networks of destinations, such as `10.0.0.0/8`.
    #[schemars(length(max = 64))]
    pub addresses: Vec<String>,
    /// Users, by name or number.
    #[schemars(length(max = 64))]
    pub users: Vec<String>,
    /// Groups, by name or number.
    #[schemars(length(max = 64))]
    pub groups: Vec<String>,
    /// Control groups, as in `only`.
    #[schemars(length(max = 64))]
    pub cgroups: Vec<String>,
}

/// Callers that go around the sidecar.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawCaptureInbound {
    /// What becomes of them.
    pub mode: InboundMode,
    /// Where those come to that are let through in plain text.
    pub listen: AddressText,
    /// The application's ports. That of `inbound.app` if none are given.
    #[schemars(length(max = 64))]
    pub ports: Vec<u16>,
}

impl Default for RawCaptureInbound {
    fn default() -> Self {
        Self { mode: InboundMode::default(), listen: "0.0.0.0:15006".into(), ports: Vec::new() }
    }
}

/// What becomes of callers that go around the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InboundMode {
    /// They are refused by the kernel: the application is reached through its sidecar only.
    #[default]
    Strict,
    /// They are served in plain text, counted, and listed by `eastway status` as who has still to be moved into the mesh.
    Permissive,
}

/// How the application is probed. At most one of `http`, `grpc`, `tcp` and `command`; without any, by `tcp`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawHealth {
    /// By a `GET`: 200 to 399 is healthy.
    pub http: Option<RawHttpProbe>,
    /// By the gRPC health service: `SERVING` is healthy.
    pub grpc: Option<RawGrpcProbe>,
    /// By a connection that is accepted. Databases count one that says nothing as a failed login: probe them by a `command`
    /// (`pg_isready`, `mariadb-admin ping`, `redis-cli ping`).
    pub tcp: Option<RawTcpProbe>,
    /// By a program and its arguments: exit code 0 is healthy.
    pub command: Option<Vec<String>>,
    /// From one probe to the next.
    pub interval: DurationText,
    /// For one probe. The next begins no earlier than it has ended.
    pub timeout: DurationText,
    /// Successes in a row that make the application ready.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u32,
    /// Failures in a row that make it unready.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u32,
}

impl Default for RawHealth {
    fn default() -> Self {
        Self {
            http: None,
            grpc: None,
            tcp: None,
            command: None,
            interval: "1s".into(),
            timeout: "1s".into(),
            healthy_after: 1,
            unhealthy_after: 2,
        }
    }
}

/// A probe by HTTP.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawHttpProbe {
    /// The path, with a leading `/`.
    pub path: String,
    /// The port, on the address of `inbound.app`. That of `inbound.app` if not given.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A probe by gRPC.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawGrpcProbe {
    /// The service that is asked for; empty for the server as a whole.
    pub service: String,
    /// The port, on the address of `inbound.app`. That of `inbound.app` if not given.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A probe by a connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTcpProbe {
    /// The port, on the address of `inbound.app`. That of `inbound.app` if not given.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// Time limits.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTimeouts {
    /// For a TCP connection to an endpoint, a gateway or the application.
    pub connect: DurationText,
    /// For opening a stream to another cluster through a gateway, and for a TLS handshake. With another cluster, three
    /// round trips more, once they are known.
    pub stream_open: DurationText,
    /// From the end of a request to the first byte of its response, over all attempts. A deadline that the caller sends
    /// counts from the request's begin, if it is shorter.
    pub request: DurationText,
    /// How long a stream or a connection may carry nothing, a caller leave its request unfinished, or an endpoint take
    /// nothing of it.
    pub idle: DurationText,
    /// How long nearer endpoints must have served, until streams of ports with `onFailback: drain` are ended; up to as long
    /// again for each, so that not all clients connect anew at once.
    pub failback: DurationText,
    /// How long the first request to a service waits for discovery.
    pub discovery: DurationText,
    /// How long the process finishes what it has in hand, after it was told to end.
    pub drain: DurationText,
    /// How long the other host may acknowledge nothing of what was sent, until a TCP connection is given up. A host that
    /// acknowledges, but whose application does not read, is waited for.
    pub tcp_user_timeout: DurationText,
    /// Silence of a TCP connection after which it is probed, and the time between probes, in whole seconds. Who answers none
    /// of them for `tcpUserTimeout` is gone.
    pub tcp_keepalive: DurationText,
    /// Silence of an endpoint with requests in flight, after which it is asked whether it lives: by a ping of the HTTP/2
    /// connection, or by a further TLS handshake where requests travel by HTTP/1.1.
    pub ping_after: DurationText,
    /// For the answer; then the connection is given up, and the requests on it are sent elsewhere if they may be repeated.
    /// A handshake is tried twice, so that one which comes while the endpoint is busy does no harm.
    pub ping_timeout: DurationText,
    /// For the head of a request.
    pub header: DurationText,
    /// How long a body for which the application is to ask (`Expect: 100-continue`) waits until it is sent unasked. To
    /// another cluster, where nobody can ask, no longer than `pingTimeout` and three round trips.
    #[serde(rename = "continue")]
    pub continue_after: DurationText,
    /// For a caller's TLS handshake with this sidecar.
    pub handshake: DurationText,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        Self {
            connect: "250ms".into(),
            stream_open: "1s".into(),
            request: "15s".into(),
            idle: "5m".into(),
            failback: "30s".into(),
            discovery: "1s".into(),
            drain: "30s".into(),
            tcp_user_timeout: "1s".into(),
            tcp_keepalive: "1s".into(),
            ping_after: "200ms".into(),
            ping_timeout: "250ms".into(),
            header: "10s".into(),
            continue_after: "1s".into(),
            handshake: "5s".into(),
        }
    }
}

/// Bounds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawLimits {
    /// Threads that carry data, each with its own listeners and connections.
    #[schemars(range(min = 1, max = 64))]
    pub workers: u32,
    /// Accepted connections of one worker: as many inbound as outbound, each side for itself.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// TLS handshakes at once of callers with one worker. A further one takes the place of the oldest.
    #[schemars(range(min = 1, max = 100_000))]
    pub handshakes: u32,
    /// The same from one address (an IPv4 address, or a /64 of IPv6).
    #[schemars(range(min = 1, max = 100_000))]
    pub address_handshakes: u32,
    /// Idle connections that one worker keeps to one endpoint or to the application.
    #[schemars(range(min = 1))]
    pub idle_connections: u32,
    /// Requests in flight to one service, streams of gRPC and HTTP included.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// Opaque streams (CONNECT, upgrades) to one service that are open. They do not count as requests.
    #[schemars(range(min = 1))]
    pub opaque_streams: u32,
    /// Requests to one service that wait for a connection to be made.
    #[schemars(range(min = 1))]
    pub pending: u32,
    /// Requests in flight to one endpoint; more go to others.
    #[schemars(range(min = 1))]
    pub endpoint_requests: u32,
    /// Connections of one worker to one endpoint; requests beyond go to others.
    #[schemars(range(min = 1))]
    pub endpoint_connections: u32,
    /// Services that are followed. More are refused until one has been unused for 10 minutes. A gateway lets a sidecar
    /// follow no more than 2000.
    #[schemars(range(min = 1, max = 2_000))]
    pub subscriptions: u32,
    /// Names that have an address (`dns`). A further one takes the place of one that nobody has used for ten minutes.
    #[schemars(range(min = 1, max = 1_000))]
    pub names: u32,
    /// Attempts for a request, the first included, those not counted in which nothing was sent.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// Attempts for a request in all; at least `attempts`.
    #[schemars(range(min = 1, max = 20))]
    pub unsent_attempts: u32,
    /// Bytes of a request's or a response's head.
    #[schemars(range(min = 4_096, max = 1_048_576))]
    pub header_bytes: u32,
    /// Bytes of a request's body that are kept for another attempt. A request with a longer body is not retried once its
    /// body was sent.
    #[schemars(range(min = 0, max = 16_777_216))]
    pub kept_body: u32,
    /// Bytes of a response that is held until it is complete, so that its endpoint may die halfway.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub held_response: u32,
    /// Requests that a caller may have under way on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub streams: u32,
    /// Bytes of one HTTP/2 stream that the other side may send before they are read.
    #[schemars(range(min = 65_535, max = 16_777_216))]
    pub stream_window: u32,
    /// The same of all streams of a connection together; at least `streamWindow`. With `sendBuffer` for each stream it
    /// bounds the memory of a connection.
    #[schemars(range(min = 65_535, max = 268_435_456))]
    pub connection_window: u32,
    /// Bytes of one HTTP/2 stream that wait to be sent.
    #[schemars(range(min = 16_384, max = 16_777_216))]
    pub send_buffer: u32,
    /// Label sets of the traffic metrics; what is beyond is counted as `_other`.
    #[schemars(range(min = 1, max = 100_000))]
    pub metric_series: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            workers: 1,
            connections: 10_000,
            handshakes: 512,
            address_handshakes: 128,
            idle_connections: 256,
            requests: 1_024,
            opaque_streams: 4_096,
            pending: 1_024,
            endpoint_requests: 1_024,
            endpoint_connections: 1_024,
            subscriptions: 1_000,
            names: 1_000,
            attempts: 2,
            unsent_attempts: 4,
            header_bytes: 64 * 1024,
            kept_body: 64 * 1024,
            held_response: 16 * 1024,
            streams: 1_000,
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            send_buffer: 256 * 1024,
            metric_series: 2_000,
        }
    }
}

/// Logs and traces.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTelemetry {
    /// Where traces are exported to. Nowhere if not given.
    pub otlp: Option<RawOtlp>,
    /// The part of traces that begin here and are recorded, 0 to 1; a caller's decision is kept. Only with `otlp`; 0.01 if
    /// not given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// The log, on standard error.
    pub log: RawLog,
    /// The log of requests, outbound and inbound. None if not given.
    pub access_log: Option<RawAccessLog>,
}

/// The log of requests, a JSON object a line, written when they have ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawAccessLog {
    /// The file that it is appended to.
    pub path: FileText,
}
