//! How soon what changes in a cluster is known to all of its sidecars: `cargo bench -p eastway-server --bench fleet`.
//!
//! Two gateways on one store, and a hundred callers on real TLS and gRPC, all in this process. Prints a line for each figure and
//! exits with 1 if one misses its goal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, process};

use async_trait::async_trait;
use eastway_client::{Discovery, DiscoveryOptions, Link, LinkOptions, Registrar, Sink, TlsConnector, Workload};
use eastway_core::view::{MeshView, ServiceView, Transport};
use eastway_core::{EndpointId, Health, LoadReport, Reason, ServiceName, SpiffeId};
use eastway_identity::{Ca, Identity, IssueOptions};
use eastway_registry::Admission;
use eastway_server::resources::{Change, Files, NamedText};
use eastway_server::store::EmbeddedStore;
use eastway_server::{DialError, Dialer, Server, ServerConfig, ServerOptions};
use eastway_transport::Tunnel;
use eastway_transport::tcp::DialOptions;
use tokio::sync::watch;

const DOMAIN: &str = "us-east.mesh.internal";
const CALLERS: usize = 100;
const ENDPOINTS: usize = 20;
const ROUNDS: usize = 100;
/// Services beside it whose endpoints change all the time, and how many endpoints each has; every one once a second.
const STORM: (usize, usize) = (100, 10);

/// Dials nobody: there are no peers.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Dialer for Nobody {
    async fn dial(&self, _: &str, _: &str, _: Transport) -> Result<Arc<dyn Tunnel>, DialError> {
        Err(DialError { reason: Reason::PathDown, message: "there are no peers".to_owned() })
    }

    fn transports(&self) -> &[Transport] {
        &[Transport::Quic]
    }
}

/// What one caller knows of payments.
#[derive(Debug, Default)]
struct Caller(watch::Sender<Option<Arc<ServiceView>>>);

impl Sink for Caller {
    fn mesh(&self, _: &Arc<MeshView>) {}

    fn service(&self, service: &Arc<ServiceView>) {
        self.0.send_replace(Some(Arc::clone(service)));
    }

    fn loads(&self, _: &ServiceName, _: &[(EndpointId, LoadReport)]) {}

    fn unknown(&self, _: &ServiceName) {}
}

fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

fn identity(ca: &Ca, id: &SpiffeId) -> Arc<Identity> {
    let issued = ca.issue(id, &IssueOptions::default()).expect("issued");
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    Identity::from_pem(certificate, key, ca.bundle_pem().as_bytes()).expect("an identity")
}

async fn gateway(ca: &Ca, store: &EmbeddedStore, id: &str) -> (Arc<Server>, SocketAddr) {
    let discovery = eastway_transport::tcp::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = discovery.local_addr().expect("bound");
    let config = ServerConfig {
        cluster: "us-east".to_owned(),
        region: "us-east-1".to_owned(),
        trust_domain: DOMAIN.to_owned(),
        zones: [("a".to_owned(), None)].into(),
        gateway: id.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        identity: identity(ca, &SpiffeId::gateway(DOMAIN, id)),
        discovery,
        dialer: Arc::new(Nobody),
        admission: Admission { loopback: true, ..Admission::default() },
        state: None,
        options: ServerOptions::default(),
    };
    (Server::start(config, Arc::new(store.clone()), Files::default()).await.expect("started"), address)
}

fn link(identity: &Arc<Identity>, address: SocketAddr) -> Link {
    let dial = DialOptions { connect_timeout: Duration::from_secs(10), ..DialOptions::default() };
    let options = LinkOptions { connect_timeout: Duration::from_secs(10), ..LinkOptions::default() };
    Link::new(vec![address.to_string()], Arc::new(TlsConnector::new(identity, DOMAIN, dial)), options)
}

/// Waits until every caller sees it so.
async fn all(callers: &[Arc<Caller>], so: impl Fn(&ServiceView) -> bool) {
    for caller in callers {
        let mut known = caller.0.subscribe();
        known.wait_for(|view| view.as_ref().is_some_and(|view| so(view))).await.expect("it follows");
    }
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3;
    (at(0.5), at(0.99))
}

fn report(what: &str, times: Vec<Duration>, goal: f64) -> bool {
    let (median, worst) = percentiles(times);
    let verdict = if worst <= goal { "holds" } else { "MISSED" };
    println!("{what}: p50 {median:.1} ms, p99 {worst:.1} ms (goal {goal} ms: {verdict})");
    worst <= goal
}

/// How long each of so many changes takes until all `callers` know it.
async fn flips(workloads: &[Arc<Registrar>], callers: &[Arc<Caller>], rounds: usize) -> Vec<Duration> {
    let ready = |view: &ServiceView| view.endpoints.iter().filter(|end| end.health == Health::Ready).count();
    let mut times = Vec::new();
    for round in 0..rounds {
        let (workload, down) = (&workloads[round * 2 % ENDPOINTS], (round * 2 / ENDPOINTS).is_multiple_of(2));
        let before = ready(callers[0].0.borrow().as_ref().expect("known"));
        let began = Instant::now();
        workload.set_health(if down { Health::Unready } else { Health::Ready }, "");
        let after = if down { before - 1 } else { before + 1 };
        all(callers, |view| ready(view) == after).await;
        times.push(began.elapsed());
    }
    times
}

