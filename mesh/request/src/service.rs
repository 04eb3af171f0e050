//! A service as the callers of one node see it: what discovery says of it, the decision object that picks for it, and the
//! limits that its requests share.
//!
//! Written by the control runtime through `follow`; read by the workers through atomic pointers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use eastway_balance::Service;
use eastway_core::resource::{Protocol, ServicePort};
use eastway_core::view::ServiceView;
use eastway_resilience::{Limit, Permit};

use crate::route::RouteTable;
use crate::traffic_policy::TrafficPolicy;

/// A service that is known here. All workers share it.
#[derive(Debug)]
pub struct ServiceEntry {
    service: Service,
    requests: Arc<Limit>,
    streams: Arc<Limit>,
    pending: Arc<Limit>,
    traffic_policy: ArcSwap<TrafficPolicy>,
    routes: ArcSwap<RouteTable>,
    view: ArcSwap<ServiceView>,
    /// Set by each request, and cleared when discovery was told.
    used: AtomicBool,
}

impl ServiceEntry {
    /// What is known before the first [`ServiceEntry::follow`]: the name, and the numbers of a service of which no operator
    /// says anything.
    pub fn new(service: Service, traffic_policy: TrafficPolicy) -> Arc<Self> {
        let view = ServiceView {
            name: service.name().clone(),
            spec: Default::default(),
            endpoints: Vec::new(),
            remote: Vec::new(),
            returned: Default::default(),
        };
        Arc::new(Self {
            service,
            requests: Limit::new(traffic_policy.requests),
            streams: Limit::new(traffic_policy.streams),
            pending: Limit::new(traffic_policy.pending),
            traffic_policy: ArcSwap::from_pointee(traffic_policy),
            routes: ArcSwap::default(),
            view: ArcSwap::from_pointee(view),
            used: AtomicBool::new(true),
        })
    }

    /// Takes what discovery says of it now; `own` is what holds where that says nothing. The decision object is told apart,
    /// because it needs the mesh and the time.
    pub fn follow(&self, view: &Arc<ServiceView>, own: TrafficPolicy) {
        self.view.store(Arc::clone(view));
        let traffic_policy = own.with(&view.spec.policy);
        self.requests.set_max(traffic_policy.requests);
        self.streams.set_max(traffic_policy.streams);
        self.pending.set_max(traffic_policy.pending);
        self.traffic_policy.store(Arc::new(traffic_policy));
    }

    /// Replaces the routes of its requests. Requests under way go by those that they began with.
    pub fn set_routes(&self, routes: RouteTable) {
        self.routes.store(Arc::new(routes));
    }

    /// Decides where its requests go.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What discovery said last.
    pub fn view(&self) -> Arc<ServiceView> {
        self.view.load_full()
    }

    /// The numbers that hold for its requests.
    pub fn traffic_policy(&self) -> TrafficPolicy {
        **self.traffic_policy.load()
    }

    /// The routes that its requests may take.
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// The accounts that may serve it in this cluster.
    pub fn accounts(&self) -> Arc<[String]> {
        Arc::clone(&self.view.load().spec.accounts)
    }

    /// The port of this number, or the first one that speaks HTTP if the caller named none.
    pub fn port(&self, number: Option<u16>) -> Option<ServicePort> {
        let view = self.view.load();
        match number {
            Some(number) => view.spec.ports.iter().find(|port| port.port == number).cloned(),
            None => view.spec.ports.iter().find(|port| port.protocol != Protocol::Tcp).cloned(),
        }
    }

    /// Whether `cluster` offers the service, as far as discovery tells: by the zones that it announces, also those that have
    /// just lost their last endpoint; the cluster `own` also by declaring it.
    pub fn is_offered_by(&self, cluster: &str, own: &str) -> bool {
        let announced = || self.service.localities().iter().any(|(locality, _)| *locality.zone.cluster == *cluster);
        (cluster == own && self.view.load().spec.export.is_some()) || announced()
    }

    /// A place among its requests in flight.
    pub fn request_permit(&self) -> Option<Permit> {
        self.requests.try_acquire()
    }

    /// A place among its opaque streams that are open.
    pub fn stream_permit(&self) -> Option<Permit> {
        self.streams.try_acquire()
    }

    /// A place among its requests that wait for a connection.
    pub fn pending_permit(&self) -> Option<Permit> {
        self.pending.try_acquire()
    }

    /// Notes that the service is in use, so that discovery goes on following it.
    pub fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}
