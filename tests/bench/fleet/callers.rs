//! Callers and what happens around them: who knows of a change when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastway_client::{Discovery, DiscoveryOptions, Registrar, Sink};
use eastway_core::view::{MeshView, ServiceView};
use eastway_core::{EndpointId, Health, LoadReport, ServiceName};
use eastway_identity::{Ca, Identity};
use tokio::sync::watch;

use super::crowd::{account, link, register, workload};

/// Services whose endpoints change all the time, and how many endpoints each has; every one once a second.
const STORM: (usize, usize) = (100, 10);

/// What one caller knows of payments.
#[derive(Debug, Default)]
struct Known(watch::Sender<Option<Arc<ServiceView>>>);

impl Sink for Known {
    fn mesh(&self, _: &Arc<MeshView>) {}

    fn service(&self, service: &Arc<ServiceView>) {
        self.0.send_replace(Some(Arc::clone(service)));
    }

    fn loads(&self, _: &ServiceName, _: &[(EndpointId, LoadReport)]) {}

    fn unknown(&self, _: &ServiceName) {}
}

/// A caller of payments.
#[derive(Clone)]
pub(super) struct Caller {
    known: Arc<Known>,
    _discovery: Arc<Discovery>,
}

impl Caller {
    /// One that follows the gateway, and knows of it what that does.
    pub(super) async fn start(cluster: &str, identity: &Arc<Identity>, gateway: SocketAddr) -> Self {
        let known = Arc::<Known>::default();
        let sink = Arc::clone(&known) as Arc<dyn Sink>;
        let (discovery, run) = Discovery::new(link(identity, gateway), DiscoveryOptions::new(cluster), sink);
        tokio::spawn(run);
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = discovery.resolve(&payments()).await {
            assert!(Instant::now() < deadline, "{error}");
        }
        Self { known, _discovery: discovery }
    }
}

fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

/// Waits until every caller sees it so.
pub(super) async fn all(callers: &[Caller], so: impl Fn(&ServiceView) -> bool) {
    for caller in callers {
        let mut known = caller.known.0.subscribe();
        known.wait_for(|view| view.as_ref().is_some_and(|view| so(view))).await.expect("it follows");
    }
}

/// How many endpoints are ready, wherever they are.
pub(super) fn ready(view: &ServiceView) -> usize {
    let here = view.endpoints.iter().filter(|end| end.health == Health::Ready).count();
    here + view.remote.iter().map(|zone| zone.summary.ready as usize).sum::<usize>()
}

/// How long each of so many changes takes until all `callers` know it.
pub(super) async fn flips(workloads: &[Arc<Registrar>], callers: &[Caller], rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let (workload, down) =
            (&workloads[round * 2 % workloads.len()], (round * 2 / workloads.len()).is_multiple_of(2));
        let before = ready(callers[0].known.0.borrow().as_ref().expect("known"));
        let began = Instant::now();
        workload.set_health(if down { Health::Unready } else { Health::Ready }, "");
        let after = if down { before - 1 } else { before + 1 };
        all(callers, |view| ready(view) == after).await;
        times.push(began.elapsed());
    }
    times
}

/// Workloads of services beside it that change their health once a second, each at its own time.
pub(super) async fn storm(ca: &Ca, gateway: SocketAddr, address: SocketAddr, whole: bool) -> Vec<Arc<Registrar>> {
    let (services, endpoints) = if whole { STORM } else { (1, 1) };
    let mut all = Vec::new();
    for service in 0..services {
        let name = format!("storm-{service}");
        let identity = account(ca, &name);
        for endpoint in 0..endpoints {
            all.push(register(&identity, gateway, workload(&name, endpoint, address)).await);
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
