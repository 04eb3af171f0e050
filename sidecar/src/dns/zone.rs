//! The names of the mesh: what is answered of them, from what discovery says.

use std::sync::Arc;

use eastway_core::resource::{Protocol, ServicePort};
use eastway_core::{MeshHost, Reason};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::Answer;
use super::question::Asked;
use crate::node::SidecarNode;
use crate::virtuals::Virtuals;
use crate::virtuals::network::Addresses;

/// How long an answer may be kept, in seconds. The addresses stay; ports, and what is offered at all, change.
const TTL: u32 = 5;
/// How long it may be kept that there is none, in seconds: a service is to be found a second after it was offered.
const NEGATIVE_TTL: u32 = 1;

/// Answers questions about names of the mesh.
pub(super) struct Zone {
    node: Arc<SidecarNode>,
    virtuals: Arc<Virtuals>,
    soa: Record,
}

/// A name that is there.
struct Found {
    addresses: Addresses,
    ports: Vec<ServicePort>,
}

/// Why there is no address.
enum Missing {
    /// No cluster offers it.
    Unknown,
    /// Nobody can say at present.
    Later,
}

impl Zone {
    /// The names under the node's suffix.
    pub(super) fn new(node: &Arc<SidecarNode>, virtuals: &Arc<Virtuals>) -> Self {
        Self { node: Arc::clone(node), virtuals: Arc::clone(virtuals), soa: authority(&node.config.suffix) }
    }

    /// The answer to a question of this type about the name `name`, which is a name of the mesh.
    pub(super) async fn answer(&self, asked: &Asked, name: &Name, kind: RecordType) -> Answer {
        let (host, spoken) = match asked {
            Asked::Host(host) => (host, None),
            Asked::Ports(host, protocol) => (host, Some(*protocol)),
            Asked::Above if kind == RecordType::SOA => return self.found(vec![self.soa.clone()]),
            Asked::Above => return self.none(ResponseCode::NoError),
            Asked::Nothing | Asked::Outside => return self.none(ResponseCode::NXDomain),
        };
        let found = match self.find(host).await {
            Ok(found) => found,
            Err(Missing::Unknown) if self.is_above(host) => return self.none(ResponseCode::NoError),
            Err(Missing::Unknown) => return self.none(ResponseCode::NXDomain),
            Err(Missing::Later) => return Answer::failed(),
        };
        match (kind, spoken) {
            (RecordType::A | RecordType::ANY, None) => self.found(vec![address(name, &found.addresses)]),
            (RecordType::AAAA, None) => match found.addresses.v6 {
                Some(v6) => self.found(vec![Record::from_rdata(name.clone(), TTL, RData::AAAA(AAAA(v6)))]),
                None => self.none(ResponseCode::NoError),
            },
            (RecordType::SRV, _) => self.services(host, name, &found, spoken),
            _ => self.none(ResponseCode::NoError),
        }
    }

    /// The name's address, which is served from then on, and its ports.
    async fn find(&self, host: &MeshHost) -> Result<Found, Missing> {
        let node = &self.node;
        let entry = match node.services.entry(&host.service) {
            Some(entry) => entry,
            None => match node.discovery.resolve(&host.service).await {
                Ok(_) => node.services.entry(&host.service).ok_or(Missing::Unknown)?,
                Err(Reason::UnknownService) => return Err(Missing::Unknown),
                Err(_) => return Err(Missing::Later),
            },
        };
        if host.cluster.as_ref().is_some_and(|cluster| !entry.is_offered_by(cluster, &node.zone.cluster)) {
            return Err(Missing::Unknown);
        }
        node.discovery.touch(&host.service);
        let ports = entry.view().spec.ports.clone();
        let addresses = self.virtuals.hold(host, &ports).await.map_err(|_| Missing::Later)?;
        Ok(Found { addresses, ports })
    }

    /// Whether it is no service, but the namespace and cluster of some: `shop.eu-west`.
    fn is_above(&self, host: &MeshHost) -> bool {
        let mesh = self.node.services.mesh();
        let mut clusters = mesh.peers.iter().map(|peer| &peer.cluster.name).chain([&mesh.cluster.name]);
        host.cluster.is_none() && clusters.any(|cluster| **cluster == *host.service.namespace)
    }

    /// The ports of a service, those alone on which `spoken` is if that is asked, and where to connect.
    fn services(&self, host: &MeshHost, name: &Name, found: &Found, spoken: Option<Protocol>) -> Answer {
        let Some(target) = self.name_of(host) else { return Answer::failed() };
        let ports = found.ports.iter().filter(|port| spoken.is_none_or(|spoken| spoken == port.protocol));
        let record = |port: &ServicePort| {
            Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, 1, port.port, target.clone())))
        };
        let answers: Vec<Record> = ports.map(record).collect();
        if answers.is_empty() {
            return self.none(ResponseCode::NoError);
        }
        Answer { additionals: vec![address(&target, &found.addresses)], ..self.found(answers) }
    }

    /// The host's name under the suffix.
    fn name_of(&self, MeshHost { service, cluster }: &MeshHost) -> Option<Name> {
        let cluster = cluster.as_ref().map(|cluster| format!("{cluster}.")).unwrap_or_default();
        let suffix = &self.node.config.suffix;
        Name::from_ascii(format!("{}.{}.{cluster}{suffix}.", service.service, service.namespace)).ok()
    }

    fn found(&self, answers: Vec<Record>) -> Answer {
        Answer { authoritative: true, answers, ..Answer::of(ResponseCode::NoError) }
    }

    fn none(&self, code: ResponseCode) -> Answer {
        Answer { authoritative: true, authorities: vec![self.soa.clone()], ..Answer::of(code) }
    }
}

fn address(name: &Name, addresses: &Addresses) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::A(A(addresses.v4)))
}

/// What says of the domain how long nothing may be kept.
fn authority(suffix: &str) -> Record {
    let name = |text: String| Name::from_ascii(text).unwrap_or_else(|_| Name::root());
    let (primary, person) = (name(format!("ns.{suffix}.")), name(format!("hostmaster.{suffix}.")));
    let soa = SOA::new(primary, person, 1, 3_600, 600, 86_400, NEGATIVE_TTL);
    Record::from_rdata(name(format!("{suffix}.")), NEGATIVE_TTL, RData::SOA(soa))
}
