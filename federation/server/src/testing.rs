//! Clusters in one process: real servers and sidecars' clients over streams in memory, so that tests run on paused time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_client::{Connector, Discovery, DiscoveryOptions, Link, LinkOptions, Registrar, Sink, Workload};
use eastway_core::resource::Service;
use eastway_core::view::{MeshView, ServiceView, Transport};
use eastway_core::{EndpointId, Health, LoadReport, ServiceName, SpiffeId};
use eastway_identity::{Ca, Identity, IssueOptions};
use eastway_registry::{Admission, ProbeOutcome, Resources};
use eastway_runtime::tasks::TaskGroup;
use eastway_transport::{Io, Tunnel};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::dialer::{DialError, Dialer};
use crate::discovery;
use crate::hub::Hub;
use crate::options::{ServerConfig, ServerOptions};
use crate::probing::Prober;
use crate::server::Server;
use crate::store::EmbeddedStore;

mod wan;

pub(crate) use wan::Wan;

/// Where all registrations come from.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

/// Waits until `found` finds something, on whatever clock the test runs.
pub(crate) async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// An identity of `ca`.
pub(crate) fn identity(ca: &Ca, id: &SpiffeId) -> Arc<Identity> {
    let issued = ca.issue(id, &IssueOptions::default()).expect("issued");
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    Identity::from_pem(certificate, key, ca.bundle_pem().as_bytes()).expect("an identity")
}

/// Says who lives; everybody does unless told otherwise.
#[derive(Debug, Default)]
pub(crate) struct Fates(Mutex<HashMap<SocketAddr, ProbeOutcome>>);

impl Fates {
    pub(crate) fn set(&self, address: SocketAddr, outcome: ProbeOutcome) {
        self.0.lock().insert(address, outcome);
    }
}

#[async_trait]
impl Prober for Fates {
    async fn probe(&self, address: SocketAddr, _thorough: bool) -> ProbeOutcome {
        self.0.lock().get(&address).copied().unwrap_or(ProbeOutcome::Answered)
    }
}

/// Dials nobody.
#[derive(Debug)]
pub(crate) struct NoDialer;

#[async_trait]
impl Dialer for NoDialer {
    async fn dial(&self, _: &str, _: &str, _: Transport) -> Result<Arc<dyn Tunnel>, DialError> {
        Err(DialError { reason: eastway_core::Reason::PathDown, message: "nobody is there".to_owned() })
    }

    fn transports(&self) -> &[Transport] {
        &[Transport::Quic]
    }
}

/// One gateway of a cluster, and what outlives it.
pub(crate) struct Gateway {
    pub(crate) cluster: &'static str,
    pub(crate) id: &'static str,
    /// Where it is reached; `ID.CLUSTER:15443` unless said otherwise.
    pub(crate) address: Option<String>,
    pub(crate) ca: Arc<Ca>,
    pub(crate) fates: Arc<Fates>,
    pub(crate) store: EmbeddedStore,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) resources: Mutex<Resources>,
    pub(crate) options: ServerOptions,
    /// The running server, if it runs: where its sidecars connect to.
    pub(crate) server: Arc<Mutex<Option<Arc<Server>>>>,
    _directory: Option<tempfile::TempDir>,
}

impl Gateway {
    /// A cluster with one gateway that runs, without peers.
    pub(crate) async fn start(cluster: &'static str) -> Self {
        let gateway = Self::new(cluster, Arc::new(NoDialer), exporting_payments()).await;
        gateway.run().await;
        gateway
    }

    pub(crate) async fn new(cluster: &'static str, dialer: Arc<dyn Dialer>, resources: Resources) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(directory.path()).await.expect("a store");
        let trust_domain = format!("{cluster}.mesh.internal");
        Self {
            cluster,
            id: "gw-1",
            address: None,
            ca: Arc::new(Ca::create(&trust_domain, Duration::from_secs(86_400)).expect("a CA")),
            fates: Arc::default(),
            store,
            dialer,
            resources: Mutex::new(resources),
            options: ServerOptions::default(),
            server: Arc::default(),
            _directory: Some(directory),
        }
    }

