//! The services that this sidecar knows: what discovery says of each, and the decision object that picks for it.
//!
//! Written by the control runtime, read by the workers through an atomic pointer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use eastway_balance::{Policy, Service};
use eastway_client::{Discovery, Sink};
use eastway_core::resource::{Protocol, ServicePort};
use eastway_core::view::{InboundRules, MeshView, ServiceView};
use eastway_core::{Chain, EndpointId, LoadReport, Locality, ServiceName};
use eastway_identity::Identity;
use eastway_resilience::limits::Limit;
use eastway_runtime::clock;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use crate::traffic_policy::TrafficPolicy;

/// How often ramps, decays and breakers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A known service.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Decides where its requests go.
    pub(crate) service: Service,
    /// Requests in flight.
    pub(crate) requests: Arc<Limit>,
    /// Opaque streams that are open.
    pub(crate) streams: Arc<Limit>,
    /// Requests that wait for a connection.
    pub(crate) pending: Arc<Limit>,
    traffic_policy: ArcSwap<TrafficPolicy>,
    view: ArcSwap<ServiceView>,
    inbound: ArcSwapOption<InboundRules>,
    /// Set by each request, and cleared when discovery was told.
    used: AtomicBool,
}

impl Entry {
    /// Notes that the service is in use, so that discovery goes on following it.
    pub(crate) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// How its requests are treated.
    pub(crate) fn traffic_policy(&self) -> TrafficPolicy {
        **self.traffic_policy.load()
    }

    /// Takes what discovery says of it now.
    fn follow(&self, view: &Arc<ServiceView>, own: TrafficPolicy) {
        self.view.store(Arc::clone(view));
        self.inbound.store(view.spec.inbound.clone().map(Arc::from));
        let traffic_policy = own.with(&view.spec.policy);
        self.requests.set_max(traffic_policy.requests);
        self.streams.set_max(traffic_policy.streams);
        self.pending.set_max(traffic_policy.pending);
        self.traffic_policy.store(Arc::new(traffic_policy));
    }

    /// Whether `cluster` offers the service, as far as discovery tells: by the zones that it announces, also those that have
    /// just lost their last endpoint; the own one also by declaring it.
    pub(crate) fn is_offered_by(&self, cluster: &str, own: &str) -> bool {
        let announced = || self.service.localities().iter().any(|(locality, _)| *locality.zone.cluster == *cluster);
        (cluster == own && self.inbound.load().is_some()) || announced()
    }

    /// The accounts that may serve it in this cluster.
    pub(crate) fn accounts(&self) -> Vec<String> {
        self.view.load().spec.accounts.clone()
    }

    /// What sidecars that serve it in this cluster hold callers to; `None` until a gateway has said so.
    pub(crate) fn inbound(&self) -> Option<Arc<InboundRules>> {
        self.inbound.load_full()
    }

    /// The port of this number, or the first one if the caller named none.
    pub(crate) fn port(&self, number: Option<u16>) -> Option<ServicePort> {
        let view = self.view.load();
        match number {
            Some(number) => view.spec.ports.iter().find(|port| port.port == number).cloned(),
            None => view.spec.ports.iter().find(|port| port.protocol != Protocol::Tcp).cloned(),
        }
    }
}

/// All known services.
#[derive(Debug)]
pub(crate) struct Services {
    entries: ArcSwap<HashMap<ServiceName, Arc<Entry>>>,
    mesh: ArcSwap<MeshView>,
    caller: Mutex<Locality>,
    identity: Arc<Identity>,
    policy: Policy,
    /// What holds for services of which the operator says nothing.
    own: TrafficPolicy,
    /// Serialises writers; readers never wait.
    writing: Mutex<()>,
}

