//! The decision objects of a gateway: for each service and wanted zone, what a sidecar in that zone would pick.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use eastway_balance::{Policy, Service};
use eastway_client::Sink;
use eastway_core::policy::ServicePolicy;
use eastway_core::view::{EndpointView, MeshView, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, LoadReport, Locality, ServiceName};
use eastway_request::{ServiceEntry, TrafficPolicy};
use eastway_resilience::RetryPolicy;
use eastway_resilience::backoff::Backoff;
use eastway_runtime::clock;
use parking_lot::Mutex;

/// How often ramps, decays and breakers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What was named is no zone of this cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoZone;

/// Decision objects by the zone that is wanted; one that the cluster does not have counts as none.
type ByZone = HashMap<String, Arc<ServiceEntry>>;

/// One service.
#[derive(Debug)]
struct Zones {
    /// As callers of this cluster see it: what `explain` shows.
    callers: ByZone,
    /// As sessions from other clusters are led, where that differs: an operator's policy, with its fence, is for the callers
    /// in the operator's own cluster (docs/adr/0009).
    arriving: ArcSwapOption<ByZone>,
}

impl Zones {
    fn each(&self, mut act: impl FnMut(&Service)) {
        self.callers.values().for_each(|entry| act(entry.service()));
        if let Some(arriving) = &*self.arriving.load() {
            arriving.values().for_each(|entry| act(entry.service()));
        }
    }
}

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

    /// The decision object for `service`, as callers in `zone` see it.
    pub(crate) fn service(&self, service: &ServiceName, zone: Option<&str>) -> Option<Arc<ServiceEntry>> {
        wanted(&self.all.load().get(service)?.callers, zone)
    }

    /// The decision object for sessions from other clusters to `service` that want `zone`.
    pub(crate) fn arriving(&self, service: &ServiceName, zone: Option<&str>) -> Option<Arc<ServiceEntry>> {
        let all = self.all.load();
        let zones = all.get(service)?;
        wanted(zones.arriving.load().as_deref().unwrap_or(&zones.callers), zone)
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
                zones.each(|service| service.tick(now));
            }
        }
    }

    fn zones_of(&self, name: &ServiceName) -> Arc<Zones> {
        if let Some(known) = self.all.load().get(name) {
            return Arc::clone(known);
        }
        let zones = Arc::new(Zones { callers: self.by_zone(name), arriving: ArcSwapOption::empty() });
        let mut all = HashMap::clone(&self.all.load());
        all.insert(name.clone(), Arc::clone(&zones));
        self.all.store(Arc::new(all));
        zones
    }

    fn by_zone(&self, name: &ServiceName) -> ByZone {
        self.zones.iter().map(|zone| (zone.clone(), self.entry(name, zone))).collect()
    }

    /// A new decision object of the service `name` for callers in `zone`.
    fn entry(&self, name: &ServiceName, zone: &str) -> Arc<ServiceEntry> {
        let caller = Locality::new(self.cluster.as_str(), self.region.as_str(), zone);
        ServiceEntry::new(Service::new(name.clone(), caller, self.policy.clone()), traffic_policy())
    }

    /// Forgets the loads of endpoints that left: `stay` are those of the service now.
    fn forget_loads(&self, before: &ServiceView, stay: &[Arc<EndpointView>]) {
        let stay: HashSet<&EndpointId> = stay.iter().map(|endpoint| &endpoint.id).collect();
        let mut loads = self.loads.lock();
        for endpoint in before.endpoints.iter().filter(|endpoint| !stay.contains(&endpoint.id)) {
            loads.remove(&endpoint.id);
        }
    }

    fn update(&self, zones: &Zones, view: &ServiceView) {
        let mesh = self.mesh.load();
        let Some(mesh) = mesh.as_ref() else { return };
        let now = clock::now();
        zones.callers.values().for_each(|entry| entry.service().update(mesh, view, now));
        if *view.spec.policy == ServicePolicy::default() {
            zones.arriving.store(None);
            return;
        }
        let arriving = zones.arriving.load_full().unwrap_or_else(|| Arc::new(self.by_zone(&view.name)));
        let spec = ServiceSpec { policy: Box::default(), ..view.spec.clone() };
        let view = ServiceView { spec, ..view.clone() };
        arriving.values().for_each(|entry| entry.service().update(mesh, &view, now));
        zones.arriving.store(Some(arriving));
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
        if let Some(before) = views.insert(view.name.clone(), Arc::clone(view)) {
            self.forget_loads(&before, &view.endpoints);
        }
        self.update(&self.zones_of(&view.name), view);
    }

    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        let now = clock::now();
        self.loads.lock().extend(loads.iter().cloned());
        if let Some(zones) = self.all.load().get(service) {
            for (endpoint, load) in loads {
                zones.each(|service| service.apply_load(endpoint, *load, now));
            }
        }
    }

    fn unknown(&self, service: &ServiceName) {
        let mut views = self.views.lock();
        if let Some(before) = views.remove(service) {
            self.forget_loads(&before, &[]);
        }
        let mut all = HashMap::clone(&self.all.load());
        all.remove(service);
        self.all.store(Arc::new(all));
    }
}

