//! The file of a gateway's configuration, as it is written. The documentation of these fields is the reference.

use std::collections::BTreeMap;

use eastway_documents::{AddressText, DurationText, FileText};
use eastway_runtime::sections::{RawAdmin, RawIdentity, RawLog, RawMetrics, RawOtlp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The configuration of a gateway.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawConfig {
    /// The cluster that the gateway serves.
    pub cluster: String,
    /// The region that the cluster lies in. Clusters of one region are preferred to those of others.
    pub region: String,
    /// The gateway's id, unique in its cluster, and the last part of its certificate's SPIFFE id.
    pub gateway: String,
    /// The cluster's zones.
    pub zones: BTreeMap<String, RawZone>,
    /// The gateway's identity, in PEM files. They are read again when they change and at SIGHUP.
    pub identity: RawIdentity,
    /// The trust domain of the cluster's identities. `CLUSTER.mesh.internal` if not given.
    pub trust_domain: Option<String>,
    /// The tunnel.
    #[serde(default)]
    pub tunnel: RawTunnel,
    /// Discovery and registration, for the cluster's sidecars.
    #[serde(default)]
    pub discovery: RawDiscovery,
    /// The administration server.
    #[serde(default)]
    pub admin: RawAdmin,
    /// The administration server for operators who come from elsewhere. They show a certificate of this cluster that
    /// `eastway ca issue --operator` made. If not given, there is none.
    pub operators: Option<RawOperators>,
    /// The server for scrapers and probes: `/metrics`, `/live`, `/ready`.
    #[serde(default)]
    pub metrics: RawMetrics,
    /// Where the cluster's state is kept: exactly one of the two.
    pub store: RawStore,
    /// A folder in which the gateway keeps what etcd held last, so that it starts and serves although no member answers. It
    /// takes part again as soon as one does. If not given, a start waits for etcd.
    pub state: Option<FileText>,
    /// Files of resources, or folders whose `*.yaml` and `*.yml` are. Everything in them is checked together; at SIGHUP
    /// either all of it is taken or, if anything is wrong, nothing.
    #[serde(default)]
    #[schemars(extend("x-reload" = "SIGHUP reads the files again"))]
    pub resources: Vec<FileText>,
    /// The suffix of mesh names: `SERVICE.NAMESPACE.SUFFIX`.
    #[serde(default = "default_suffix")]
    pub suffix: String,
    /// Registration of workloads.
    #[serde(default)]
    pub registration: RawRegistration,
    /// What each peer cluster may say.
    #[serde(default)]
    pub peering: RawPeering,
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

/// A zone of the cluster. Its coordinates, if given, order clusters by distance until round trips are measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawZone {
    /// Degrees north of the equator; needs `longitude`.
    #[schemars(range(min = -90.0, max = 90.0))]
    pub latitude: Option<f64>,
    /// Degrees east of Greenwich; needs `latitude`.
    #[schemars(range(min = -180.0, max = 180.0))]
    pub longitude: Option<f64>,
}

/// The tunnel: QUIC from peers' gateways on UDP; on TCP, CONNECT from sidecars, and peers' gateways where UDP is blocked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTunnel {
    /// Where it listens, with UDP and TCP on the same port.
    pub listen: AddressText,
    /// What carries the tunnels between gateways, the preferred one first. The other one is kept ready, and used while the preferred
    /// one does not get through or loses clearly more. One that is not named is neither dialled nor accepted: `[quic]` keeps tunnels
    /// from going over TCP, `[tcp]` is for networks without UDP. Both sides of a path must have one in common.
    #[schemars(length(min = 1, max = 2))]
    pub transports: Vec<RawTransport>,
    /// Where the other gateways of the cluster reach it, and those of peers that joined by a token or follow it: an address and a
    /// port. If not given, it is `listen`, or, if
    /// that is every address of the machine, the one from which the machine reaches others.
    pub advertise: Option<AddressText>,
    /// A folder in which every relayed byte is recorded, a file for each stream and direction. To prove that a gateway sees
    /// ciphertext only: it grows without bound and is not for production. Nothing is recorded if not given.
    pub record: Option<FileText>,
}

