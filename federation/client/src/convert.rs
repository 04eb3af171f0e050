//! Between the wire's protobuf types and the mesh's own: the only place where both are named.
//!
//! Everything that comes in is checked here — names, numbers, counts — so that nothing behind it meets a negative
//! weight or a label of a megabyte. Called by this crate and by `federation/server`; never decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::name::is_label;
use eastway_core::resource::{ClusterMeta, Idle, OnFailback, Protocol, ServicePort};
use eastway_core::view::{EndpointView, InboundRules, MeshView, PathState, PeerView, ServiceSpec, Staleness};
use eastway_core::{Coordinates, EndpointId, Health, Labels, LoadReport, ServiceName};
use eastway_proto::discovery::v1 as wire;
use eastway_registry::Registration;
use litemap::LiteMap;

mod policy;
pub mod services;
pub mod statements;

#[cfg(test)]
mod tests;

pub use services::{delta_from_wire, delta_to_wire, facts_from_wire, facts_to_wire, loads_from_wire, loads_to_wire};
pub use statements::{sibling_statements_from_wire, statement_from_wire, statement_to_wire, states_to_wire};

/// The words for what a node follows, in topics and updates.
pub const MESH: &str = "mesh";
/// See [`MESH`].
pub const SERVED: &str = "served";
/// See [`MESH`].
pub const SERVICE: &str = "service";
/// See [`MESH`].
pub const LOAD: &str = "load";
/// See [`MESH`].
pub const ADDRESS: &str = "address";

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl ConvertError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// The longest name of an endpoint, in bytes.
const MAX_ENDPOINT: usize = 253;
/// The most labels of a registration.
const MAX_LABELS: usize = 64;
/// The longest key or value of a label, in bytes.
const MAX_LABEL: usize = 256;
/// The most bytes of all labels of a registration: a hundred registrations are one value in the store, and must fit.
pub const MAX_LABEL_BYTES: usize = 4096;
/// The largest weight.
const MAX_WEIGHT: f64 = 1e6;

/// A registration from the wire, of a workload that proved to run under `account`.
///
/// # Errors
/// Which field is wrong.
pub fn registration_from_wire(
    message: wire::Registration,
    account: &str,
) -> Result<(Registration, Health), ConvertError> {
    let service = ServiceName::new(label("namespace", &message.namespace)?, label("service", &message.service)?);
    let registration = Registration {
        service,
        endpoint: endpoint_id(&message.endpoint)?,
        account: account.to_owned(),
        zone: label("zone", &message.zone)?.into(),
        address: message
            .address
            .parse()
            .map_err(|_| ConvertError::new("address", "not HOST:PORT with an IP address"))?,
        weight: weight(message.weight)?,
        capacity: message.capacity,
        labels: labels(message.labels)?,
        incarnation: message.incarnation,
        session: message.session,
    };
    Ok((registration, health_from_wire(message.health)?))
}

/// A registration for the wire.
pub fn registration_to_wire(registration: &Registration, health: Health) -> wire::Registration {
    wire::Registration {
        endpoint: registration.endpoint.to_string(),
        namespace: registration.service.namespace.to_string(),
        service: registration.service.service.to_string(),
        zone: registration.zone.to_string(),
        address: registration.address.to_string(),
        weight: registration.weight,
        labels: registration.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        incarnation: registration.incarnation,
        capacity: registration.capacity,
        session: registration.session,
        health: health_to_wire(health).into(),
    }
}

/// A health from the wire. Numbers of newer versions are refused rather than guessed.
///
/// # Errors
/// If the number is unknown.
pub fn health_from_wire(number: i32) -> Result<Health, ConvertError> {
    let index = usize::try_from(number).ok();
    let health = index.and_then(|index| Health::ALL.get(index).copied());
    health.ok_or_else(|| ConvertError::new("health", format!("{number} is unknown")))
}