/// Workloads of services beside it that change their health once a second, each at its own time.
async fn storm(
    ca: &Ca,
    gateway: SocketAddr,
    address: SocketAddr,
    (services, endpoints): (usize, usize),
) -> Vec<Arc<Registrar>> {
    let mut all = Vec::new();
    for service in 0..services {
        let name = format!("storm-{service}");
        let identity = identity(ca, &SpiffeId::workload(DOMAIN, "shop", &name));
        for endpoint in 0..endpoints {
            let (registrar, run) = Registrar::new(link(&identity, gateway), workload(&name, endpoint, address));
            registrar.set_health(Health::Ready, "");
            tokio::spawn(run);
            registrar.registered().await;
            all.push(registrar);
        }
    }
    for (at, registrar) in all.iter().enumerate() {
        let (registrar, count) = (Arc::clone(registrar), all.len());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1).mul_f64(at as f64 / count as f64)).await;
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            for health in [Health::Unready, Health::Ready].into_iter().cycle() {
                seconds.tick().await;
                registrar.set_health(health, "");
            }
        });
    }
    all
}

fn workload(service: &str, endpoint: usize, address: SocketAddr) -> Workload {
    Workload {
        service: ServiceName::new("shop", service),
        endpoint: EndpointId::new(format!("{service}-{endpoint}")),
        zone: "a".to_owned(),
        address,
        weight: 1.0,
        capacity: 8,
        labels: BTreeMap::new(),
        incarnation: 1,
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let rounds = if env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path()).await.expect("a store");
    let ca = Ca::create(DOMAIN, Duration::from_secs(86_400)).expect("a CA");
    let gateways = [gateway(&ca, &store, "gw-1").await, gateway(&ca, &store, "gw-2").await];

    let served = identity(&ca, &SpiffeId::workload(DOMAIN, "shop", "payments"));
    // Somebody answers at every endpoint's address, should a gateway ask.
    let inbound = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = inbound.local_addr().expect("bound");
    tokio::spawn(async move { while inbound.accept().await.is_ok() {} });
    let mut workloads = Vec::new();
    for at in 0..ENDPOINTS {
        let (registrar, run) = Registrar::new(link(&served, gateways[at % 2].1), workload("payments", at, address));
        registrar.set_health(Health::Ready, "");
        tokio::spawn(run);
        registrar.registered().await;
        workloads.push(registrar);
    }
    let calling = identity(&ca, &SpiffeId::workload(DOMAIN, "shop", "storefront"));
    let mut callers = Vec::new();
    let mut discoveries = Vec::new();
    for at in 0..CALLERS {
        let caller = Arc::new(Caller::default());
        let sink = Arc::clone(&caller) as Arc<dyn Sink>;
        let link = link(&calling, gateways[at % 2].1);
        let (discovery, run) = Discovery::new(link, DiscoveryOptions::new("us-east"), sink);
        tokio::spawn(run);
        discovery.resolve(&payments()).await.expect("known");
        discoveries.push(discovery);
        callers.push(caller);
    }
    let ready = |view: &ServiceView| view.endpoints.iter().filter(|end| end.health == Health::Ready).count();
    all(&callers, |view| ready(view) == ENDPOINTS).await;

    let mut applied = Vec::new();
    for round in 0..rounds {
        let attempts = 2 + (round % 8) as u32;
        let text = format!(
            "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: {{ name: payments, namespace: shop }}\nspec: {{ retries: {{ attempts: {attempts} }} }}\n"
        );
        let texts = vec![NamedText { file: "bench".to_owned(), text }];
        let change = Change::Apply { texts, beside: BTreeMap::new(), prune: false };
        let began = Instant::now();
        gateways[round % 2].0.apply(&change, "bench", false).await.expect("applied");
        all(&callers, |view| view.spec.policy.retries.attempts == Some(attempts)).await;
        applied.push(began.elapsed());
    }
    // Health goes from gateway to gateway on connections that this bench has not: its own gateway's callers are asked.
    let near: Vec<Arc<Caller>> = callers.iter().step_by(2).cloned().collect();
    // One endpoint's changes pass at once ten in a row, its registration among them; beyond that one in a second.
    let quiet = flips(&workloads, &near, rounds.min(ENDPOINTS / 2 * 4)).await;
    let stormy = storm(&ca, gateways[0].1, address, if rounds > 1 { STORM } else { (1, 1) }).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let amid = flips(&workloads, &near, rounds.min(ENDPOINTS / 2 * 8)).await;
    let held = [
        report(&format!("apply, until the last of {CALLERS} sidecars at two gateways acts on it"), applied, 200.0),
        report(
            &format!("an endpoint's health, until the last of {} sidecars at its gateway knows", near.len()),
            quiet,
            20.0,
        ),
        report(&format!("the same while {} other endpoints change every second", stormy.len()), amid, 20.0),
    ];
    drop((discoveries, workloads, stormy));
    process::exit(i32::from(held.contains(&false)));
}