/// What carries tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RawTransport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl Default for RawTunnel {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:15443".into(),
            advertise: None,
            record: None,
            transports: vec![RawTransport::Quic, RawTransport::Tcp],
        }
    }
}

/// The administration server over mutual TLS.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawOperators {
    /// Where it listens.
    pub listen: AddressText,
}

/// Discovery and registration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawDiscovery {
    /// Where it listens, for gRPC over mutual TLS.
    pub listen: AddressText,
}

impl Default for RawDiscovery {
    fn default() -> Self {
        Self { listen: "0.0.0.0:15010".into() }
    }
}

/// Registration of workloads.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawRegistration {
    /// Networks such as `10.8.0.0/16` in which workloads may be reached. Without one, a workload is reached only at the
    /// address that its registration comes from, or anywhere on the gateway's host if it comes from there. To be given where
    /// a sidecar's connections show another address than callers use: behind address translation, or with both IPv4 and
    /// IPv6. Never reached are the gateway's own listeners, its loopback addresses from elsewhere, and link-local addresses.
    #[schemars(length(max = 256))]
    pub networks: Vec<String>,
    /// Endpoints that one account may have registered at this gateway, those included whose sidecars are not heard of.
    #[schemars(range(min = 1, max = 50_000))]
    pub per_account: u32,
}

impl Default for RawRegistration {
    fn default() -> Self {
        Self { networks: Vec::new(), per_account: 5_000 }
    }
}

/// How much of what one peer cluster states is kept. The rest is left out; `/status` and `eastway_peer_cut_total` say what
/// was. And how clusters become peers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawPeering {
    /// Gateways of the cluster.
    #[schemars(range(min = 1, max = 256))]
    pub gateways: u32,
    /// Zones of the cluster, and of each of its services.
    #[schemars(range(min = 1, max = 1_024))]
    pub zones: u32,
    /// Ports of a service.
    #[schemars(range(min = 1, max = 1_024))]
    pub ports: u32,
    /// Accounts that may serve a service.
    #[schemars(range(min = 1, max = 1_024))]
    pub accounts: u32,
    /// Endpoints of a service in a zone.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub endpoints: u32,
    /// Services, each with its zones, ports and accounts, over all gateways of the cluster.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub entries: u32,
    /// Tokens (`eastway peer token`) that are valid at a time in this cluster. With 0, no cluster becomes a peer by a token, and
    /// this gateway listens to nobody who is none.
    #[schemars(range(max = 1_000))]
    pub tokens: u32,
    /// For meshes of many clusters: connect to a peer only when a sidecar calls a service that may be imported from it, and
    /// disconnect when for so long none has. Without it, every peer is connected to, always.
    pub idle: Option<DurationText>,
}

impl Default for RawPeering {
    fn default() -> Self {
        Self {
            gateways: 16,
            zones: 64,
            ports: 64,
            accounts: 32,
            endpoints: 50_000,
            entries: 200_000,
            tokens: 16,
            idle: None,
        }
    }
}

/// Where the cluster's state is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RawStore {
    /// In the gateway's process: for a cluster with one gateway.
    Embedded(RawEmbedded),
    /// In an etcd of the cluster's own: for several gateways.
    Etcd(RawEtcd),
}

/// The store in the gateway's process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawEmbedded {
    /// Its folder, created if missing. No other gateway may use it.
    pub path: FileText,
}

/// The store in etcd.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawEtcd {
    /// The client URLs of its members: all `http://HOST:PORT`, or all `https://HOST:PORT`.
    #[schemars(length(min = 1, max = 32))]
    pub endpoints: Vec<String>,
    /// The user, if etcd's authentication is on; needs `passwordFile`.
    pub username: Option<String>,
    /// The file whose first line is the user's password.
    pub password_file: Option<FileText>,
    /// TLS to the members; needed with `https` and only then.
    pub tls: Option<RawEtcdTls>,
    /// What all keys begin with, so that several clusters can share one etcd in tests. Nothing if not given.
    #[serde(default)]
    pub prefix: String,
}

