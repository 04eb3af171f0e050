//! The decision objects of a gateway: for each service that somebody wants, and each wanted zone, what a sidecar in that zone
//! would pick.
//!
//! They are made when first wanted, and forgotten when nobody has wanted them for long: of most services of a mesh, a gateway
//! needs no more than the catalogue has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eastway_balance::{Policy, Service};
use eastway_client::Sink;
use eastway_core::policy::ServicePolicy;
use eastway_core::view::{MeshView, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, LoadReport, Locality, ServiceName};
use eastway_request::{ServiceEntry, TrafficPolicy};
use eastway_resilience::RetryPolicy;
use eastway_resilience::backoff::Backoff;
use eastway_runtime::clock;
use eastway_server::{LocalFollower, Server};
use parking_lot::RwLock;

/// How often ramps, decays and breakers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Ticks after which a service that nobody wanted is forgotten: ten minutes.
const UNWANTED: u32 = 6_000;

/// What was named is no zone of this cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoZone;

/// One service.
#[derive(Debug)]
struct Zones {
    /// As callers of this cluster see it: what `explain` shows.
    callers: ByZone,
    /// As sessions from other clusters are led, where that differs: an operator's policy, with its fence, is for the callers
    /// in the operator's own cluster (docs/adr/0009).
    arriving: ArcSwapOption<ByZone>,
    /// Ticks since it was wanted last.
    unwanted: AtomicU32,
}

/// A service by the zone that is wanted; one that the cluster does not have counts as none. What is known of its endpoints is
/// there once, so that the first object is updated for all.
#[derive(Debug)]
struct ByZone(Vec<(String, Arc<ServiceEntry>)>);

impl ByZone {
    fn wanted(&self, zone: Option<&str>) -> Option<Arc<ServiceEntry>> {
        let named = self.0.iter().find(|(known, _)| zone == Some(known));
        named.or_else(|| self.0.first()).map(|(_, entry)| Arc::clone(entry))
    }

    /// The one that stands for all.
    fn service(&self) -> Option<&Service> {
        self.0.first().map(|(_, entry)| entry.service())
    }

    /// Somebody else holds one of them.
    fn is_held(&self) -> bool {
        self.0.iter().any(|(_, entry)| Arc::strong_count(entry) > 1)
    }
}

impl Zones {
    fn each(&self, mut act: impl FnMut(&Service)) {
        self.callers.service().into_iter().for_each(&mut act);
        self.arriving.load().iter().filter_map(|arriving| arriving.service()).for_each(act);
    }

    /// One more tick has passed. Whether it may be forgotten.
    fn is_unwanted(&self) -> bool {
        let held = || self.callers.is_held() || self.arriving.load().as_ref().is_some_and(|zones| zones.is_held());
        self.unwanted.fetch_add(1, Ordering::Relaxed) >= UNWANTED && !held()
    }
}

/// The services of this cluster that somebody wants.
#[derive(Debug)]
pub(crate) struct Services {
    cluster: String,
    region: String,
    zones: Vec<String>,
    policy: Policy,
    mesh: ArcSwapOption<MeshView>,
    known: RwLock<HashMap<ServiceName, Arc<Zones>>>,
    source: OnceLock<Source>,
}

/// Where views come from.
#[derive(Debug)]
struct Source {
    server: Weak<Server>,
    follower: LocalFollower,
}

