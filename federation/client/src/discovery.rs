//! What a node follows of the mesh: services from their first use on, the mesh around them, and what the node holds its own
//! callers to. Everything comes in one stream of updates, each of a kind and a name (`kind.rs`).
//!
//! What a gateway says replaces what is known; a gateway's silence replaces nothing. The last view is kept on disk, so
//! that a restarted sidecar serves although no gateway answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{InboundRules, MeshView, ServiceView};
use eastway_core::{MeshHost, Reason, ServiceName};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::link::Link;
use crate::sink::Sink;

mod addresses;
mod cache;
mod dispatch;
mod driver;
mod kind;
mod loads;
mod mesh;
mod served;
mod services;
mod subscription;

use addresses::Addresses;
use dispatch::Dispatcher;
use kind::{Common, Kind};
use loads::Loads;
use mesh::Mesh;
use served::Served;
use services::{Answer, Services};

/// Times and bounds of discovery.
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    /// The own cluster's name: a last view of another cluster is not believed.
    pub cluster: String,
    /// How long the first use of a name waits. Default 1 s.
    pub resolve_timeout: Duration,
    /// How long an unknown name is remembered as such. Default 5 s.
    pub negative_ttl: Duration,
    /// The most services followed at a time. Default 1,000.
    pub max_subscriptions: usize,
    /// The most names whose virtual addresses are followed. Default 1,000.
    pub max_addresses: usize,
    /// A service that was not used for this long is no longer followed. Default 10 min.
    pub unused_after: Duration,
    /// How long endpoints are kept that a gateway no longer names after a reconnect, if they are half of a service or
    /// more. Default 30 s.
    pub hold: Duration,
    /// The directory for the last view; none: it is not kept.
    pub state: Option<PathBuf>,
    /// The least time between two writes of the last view. Default 2 s.
    pub save_interval: Duration,
    /// The service that the workload serves: what its callers are held to is followed, too.
    pub served: Option<ServiceName>,
}

impl DiscoveryOptions {
    /// The defaults, in the cluster `cluster`.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            resolve_timeout: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(5),
            max_subscriptions: 1000,
            max_addresses: 1000,
            unused_after: Duration::from_secs(600),
            hold: Duration::from_secs(30),
            state: None,
            save_interval: Duration::from_secs(2),
            served: None,
        }
    }
}

/// What a node follows of the mesh.
#[derive(Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    options: DiscoveryOptions,
    common: Arc<Common>,
    kinds: Kinds,
    dispatcher: Dispatcher,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

/// The kinds that somebody here asks.
struct Kinds {
    mesh: Arc<Mesh>,
    served: Arc<Served>,
    services: Arc<Services>,
    addresses: Arc<Addresses>,
}

impl Kinds {
    /// Nothing is known of any. With them comes what takes the updates of all kinds, in the order in which they are restored.
    fn new(common: &Arc<Common>, options: &DiscoveryOptions) -> (Self, Dispatcher) {
        let mesh = Mesh::new(Arc::clone(common));
        let served = Served::new(Arc::clone(common), options.served.clone());
        let services = Services::new(Arc::clone(common), options.clone());
        let loads = Loads::new(Arc::clone(common), Arc::clone(&services));
        let addresses = Addresses::new(Arc::clone(common), options.max_addresses);
        let all: [Arc<dyn Kind>; 5] = [
            Arc::clone(&mesh) as _,
            Arc::clone(&served) as _,
            Arc::clone(&services) as _,
            loads,
            Arc::clone(&addresses) as _,
        ];
        (Self { mesh, served, services, addresses }, Dispatcher::new(Arc::clone(common), all.into()))
    }
}

#[derive(Default)]
struct State {
    /// A stream is open, to this gateway.
    connected: Option<Arc<str>>,
    /// When a gateway last said anything.
    heard: Option<eastway_core::Timestamp>,
}

/// How discovery does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiscoveryStatus {
    /// The gateway that a stream is open to.
    pub gateway: Option<String>,
    /// Services that are followed.
    pub subscriptions: usize,
    /// Of them, those that are known.
    pub known: usize,
    /// Seconds since a gateway last said anything; none if none ever did.
    pub silent_seconds: Option<f64>,
}