    /// Another gateway of the same cluster.
    pub(crate) fn sibling(&self, id: &'static str) -> Self {
        Self {
            cluster: self.cluster,
            id,
            address: None,
            ca: Arc::clone(&self.ca),
            fates: Arc::clone(&self.fates),
            store: self.store.clone(),
            dialer: Arc::clone(&self.dialer),
            resources: Mutex::new(self.resources.lock().clone()),
            options: self.options.clone(),
            server: Arc::default(),
            _directory: None,
        }
    }

    pub(crate) fn trust_domain(&self) -> String {
        format!("{}.mesh.internal", self.cluster)
    }

    pub(crate) fn config(&self) -> ServerConfig {
        ServerConfig {
            cluster: self.cluster.to_owned(),
            region: format!("{}-1", self.cluster),
            trust_domain: self.trust_domain(),
            zones: ["a", "b"].map(|zone| (zone.to_owned(), None)).into(),
            gateway: self.id.to_owned(),
            address: self.address.clone().unwrap_or_else(|| format!("{}.{}:15443", self.id, self.cluster)),
            identity: identity(&self.ca, &SpiffeId::gateway(&self.trust_domain(), self.id)),
            discovery: eastway_transport::tcp::bind(([127, 0, 0, 1], 0).into()).expect("a port"),
            dialer: Arc::clone(&self.dialer),
            admission: Admission { loopback: true, ..Admission::default() },
            state: None,
            options: self.options.clone(),
        }
    }

    pub(crate) async fn run(&self) -> Arc<Server> {
        let prober = Arc::clone(&self.fates) as Arc<dyn Prober>;
        let resources = self.resources.lock().clone();
        let server = Server::start_with(self.config(), Arc::new(self.store.clone()), resources, prober);
        let server = server.await.expect("started");
        *self.server.lock() = Some(Arc::clone(&server));
        server
    }

    pub(crate) fn running(&self) -> Arc<Server> {
        self.server.lock().clone().expect("running")
    }

    /// Ends the server as a kill would: nobody is told.
    pub(crate) async fn kill(&self) {
        let server = self.server.lock().take().expect("running");
        server.kill().await;
    }

    /// A sidecar's way to this gateway and to `others`, as the account `account` of the namespace `shop`.
    pub(crate) fn link(&self, account: &str, others: &[&Self]) -> (Link, Arc<Wire>) {
        let gateways = [self].into_iter().chain(others.iter().copied());
        let gateways: BTreeMap<String, Target> =
            gateways.map(|gateway| (gateway.id.to_owned(), Arc::clone(&gateway.server))).collect();
        let wire = Arc::new(Wire {
            peer: Arc::new(SpiffeId::workload(&self.trust_domain(), "shop", account)),
            open: watch::Sender::new(true),
            gateways,
        });
        let names = wire.gateways.keys().cloned().collect();
        let connector = Arc::clone(&wire) as Arc<dyn Connector>;
        (Link::new(names, connector, LinkOptions::default()), wire)
    }

    /// A sidecar with a workload of `payments`.
    pub(crate) fn sidecar(&self, endpoint: &str, zone: &str, incarnation: u64) -> Sidecar {
        self.sidecar_as(endpoint, zone, incarnation, "payments")
    }

    pub(crate) fn sidecar_as(&self, endpoint: &str, zone: &str, incarnation: u64, account: &str) -> Sidecar {
        let (link, wire) = self.link(account, &[]);
        Sidecar::start(link, wire, endpoint, zone, incarnation)
    }

    /// A caller, whose discovery is followed by the returned notes.
    pub(crate) fn caller(&self, options: DiscoveryOptions) -> (Arc<Discovery>, Arc<Notes>, JoinHandle<()>) {
        let (link, _) = self.link("storefront", &[]);
        let notes = Arc::new(Notes::default());
        let (discovery, run) = Discovery::new(link, options, Arc::clone(&notes) as Arc<dyn Sink>);
        (discovery, notes, tokio::spawn(run))
    }

    /// The health of an endpoint as this gateway sees it.
    pub(crate) fn health(&self, endpoint: &str) -> Option<Health> {
        let view = self.running().view(&payments())?;
        view.endpoints.iter().find(|known| known.id.as_str() == endpoint).map(|known| known.health)
    }
}

/// `payments`, offered to everybody.
pub(crate) fn exporting_payments() -> Resources {
    let service = Service { export: vec!["*".to_owned()], ..Service::default() };
    Resources { services: BTreeMap::from([(payments(), service)]), ..Resources::default() }
}

