//! A pick allocates nothing, and takes no lock: checked with a counting allocator, and from threads at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eastway_allocations::so_far;
use eastway_balance::{Endpoint, Outcome, Pick, Policy, Service, Tried};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::{
    EndpointView, MeshView, PathState, PeerView, RemoteZone, ServiceSpec, ServiceView, Staleness, ZoneSummary,
};
use eastway_core::{EndpointId, Health, Locality, Reason, ServiceName, Timestamp};

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
            zone: if i.is_multiple_of(3) { "b" } else { "a" }.into(),
            address: ([10, 0, (i >> 8) as u8, i as u8], 15_008).into(),
            weight: (1 + i % 3) as f64,
            health: Health::Ready,
            incarnation: 1,
            capacity: 0,
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

fn service(endpoints: usize) -> Service {
    let (mesh, view) = views(endpoints);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    service
}

#[test]
fn picks_and_their_ends_allocate_nothing() {
    let service = service(1_000);
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Timestamp::from_millis(1);
    let mut tried = Tried::new();
    let first = service.pick(&mut rng, now, &tried, None, true).expect("a pick");
    tried.push_endpoint(first.endpoint().expect("local"));
    let mut attempt = |tried: &Tried, cluster| {
        let pick = service.pick(&mut rng, now, tried, cluster, true).expect("a pick");
        service.finish(&pick, Outcome::success(Duration::from_millis(1)), now);
    };
    // The first use of the atomic pointer by a thread registers the thread, the first of a cluster makes its table.
    attempt(&Tried::new(), None);
    attempt(&Tried::new(), Some("us-east"));
    let before = so_far();
    for _ in 0..10_000 {
        attempt(&Tried::new(), None);
        attempt(&tried, None);
        attempt(&Tried::new(), Some("us-east"));
    }
    assert_eq!(so_far() - before, 0);
}

/// Picks a thousand times with `pick`, and drops them; returns how often memory was asked for after the first.
fn allocations_of(mut pick: impl FnMut(u64) -> Option<Pick>) -> u64 {
    drop(pick(0).expect("a pick"));
    let before = so_far();
    for step in 1..1_000 {
        drop(pick(step).expect("a pick"));
    }
    so_far() - before
}

/// The slow ways: what is degraded, half-open or tried before.
#[test]
fn slow_ways_of_picking_allocate_nothing_either() {
    let (mesh, mut view) = views(60);
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let mut rng = fastrand::Rng::with_seed(3);
    let (fresh, mut tried) = (Tried::new(), Tried::new());
    let at = Timestamp::from_millis;

    let first = service.pick(&mut rng, at(1), &fresh, None, true).expect("a pick");
    tried.push_endpoint(first.endpoint().expect("local"));
    assert_eq!(allocations_of(|_| service.pick(&mut rng, at(1), &tried, None, true).ok()), 0, "after an attempt");

    // Refused, and two seconds later half-open: probes are due every 20 ms.
    service.finish(&first, Outcome::down(Reason::ConnectFailed), at(1));
    drop(first);
    service.tick(at(3_000));
    let mut probes = 0;
    let probing = allocations_of(|step| {
        let pick = service.pick(&mut rng, at(3_000 + step * 20), &fresh, None, true).ok()?;
        probes += u32::from(pick.probe);
        Some(pick)
    });
    assert!(probing == 0 && probes > 900, "{probing} allocations in {probes} probes");

    view.endpoints.iter_mut().for_each(|e| Arc::make_mut(e).health = Health::Draining);
    service.update(&mesh, &view, at(30_000));
    assert_eq!(allocations_of(|_| service.pick(&mut rng, at(30_000), &fresh, None, false).ok()), 0, "degraded");
}

