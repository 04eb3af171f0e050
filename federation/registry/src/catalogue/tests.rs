use eastway_core::resource::{Peer, Service};
use eastway_core::view::{EndpointView, Staleness, ZoneSummary};
use eastway_core::{Version, ZoneId};
use proptest::prelude::*;

use super::*;
use crate::peers::{Exported, ZoneFacts};
use crate::reader::Fact;
use crate::resources::PeerPolicy;

mod endpoints;
mod peering;
mod properties;
mod reports;
mod siblings;
mod stored;

/// A catalogue and its clock.
struct World {
    catalogue: Catalogue,
    now: Timestamp,
    streams: u64,
}

fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

fn meta(name: &str) -> ClusterMeta {
    ClusterMeta {
        name: name.to_owned(),
        uid: format!("{name}-uid"),
        region: format!("{name}-1"),
        trust_domain: format!("{name}.mesh.internal"),
        zones: ["a", "b"].map(|zone| (zone.to_owned(), None)).into(),
    }
}

fn peer(imports: &[&str]) -> PeerPolicy {
    PeerPolicy {
        peer: Peer {
            gateways: vec!["192.0.2.1:15443".to_owned()],
            imports: imports.iter().map(|&rule| rule.to_owned()).collect(),
            ..Peer::default()
        },
        trust_domain: "eu-west.mesh.internal".to_owned(),
        trust_bundle: vec![vec![1, 2, 3]],
    }
}

fn resources() -> Resources {
    let service = Service { export: vec!["*".to_owned()], ..Service::default() };
    Resources {
        services: BTreeMap::from([(payments(), service)]),
        peers: BTreeMap::from([("eu-west".to_owned(), peer(&["shop/*"]))]),
        ..Resources::default()
    }
}

fn registration(endpoint: &str, zone: &str, incarnation: u64) -> Registration {
    let port =
        10_000 + endpoint.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10_000;
    Registration {
        service: payments(),
        endpoint: EndpointId::new(endpoint),
        account: "payments".to_owned(),
        zone: zone.into(),
        address: ([127, 0, 0, 1], port).into(),
        weight: 1.0,
        capacity: 0,
        labels: Default::default(),
        incarnation,
        session: 1,
    }
}

fn exported(zones: &[(&str, u32, u32)]) -> Exported {
    let zone = |&(zone, total, ready): &(&str, u32, u32)| {
        let summary = ZoneSummary { total, ready, ..ZoneSummary::default() };
        (Arc::from(zone), ZoneFacts { summary, returned: None })
    };
    Exported { zones: zones.iter().map(zone).collect(), ..Exported::default() }
}

fn snapshot(epoch: u64, seq: u64, services: &[(ServiceName, Exported)]) -> Fact {
    Fact::Snapshot(Version::new(epoch, seq), services.iter().cloned().collect())
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            catalogue: Catalogue::new(meta("us-east"), "gw-1", 1, Options::default()),
            now: Timestamp::from_millis(3_600_000),
            streams: 0,
        };
        world.catalogue.set_resources(resources(), world.now);
        world
    }

    /// Lets time pass in steps of 100 ms, as the gateway does. Probes are answered by `probe`.
    fn pass(&mut self, duration: Duration, mut probe: impl FnMut(&Probe) -> ProbeOutcome) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + Duration::from_millis(100);
            self.catalogue.tick(self.now);
            for due in self.catalogue.due_probes(self.now) {
                self.catalogue.probed(&due, probe(&due), self.now);
            }
        }
    }

    fn register(&mut self, endpoint: &str, zone: &str, incarnation: u64) -> StreamId {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let taken = self.catalogue.register(stream, registration(endpoint, zone, incarnation), Health::Ready, self.now);
        taken.expect("registered");
        stream
    }

    fn view(&self) -> Option<Arc<ServiceView>> {
        self.catalogue.view(&payments(), self.now)
    }

    fn endpoint(&self, id: &str) -> Option<Arc<EndpointView>> {
        self.view()?.endpoints.iter().find(|endpoint| endpoint.id.as_str() == id).cloned()
    }

    fn health(&self, id: &str) -> Option<Health> {
        self.endpoint(id).map(|endpoint| endpoint.health)
    }

    fn peer_says(&mut self, epoch: u64, fact: Fact) {
        self.catalogue.peer_fact(&meta("eu-west"), "gw-9", epoch, fact, self.now);
    }

    fn remote_ready(&self) -> BTreeMap<String, u32> {
        let zones = self.view().map(|view| view.remote.clone()).unwrap_or_default();
        zones.into_iter().map(|zone| (zone.zone.to_string(), zone.summary.ready)).collect()
    }

    fn staleness(&self) -> Option<Staleness> {
        self.catalogue.peer_staleness("eu-west")
    }
}
