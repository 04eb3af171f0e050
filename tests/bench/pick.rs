//! How long a pick takes, and what changes under it: `cargo bench -p eastway-balance`.
//!
//! Prints one line each, in ns; picks are timed in batches of 64, because a clock costs about as much as a pick.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastway_balance::{Outcome, Policy, Service, Tried};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::{EndpointView, MeshView, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, Health, Locality, Reason, ServiceName, Timestamp};

const ENDPOINTS: usize = 10_000;
const BATCH: usize = 64;

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let batches = if std::env::args().any(|arg| arg == "--bench") { 20_000 } else { 10 };
    let (mesh, view) = views(ENDPOINTS);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Timestamp::from_millis(1);

    let tried = Tried::new();
    print("pick", &picks(&service, &mut rng, batches));
    print(
        "pick and drop",
        &timed(batches, BATCH, || {
            black_box(service.pick(&mut rng, now, &tried, None, true)).ok();
        }),
    );
    print(
        "pick and finish",
        &timed(batches, BATCH, || {
            let pick = service.pick(&mut rng, now, &tried, None, true).expect("a pick");
            service.finish(&pick, Outcome::success(Duration::from_millis(5)), now);
        }),
    );
    let chain = Chain::new(1 << 22);
    let mut at = 0;
    print(
        "two dependent cache misses",
        &timed(batches, BATCH, || {
            at = chain.next(chain.next(at));
            black_box(at);
        }),
    );
    rebuilds(&service, &mesh, view, batches.min(200));
    flips(batches.min(2_000));
}

/// Picks alone: what they hold is given back outside of the time.
fn picks(service: &Service, rng: &mut fastrand::Rng, batches: usize) -> Vec<u64> {
    let mut held = Vec::with_capacity(BATCH);
    let (tried, now) = (Tried::new(), Timestamp::from_millis(1));
    let mut times: Vec<u64> = (0..batches)
        .map(|_| {
            held.clear();
            let start = Instant::now();
            held.extend((0..BATCH).map(|_| service.pick(rng, now, &tried, None, true)));
            start.elapsed().as_nanos() as u64 / BATCH as u64
        })
        .collect();
    times.sort_unstable();
    times
}

fn rebuilds(service: &Service, mesh: &MeshView, mut view: ServiceView, rounds: usize) {
    let mut round = 0;
    let times = timed(rounds, 1, || {
        round += 1;
        let index = round * 37 % ENDPOINTS;
        Arc::make_mut(&mut view.endpoints[index]).weight = 2.0;
        service.update(mesh, &view, Timestamp::from_millis(round as u64));
    });
    print("rebuild of 10,000 endpoints", &times);
    let mut millis = 1_000_000;
    let times = timed(rounds, 1, || {
        millis += 100;
        service.tick(Timestamp::from_millis(millis));
    });
    print("tick of 10,000 endpoints", &times);
}

/// A connection is refused: from there to the new lane table.
fn flips(rounds: usize) {
    let (mesh, view) = views(ENDPOINTS);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let mut rng = fastrand::Rng::with_seed(2);
    let now = Timestamp::from_millis(1);
    let mut times: Vec<u64> = (0..rounds)
        .map(|_| {
            let pick = service.pick(&mut rng, now, &Tried::new(), None, false).expect("a pick");
            let start = Instant::now();
            service.finish(&pick, Outcome::down(Reason::ConnectFailed), now);
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    print("lane table after a refused connection", &times);
}

/// Times `rounds` batches; returns the sorted ns per call.
fn timed(rounds: usize, batch: usize, mut call: impl FnMut()) -> Vec<u64> {
    (0..batch.min(rounds)).for_each(|_| call());
    let mut times: Vec<u64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..batch).for_each(|_| call());
            start.elapsed().as_nanos() as u64 / batch as u64
        })
        .collect();
    times.sort_unstable();
    times
}

fn print(name: &str, sorted: &[u64]) {
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    println!("{name:<40} p50 {:>9} ns   p99 {:>9} ns", at(0.5), at(0.99));
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
            labels: BTreeMap::new(),
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