impl Discovery {
    /// Discovery over `link`, telling `sink`. The last view on disk is handed to the sink before this returns; the
    /// future does the rest, and ends after [`Discovery::shutdown`].
    pub fn new(
        link: Link,
        options: DiscoveryOptions,
        sink: Arc<dyn Sink>,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let common = Common::new(sink);
        let (kinds, dispatcher) = Kinds::new(&common, &options);
        let (state, ended) = (Mutex::default(), watch::Sender::new(false));
        let shared = Arc::new(Shared { link, options, common, kinds, dispatcher, state, ended });
        shared.load_last_view();
        let run = driver::run(Arc::clone(&shared));
        (Arc::new(Self { shared }), run)
    }

    /// The service's view; on its first use, waits for a gateway to say. The sink knows the service before this returns.
    ///
    /// # Errors
    /// [`Reason::UnknownService`] if no cluster offers it, [`Reason::DiscoveryTimeout`] if no gateway said so in time,
    /// [`Reason::Overloaded`] if too many services are followed already.
    pub async fn resolve(&self, name: &ServiceName) -> Result<Arc<ServiceView>, Reason> {
        let Shared { kinds: Kinds { services, .. }, options, .. } = &*self.shared;
        let mut answer = match services.look_up(name) {
            Some(answered) => return answered,
            None => services.want(name)?,
        };
        let answered = timeout(options.resolve_timeout, answer.wait_for(|a| *a != Answer::Pending)).await;
        match answered.map(|answer| answer.map(|answer| *answer)) {
            Ok(Ok(_)) => services.look_up(name).unwrap_or(Err(Reason::UnknownService)),
            Ok(Err(_)) => Err(Reason::UnknownService),
            Err(_) => Err(Reason::DiscoveryTimeout),
        }
    }

    /// The service's view as it is known now. Counts as use.
    pub fn view(&self, name: &ServiceName) -> Option<Arc<ServiceView>> {
        self.shared.kinds.services.look_up(name).and_then(Result::ok)
    }

    /// The service is in use. Takes a lock: now and then is enough, at least once in the time after which services
    /// count as unused.
    pub fn touch(&self, name: &ServiceName) {
        self.shared.kinds.services.touch(name);
    }

    /// The number of the name's virtual address, which its first use gives it. The name is followed from then on.
    ///
    /// # Errors
    /// [`Reason::DiscoveryTimeout`] if no gateway has said so in time, [`Reason::Overloaded`] if too many names are followed.
    pub async fn address(&self, host: &MeshHost) -> Result<u32, Reason> {
        self.shared.kinds.addresses.number(host, self.shared.options.resolve_timeout).await
    }

    /// Nobody uses the name's virtual address here any more.
    pub fn release_address(&self, host: &MeshHost) {
        self.shared.kinds.addresses.release(host);
    }

    /// The names whose virtual addresses are known, with their numbers.
    pub fn addresses(&self) -> Vec<(MeshHost, u32)> {
        self.shared.kinds.addresses.known()
    }

    /// What callers of the service are held to that the workload serves. Only a node that has just started waits for it.
    ///
    /// # Errors
    /// [`Reason::DiscoveryTimeout`] if no gateway has said so in time.
    pub async fn served(&self) -> Result<Arc<InboundRules>, Reason> {
        self.shared.kinds.served.rules(self.shared.options.resolve_timeout).await
    }

    /// The mesh around the services.
    pub fn mesh(&self) -> Option<Arc<MeshView>> {
        self.shared.kinds.mesh.view()
    }

    /// How discovery does.
    pub fn status(&self) -> DiscoveryStatus {
        let (subscriptions, known) = self.shared.kinds.services.count();
        let state = self.shared.state.lock();
        let now = self.shared.common.clock.now();
        DiscoveryStatus {
            gateway: state.connected.as_ref().map(ToString::to_string),
            subscriptions,
            known,
            silent_seconds: state.heard.map(|heard| now.since(heard).as_secs_f64()),
        }
    }

    /// Ends the future, after the last view is written.
    pub fn shutdown(&self) {
        self.shared.ended.send_replace(true);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("link", &self.link).field("options", &self.options).finish_non_exhaustive()
    }
}
