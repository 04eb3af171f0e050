//! The places of a scenario, and how far they are from one another.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{EndpointId, Locality, ServiceName, Timestamp, ZoneId};

use crate::scenario::{Rtt, Scenario};

/// The moment at which a simulation starts. Not the origin, so that ages may reach back before it.
pub(crate) const START: Timestamp = Timestamp::from_millis(10_000_000);

/// The places. Zones, clusters and endpoints are known by their index.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) service: ServiceName,
    pub(crate) zones: Vec<SimulatedZone>,
    pub(crate) clusters: Vec<Cluster>,
    /// The zone of each endpoint.
    pub(crate) servers: Vec<usize>,
    /// The zone of each caller.
    pub(crate) callers: Vec<usize>,
    rtt: Rtt,
}

/// A zone.
#[derive(Debug)]
pub(crate) struct SimulatedZone {
    pub(crate) id: ZoneId,
    pub(crate) cluster: usize,
    pub(crate) servers: Range<usize>,
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Arc<str>,
    pub(crate) region: Arc<str>,
    pub(crate) zones: Vec<usize>,
}

impl World {
    /// The places of a scenario without mistakes.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut clusters: Vec<Cluster> = Vec::new();
        let (mut zones, mut servers) = (Vec::new(), Vec::new());
        for (index, zone) in scenario.zones.iter().enumerate() {
            let name = &zone.zone.cluster;
            let region: Arc<str> = zone.region.as_deref().unwrap_or(name).into();
            let cluster = clusters.iter().position(|c| c.name == *name).unwrap_or_else(|| {
                clusters.push(Cluster { name: Arc::clone(name), region, zones: Vec::new() });
                clusters.len() - 1
            });
            clusters[cluster].zones.push(index);
            let first = servers.len();
            servers.resize(first + zone.endpoints as usize, index);
            zones.push(SimulatedZone { id: zone.zone.clone(), cluster, servers: first..servers.len() });
        }
        let mut callers = Vec::new();
        for group in &scenario.callers {
            let zone = zones.iter().position(|place: &SimulatedZone| place.id == group.zone).unwrap_or_default();
            callers.resize(callers.len() + group.count as usize, zone);
        }
        Self { service: ServiceName::new("shop", "payments"), zones, clusters, servers, callers, rtt: scenario.rtt }
    }

    /// The region of a zone.
    pub(crate) fn region(&self, zone: usize) -> &Arc<str> {
        &self.clusters[self.zones[zone].cluster].region
    }

    /// The place of a caller or gateway in a zone.
    pub(crate) fn locality(&self, zone: usize) -> Locality {
        Locality { zone: self.zones[zone].id.clone(), region: Arc::clone(self.region(zone)) }
    }

    /// The round trip between two zones.
    pub(crate) fn rtt(&self, a: usize, b: usize) -> Duration {
        millis(match () {
            () if a == b => self.rtt.zone_ms,
            () if self.region(a) == self.region(b) => self.rtt.region_ms,
            () => self.rtt.remote_ms,
        })
    }

    /// The round trip between the gateways of two clusters.
    pub(crate) fn between(&self, a: usize, b: usize) -> Duration {
        self.rtt(self.clusters[a].zones[0], self.clusters[b].zones[0])
    }

    /// The round trip within a zone.
    pub(crate) fn inside(&self) -> Duration {
        millis(self.rtt.zone_ms)
    }

    /// The endpoints of a cluster.
    pub(crate) fn servers_of(&self, cluster: usize) -> impl Iterator<Item = usize> + '_ {
        self.clusters[cluster].zones.iter().flat_map(|zone| self.zones[*zone].servers.clone())
    }

    /// The cluster of an endpoint.
    pub(crate) fn cluster_of(&self, server: usize) -> usize {
        self.zones[self.servers[server]].cluster
    }

    /// The zone with this id.
    pub(crate) fn zone(&self, id: &ZoneId) -> usize {
        self.zones.iter().position(|place| place.id == *id).unwrap_or_default()
    }

    /// The name of an endpoint. It ends in its index, which [`server_of`] reads back.
    pub(crate) fn id(&self, server: usize) -> EndpointId {
        EndpointId::new(format!("{}-{server:05}", self.zones[self.servers[server]].id.zone))
    }
}

/// The endpoint that a name of [`World::id`] stands for.
pub(crate) fn server_of(id: &EndpointId) -> usize {
    let digits = id.as_str().rsplit('-').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

/// A length of time, given in ms.
pub(crate) fn millis(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1000.0)
}

/// A moment, given in seconds from the start.
pub(crate) fn at(seconds: f64) -> Timestamp {
    START + Duration::from_secs_f64(seconds.max(0.0))
}

/// Seconds from the start.
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.since(START).as_secs_f64()
}

/// A random source of its own for one purpose, so that one purpose never shifts another's numbers.
pub(crate) fn stream(seed: u64, purpose: u64, number: u64, more: u64) -> fastrand::Rng {
    // SplitMix64's finalizer over the parts.
    let mut z = seed ^ 0x9e37_79b9_7f4a_7c15;
    for part in [purpose, number, more] {
        z = (z ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    fastrand::Rng::with_seed(z)
}