/// A retry that leaves a locality divides the traffic anew: some lists of the length of the localities, whatever the
/// endpoints are.
#[test]
fn leaving_a_locality_allocates_little() {
    for endpoints in [60, 6_000] {
        let service = service(endpoints);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut tried = Tried::new();
        tried.push_locality(&"us-east/a".parse().expect("a zone"));
        let allocated = allocations_of(|_| service.pick(&mut rng, Timestamp::from_millis(1), &tried, None, true).ok());
        assert!(allocated <= 50 * 1_000, "{allocated} in a thousand picks of {endpoints} endpoints");
    }
}

#[test]
fn choosing_among_sessions_allocates_nothing() {
    let (mut mesh, mut view) = views(0);
    let cluster = ClusterMeta { name: "eu-west".to_owned(), region: "eu".to_owned(), ..mesh.cluster.clone() };
    let (path, staleness) = (PathState::Up, Staleness::Fresh);
    mesh.peers.push(PeerView { cluster, trust_bundle: Vec::new(), path, min_rtt: None, staleness });
    let summary = ZoneSummary { total: 3, ready: 3, ..ZoneSummary::default() };
    view.remote.push(RemoteZone { zone: "eu-west/a".parse().expect("a zone"), accounts: Default::default(), summary });
    let service = Service::new(view.name.clone(), Locality::new("us-east", "us", "a"), Policy::default());
    service.update(&mesh, &view, Timestamp::ZERO);
    let (mut rng, now) = (fastrand::Rng::with_seed(3), Timestamp::from_millis(1));
    let locality = service.pick(&mut rng, now, &Tried::new(), None, true).expect("the region").locality.clone();
    let sessions: Vec<Arc<Endpoint>> = ["p-1", "p-2"].map(|id| service.session(&locality, &EndpointId::new(id))).into();
    let mut tried = Tried::new();
    tried.push_endpoint(&sessions[0]);
    let allocated = allocations_of(|step| {
        let tried = if step % 2 == 0 { &tried } else { &Tried::new() };
        let mut pick = service.pick(&mut rng, now, tried, None, true).ok()?;
        let index = service.choose(&mut rng, now, &sessions, tried, true)?;
        assert!(pick.bind(Arc::clone(&sessions[index])));
        service.finish(&pick, Outcome::success(Duration::from_millis(1)), now);
        Some(pick)
    });
    assert_eq!(allocated, 0);
}

#[test]
fn workers_and_the_control_thread_never_lose_count() {
    let service = Arc::new(service(50));
    let (mesh, mut view) = views(50);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|seed| {
                let service = &service;
                scope.spawn(move || work(service, seed))
            })
            .collect();
        scope.spawn(|| {
            for step in 1.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let now = Timestamp::from_millis(step);
                let endpoint = Arc::make_mut(&mut view.endpoints[step as usize % 50]);
                endpoint.health = if step % 3 == 0 { Health::Unready } else { Health::Ready };
                endpoint.incarnation += u64::from(step % 7 == 0);
                service.update(&mesh, &view, now);
                service.tick(now);
            }
        });
        let ends: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    let explanation = service.explain(Timestamp::from_millis(1));
    let in_flight: u32 = explanation
        .priorities
        .iter()
        .flat_map(|t| &t.localities)
        .flat_map(|l| &l.endpoints)
        .map(|e| e.active_requests)
        .sum();
    assert_eq!(in_flight, 0);
}

/// Picks that end in every way.
fn work(service: &Service, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut held = Vec::new();
    for step in 0..30_000u64 {
        let now = Timestamp::from_millis(step / 10);
        let idempotent = rng.bool();
        let Ok(pick) = service.pick(&mut rng, now, &Tried::new(), None, idempotent) else { continue };
        match rng.u32(..10) {
            0..=5 => service.finish(&pick, Outcome::success(Duration::from_micros(50)), now),
            6 => service.finish(&pick, Outcome::status(500, Duration::from_micros(50)), now),
            7 => service.finish(&pick, Outcome::down(Reason::ConnectFailed), now),
            8 => held.push(pick),
            _ => drop(pick),
        }
        if held.len() > 16 {
            held.clear();
        }
    }
}
