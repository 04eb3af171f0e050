//! Keeps a workload registered: one stream to one gateway, opened anew wherever one answers.
//!
//! The stream's life is the workload's sign of life, so it speaks every second even if there is nothing to say. Never:
//! probing the application; who does that calls [`Registrar::set_health`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{EndpointId, Health, LoadReport, ServiceName};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::link::Link;

mod driver;

/// The workload that is registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The service that it serves.
    pub service: ServiceName,
    /// Its name, unique in the cluster and stable over restarts.
    pub endpoint: EndpointId,
    /// Its zone.
    pub zone: String,
    /// The address at which other nodes reach its sidecar's inbound listener.
    pub address: SocketAddr,
    /// Relative to its peers; 1 by default.
    pub weight: f64,
    /// Requests that it can serve at once; 0 if unknown.
    pub capacity: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Which life of the sidecar: [`crate::incarnation::next`].
    pub incarnation: u64,
}

/// Keeps one workload registered.
#[derive(Debug)]
pub struct Registrar {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: Link,
    workload: Workload,
    health: watch::Sender<(Health, String)>,
    load: watch::Sender<Option<LoadReport>>,
    status: watch::Sender<RegistrarStatus>,
    /// The end was asked for.
    deregistering: watch::Sender<bool>,
    /// The driver ended.
    left: watch::Sender<bool>,
    incarnation: Mutex<u64>,
}

/// How the registration stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegistrarStatus {
    /// The gateway that has accepted the registration, while its stream lives.
    pub gateway: Option<String>,
    /// Why a gateway did not take it, if the last one did not.
    pub rejected: Option<String>,
    /// How often a gateway accepted it.
    pub accepted: u64,
}

impl Registrar {
    /// Registers `workload` over `link`, at first as warming. The future does the work, and ends after
    /// [`Registrar::deregister`].
    pub fn new(link: Link, workload: Workload) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            link,
            incarnation: Mutex::new(workload.incarnation),
            workload,
            health: watch::Sender::new((Health::Warming, String::new())),
            load: watch::Sender::new(None),
            status: watch::Sender::default(),
            deregistering: watch::Sender::new(false),
            left: watch::Sender::new(false),
        });
        let run = driver::run(Arc::clone(&shared));
        (Arc::new(Self { shared }), run)
    }

    /// The application's health, and why, for the operator. Told to the gateway at once when it changed.
    pub fn set_health(&self, health: Health, reason: &str) {
        self.shared.health.send_if_modified(|known| {
            let changed = known.0 != health;
            *known = (health, reason.to_owned());
            changed
        });
    }

    /// The workload's load. Told to the gateway every 100 ms if it changed, and every 5 s if it did not.
    pub fn set_load(&self, load: LoadReport) {
        self.shared.load.send_if_modified(|known| known.replace(load) != Some(load));
    }

    /// How the registration stands.
    pub fn status(&self) -> RegistrarStatus {
        self.shared.status.borrow().clone()
    }

    /// Waits until a gateway has accepted the registration.
    pub async fn registered(&self) {
        // Fails only if the sender is gone, which `self` holds.
        let _ = self.shared.status.subscribe().wait_for(|status| status.gateway.is_some()).await;
    }

    /// Deregisters, so that the endpoint is removed at once, and waits at most `limit` for the gateway to hear it.
    pub async fn deregister(&self, limit: Duration) {
        self.shared.deregistering.send_replace(true);
        let mut left = self.shared.left.subscribe();
        let _ = timeout(limit, left.wait_for(|left| *left)).await;
    }
}