impl Services {
    /// None yet. `mesh` is replaced by what discovery says.
    pub(crate) fn new(
        caller: Locality,
        mesh: MeshView,
        identity: Arc<Identity>,
        policy: Policy,
        own: TrafficPolicy,
    ) -> Arc<Self> {
        Arc::new(Self {
            entries: ArcSwap::default(),
            mesh: ArcSwap::from_pointee(mesh),
            caller: Mutex::new(caller),
            identity,
            policy,
            own,
            writing: Mutex::new(()),
        })
    }

    /// The service `name`, if discovery has delivered it.
    pub(crate) fn entry(&self, name: &ServiceName) -> Option<Arc<Entry>> {
        self.entries.load().get(name).cloned()
    }

    /// Every known service.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.load().values().cloned().collect()
    }

    /// The mesh as last seen.
    pub(crate) fn mesh(&self) -> Arc<MeshView> {
        self.mesh.load_full()
    }

    /// Lets time pass for every service, until the task is dropped.
    pub(crate) async fn tick(self: Arc<Self>, discovery: Arc<Discovery>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = clock::now();
            for entry in self.entries.load().values() {
                entry.service.tick(now);
                if entry.used.swap(false, Ordering::Relaxed) {
                    discovery.touch(entry.service.name());
                }
            }
        }
    }

    /// Believes the peers' CAs, each for its own trust domain.
    fn trust(&self, mesh: &MeshView) {
        let bundles = mesh.peers.iter().map(|peer| {
            let certificates = peer.trust_bundle.iter().map(|der| CertificateDer::from(der.clone())).collect();
            (peer.cluster.trust_domain.clone(), certificates)
        });
        if let Err(error) = self.identity.set_peer_bundles(bundles.collect()) {
            tracing::warn!(error = %Chain(&error), "a peer's trust bundle cannot be used");
        }
    }

    fn forget(&self, service: &ServiceName) {
        let _writing = self.writing.lock();
        if self.entries.load().contains_key(service) {
            let mut entries = HashMap::clone(&self.entries.load());
            entries.remove(service);
            self.entries.store(Arc::new(entries));
        }
    }

    fn new_entry(&self, view: &Arc<ServiceView>) -> Arc<Entry> {
        Arc::new(Entry {
            service: Service::new(view.name.clone(), self.caller.lock().clone(), self.policy.clone()),
            requests: Limit::new(self.own.requests),
            streams: Limit::new(self.own.streams),
            pending: Limit::new(self.own.pending),
            traffic_policy: ArcSwap::from_pointee(self.own),
            view: ArcSwap::new(Arc::clone(view)),
            inbound: ArcSwapOption::empty(),
            used: AtomicBool::new(true),
        })
    }
}

impl Sink for Services {
    fn mesh(&self, mesh: &Arc<MeshView>) {
        let _writing = self.writing.lock();
        self.caller.lock().region = mesh.cluster.region.as_str().into();
        self.mesh.store(Arc::clone(mesh));
        self.trust(mesh);
        let now = clock::now();
        for entry in self.entries.load().values() {
            entry.service.update(mesh, &entry.view.load(), now);
        }
    }

    fn service(&self, view: &Arc<ServiceView>) {
        let _writing = self.writing.lock();
        let mesh = self.mesh.load();
        if let Some(entry) = self.entry(&view.name) {
            entry.follow(view, self.own);
            entry.service.update(&mesh, view, clock::now());
            return;
        }
        let entry = self.new_entry(view);
        entry.follow(view, self.own);
        entry.service.update(&mesh, view, clock::now());
        let mut entries = HashMap::clone(&self.entries.load());
        entries.insert(view.name.clone(), entry);
        self.entries.store(Arc::new(entries));
    }

    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        if let Some(entry) = self.entry(service) {
            let now = clock::now();
            for (endpoint, load) in loads {
                entry.service.apply_load(endpoint, *load, now);
            }
        }
    }

    fn unknown(&self, service: &ServiceName) {
        self.forget(service);
    }

    fn unused(&self, service: &ServiceName) {
        self.forget(service);
    }
}
