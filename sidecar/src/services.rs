//! The services that this sidecar knows: what discovery says of each, and the decision object that picks for it.
//!
//! Written by the control runtime, read by the workers through an atomic pointer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use eastway_balance::{Policy, Service};
use eastway_client::{Discovery, Sink};
use eastway_core::view::{EndpointView, MeshView, ServiceView};
use eastway_core::{Chain, EndpointId, LoadReport, Locality, ServiceName};
use eastway_identity::Identity;
use eastway_request::{ServiceEntry, TrafficPolicy};
use eastway_resilience::RetryPolicy;
use eastway_runtime::clock;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use crate::config::Config;

/// How often ramps, decays and breakers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// All known services.
#[derive(Debug)]
pub(crate) struct Services {
    entries: ArcSwap<HashMap<ServiceName, Arc<ServiceEntry>>>,
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
    pub(crate) fn entry(&self, name: &ServiceName) -> Option<Arc<ServiceEntry>> {
        self.entries.load().get(name).cloned()
    }

    /// Every known service.
    pub(crate) fn all(&self) -> Vec<Arc<ServiceEntry>> {
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
                entry.service().tick(now);
                if entry.was_used() {
                    discovery.touch(entry.service().name());
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

    fn new_entry(&self, name: &ServiceName) -> Arc<ServiceEntry> {
        let service = Service::new(name.clone(), self.caller.lock().clone(), self.policy.clone());
        ServiceEntry::new(service, self.own)
    }
}

/// The numbers that hold for requests to a service of which the operator says nothing.
pub(crate) fn traffic_policy(config: &Config) -> TrafficPolicy {
    let limits = &config.limits;
    TrafficPolicy {
        retries: RetryPolicy {
            attempts: limits.attempts,
            attempts_in_all: limits.unsent_attempts,
            kept_body: limits.kept_body,
            held_response: limits.held_response,
            ..RetryPolicy::default()
        },
        per_try: None,
        request: config.timeouts.request,
        requests: limits.requests,
        streams: limits.opaque_streams,
        pending: limits.pending,
        endpoint_requests: limits.endpoint_requests,
        endpoint_connections: limits.endpoint_connections,
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
            entry.service().update(mesh, &entry.view(), now);
        }
    }

    fn service(&self, view: &Arc<ServiceView>) {
        let _writing = self.writing.lock();
        let mesh = self.mesh.load();
        if let Some(entry) = self.entry(&view.name) {
            entry.follow(view, self.own);
            entry.service().update(&mesh, view, clock::now());
            return;
        }
        let entry = self.new_entry(&view.name);
        entry.follow(view, self.own);
        entry.service().update(&mesh, view, clock::now());
        let mut entries = HashMap::clone(&self.entries.load());
        entries.insert(view.name.clone(), entry);
        self.entries.store(Arc::new(entries));
    }

    fn endpoints(&self, view: &Arc<ServiceView>, endpoints: &[Arc<EndpointView>]) {
        let taken = self.entry(&view.name).is_some_and(|entry| {
            let _writing = self.writing.lock();
            entry.follow(view, self.own);
            entry.service().apply(endpoints, clock::now())
        });
        if !taken {
            self.service(view);
        }
    }

    fn loads(&self, service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        if let Some(entry) = self.entry(service) {
            let now = clock::now();
            for (endpoint, load) in loads {
                entry.service().apply_load(endpoint, *load, now);
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