type Target = Arc<Mutex<Option<Arc<Server>>>>;

/// The network between a sidecar and its gateways.
#[derive(Debug)]
pub(crate) struct Wire {
    peer: Arc<SpiffeId>,
    /// Closed: bytes are swallowed, and nobody is told.
    pub(crate) open: watch::Sender<bool>,
    gateways: BTreeMap<String, Target>,
}

#[async_trait]
impl Connector for Wire {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let server = self.gateways[address].lock().clone();
        let server = server.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (near, far) = piped(self.open.subscribe());
        let (hub, tasks) = server.parts();
        let (peer, connections) = (Arc::clone(&self.peer), tasks.clone());
        let serving = async move { discovery::serve(hub, far, Some(peer), HERE, &connections).await };
        tasks.spawn_loop("connection in memory", serving);
        Ok(near)
    }
}

/// Two ends of a stream that passes bytes while `open` says so.
pub(crate) fn piped(open: watch::Receiver<bool>) -> (Io, Io) {
    let (near, inner_near) = tokio::io::duplex(64 << 10);
    let (inner_far, far) = tokio::io::duplex(64 << 10);
    let (near_read, near_write) = tokio::io::split(inner_near);
    let (far_read, far_write) = tokio::io::split(inner_far);
    tokio::spawn(pump(near_read, far_write, open.clone()));
    tokio::spawn(pump(far_read, near_write, open));
    (Io::other(near), Io::other(far))
}

async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    if open.wait_for(|open| *open).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// A registered workload.
pub(crate) struct Sidecar {
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) address: SocketAddr,
    pub(crate) wire: Arc<Wire>,
    task: JoinHandle<()>,
}

impl Sidecar {
    pub(crate) fn start(link: Link, wire: Arc<Wire>, endpoint: &str, zone: &str, incarnation: u64) -> Self {
        let number = endpoint.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let workload = Workload {
            service: payments(),
            endpoint: EndpointId::new(endpoint),
            zone: zone.to_owned(),
            address: ([127, 0, 0, 1], 20_000 + number % 10_000).into(),
            weight: 1.0,
            capacity: 0,
            labels: Default::default(),
            incarnation,
        };
        let address = workload.address;
        let (registrar, run) = Registrar::new(link, workload);
        registrar.set_health(Health::Ready, "");
        Self { registrar, address, wire, task: tokio::spawn(run) }
    }

    /// Ends the sidecar's process: its connection breaks, nothing is said.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

/// Takes notes of what a sink is told.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) mesh: Mutex<Option<Arc<MeshView>>>,
    pub(crate) services: Mutex<BTreeMap<ServiceName, Arc<ServiceView>>>,
    pub(crate) loads: Mutex<BTreeMap<EndpointId, LoadReport>>,
    /// Services that were said to be unknown, in order.
    pub(crate) unknown: Mutex<Vec<ServiceName>>,
    pub(crate) unused: Mutex<Vec<ServiceName>>,
    /// How many views came.
    pub(crate) views: Mutex<usize>,
}

impl Notes {
    pub(crate) fn health(&self, endpoint: &str) -> Option<Health> {
        let services = self.services.lock();
        let endpoints = &services.get(&payments())?.endpoints;
        endpoints.iter().find(|known| known.id.as_str() == endpoint).map(|known| known.health)
    }
}

impl Sink for Notes {
    fn mesh(&self, mesh: &Arc<MeshView>) {
        *self.mesh.lock() = Some(Arc::clone(mesh));
    }

    fn service(&self, service: &Arc<ServiceView>) {
        *self.views.lock() += 1;
        self.services.lock().insert(service.name.clone(), Arc::clone(service));
    }

    fn loads(&self, _: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        self.loads.lock().extend(loads.iter().cloned());
    }

    fn unknown(&self, service: &ServiceName) {
        self.unknown.lock().push(service.clone());
    }

    fn unused(&self, service: &ServiceName) {
        self.unused.lock().push(service.clone());
    }
}

impl Server {
    fn parts(&self) -> (Arc<Hub>, TaskGroup) {
        (Arc::clone(self.hub()), self.tasks().clone())
    }
}
