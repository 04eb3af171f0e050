//! The decision objects of a gateway: for each service and wanted zone, what a sidecar in that zone would pick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use eastway_balance::{Policy, Service};
use eastway_client::Sink;
use eastway_core::view::{MeshView, ServiceView};
use eastway_core::{EndpointId, LoadReport, Locality, ServiceName};
use eastway_runtime::clock;
use parking_lot::Mutex;

/// How often ramps, decays and breakers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What was named is no zone of this cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoZone;

/// Zones as wanted by callers; one that the cluster does not have counts as none.
type Zones = HashMap<String, Arc<Service>>;

/// Every service of this cluster, by name and wanted zone.
#[derive(Debug)]
pub(crate) struct Services {
    cluster: String,
    region: String,
    zones: Vec<String>,
    policy: Policy,
    all: ArcSwap<HashMap<ServiceName, Arc<Zones>>>,
    mesh: ArcSwap<Option<Arc<MeshView>>>,
    views: Mutex<HashMap<ServiceName, Arc<ServiceView>>>,
    loads: Mutex<HashMap<EndpointId, LoadReport>>,
}

impl Services {
    /// None yet, in `cluster` with these zones.
    pub(crate) fn new(cluster: &str, region: &str, zones: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            zones,
            policy: Policy { seed: fastrand::Rng::new().u64(..), ..Policy::default() },
            all: ArcSwap::default(),
            mesh: ArcSwap::default(),
            views: Mutex::default(),
            loads: Mutex::default(),
        })
    }

    /// The zones of this cluster, `CLUSTER/ZONE`.
    pub(crate) fn zones(&self) -> Vec<String> {
        self.zones.iter().map(|zone| format!("{}/{zone}", self.cluster)).collect()
    }

    /// The zone that `text` names, as `CLUSTER/ZONE`; none if there is no text.
    ///
    /// # Errors
    /// It is no zone of this cluster.
    pub(crate) fn zone<'a>(&self, text: Option<&'a str>) -> Result<Option<&'a str>, NoZone> {
        let Some(text) = text else { return Ok(None) };
        let (cluster, zone) = text.split_once('/').ok_or(NoZone)?;
        let known = cluster == self.cluster && self.zones.iter().any(|known| known == zone);
        known.then_some(Some(zone)).ok_or(NoZone)
    }

    /// The decision object for `service`, as seen from `zone`.
    pub(crate) fn service(&self, service: &ServiceName, zone: Option<&str>) -> Option<Arc<Service>> {
        let all = self.all.load();
        let zones = all.get(service)?;
        zone.and_then(|zone| zones.get(zone)).or_else(|| zones.values().next()).cloned()
    }

    /// The load that an endpoint last reported.
    pub(crate) fn load(&self, endpoint: &EndpointId) -> Option<LoadReport> {
        self.loads.lock().get(endpoint).copied()
    }

    /// Lets time pass for every service, until the task is dropped.
    pub(crate) async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = clock::now();
            for zones in self.all.load().values() {
                zones.values().for_each(|service| service.tick(now));
            }
        }
    }

    fn zones_of(&self, name: &ServiceName) -> Arc<Zones> {
        if let Some(known) = self.all.load().get(name) {
            return Arc::clone(known);
        }
        let service = |zone: &String| {
            let caller = Locality::new(self.cluster.as_str(), self.region.as_str(), zone.as_str());
            (zone.clone(), Arc::new(Service::new(name.clone(), caller, self.policy.clone())))
        };
        let zones: Arc<Zones> = Arc::new(self.zones.iter().map(service).collect());
        let mut all = HashMap::clone(&self.all.load());
        all.insert(name.clone(), Arc::clone(&zones));
        self.all.store(Arc::new(all));
        zones
    }

    fn update(&self, zones: &Zones, view: &ServiceView) {
        if let Some(mesh) = self.mesh.load().as_ref() {
            let now = clock::now();
            zones.values().for_each(|service| service.update(mesh, view, now));
        }
    }
}

impl Sink for Services {
    fn mesh(&self, mesh: &Arc<MeshView>) {
        self.mesh.store(Arc::new(Some(Arc::clone(mesh))));
        for (name, view) in self.views.lock().iter() {
            self.update(&self.zones_of(name), view);
        }
    }

    fn service(&self, view: &Arc<ServiceView>) {
        let mut views = self.views.lock();
        views.insert(view.name.clone(), Arc::clone(view));
        self.update(&self.zones_of(&view.name), view);
    }

    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        let now = clock::now();
        self.loads.lock().extend(loads.iter().cloned());
        if let Some(zones) = self.all.load().get(service) {
            for (endpoint, load) in loads {
                zones.values().for_each(|service| service.apply_load(endpoint, *load, now));
            }
        }
    }

    fn unknown(&self, service: &ServiceName) {
        let mut views = self.views.lock();
        if let Some(view) = views.remove(service) {
            let mut loads = self.loads.lock();
            loads.retain(|id, _| !view.endpoints.iter().any(|endpoint| endpoint.id == *id));
        }
        let mut all = HashMap::clone(&self.all.load());
        all.remove(service);
        self.all.store(Arc::new(all));
    }
}
