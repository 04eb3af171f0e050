//! What the store costs, and how soon a gateway that lost its place in it knows everything again: on a real etcd.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eastway_client::Registrar;
use eastway_core::view::ServiceView;
use eastway_core::{EndpointId, Health, LoadReport, ServiceName};
use eastway_identity::Ca;
use eastway_server::Server;
use eastway_server::store::{EtcdOptions, EtcdStore};
use eastway_tests::lab::{Lab, StoreKind};
use eastway_tests::process::required;
use eastway_tests::relay::Relay;
use serde_json::Value;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use super::crowd::{self, account, authority, listen, register, workload};
use super::percentile;
use super::report::Report;

/// Services, and endpoints of each.
const SIZE: (usize, usize) = (100, 10);
/// How often the store is compacted while a gateway is away from it.
const ROUNDS: usize = 25;
/// Endpoints that go, and others that come, meanwhile.
const CHANGES: usize = 10;
/// How long nothing changes, and writes are counted.
const STEADY: Duration = Duration::from_secs(60);
/// Goals: of resyncs, in milliseconds, and of writes a second.
const RESYNC: f64 = 2_000.0;
const WRITES: f64 = 2.0;

/// A workload that is registered.
struct Member {
    endpoint: EndpointId,
    registrar: Arc<Registrar>,
    listener: AbortHandle,
}

/// The workloads, by service, and how each is registered.
struct Crowd {
    ca: Ca,
    gateway: SocketAddr,
    services: Vec<VecDeque<Member>>,
    registered: usize,
}

impl Crowd {
    async fn add(&mut self, service: usize) {
        let name = format!("service-{service}");
        let (address, listener) = listen().await;
        let workload = workload(&name, self.registered, address);
        let endpoint = workload.endpoint.clone();
        let registrar = register(&account(&self.ca, &name), self.gateway, workload).await;
        self.services[service].push_back(Member { endpoint, registrar, listener });
        self.registered += 1;
    }

    /// Its oldest endpoint leaves.
    async fn part(&mut self, service: usize) {
        if let Some(oldest) = self.services[service].pop_front() {
            oldest.listener.abort();
            oldest.registrar.deregister(Duration::from_secs(5)).await;
        }
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.services.iter().flatten()
    }

    fn living(&self) -> BTreeSet<EndpointId> {
        self.members().map(|member| member.endpoint.clone()).collect()
    }

    /// Waits until the gateway shows those that live, and nobody else.
    async fn known_at(&self, gateway: &Server) {
        let (living, deadline) = (self.living(), Instant::now() + Duration::from_secs(60));
        while shown(gateway, self.services.len()) != living {
            assert!(Instant::now() < deadline, "never known");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Measures it; `whole`, or only to see that it runs.
pub(super) async fn measure(report: &mut Report, whole: bool) {
    let (services, endpoints) = if whole { SIZE } else { (2, 2) };
    let rounds = if whole { ROUNDS } else { 1 };
    let steady = if whole { STEADY } else { Duration::from_millis(100) };
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "").start_etcd("us-east");
    let etcd = lab.etcd("us-east");
    let relay = Relay::start(etcd.ip(), etcd);
    let ca = authority();
    let (_registering, gateway) = crowd::gateway(&ca, store(etcd).await, "gw-1").await;
    let (away, _) = crowd::gateway(&ca, store(relay.address()).await, "gw-2").await;
    let groups = (0..services).map(|_| VecDeque::new()).collect();
    let mut crowd = Crowd { ca, gateway, services: groups, registered: 0 };
    for service in 0..services {
        for _ in 0..endpoints {
            crowd.add(service).await;
        }
    }
    crowd.known_at(&away).await;

    sleep(if whole { Duration::from_secs(5) } else { Duration::ZERO }).await;
    let (began, before) = (Instant::now(), revision(etcd));
    while began.elapsed() < steady {
        // As often as sidecars say it.
        crowd.members().for_each(|member| member.registrar.set_load(LoadReport::default()));
        sleep(steady.min(Duration::from_secs(5))).await;
    }
    let writes = (revision(etcd) - before) as f64 / began.elapsed().as_secs_f64();
    let all = services * endpoints;
    report.at_most(&format!("writes to etcd, {all} endpoints of which nothing changes"), writes, "1/s", WRITES);

    let (mut times, mut lost) = (Vec::new(), 0);
    for round in 0..rounds {
        relay.cut();
        for change in 0..CHANGES.min(services) {
            let service = (round * CHANGES + change) % services;
            crowd.part(service).await;
            crowd.add(service).await;
        }
        compact(etcd);
        let living = crowd.living();
        let staying = shown(&away, services).intersection(&living).cloned().collect();
        let watching = Watching::start(&away, services, staying);
        relay.heal();
        let healed = Instant::now();
        crowd.known_at(&away).await;
        times.push(healed.elapsed());
        lost += watching.stop().await;
    }
    report.tell("resync after a compaction, p50", percentile(&times, 0.5), "ms");
    report.at_most("resync after a compaction, p99", percentile(&times, 0.99), "ms", RESYNC);
    report.at_most("the same: endpoints that were deleted although they live", lost as f64, "count", 0.0);
}

async fn store(etcd: SocketAddr) -> EtcdStore {
    EtcdStore::new(EtcdOptions::new(vec![format!("http://{etcd}")])).await.expect("options that work")
}

/// The endpoints that the gateway shows as ready.
fn shown(gateway: &Server, services: usize) -> BTreeSet<EndpointId> {
    let views = (0..services).filter_map(|number| gateway.view(&ServiceName::new("shop", format!("service-{number}"))));
    let ready = |view: Arc<ServiceView>| -> Vec<EndpointId> {
        let ready = view.endpoints.iter().filter(|endpoint| endpoint.health == Health::Ready);
        ready.map(|endpoint| endpoint.id.clone()).collect()
    };
    views.flat_map(ready).collect()
}

/// Looks all the time whether a gateway goes on showing some endpoints.
struct Watching {
    ended: Arc<AtomicBool>,
    looking: JoinHandle<usize>,
}

impl Watching {
    fn start(gateway: &Arc<Server>, services: usize, staying: BTreeSet<EndpointId>) -> Self {
        let (gateway, ended) = (Arc::clone(gateway), Arc::<AtomicBool>::default());
        let until = Arc::clone(&ended);
        let looking = tokio::spawn(async move {
            let mut missing = BTreeSet::new();
            while !until.load(Ordering::Relaxed) {
                missing.extend(staying.difference(&shown(&gateway, services)).cloned());
                sleep(Duration::from_millis(5)).await;
            }
            missing.len()
        });
        Self { ended, looking }
    }

    /// How many were not shown at some time.
    async fn stop(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        self.looking.await.expect("it only looks")
    }
}

fn etcdctl(etcd: SocketAddr, arguments: &[&str]) -> String {
    let program = required("etcdctl", "etcd-client");
    let mut command = Command::new(program);
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://{etcd}")).args(arguments);
    let output = command.output().expect("etcdctl runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How often anything was written so far.
fn revision(etcd: SocketAddr) -> i64 {
    let status = etcdctl(etcd, &["endpoint", "status", "--write-out=json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status[0]["Status"]["header"]["revision"].as_i64().expect("a revision")
}

/// Nobody learns any more what was written so far, only what there is.
fn compact(etcd: SocketAddr) {
    etcdctl(etcd, &["compact", &revision(etcd).to_string()]);
}
