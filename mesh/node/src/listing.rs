//! A service as operators see it in a list: what it offers, and in which clusters it can be reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_core::Health;
use eastway_core::resource::ServicePort;
use eastway_core::view::{EndpointView, RemoteZone, ServiceView, ZoneSummary};
use serde::Serialize;

/// A service in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceListing {
    /// `NAMESPACE/SERVICE`.
    pub name: String,
    /// Its ports, and what is spoken on each.
    pub ports: Vec<ServicePort>,
    /// Whether the operator of this cluster declared it; `None` if the node that was asked cannot know.
    pub declared: Option<bool>,
    /// The accounts that may serve it in this cluster.
    pub accounts: Vec<String>,
    /// The clusters that it is offered to: names, or `*` for all peers.
    pub exported_to: Vec<String>,
    /// Its endpoints in this cluster.
    pub endpoints: Counts,
    /// The clusters in which it can be reached: this one first, if it declares or serves it.
    pub clusters: Vec<ClusterListing>,
}

/// Endpoints, by what they are able to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All that count: not those that never were ready.
    pub total: u32,
    /// Of them, ready.
    pub ready: u32,
    /// Of them, degraded.
    pub degraded: u32,
    /// Of them, draining.
    pub draining: u32,
}

/// A service's part in one cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterListing {
    /// The cluster's name.
    pub cluster: String,
    /// It is the cluster of the node that was asked.
    pub own: bool,
    /// The endpoints of all its zones.
    #[serde(flatten)]
    pub counts: Counts,
    /// The accounts that may serve it there.
    pub accounts: Vec<String>,
    /// Its zones, by name.
    pub zones: Vec<ZoneListing>,
}

/// A service's part in one zone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZoneListing {
    /// The zone's name within its cluster.
    pub zone: Arc<str>,
    /// Its endpoints.
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests at once, all endpoints together; 0 if one of them does not say.
    pub capacity: f64,
    /// Mean utilisation, if known.
    pub utilisation: Option<f32>,
}

impl ServiceListing {
    /// The service in `view`, as a node of `cluster` sees it.
    pub fn new(view: &ServiceView, cluster: &str, declared: Option<bool>) -> Self {
        let own = ClusterListing::own(view, cluster);
        let endpoints = own.counts;
        // What nobody here declares or serves is no part of this cluster.
        let here = (view.spec.export.is_some() || !view.endpoints.is_empty()).then_some(own);
        Self {
            name: view.name.to_string(),
            ports: view.spec.ports.clone(),
            declared,
            accounts: view.spec.accounts.to_vec(),
            exported_to: view.spec.export.clone().unwrap_or_default(),
            endpoints,
            clusters: here.into_iter().chain(ClusterListing::remote(&view.remote)).collect(),
        }
    }

    /// How many endpoints can serve, in all clusters together.
    pub fn serving(&self) -> u64 {
        self.clusters.iter().map(|cluster| cluster.counts.serving()).sum()
    }

    /// How many endpoints count, in all clusters together.
    pub fn total(&self) -> u64 {
        self.clusters.iter().map(|cluster| u64::from(cluster.counts.total)).sum()
    }
}

impl Counts {
    /// How many can serve.
    pub const fn serving(self) -> u64 {
        self.ready as u64 + self.degraded as u64
    }

    fn add(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        self.ready = self.ready.saturating_add(other.ready);
        self.degraded = self.degraded.saturating_add(other.degraded);
        self.draining = self.draining.saturating_add(other.draining);
    }

    fn one(health: Health) -> Self {
        let is = |wanted: Health| u32::from(health == wanted);
        Self {
            total: u32::from(health.counts()),
            ready: is(Health::Ready),
            degraded: is(Health::Degraded),
            draining: is(Health::Draining),
        }
    }
}

impl From<&ZoneSummary> for Counts {
    fn from(summary: &ZoneSummary) -> Self {
        let ZoneSummary { total, ready, degraded, draining, .. } = *summary;
        Self { total, ready, degraded, draining }
    }
}

impl ClusterListing {
    fn own(view: &ServiceView, cluster: &str) -> Self {
        let mut zones: BTreeMap<Arc<str>, Vec<&EndpointView>> = BTreeMap::new();
        for endpoint in &view.endpoints {
            zones.entry(Arc::clone(&endpoint.zone)).or_default().push(endpoint);
        }
        let zones = zones.into_iter().map(|(zone, endpoints)| ZoneListing::own(zone, &endpoints));
        Self::sum(cluster, true, view.spec.accounts.to_vec(), zones.collect())
    }

