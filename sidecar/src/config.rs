//! The configuration of a sidecar: what its file may say ([`RawConfig`]), and what has been checked ([`Config`]).
//!
//! [`Config::load`] is the only way to a `Config`, so nothing behind it meets an invalid address, an unreadable file or a
//! setting without effect.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use eastway_core::Authority;
use eastway_documents::Problems;
use eastway_documents::load;
use eastway_identity::IdentityFiles;
use eastway_runtime::sections::{Log, Otlp};

mod check;
mod raw;

pub use raw::*;

/// A sidecar's configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster that the sidecar belongs to.
    pub cluster: String,
    /// Its zone within the cluster.
    pub zone: String,
    /// The workload beside it.
    pub workload: Workload,
    /// Its certificate, key and CAs.
    pub identity: IdentityFiles,
    /// The cluster's gateways, which are equals. Never empty.
    pub gateways: Vec<Gateway>,
    /// What it takes from callers; none if the workload serves nothing.
    pub inbound: Option<Inbound>,
    /// What it takes from the workload.
    pub outbound: Outbound,
    /// Names by DNS; none if they are not served.
    pub dns: Option<Dns>,
    /// What the host captures.
    pub capture: Option<Capture>,
    /// How it probes the workload; none if the workload serves nothing.
    pub health: Option<Health>,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Where `/metrics`, `/live` and `/ready` are served.
    pub metrics: SocketAddr,
    /// The folder of the last view; without one, a restart begins from nothing.
    pub state: Option<PathBuf>,
    /// The suffix of mesh names.
    pub suffix: String,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its file, line and path.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let loaded = load::<RawConfig>(path)?;
        check::check(&loaded.value, &loaded.source)
    }
}

/// The workload beside a sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name, which is its endpoint's.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service that it serves; none for a mere caller.
    pub service: Option<String>,
    /// Relative to its peers.
    pub weight: f64,
    /// Requests it can serve at once; 0 if unknown.
    pub capacity: u32,
    /// Labels of its registration.
    pub labels: BTreeMap<String, String>,
    /// The folder of its control group.
    pub cgroup: Option<PathBuf>,
    /// Where callers reach the inbound listener, if not at its own address.
    pub address: Option<SocketAddr>,
}

/// The addresses of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its discovery listener.
    pub discovery: SocketAddr,
    /// Its tunnel listener.
    pub tunnel: SocketAddr,
}

/// What a sidecar takes from callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub app: SocketAddr,
    /// What the application speaks.
    pub protocol: AppProtocol,
}

/// What a sidecar takes from its workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where the HTTP proxy listens.
    pub proxy: SocketAddr,
    /// Whether requests and answers get a `Via`.
    pub via: bool,
    /// What listens for connections to one service.
    pub listeners: Vec<Listener>,
}

/// A listener for the connections to one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its connections lead to.
    pub target: Authority,
}

/// Names by DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where questions are answered.
    pub listen: SocketAddr,
    /// The servers for other names; those of the host if none are given.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Which addresses names get.
    pub addresses: DnsAddresses,
    /// The /96 of their IPv6 addresses.
    pub prefix: Option<Ipv6Addr>,
}

/// What the host captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Where captured connections to names' addresses come to; none if names' addresses are not captured.
    pub listen: Option<SocketAddr>,
    /// How their first destinations are kept.
    pub via: CaptureBy,
    /// Whether connections to what is no name of the mesh are refused.
    pub unknown: Unknown,
    /// The table of the rules.
    pub table: String,
    /// Who the sidecar runs as.
    pub user: Option<String>,
    /// Whose connections.
    pub only: Whose,
    /// Whose connections never.
    pub excluded: Whose,
    /// Ports of destinations that are never captured.
    pub excluded_ports: Vec<u16>,
    /// Networks of destinations that are never captured.
    pub excluded_networks: Vec<String>,
    /// The /96 of names' IPv6 addresses.
    pub prefix: Option<Ipv6Addr>,
    /// Callers that go around the sidecar.
    pub inbound: Option<CaptureInbound>,
}

/// Users, groups and control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// By name or number.
    pub users: Vec<String>,
    /// By name or number.
    pub groups: Vec<String>,
    /// By path.
    pub cgroups: Vec<String>,
}

/// Callers that go around the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureInbound {
    /// What becomes of them.
    pub mode: InboundMode,
    /// Where those come to that are let through.
    pub listen: SocketAddr,
    /// The application's ports.
    pub ports: Vec<u16>,
}

/// How the workload is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub kind: HealthKind,
    /// Whom. Without meaning for a command.
    pub target: SocketAddr,
    /// From one probe to the next.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Successes in a row that make it ready.
    pub healthy_after: u32,
    /// Failures in a row that make it unready.
    pub unhealthy_after: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// `GET` of a path.
    Http {
        /// The path.
        path: String,
    },
    /// The gRPC health service.
    Grpc {
        /// Which service; empty for the server as a whole.
        service: String,
    },
    /// A connection.
    Tcp,
    /// A command.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// Time limits. The meaning of each is with its [`RawTimeouts`] field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the raw type's fields document them")]
pub struct Timeouts {
    pub connect: Duration,
    pub stream_open: Duration,
    pub request: Duration,
    pub idle: Duration,
    pub failback: Duration,
    pub discovery: Duration,
    pub drain: Duration,
    pub tcp_user: Duration,
    pub tcp_keepalive: Duration,
    pub ping_after: Duration,
    pub ping_timeout: Duration,
    pub header: Duration,
    pub continue_after: Duration,
    pub handshake: Duration,
}

/// Bounds. The meaning of each is with its [`RawLimits`] field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the raw type's fields document them")]
pub struct Limits {
    pub workers: usize,
    pub connections: u32,
    pub handshakes: u32,
    pub address_handshakes: u32,
    pub idle_connections: usize,
    pub requests: u32,
    pub opaque_streams: u32,
    pub pending: u32,
    pub endpoint_requests: u32,
    pub endpoint_connections: u32,
    pub subscriptions: u32,
    pub names: u32,
    pub attempts: u32,
    pub unsent_attempts: u32,
    pub header_bytes: u32,
    pub kept_body: usize,
    pub held_response: usize,
    pub streams: u32,
    pub stream_window: u32,
    pub connection_window: u32,
    pub send_buffer: usize,
    pub metric_series: usize,
}

/// Logs and traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Where traces go; nowhere if none.
    pub otlp: Option<Otlp>,
    /// The log.
    pub log: Log,
    /// The file of the access log, if one is written.
    pub access_log: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