/// TLS to etcd, in PEM files.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawEtcdTls {
    /// The CAs of the members' certificates.
    pub ca: FileText,
    /// The certificate to show to the members, if they want one; needs `key`.
    pub certificate: Option<FileText>,
    /// The key of `certificate`.
    pub key: Option<FileText>,
    /// The name that the members' certificates must have. The host of each URL if not given.
    pub server_name: Option<String>,
}

/// Time limits.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTimeouts {
    /// For a TCP connection to an endpoint of the cluster.
    pub connect: DurationText,
    /// For opening a tunnel stream to a peer, its answer included.
    pub stream_open: DurationText,
    /// How long a relayed stream may carry nothing.
    pub idle: DurationText,
    /// How long the process finishes what it has in hand, after it was told to end.
    pub drain: DurationText,
    /// How long the other host may acknowledge nothing of what was sent, until a TCP connection is given up. A host that
    /// acknowledges, but whose application does not read, is waited for.
    pub tcp_user_timeout: DurationText,
    /// Silence of a TCP connection after which it is probed, and the time between probes, in whole seconds. Who answers none
    /// of them for `tcpUserTimeout` is gone.
    pub tcp_keepalive: DurationText,
    /// For the head of a CONNECT request.
    pub header: DurationText,
    /// How long the gateway's own key in the store outlives its last sign of life there. etcd grants no less than `2s`.
    pub session: DurationText,
    /// How long a gateway's key must have been gone from the store until the leader removes what is left of it: endpoints
    /// that do not answer, or that have registered with another gateway since.
    pub collect: DurationText,
    /// For the handshake of TLS or QUIC, on every listener.
    pub handshake: DurationText,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        Self {
            connect: "250ms".into(),
            stream_open: "1s".into(),
            idle: "5m".into(),
            drain: "30s".into(),
            tcp_user_timeout: "1s".into(),
            tcp_keepalive: "1s".into(),
            header: "10s".into(),
            session: "10s".into(),
            collect: "60s".into(),
            handshake: "5s".into(),
        }
    }
}

/// Bounds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawLimits {
    /// Threads that carry data, each with its own sockets and connections.
    #[schemars(range(min = 1, max = 64))]
    pub workers: u32,
    /// Connections of sidecars that one worker has accepted.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// Handshakes at once of one listener and worker. A further one of TLS takes the place of the oldest; a further one of
    /// QUIC is refused. A sixteenth of the number is for QUIC clients whose addresses may be forged; when it is used up,
    /// clients have to prove theirs first.
    #[schemars(range(min = 16, max = 100_000))]
    pub handshakes: u32,
    /// The same from one address (an IPv4 address, or a /64 of IPv6).
    #[schemars(range(min = 1, max = 100_000))]
    pub address_handshakes: u32,
    /// Tunnel connections of peers that one worker, or the control socket, has accepted. More are refused as `overloaded`.
    #[schemars(range(min = 1, max = 100_000))]
    pub tunnel_connections: u32,
    /// The same of one peer cluster. Each worker of each of its gateways needs one.
    #[schemars(range(min = 1, max = 100_000))]
    pub peer_connections: u32,
    /// Tunnel streams that a peer cluster may have open at once with one worker. More are refused as `overloaded`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams: u32,
    /// Streams that the sidecars of one workload identity may have open at once with one worker. More are refused as
    /// `overloaded`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub workload_streams: u32,
    /// Bytes of the head of a CONNECT request.
    #[schemars(range(min = 4_096, max = 1_048_576))]
    pub header_bytes: u32,
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
            tunnel_connections: 1_024,
            peer_connections: 256,
            streams: 4_096,
            workload_streams: 4_096,
            header_bytes: 64 * 1024,
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
}
