//! How long a pick takes, and what changes under it: `cargo bench -p eastway-simulation --bench pick`.
//!
//! Picks are timed in batches of 64, because a clock costs about as much as a pick: p50 and p99 are those of the batches'
//! means. Another bench may include this file for its [`figures`].

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use eastway_balance::{Outcome, Policy, Service, Tried};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::{EndpointView, MeshView, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, Health, Locality, Reason, ServiceName, Timestamp};
use tower::Service as _;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequests};

const ENDPOINTS: usize = 10_000;
const BATCH: usize = 64;

/// One measured value.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Of what.
    pub(crate) name: String,
    /// In [`Figure::unit`].
    pub(crate) value: f64,
    /// Of the value and the goal.
    pub(crate) unit: &'static str,
    /// The most that it should be; `None` for what is only compared with.
    pub(crate) goal: Option<f64>,
}

impl Figure {
    /// Whether it is as good as it should be.
    pub(crate) fn holds(&self) -> bool {
        self.goal.is_none_or(|goal| self.value <= goal)
    }
}

// Where another bench includes this file, its own is called.
#[allow(dead_code)]
fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let batches = if std::env::args().any(|arg| arg == "--bench") { BATCHES } else { 10 };
    println!("{:<48} {:>12}      {:>12}", "", "measured", "goal");
    for figure in figures(batches) {
        let goal = figure.goal.map_or_else(String::new, |goal| format!("{goal:.1}"));
        let verdict = if figure.holds() { "" } else { "  MISSED" };
        println!("{:<48} {:>12.1} {:<4} {goal:>12}{verdict}", figure.name, figure.value, figure.unit);
    }
}

/// Batches of picks that make a steady p99.
pub(crate) const BATCHES: usize = 20_000;

/// Measures everything, with so many batches of picks.
pub(crate) fn figures(batches: usize) -> Vec<Figure> {
    let (mesh, view) = views(ENDPOINTS);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Timestamp::from_millis(1);
    let tried = Tried::new();

    let mut figures = quantiles("pick of 10,000", &picks(&service, &mut rng, batches), NANOS, Some((50.0, 150.0)));
    let dropped = timed(batches, BATCH, || {
        black_box(service.pick(&mut rng, now, &tried, None, true).is_ok());
    });
    figures.extend(quantiles("pick and drop", &dropped, NANOS, None));
    let finished = timed(batches, BATCH, || {
        let pick = service.pick(&mut rng, now, &tried, None, true).expect("a pick");
        service.finish(&pick, Outcome::success(Duration::from_millis(5)), now);
    });
    figures.extend(quantiles("pick and finish", &finished, NANOS, None));
    figures.extend(quantiles("two dependent cache misses", &cache_misses(batches), NANOS, None));
    figures.extend(quantiles("tower's p2c, ready and call", &tower_p2c(batches), NANOS, None));
    figures.extend(rebuilds(&service, &mesh, view, batches.min(200)));
    figures.extend(quantiles(
        "locality table after a health flip",
        &flips(batches.min(2_000)),
        MICROS,
        Some((10.0, f64::MAX)),
    ));
    figures
}

/// Picks alone: what they hold is given back outside of the time.
fn picks(service: &Service, rng: &mut fastrand::Rng, batches: usize) -> Vec<f64> {
    let mut held = Vec::with_capacity(BATCH);
    let (tried, now) = (Tried::new(), Timestamp::from_millis(1));
    let times = (0..batches).map(|_| {
        held.clear();
        let start = Instant::now();
        held.extend((0..BATCH).map(|_| service.pick(rng, now, &tried, None, true)));
        start.elapsed().as_nanos() as f64 / BATCH as f64
    });
    sorted(times.collect())
}

fn cache_misses(batches: usize) -> Vec<f64> {
    let chain = Chain::new(1 << 22);
    let mut at = 0;
    timed(batches, BATCH, || {
        at = chain.next(chain.next(at));
        black_box(at);
    })
}

/// The same choice by tower's balancer, which counts requests in flight, over services that do nothing: each call makes it
/// ready and ends at once.
fn tower_p2c(batches: usize) -> Vec<f64> {
    let nothing = |_: ()| -> Ready<Result<(), std::convert::Infallible>> { ready(Ok(())) };
    let services =
        (0..ENDPOINTS).map(|_| PendingRequests::new(tower::service_fn(nothing), CompleteOnResponse::default()));
    let mut balance = Balance::<_, ()>::new(ServiceList::new(services.collect::<Vec<_>>()));
    let mut context = Context::from_waker(Waker::noop());
    timed(batches, BATCH, || {
        let is_ready = balance.poll_ready(&mut context);
        assert!(matches!(is_ready, Poll::Ready(Ok(()))), "all are ready at once");
        let answer = pin!(balance.call(())).poll(&mut context);
        assert!(answer.is_ready());
    })
}

