//! How soon a grey zone is found, and how rarely a healthy one is taken for grey: the breakers alone, without queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Outcome, Policy, Service, Tried};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::{EndpointView, MeshView, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, Health, Locality, ServiceName, Timestamp};

use super::{Figure, Goal, figure};

const ENDPOINTS: usize = 10;
const SEEDS: u64 = 1_000;
const REQUESTS: u64 = 100_000_000;
/// 5 % of all traffic.
const GONE: u32 = 500;
const LATENCY: Duration = Duration::from_millis(5);

pub(super) fn figures() -> Vec<Figure> {
    let mut seen: Vec<f64> = (1..=SEEDS).map(until_found).collect();
    seen.sort_by(f64::total_cmp);
    let mean = seen.iter().sum::<f64>() / seen.len() as f64;
    let p99 = seen[seen.len() * 99 / 100];
    vec![
        figure("grey zone at 30 %: requests until 95 % left", mean, "requests", Goal::AtMost(40.0)),
        figure("grey zone at 30 %: the same, p99 of 1,000", p99, "requests", Goal::AtMost(100.0)),
        figure("locality trips at 1 % errors in 1e8 requests", false_trips(), "trips", Goal::Exactly(0.0)),
    ]
}

/// A caller in zone a, with equal zones a and b.
struct World {
    service: Service,
    rng: fastrand::Rng,
    now: Timestamp,
}

impl World {
    fn new(seed: u64) -> Self {
        let cluster = ClusterMeta {
            name: "us-east".to_owned(),
            uid: "us-east".to_owned(),
            region: "us".to_owned(),
            trust_domain: "us-east.mesh.internal".to_owned(),
            zones: BTreeMap::new(),
        };
        let endpoint = |i: usize| EndpointView {
            id: EndpointId::new(format!("{i:03}")),
            zone: if i < ENDPOINTS { "a" } else { "b" }.into(),
            address: ([127, 0, 0, i as u8], 80).into(),
            weight: 1.0,
            health: Health::Ready,
            incarnation: 1,
            capacity: 0,
            labels: Default::default(),
            load: None,
        };
        let view = ServiceView {
            name: ServiceName::new("shop", "payments"),
            spec: ServiceSpec::default(),
            endpoints: (0..2 * ENDPOINTS).map(|i| Arc::new(endpoint(i))).collect(),
            remote: Vec::new(),
            returned: BTreeMap::new(),
        };
        let policy = Policy { seed, ..Policy::default() };
        let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), policy);
        let now = Timestamp::from_millis(1_000_000);
        service.update(&MeshView { cluster, peers: Vec::new() }, &view, now);
        Self { service, rng: fastrand::Rng::with_seed(seed), now }
    }

    /// One request; zone a fails it with a probability of `errors`. Returns whether it went there.
    fn request(&mut self, errors: f64) -> bool {
        let pick = self.service.pick(&mut self.rng, self.now, &Tried::new(), None, true).expect("all are reachable");
        let near = &*pick.locality.zone.zone == "a";
        let status = if near && self.rng.f64() < errors { 503 } else { 200 };
        self.service.finish(&pick, Outcome::status(status, LATENCY), self.now);
        near
    }

    fn share(&self) -> u32 {
        let near = |locality: &eastway_balance::LocalityEndpoints| &*locality.zone.zone == "a";
        self.service.localities().iter().find(|(locality, _)| near(locality)).map_or(0, |(_, share)| *share)
    }
}

/// Requests that the locality's breaker sees until its share is gone.
fn until_found(seed: u64) -> f64 {
    let mut world = World::new(seed);
    for _ in 0..1_000 {
        world.step(0.0);
    }
    let mut seen = 0;
    while world.share() > GONE {
        seen += u32::from(world.step(0.3));
    }
    f64::from(seen)
}

/// How often a locality trips whose endpoints fail 1 % of their requests, as all do.
fn false_trips() -> f64 {
    let mut world = World::new(1);
    let (mut trips, mut was_out) = (0u32, false);
    for _ in 0..REQUESTS / 100 {
        for _ in 0..100 {
            world.request(0.01);
        }
        world.now = world.now + Duration::from_millis(100);
        world.service.tick(world.now);
        let out = world.share() < 5_000;
        trips += u32::from(out && !was_out);
        was_out = out;
    }
    f64::from(trips)
}

impl World {
    /// One request every 10 ms, and a tick every tenth.
    fn step(&mut self, errors: f64) -> bool {
        self.now = self.now + Duration::from_millis(10);
        if self.now.as_millis().is_multiple_of(100) {
            self.service.tick(self.now);
        }
        self.request(errors)
    }
}