impl Services {
    /// None yet, in `cluster` with these zones.
    pub(crate) fn new(cluster: &str, region: &str, zones: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            zones,
            policy: Policy { seed: fastrand::Rng::new().u64(..), ..Policy::default() },
            mesh: ArcSwapOption::empty(),
            known: RwLock::default(),
            source: OnceLock::new(),
        })
    }

    /// Takes everything from `server` from now on.
    pub(crate) fn follow(self: &Arc<Self>, server: &Arc<Server>) {
        self.mesh.store(Some(Arc::new(server.mesh())));
        let follower = server.follow(Arc::clone(self) as Arc<dyn Sink>);
        // It is called once.
        let _ = self.source.set(Source { server: Arc::downgrade(server), follower });
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
        self.want(service)?.callers.wanted(zone)
    }

    /// The decision object for sessions from other clusters to `service` that want `zone`.
    pub(crate) fn arriving(&self, service: &ServiceName, zone: Option<&str>) -> Option<Arc<ServiceEntry>> {
        let zones = self.want(service)?;
        zones.arriving.load().as_deref().unwrap_or(&zones.callers).wanted(zone)
    }

    /// The load that an endpoint last reported.
    pub(crate) fn load(&self, service: &ServiceName, endpoint: &EndpointId) -> Option<LoadReport> {
        self.source.get()?.server.upgrade()?.load(service, endpoint)
    }

    /// Lets time pass for every service, until the task is dropped.
    pub(crate) async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = clock::now();
            for (name, zones) in self.all() {
                zones.each(|service| service.tick(now));
                if zones.is_unwanted() {
                    self.forget(&name);
                }
            }
        }
    }

    /// All of them. Workers, which look services up, do not wait meanwhile.
    fn all(&self) -> Vec<(ServiceName, Arc<Zones>)> {
        self.known.read().iter().map(|(name, zones)| (name.clone(), Arc::clone(zones))).collect()
    }

    /// The service, made if nobody wanted it for long; `None` if no cluster known here offers it.
    fn want(&self, name: &ServiceName) -> Option<Arc<Zones>> {
        let known = self.known.read().get(name).cloned();
        let zones = match known {
            Some(zones) => zones,
            None => self.make(name)?,
        };
        zones.unwanted.store(0, Ordering::Relaxed);
        Some(zones)
    }

    fn make(&self, name: &ServiceName) -> Option<Arc<Zones>> {
        let Source { server, follower } = self.source.get()?;
        let view = server.upgrade()?.view(name)?;
        let zones = self.insert(&view);
        // What changed since that look is told again.
        follower.want(name);
        Some(zones)
    }

    fn insert(&self, view: &ServiceView) -> Arc<Zones> {
        let (arriving, unwanted) = (ArcSwapOption::empty(), AtomicU32::new(0));
        let made = Arc::new(Zones { callers: self.by_zone(&view.name), arriving, unwanted });
        self.update(&made, view);
        // Of two workers that want it at the same moment, the first one's counts.
        Arc::clone(self.known.write().entry(view.name.clone()).or_insert(made))
    }

    fn forget(&self, name: &ServiceName) {
        self.known.write().remove(name);
        if let Some(source) = self.source.get() {
            source.follower.unwant(name);
        }
    }

    /// New decision objects of the service `name`, for callers in each zone.
    fn by_zone(&self, name: &ServiceName) -> ByZone {
        let mut first: Option<Service> = None;
        let mut made = Vec::new();
        for zone in &self.zones {
            let caller = Locality::new(self.cluster.as_str(), self.region.as_str(), zone.as_str());
            let service = match &first {
                None => Service::new(name.clone(), caller, self.policy.clone()),
                Some(first) => first.beside(caller),
            };
            first.get_or_insert_with(|| service.clone());
            made.push((zone.clone(), ServiceEntry::new(service, traffic_policy())));
        }
        ByZone(made)
    }

    fn update(&self, zones: &Zones, view: &ServiceView) {
        let Some(mesh) = self.mesh.load_full() else { return };
        let now = clock::now();
        let update = |zones: &ByZone, view: &ServiceView| {
            if let Some(service) = zones.service() {
                service.update(&mesh, view, now);
            }
        };
        update(&zones.callers, view);
        if *view.spec.policy == ServicePolicy::default() {
            zones.arriving.store(None);
            return;
        }
        let arriving = zones.arriving.load_full().unwrap_or_else(|| Arc::new(self.by_zone(&view.name)));
        let spec = ServiceSpec { policy: ServicePolicy::unset(), ..view.spec.clone() };
        update(&arriving, &ServiceView { spec, ..view.clone() });
        zones.arriving.store(Some(arriving));
    }
}

impl Sink for Services {
    fn mesh(&self, mesh: &Arc<MeshView>) {
        self.mesh.store(Some(Arc::clone(mesh)));
        let Some(server) = self.source.get().and_then(|source| source.server.upgrade()) else { return };
        for (name, zones) in self.all() {
            if let Some(view) = server.view(&name) {
                self.update(&zones, &view);
            }
        }
    }

    fn service(&self, view: &Arc<ServiceView>) {
        let zones = self.known.read().get(&view.name).cloned();
        if let Some(zones) = zones {
            self.update(&zones, view);
        }
    }

    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        let now = clock::now();
        let zones = self.known.read().get(service).cloned();
        if let Some(zones) = zones {
            for (endpoint, load) in loads {
                zones.each(|service| service.apply_load(endpoint, *load, now));
            }
        }
    }

    fn unknown(&self, service: &ServiceName) {
        self.forget(service);
    }
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
            spec: ServiceSpec { policy: Arc::new(policy), ..ServiceSpec::default() },
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
        services.insert(&view(&["p-1"], ServicePolicy::default()));
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
    fn what_nobody_wants_for_long_is_forgotten_unless_somebody_holds_it() {
        let services = Services::new("us-east", "us", vec!["a".to_owned(), "b".to_owned()]);
        let zones = services.insert(&view(&["p-1"], ServicePolicy::default()));
        let held = zones.callers.wanted(Some("b")).expect("one");
        assert!((0..UNWANTED).all(|_| !zones.is_unwanted()));
        assert!(!zones.is_unwanted(), "a stream goes by it");
        drop(held);
        assert!(zones.is_unwanted());
        services.want(&ServiceName::new("shop", "payments")).expect("still there");
        assert!(!zones.is_unwanted());
    }
}
