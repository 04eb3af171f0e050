//! The configuration of a gateway: what its file may say ([`RawConfig`]), and what has been checked ([`Config`]).
//!
//! [`Config::load`] is the only way to a `Config`, so nothing behind it meets an invalid address, an unreadable file or a
//! setting without effect. The resources that it names are checked with it, and read again by [`Config::load_resources`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eastway_admission::{Cluster, Declared};
use eastway_core::view::Transport;
use eastway_core::{Coordinates, Network};
use eastway_documents::Problems;
use eastway_documents::load;
use eastway_identity::IdentityFiles;
use eastway_registry::PeerBounds;
use eastway_runtime::sections::{Log, Otlp};
use eastway_transport::accept::HandshakeLimits;

mod check;
mod raw;

pub use raw::*;

/// A gateway's configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster that the gateway serves.
    pub cluster: String,
    /// The region that the cluster lies in.
    pub region: String,
    /// The gateway's id within the cluster.
    pub gateway: String,
    /// The cluster's zones, with their coordinates where given. Never empty.
    pub zones: BTreeMap<String, Option<Coordinates>>,
    /// Its certificate, key and CAs.
    pub identity: IdentityFiles,
    /// The trust domain of the cluster's identities.
    pub trust_domain: String,
    /// The tunnels.
    pub tunnel: TunnelConfig,
    /// Where discovery and registration listen.
    pub discovery: SocketAddr,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Where operators from elsewhere are taken, if anywhere.
    pub operators: Option<SocketAddr>,
    /// Where `/metrics`, `/live` and `/ready` are served.
    pub metrics: SocketAddr,
    /// Where the cluster's state is kept.
    pub store: Store,
    /// The folder for what the store held last.
    pub state: Option<PathBuf>,
    /// The files and folders of resources.
    pub resources: Vec<PathBuf>,
    /// The suffix of mesh names.
    pub suffix: String,
    /// Registration of workloads.
    pub registration: Registration,
    /// What each peer cluster may say.
    pub peering: PeerBounds,
    /// Tokens by which clusters may become peers that are valid at a time.
    pub tokens: usize,
    /// How long a peer stays connected of which nothing is wanted any more; `None`: always.
    pub peer_idle: Option<Duration>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads and checks the file at `path` and the resources that it names.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, each with its file, line and path.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let loaded = load::<RawConfig>(path)?;
        check::check(&loaded.value, &loaded.source)
    }

    /// Reads the resources, as they are now, with warnings about them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_resources(&self) -> Result<(Vec<Declared>, Problems), Problems> {
        check::resources(self)
    }

    /// What is declared is compared with this.
    pub fn as_cluster(&self) -> Cluster {
        Cluster {
            name: self.cluster.clone(),
            region: self.region.clone(),
            zones: self.zones.keys().cloned().collect(),
            trust_domain: self.trust_domain.clone(),
        }
    }

    /// The bounds of the TLS handshakes on one listener.
    pub fn handshakes(&self) -> HandshakeLimits {
        HandshakeLimits {
            places: self.limits.handshakes,
            per_address: self.limits.address_handshakes,
            timeout: self.timeouts.handshake,
        }
    }
}

/// The tunnels of peers and sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Where they listen: UDP for peers, TCP for sidecars and for peers that UDP does not reach.
    pub listen: SocketAddr,
    /// What carries the tunnels of peers, the preferred one first. Never empty.
    pub transports: Vec<Transport>,
    /// Where siblings reach it, if it is said.
    pub advertise: Option<SocketAddr>,
    /// The folder in which every relayed byte is recorded, if at all.
    pub record: Option<PathBuf>,
}

/// Registration of workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Networks in which workloads may be reached, besides where their registrations come from.
    pub networks: Vec<Network>,
    /// Endpoints of one account.
    pub per_account: usize,
}

/// Where a cluster's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this process, on disk: for a cluster with one gateway.
    Embedded {
        /// The folder.
        path: PathBuf,
    },
    /// In etcd: for several gateways.
    Etcd(Etcd),
}

/// How the cluster's etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// URLs of its members, all with the same scheme. Never empty.
    pub endpoints: Vec<String>,
    /// The user and the file with the password, if it wants any.
    pub user: Option<EtcdUser>,
    /// TLS; present if, and only if, the members' URLs are https.
    pub tls: Option<EtcdTls>,
    /// What all keys begin with; may be empty.
    pub prefix: String,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The file whose first line is the password. Read before each connection.
    pub password_file: PathBuf,
}

/// The files of TLS to etcd, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// The CAs of the members' certificates.
    pub ca: PathBuf,
    /// The own certificate and key, if the members want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that members' certificates must have; their hosts' if none.
    pub server_name: Option<String>,
}

/// Time limits. The meaning of each is with its [`RawTimeouts`] field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the raw type's fields document them")]
pub struct Timeouts {
    pub connect: Duration,
    pub stream_open: Duration,
    pub idle: Duration,
    pub drain: Duration,
    pub tcp_user: Duration,
    pub tcp_keepalive: Duration,
    pub header: Duration,
    pub session: Duration,
    pub collect: Duration,
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
    pub tunnel_connections: u32,
    pub peer_connections: u32,
    pub streams: u32,
    pub workload_streams: u32,
    pub header_bytes: u32,
    pub metric_series: usize,
}

/// Logs and traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Where traces go; nowhere if none.
    pub otlp: Option<Otlp>,
    /// The log.
    pub log: Log,
}

#[cfg(test)]
mod tests;