fn wanted(zones: &ByZone, zone: Option<&str>) -> Option<Arc<ServiceEntry>> {
    zone.and_then(|zone| zones.get(zone)).or_else(|| zones.values().next()).cloned()
}

/// How streams are led to endpoints: nothing of one was sent yet, so the next endpoint is tried at once.
fn traffic_policy() -> TrafficPolicy {
    let backoff = Backoff { base: Duration::ZERO, max: Duration::ZERO };
    TrafficPolicy { retries: RetryPolicy { backoff, ..RetryPolicy::default() }, ..TrafficPolicy::default() }
}

#[cfg(test)]
mod tests {
    use eastway_balance::Tried;
    use eastway_core::Health;
    use eastway_core::policy::Algorithm;
    use eastway_core::resource::ClusterMeta;
    use eastway_core::view::EndpointView;

    use super::*;

    fn view(ids: &[&str], policy: ServicePolicy) -> Arc<ServiceView> {
        let endpoint = |id: &&str| {
            Arc::new(EndpointView {
                id: EndpointId::new(*id),
                zone: "a".into(),
                address: ([127, 0, 0, 1], 15_008).into(),
                weight: 1.0,
                health: Health::Ready,
                incarnation: 1,
                capacity: 0,
                labels: Default::default(),
                load: None,
            })
        };
        Arc::new(ServiceView {
            name: ServiceName::new("shop", "payments"),
            spec: ServiceSpec { policy: Box::new(policy), ..ServiceSpec::default() },
            endpoints: ids.iter().map(endpoint).collect(),
            remote: Vec::new(),
            returned: Default::default(),
        })
    }

    #[test]
    fn the_operators_fence_and_algorithm_are_for_the_callers_of_the_cluster() {
        let services = Services::new("us-east", "us", vec!["a".to_owned(), "b".to_owned()]);
        let cluster = ClusterMeta {
            name: "us-east".to_owned(),
            uid: "u".to_owned(),
            region: "us".to_owned(),
            trust_domain: "us-east.mesh.internal".to_owned(),
            zones: Default::default(),
        };
        services.mesh(&Arc::new(MeshView { cluster, peers: Vec::new() }));
        let name = ServiceName::new("shop", "payments");
        let picks = |entry: Arc<ServiceEntry>| {
            let service = entry.service();
            service.pick(&mut fastrand::Rng::with_seed(1), clock::now(), &Tried::new(), Some("us-east"), true).is_ok()
        };
        let callers = || services.service(&name, Some("b")).expect("known");
        let arriving = || services.arriving(&name, Some("b")).expect("known");
        Sink::service(&*services, &view(&["p-1"], ServicePolicy::default()));
        assert!(picks(callers()) && picks(arriving()) && Arc::ptr_eq(&callers(), &arriving()));

        let mut policy = ServicePolicy::default();
        policy.balancing.algorithm = Some(Algorithm::LeastRequest);
        policy.balancing.residency = Some(vec!["eu".to_owned()]);
        Sink::service(&*services, &view(&["p-1"], policy));
        assert!(!picks(callers()), "callers of this cluster may not stay in it");
        assert!(picks(arriving()));
        assert_eq!(arriving().service().policy().algorithm, Algorithm::TwoChoices);
        let before = arriving();
        services.loads(
            &name,
            &[(EndpointId::new("p-1"), LoadReport { active_requests: 7, utilisation: None, error_rate: 0.0 })],
        );
        let shown = before.service().explain(clock::now());
        assert_eq!(shown.priorities[0].localities[0].endpoints[0].others, 7.0);

        Sink::service(&*services, &view(&["p-1"], ServicePolicy::default()));
        assert!(Arc::ptr_eq(&callers(), &arriving()));
    }

    #[test]
    fn the_loads_of_endpoints_that_left_are_forgotten() {
        let services = Services::new("us-east", "us-east", vec!["a".to_owned()]);
        let name = ServiceName::new("shop", "payments");
        let show = |ids: &[&str]| Sink::service(&*services, &view(ids, ServicePolicy::default()));
        let known = || ["stays", "leaves"].map(|id| services.load(&EndpointId::new(id)).is_some());
        show(&["leaves", "stays"]);
        Sink::loads(&*services, &name, &["stays", "leaves"].map(|id| (EndpointId::new(id), LoadReport::default())));
        assert_eq!(known(), [true, true]);
        show(&["stays"]);
        assert_eq!(known(), [true, false]);
        services.unknown(&name);
        assert_eq!(known(), [false, false]);
    }
}