/// A health for the wire.
pub const fn health_to_wire(health: Health) -> wire::Health {
    match health {
        Health::Warming => wire::Health::Warming,
        Health::Ready => wire::Health::Ready,
        Health::Degraded => wire::Health::Degraded,
        Health::Draining => wire::Health::Draining,
        Health::Unready => wire::Health::Unready,
        Health::Down => wire::Health::Down,
    }
}

/// A load report from the wire.
///
/// # Errors
/// If a ratio is negative or not finite.
pub fn load_from_wire(message: wire::LoadReport) -> Result<LoadReport, ConvertError> {
    let utilisation = message.utilisation.map(|value| ratio("utilisation", value)).transpose()?;
    Ok(LoadReport {
        active_requests: message.active_requests,
        utilisation,
        error_rate: ratio("error_rate", message.error_rate)?.min(1.0),
    })
}

/// A load report for the wire.
pub const fn load_to_wire(load: LoadReport) -> wire::LoadReport {
    wire::LoadReport {
        active_requests: load.active_requests,
        utilisation: load.utilisation,
        error_rate: load.error_rate,
    }
}

/// The mesh from the wire.
///
/// # Errors
/// Which field is wrong.
pub fn mesh_from_wire(message: wire::MeshView) -> Result<MeshView, ConvertError> {
    let cluster = message.cluster.ok_or_else(|| ConvertError::new("cluster", "missing"))?;
    let mut peers = message.peers.into_iter().map(peer_from_wire).collect::<Result<Vec<_>, _>>()?;
    peers.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
    Ok(MeshView { cluster: cluster_from_wire(cluster)?, peers })
}

/// The mesh for the wire.
pub fn mesh_to_wire(mesh: &MeshView) -> wire::MeshView {
    wire::MeshView {
        cluster: Some(cluster_to_wire(&mesh.cluster)),
        peers: mesh.peers.iter().map(peer_to_wire).collect(),
    }
}

/// A cluster from the wire.
///
/// # Errors
/// Which field is wrong.
pub fn cluster_from_wire(message: wire::Cluster) -> Result<ClusterMeta, ConvertError> {
    if message.uid.is_empty() || message.uid.len() > MAX_LABEL || message.region.len() > MAX_LABEL {
        return Err(ConvertError::new("cluster", "uid missing, or a field too long"));
    }
    Ok(ClusterMeta {
        name: label("cluster", &message.name)?.to_owned(),
        uid: message.uid,
        region: message.region,
        trust_domain: message.trust_domain,
        zones: message.zones.into_iter().map(zone_from_wire).collect::<Result<_, _>>()?,
    })
}

fn zone_from_wire(zone: wire::Zone) -> Result<(String, Option<Coordinates>), ConvertError> {
    let coordinates = match (zone.latitude, zone.longitude) {
        (Some(latitude), Some(longitude)) if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 => {
            Some(Coordinates { latitude, longitude })
        }
        (None, None) => None,
        _ => return Err(ConvertError::new("zones", "coordinates out of range")),
    };
    Ok((label("zones", &zone.name)?.to_owned(), coordinates))
}

/// A cluster for the wire.
pub fn cluster_to_wire(cluster: &ClusterMeta) -> wire::Cluster {
    let zone = |(name, coordinates): (&String, &Option<Coordinates>)| wire::Zone {
        name: name.clone(),
        latitude: coordinates.map(|c| c.latitude),
        longitude: coordinates.map(|c| c.longitude),
    };
    wire::Cluster {
        name: cluster.name.clone(),
        region: cluster.region.clone(),
        trust_domain: cluster.trust_domain.clone(),
        zones: cluster.zones.iter().map(zone).collect(),
        uid: cluster.uid.clone(),
    }
}

fn peer_from_wire(message: wire::PeerCluster) -> Result<PeerView, ConvertError> {
    let path = match message.path() {
        wire::PathState::Unknown => PathState::Unknown,
        wire::PathState::Up => PathState::Up,
        wire::PathState::Suspect => PathState::Suspect,
        wire::PathState::Down => PathState::Down,
    };
    let staleness = match message.staleness() {
        wire::Staleness::Fresh => Staleness::Fresh,
        wire::Staleness::Stale1 => Staleness::Stale1,
        wire::Staleness::Stale2 => Staleness::Stale2,
        wire::Staleness::Stale3 => Staleness::Stale3,
    };
    let cluster = message.cluster.ok_or_else(|| ConvertError::new("peers.cluster", "missing"))?;
    Ok(PeerView {
        cluster: cluster_from_wire(cluster)?,
        trust_bundle: message.trust_bundle,
        path,
        min_rtt: (message.min_rtt_us > 0).then(|| Duration::from_micros(message.min_rtt_us)),
        staleness,
    })
}