    fn remote(zones: &[RemoteZone]) -> Vec<Self> {
        let mut clusters: BTreeMap<&str, (Vec<String>, Vec<ZoneListing>)> = BTreeMap::new();
        for zone in zones {
            let cluster = clusters.entry(&zone.zone.cluster).or_default();
            cluster.0 = zone.accounts.to_vec();
            cluster.1.push(ZoneListing {
                zone: Arc::clone(&zone.zone.zone),
                counts: (&zone.summary).into(),
                capacity: zone.summary.capacity,
                utilisation: zone.summary.utilisation,
            });
        }
        clusters.into_iter().map(|(name, (accounts, zones))| Self::sum(name, false, accounts, zones)).collect()
    }

    fn sum(cluster: &str, own: bool, accounts: Vec<String>, zones: Vec<ZoneListing>) -> Self {
        let mut counts = Counts::default();
        zones.iter().for_each(|zone| counts.add(zone.counts));
        Self { cluster: cluster.to_owned(), own, counts, accounts, zones }
    }
}

impl ZoneListing {
    fn own(zone: Arc<str>, endpoints: &[&EndpointView]) -> Self {
        let mut counts = Counts::default();
        endpoints.iter().for_each(|endpoint| counts.add(Counts::one(endpoint.health)));
        let counting = || endpoints.iter().filter(|endpoint| endpoint.health.counts());
        let stated = counting().all(|endpoint| endpoint.capacity > 0);
        let capacity = counting().map(|endpoint| f64::from(endpoint.capacity)).sum();
        let loads: Vec<f32> = counting().filter_map(|endpoint| endpoint.load?.utilisation).collect();
        let mean = loads.iter().sum::<f32>() / loads.len().max(1) as f32;
        Self {
            zone,
            counts,
            capacity: if stated { capacity } else { 0.0 },
            utilisation: (!loads.is_empty()).then_some(mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eastway_core::view::ServiceSpec;
    use eastway_core::{EndpointId, ServiceName, ZoneId};

    use super::*;

    fn endpoint(zone: &str, health: Health) -> Arc<EndpointView> {
        Arc::new(EndpointView {
            id: EndpointId::new("e"),
            zone: zone.into(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1.0,
            health,
            incarnation: 1,
            capacity: 8,
            labels: Default::default(),
            load: None,
        })
    }

    fn view(endpoints: Vec<Arc<EndpointView>>, export: Option<Vec<String>>) -> ServiceView {
        let summary = ZoneSummary { total: 3, ready: 2, degraded: 1, ..ZoneSummary::default() };
        let zone = |zone: &str| RemoteZone {
            zone: ZoneId::new("eu-west", zone),
            accounts: ["payments".to_owned()].into(),
            summary: summary.clone(),
        };
        ServiceView {
            name: ServiceName::new("shop", "payments"),
            spec: ServiceSpec { export, ..ServiceSpec::default() },
            endpoints,
            remote: vec![zone("a"), zone("b")],
            returned: BTreeMap::new(),
        }
    }

    #[test]
    fn endpoints_are_counted_by_cluster_and_zone() {
        let endpoints = vec![
            endpoint("a", Health::Ready),
            endpoint("a", Health::Warming),
            endpoint("b", Health::Degraded),
            endpoint("b", Health::Down),
        ];
        let listing = ServiceListing::new(&view(endpoints, Some(vec!["*".to_owned()])), "us-east", Some(true));
        assert_eq!(listing.endpoints, Counts { total: 3, ready: 1, degraded: 1, draining: 0 });
        let clusters: Vec<_> = listing.clusters.iter().map(|c| (c.cluster.as_str(), c.own, c.counts.total)).collect();
        assert_eq!(clusters, [("us-east", true, 3), ("eu-west", false, 6)]);
        let own: Vec<_> = listing.clusters[0].zones.iter().map(|zone| (&*zone.zone, zone.capacity)).collect();
        assert_eq!(own, [("a", 8.0), ("b", 16.0)]);
        assert_eq!((listing.serving(), listing.total()), (8, 9));
        assert_eq!((listing.exported_to, listing.clusters[1].accounts.len()), (vec!["*".to_owned()], 1));
    }

    #[test]
    fn a_service_of_other_clusters_alone_has_no_part_here() {
        let listing = ServiceListing::new(&view(Vec::new(), None), "us-east", Some(false));
        let clusters: Vec<_> = listing.clusters.iter().map(|cluster| cluster.cluster.as_str()).collect();
        assert_eq!((clusters, listing.endpoints), (vec!["eu-west"], Counts::default()));
    }
}
