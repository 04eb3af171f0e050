//! What a node sees of the mesh: the facts that discovery delivers, and the only input of balancing.
//!
//! These are plain values. The wire's protobuf types are converted to them at the edge (`federation/client`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::{EndpointId, Health, Labels, LoadReport};
use crate::locality::ZoneId;
use crate::name::ServiceName;
use crate::policy::ServicePolicy;
use crate::resource::{ClusterMeta, Protocol, ServicePort, exports_to};

/// The mesh around the services: this cluster and its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshView {
    /// The cluster that the viewing node belongs to.
    pub cluster: ClusterMeta,
    /// The peers, in the order of their names.
    pub peers: Vec<PeerView>,
}

/// A peer cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// What it says of itself.
    pub cluster: ClusterMeta,
    /// Its CA certificates, in DER.
    pub trust_bundle: Vec<Vec<u8>>,
    /// Whether streams can be opened to it.
    pub path: PathState,
    /// Least round-trip time over the last minute in which it could be measured; `None` until 20 pings were answered.
    pub min_rtt: Option<Duration>,
    /// How old its statements are.
    pub staleness: Staleness,
}

/// The state of a path between two gateways. Peer health is another fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// No answer yet, and no evidence against it.
    #[default]
    Unknown,
    /// Answers.
    Up,
    /// Two pings in a row expired: no new streams while another path exists. Of a peer in a view: or only siblings of the
    /// gateway that is heard reach it.
    Suspect,
    /// Three did: no new streams.
    Down,
}

/// What carries the connections between two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP, with the streams of a link.
    Tcp,
}

impl Transport {
    /// The name in metrics and for operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The age of a peer's statements, by its in-band heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Staleness {
    /// Less than 3 s old.
    #[default]
    Fresh,
    /// 3 to 30 s: weights are frozen.
    Stale1,
    /// 30 s to 15 min: degraded in its own priority.
    Stale2,
    /// Older: last resort.
    Stale3,
}

/// A service as seen from one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Which service.
    pub name: ServiceName,
    /// How it is reached.
    pub spec: ServiceSpec,
    /// The endpoints of this cluster, one by one, ordered by id.
    pub endpoints: Vec<Arc<EndpointView>>,
    /// The zones of other clusters, in sum, ordered by zone.
    pub remote: Vec<RemoteZone>,
    /// The zones of this cluster that returned from failure within the last minute, and how long ago that was when this
    /// view was made. (For other clusters, see [`ZoneSummary::returned_ago`].)
    #[serde(default)]
    pub returned: BTreeMap<Arc<str>, Duration>,
}

/// How a service is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its ports; never empty once resolved.
    pub ports: Vec<ServicePort>,
    /// The accounts that may serve it in this cluster.
    pub accounts: Arc<[String]>,
    /// Weights of zones set by the operator; a zone not named weighs 1.
    pub locality_weights: BTreeMap<String, f64>,
    /// The operator's order of other clusters.
    pub failover: Vec<String>,
    /// How callers treat it.
    #[serde(default = "ServicePolicy::unset")]
    pub policy: Arc<ServicePolicy>,
    /// The peer clusters that this cluster offers it to; `None` where this cluster neither declares nor serves it, and
    /// until a gateway of this cluster has said so.
    #[serde(default)]
    pub export: Option<Vec<String>>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            accounts: Arc::default(),
            locality_weights: BTreeMap::new(),
            failover: Vec::new(),
            policy: ServicePolicy::unset(),
            export: None,
        }
    }
}

/// What the sidecars that serve a service hold its callers to, as their own cluster declares it. What a caller or another
/// cluster says of the service changes nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundRules {
    /// The ports that callers may name.
    pub ports: Vec<ServicePort>,
    /// The peer clusters whose workloads are let in: names, or `*` for all.
    pub export: Vec<String>,
}

impl InboundRules {
    /// What is spoken on the port `number`; `None` if the service has no such port.
    pub fn protocol(&self, number: u16) -> Option<Protocol> {
        self.port(number).map(|port| port.protocol)
    }

    /// What is declared of the port `number`.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// Whether workloads of the peer cluster `cluster` are let in.
    pub fn exports_to(&self, cluster: &str) -> bool {
        exports_to(&self.export, cluster)
    }
}

/// One endpoint of the own cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Its name.
    pub id: EndpointId,
    /// Its zone within the cluster.
    pub zone: Arc<str>,
    /// Its sidecar's inbound listener.
    pub address: SocketAddr,
    /// Relative to its peers; 1 by default.
    pub weight: f64,
    /// Whether it can serve.
    pub health: Health,
    /// Which life of it; grows with each start.
    pub incarnation: u64,
    /// Requests it can serve at once; 0 if unknown.
    pub capacity: u32,
    /// Labels of its registration.
    pub labels: Labels,
    /// Its load as last reported.
    pub load: Option<LoadReport>,
}

/// A zone of another cluster that serves a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteZone {
    /// Cluster and zone.
    pub zone: ZoneId,
    /// The accounts that the exporting cluster allows to serve the service.
    pub accounts: Arc<[String]>,
    /// The sums.
    pub summary: ZoneSummary,
}

/// The endpoints of a service in one zone, in sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneSummary {
    /// Endpoints that count: all but those never warmed.
    pub total: u32,
    /// Of them, ready.
    pub ready: u32,
    /// Of them, degraded.
    pub degraded: u32,
    /// Of them, draining.
    pub draining: u32,
    /// Requests at once, all together; 0 if one of them does not say.
    pub capacity: f64,
    /// Mean utilisation; `None` if unknown.
    pub utilisation: Option<f32>,
    /// Mean error rate.
    pub error_rate: f32,
    /// How long ago the zone returned from failure, if it did.
    pub returned_ago: Option<Duration>,
}