fn peer_to_wire(peer: &PeerView) -> wire::PeerCluster {
    let path = match peer.path {
        PathState::Unknown => wire::PathState::Unknown,
        PathState::Up => wire::PathState::Up,
        PathState::Suspect => wire::PathState::Suspect,
        PathState::Down => wire::PathState::Down,
    };
    let staleness = match peer.staleness {
        Staleness::Fresh => wire::Staleness::Fresh,
        Staleness::Stale1 => wire::Staleness::Stale1,
        Staleness::Stale2 => wire::Staleness::Stale2,
        Staleness::Stale3 => wire::Staleness::Stale3,
    };
    wire::PeerCluster {
        cluster: Some(cluster_to_wire(&peer.cluster)),
        trust_bundle: peer.trust_bundle.clone(),
        path: path.into(),
        min_rtt_us: peer.min_rtt.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1)),
        staleness: staleness.into(),
    }
}

pub(crate) fn spec_from_wire(message: wire::ServiceSpec) -> Result<ServiceSpec, ConvertError> {
    let weights: BTreeMap<String, f64> = message.locality_weights.into_iter().collect();
    if weights.values().any(|weight| !weight.is_finite() || *weight < 0.0) {
        return Err(ConvertError::new("locality_weights", "negative or not finite"));
    }
    let accounts = message.accounts.iter().map(|account| label("accounts", account).map(str::to_owned));
    Ok(ServiceSpec {
        ports: ports_from_wire(message.ports)?,
        accounts: accounts.collect::<Result<Arc<[String]>, _>>()?,
        locality_weights: weights,
        failover: message.failover,
        policy: policy::from_wire(message.policy.unwrap_or_default())?.shared(),
        export: message.export.map(|export| export.clusters),
    })
}

pub(crate) fn spec_to_wire(spec: &ServiceSpec) -> wire::ServiceSpec {
    wire::ServiceSpec {
        ports: ports_to_wire(&spec.ports),
        accounts: spec.accounts.to_vec(),
        locality_weights: spec.locality_weights.clone().into_iter().collect(),
        failover: spec.failover.clone(),
        policy: Some(policy::to_wire(&spec.policy)).filter(|policy| *policy != wire::ServicePolicy::default()),
        export: spec.export.clone().map(|clusters| wire::Export { clusters }),
    }
}

/// What a service's sidecars hold callers to, from the wire.
///
/// # Errors
/// Which field is wrong.
pub fn inbound_from_wire(message: wire::InboundRules) -> Result<InboundRules, ConvertError> {
    Ok(InboundRules { ports: ports_from_wire(message.ports)?, export: message.export })
}

/// What a service's sidecars hold callers to, for the wire.
pub fn inbound_to_wire(rules: &InboundRules) -> wire::InboundRules {
    wire::InboundRules { ports: ports_to_wire(&rules.ports), export: rules.export.clone() }
}

fn ports_from_wire(ports: Vec<wire::Port>) -> Result<Vec<ServicePort>, ConvertError> {
    ports.into_iter().map(port_from_wire).collect()
}

fn port_from_wire(port: wire::Port) -> Result<ServicePort, ConvertError> {
    let protocol = match port.protocol() {
        wire::Protocol::Http => Protocol::Http,
        wire::Protocol::Grpc => Protocol::Grpc,
        wire::Protocol::Tcp => Protocol::Tcp,
        wire::Protocol::Auto => Protocol::Auto,
    };
    let (idle, drains) = (Idle::from_seconds(port.idle_seconds), port.drains_on_failback);
    let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
    let port = number.ok_or_else(|| ConvertError::new("ports", format!("{} is no port", port.port)))?;
    let on_failback = if drains { OnFailback::Drain } else { OnFailback::Keep };
    Ok(ServicePort { port, protocol, idle, on_failback })
}

