//! What a large mesh costs one gateway: `cargo bench -p eastway-registry --bench scale`.
//!
//! 100,000 endpoints in 10,000 services over 10 clusters, in two shapes: each service in one cluster, and, to compare, each in all
//! of them. Measured are the bytes that the catalogue of one gateway keeps, and the share of a core that a minute takes in which nothing
//! changes: each sidecar of the own cluster gives its sign of life every second and its load every five, each peer's gateway
//! its sign of life, and time passes. (What arrives on the network is not in it.) The
//! goals are for the first shape; exits with 1 if one of them is missed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use eastway_core::resource::{ClusterMeta, Peer, Service};
use eastway_core::view::ZoneSummary;
use eastway_core::{EndpointId, Health, LoadReport, ServiceName, Timestamp, Version};
use eastway_registry::peers::{Beside, Exported, ZoneFacts};
use eastway_registry::{Catalogue, Fact, Options, PeerPolicy, Registration, Resources, StreamId};

/// Bytes for the view, beside those of an idle gateway.
const BYTES: f64 = 25.0 * 1024.0 * 1024.0;
/// Of one core, when nothing changes.
const CORE: f64 = 0.05;

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only counts and forwards to the system's")]
// SAFETY: every call is forwarded unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How the endpoints lie.
struct Shape {
    what: &'static str,
    /// Services of each cluster, and how many of their endpoints lie in it.
    services: usize,
    endpoints: usize,
    /// The services of all clusters are the same.
    shared: bool,
}

fn name(shape: &Shape, cluster: usize, service: usize) -> ServiceName {
    let owner = if shape.shared { 0 } else { cluster };
    ServiceName::new("shop", format!("service-{owner}-{service}"))
}

fn meta(cluster: usize) -> ClusterMeta {
    ClusterMeta {
        name: format!("cluster-{cluster}"),
        uid: format!("uid-{cluster}"),
        region: format!("region-{cluster}"),
        trust_domain: format!("cluster-{cluster}.mesh.internal"),
        zones: ["a", "b"].map(|zone| (zone.to_owned(), None)).into(),
    }
}

fn resources(shape: &Shape, clusters: usize) -> Resources {
    let peer = |cluster: usize| PeerPolicy {
        peer: Peer { gateways: vec!["192.0.2.1:15443".to_owned()], imports: vec!["*".to_owned()], ..Peer::default() },
        trust_domain: meta(cluster).trust_domain,
        trust_bundle: vec![vec![0; 800]],
    };
    let service = || Service { export: vec!["*".to_owned()], ..Service::default() };
    Resources {
        services: (0..shape.services).map(|service_at| (name(shape, 0, service_at), service())).collect(),
        peers: (1..clusters).map(|cluster| (meta(cluster).name, peer(cluster))).collect(),
        ..Resources::default()
    }
}

fn registration(shape: &Shape, service: usize, endpoint: usize) -> Registration {
    let name = name(shape, 0, service);
    Registration {
        endpoint: EndpointId::new(format!("{}-{endpoint}", name.service)),
        account: name.service.to_string(),
        service: name,
        zone: if endpoint.is_multiple_of(2) { "a" } else { "b" }.into(),
        address: ([10, 0, (service % 250) as u8, endpoint as u8], 15_008).into(),
        weight: 1.0,
        capacity: 64,
        labels: Arc::new([("version".to_owned(), "v1".to_owned())].into_iter().collect()),
        incarnation: 1_700_000_000_000_000,
        session: 1,
    }
}

fn exported(shape: &Shape, name: &ServiceName) -> Exported {
    let zones: &[&str] = if shape.endpoints > 1 { &["a", "b"] } else { &["a"] };
    let count = (shape.endpoints / zones.len()) as u32;
    let summary = ZoneSummary { total: count, ready: count, capacity: 64.0, ..ZoneSummary::default() };
    let zone = |zone: &&str| (Arc::from(*zone), ZoneFacts { summary: summary.clone(), returned: None });
    Exported {
        beside: Beside::told(Default::default()),
        ports: Service::default().ports_or_default().into(),
        accounts: [name.service.to_string()].into(),
        zones: zones.iter().map(zone).collect(),
    }
}

/// Bytes for the view, and the share of a core of a minute without change.
fn measure(shape: &Shape, clusters: usize, seconds: u64) -> (f64, f64) {
    let mut now = Timestamp::from_millis(3_600_000);
    let mut catalogue = Catalogue::new(meta(0), "gw-1", 1, Options::default());
    let before = LIVE.load(Relaxed);
    catalogue.set_resources(resources(shape, clusters), now);
    let mut streams = Vec::new();
    for service in 0..shape.services {
        for endpoint in 0..shape.endpoints {
            let stream = StreamId(streams.len() as u64);
            let registration = registration(shape, service, endpoint);
            catalogue.register(stream, registration, Health::Ready, now).expect("registered");
            streams.push(stream);
        }
    }
    for cluster in 1..clusters {
        let services = (0..shape.services).map(|service| {
            let name = name(shape, cluster, service);
            let exported = exported(shape, &name);
            (name, exported)
        });
        let snapshot = Fact::Snapshot(Version::new(1, 1), services.collect());
        catalogue.peer_fact(&meta(cluster), "gw-1", 1, snapshot, now);
    }
    let load = LoadReport { active_requests: 3, utilisation: Some(0.4), error_rate: 0.0 };
    streams.iter().for_each(|stream| catalogue.report_load(*stream, load, now));
    drop(catalogue.take_changes());
    let bytes = (LIVE.load(Relaxed) - before) as f64;
    assert_eq!(catalogue.services().count(), if shape.shared { shape.services } else { shape.services * clusters });

    let began = Instant::now();
    for tick in 0..seconds * 10 {
        now = now + Duration::from_millis(100);
        for (at, stream) in streams.iter().enumerate().filter(|(at, _)| *at as u64 % 10 == tick % 10) {
            if at as u64 / 10 % 5 == tick / 10 % 5 {
                catalogue.report_load(*stream, load, now);
            } else {
                catalogue.heard(*stream, now);
            }
        }
        if tick.is_multiple_of(10) {
            (1..clusters).for_each(|cluster| catalogue.peer_fact(&meta(cluster), "gw-1", 1, Fact::Alive, now));
        }
        catalogue.tick(now);
        assert!(catalogue.due_probes(now).is_empty(), "everybody speaks");
        drop(catalogue.take_changes());
    }
    (bytes, began.elapsed().as_secs_f64() / seconds as f64)
}

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it runs.
    let (part, seconds) = if env::args().any(|arg| arg == "--bench") { (1, 60) } else { (100, 1) };
    let shapes = [
        Shape { what: "each service in one cluster", services: 1_000 / part, endpoints: 10, shared: false },
        Shape { what: "each service in all clusters", services: 10_000 / part, endpoints: 1, shared: true },
    ];
    let mut held = true;
    for shape in shapes {
        let (bytes, core) = measure(&shape, 10, seconds);
        let (mebibytes, percent) = (bytes / 1024.0 / 1024.0, core * 100.0);
        print!("{}: {mebibytes:.1} MiB for the view, {percent:.2} % of a core when nothing changes", shape.what);
        if shape.shared {
            println!();
            continue;
        }
        let fine = bytes <= BYTES && core <= CORE;
        held &= fine;
        println!(
            " (goals {:.0} MiB, {:.0} %: {})",
            BYTES / 1024.0 / 1024.0,
            CORE * 100.0,
            if fine { "hold" } else { "MISSED" }
        );
    }
    ExitCode::from(u8::from(!held))
}