fn rebuilds(service: &Service, mesh: &MeshView, mut view: ServiceView, rounds: usize) -> Vec<Figure> {
    let mut round = 0;
    let rebuilt = timed(rounds, 1, || {
        round += 1;
        let index = round * 37 % ENDPOINTS;
        Arc::make_mut(&mut view.endpoints[index]).weight = 2.0;
        service.update(mesh, &view, Timestamp::from_millis(round as u64));
    });
    let mut millis = 1_000_000;
    let ticked = timed(rounds, 1, || {
        millis += 100;
        service.tick(Timestamp::from_millis(millis));
    });
    let mut figures = quantiles("rebuild of 10,000 endpoints", &rebuilt, MICROS, Some((2_000.0, f64::MAX)));
    figures.extend(quantiles("tick of 10,000 endpoints", &ticked, MICROS, None));
    figures
}

/// A connection is refused: from there to the new locality table.
fn flips(rounds: usize) -> Vec<f64> {
    let (mesh, view) = views(ENDPOINTS);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let mut rng = fastrand::Rng::with_seed(2);
    let now = Timestamp::from_millis(1);
    let times = (0..rounds).map(|_| {
        let pick = service.pick(&mut rng, now, &Tried::new(), None, false).expect("a pick");
        let start = Instant::now();
        service.finish(&pick, Outcome::down(Reason::ConnectFailed), now);
        start.elapsed().as_nanos() as f64
    });
    sorted(times.collect())
}

/// Times `rounds` batches; returns the sorted ns per call.
fn timed(rounds: usize, batch: usize, mut call: impl FnMut()) -> Vec<f64> {
    (0..batch.min(rounds)).for_each(|_| call());
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        (0..batch).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / batch as f64
    });
    sorted(times.collect())
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// A unit, and how many ns it has.
type Unit = (&'static str, f64);
const NANOS: Unit = ("ns", 1.0);
const MICROS: Unit = ("µs", 1_000.0);

/// p50 and p99 of sorted times; a goal that is no bound is left out.
fn quantiles(name: &str, sorted: &[f64], (unit, size): Unit, goals: Option<(f64, f64)>) -> Vec<Figure> {
    let figure = |quantile: &str, part: f64, goal: Option<f64>| Figure {
        name: format!("{name}, {quantile}"),
        value: sorted[((sorted.len() - 1) as f64 * part) as usize] / size,
        unit,
        goal: goal.filter(|goal| *goal < f64::MAX),
    };
    vec![figure("p50", 0.5, goals.map(|g| g.0)), figure("p99", 0.99, goals.map(|g| g.1))]
}

/// Indices that lead to one another in random order, over more memory than caches hold.
struct Chain(Vec<u32>);

impl Chain {
    fn new(n: usize) -> Self {
        let mut order: Vec<u32> = (0..n as u32).collect();
        fastrand::Rng::with_seed(3).shuffle(&mut order);
        let mut next = vec![0; n];
        for pair in order.windows(2) {
            next[pair[0] as usize] = pair[1];
        }
        Self(next)
    }

    fn next(&self, at: u32) -> u32 {
        self.0[at as usize]
    }
}

fn views(endpoints: usize) -> (MeshView, ServiceView) {
    let cluster = ClusterMeta {
        name: "us-east".to_owned(),
        uid: "u".to_owned(),
        region: "us".to_owned(),
        trust_domain: "us-east.mesh.internal".to_owned(),
        zones: BTreeMap::new(),
    };
    let endpoint = |i: usize| {
        Arc::new(EndpointView {
            id: EndpointId::new(format!("payments-{i:05}")),
            zone: if i.is_multiple_of(10) { "b" } else { "a" }.into(),
            address: ([10, 0, (i >> 8) as u8, i as u8], 15_008).into(),
            weight: 1.0,
            health: Health::Ready,
            incarnation: 1,
            capacity: 100,
            labels: Default::default(),
            load: None,
        })
    };
    let view = ServiceView {
        name: ServiceName::new("shop", "payments"),
        spec: ServiceSpec::default(),
        endpoints: (0..endpoints).map(endpoint).collect(),
        remote: Vec::new(),
        returned: BTreeMap::new(),
    };
    (MeshView { cluster, peers: Vec::new() }, view)
}