fn ports_to_wire(ports: &[ServicePort]) -> Vec<wire::Port> {
    ports.iter().map(port_to_wire).collect()
}

fn port_to_wire(port: &ServicePort) -> wire::Port {
    let protocol = match port.protocol {
        Protocol::Http => wire::Protocol::Http,
        Protocol::Grpc => wire::Protocol::Grpc,
        Protocol::Tcp => wire::Protocol::Tcp,
        Protocol::Auto => wire::Protocol::Auto,
    };
    let idle_seconds = port.idle.map(Idle::seconds).unwrap_or_default();
    let drains_on_failback = port.on_failback == OnFailback::Drain;
    wire::Port { port: port.port.into(), protocol: protocol.into(), idle_seconds, drains_on_failback }
}

fn endpoint_from_wire(message: wire::Endpoint) -> Result<Arc<EndpointView>, ConvertError> {
    Ok(Arc::new(EndpointView {
        id: endpoint_id(&message.id)?,
        zone: label("zone", &message.zone)?.into(),
        address: message
            .address
            .parse()
            .map_err(|_| ConvertError::new("address", "not HOST:PORT with an IP address"))?,
        weight: weight(message.weight)?,
        health: health_from_wire(message.health)?,
        incarnation: message.incarnation,
        capacity: message.capacity,
        labels: labels(message.labels)?,
        load: None,
    }))
}

fn endpoint_to_wire(endpoint: &EndpointView) -> wire::Endpoint {
    wire::Endpoint {
        id: endpoint.id.to_string(),
        zone: endpoint.zone.to_string(),
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        health: health_to_wire(endpoint.health).into(),
        incarnation: endpoint.incarnation,
        capacity: endpoint.capacity,
        labels: endpoint.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

/// A service's name from the wire.
///
/// # Errors
/// If it is not NAMESPACE/SERVICE.
pub fn service_name(text: &str) -> Result<ServiceName, ConvertError> {
    text.parse().map_err(|_| ConvertError::new("name", format!("`{text:.80}` is not NAMESPACE/SERVICE")))
}

fn endpoint_id(text: &str) -> Result<EndpointId, ConvertError> {
    let valid = (1..=MAX_ENDPOINT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    if valid {
        Ok(EndpointId::new(text))
    } else {
        Err(ConvertError::new("endpoint", "not 1 to 253 visible characters"))
    }
}

fn label<'a>(field: &'static str, text: &'a str) -> Result<&'a str, ConvertError> {
    if is_label(text) { Ok(text) } else { Err(ConvertError::new(field, format!("`{text:.80}` is no DNS label"))) }
}

fn labels(labels: impl IntoIterator<Item = (String, String)>) -> Result<Labels, ConvertError> {
    let labels: LiteMap<String, String> = labels.into_iter().collect();
    let sound = |text: &String| text.len() <= MAX_LABEL && !text.chars().any(char::is_control);
    let all: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if labels.len() > MAX_LABELS || all > MAX_LABEL_BYTES || !labels.iter().all(|(k, v)| sound(k) && sound(v)) {
        let problem = "more than 64, one longer than 256 bytes, all longer than 4,096, or with control characters";
        return Err(ConvertError::new("labels", problem));
    }
    Ok(Arc::new(labels))
}

fn weight(weight: f64) -> Result<f64, ConvertError> {
    let valid = weight.is_finite() && (0.0..=MAX_WEIGHT).contains(&weight);
    if valid { Ok(weight) } else { Err(ConvertError::new("weight", "not between 0 and 1,000,000")) }
}

fn ratio(field: &'static str, value: f32) -> Result<f32, ConvertError> {
    let valid = value.is_finite() && value >= 0.0;
    if valid { Ok(value) } else { Err(ConvertError::new(field, "negative or not finite")) }
}
