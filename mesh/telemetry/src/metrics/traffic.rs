//! Requests: how many, how fast, from where to where, and how they ended.
//!
//! A [`Route`] holds the handles of one pair of places, so that a request that ends well costs two atomic additions and one
//! histogram. Workers find their routes in a [`RouteCache`] of their own.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use eastway_core::Reason;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{AttemptKind, AttemptResult, Code, Direction, Party, Peers};
use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[REQUESTS, DURATION, IN_FLIGHT, ATTEMPTS, SENT, RECEIVED];

const REQUESTS: Described = Described {
    name: "eastway_requests_total",
    kind: "counter",
    help: "Requests that ended, by the class of the answer (`none` if there was no whole one), the reason if they were \
           refused, failed, cancelled or broke off (`docs/reasons.md`, else `none`), and the failover level: 0 is the \
           caller's own zone, `none` is no place at all",
    labels: &[
        "direction",
        "source_service",
        "source_cluster",
        "source_zone",
        "destination_service",
        "destination_cluster",
        "destination_zone",
        "code",
        "reason",
        "failover_level",
    ],
};
const DURATION: Described = Described {
    name: "eastway_request_duration_seconds",
    kind: "histogram",
    help: "Time from the request's head to the end of its answer or of its stream, over all attempts",
    labels: &super::labels::PEER_LABELS,
};
const IN_FLIGHT: Described = Described {
    name: "eastway_requests_in_flight",
    kind: "gauge",
    help: "Requests and streams that have not ended yet",
    labels: &super::labels::PEER_LABELS,
};
const ATTEMPTS: Described = Described {
    name: "eastway_attempts_total",
    kind: "counter",
    help: "Attempts that ended with their answer, or with the opening of their stream: `first`, `retry`, or `probe` of \
           something ejected, each with `success`, `failure` or `cancelled`, by the place that was tried",
    labels: &[
        "direction",
        "source_service",
        "source_cluster",
        "source_zone",
        "destination_service",
        "destination_cluster",
        "destination_zone",
        "attempt",
        "result",
    ],
};

const SENT: Described = Described {
    name: "eastway_stream_sent_bytes_total",
    kind: "counter",
    help: "Bytes of opaque streams (CONNECT, upgrades) towards the destination, counted while they are open",
    labels: &super::labels::PEER_LABELS,
};
const RECEIVED: Described = Described {
    name: "eastway_stream_received_bytes_total",
    kind: "counter",
    help: "Bytes of opaque streams (CONNECT, upgrades) from the destination, counted while they are open",
    labels: &super::labels::PEER_LABELS,
};

/// Upper bounds of the histogram, in seconds: from a call within a host to the longest default time limit.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// Failover levels with a value of their own; beyond, they share the last, and one stands for none.
const LEVELS: [&str; 9] = ["0", "1", "2", "3", "4", "5", "6", "7+", "none"];

const CODES: usize = Code::ALL.len();
const RESULTS: usize = AttemptResult::ALL.len();

/// Makes routes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrafficMetrics(Arc<Table>);

#[derive(Debug)]
struct Table {
    families: Arc<Families>,
    routes: Mutex<HashMap<Peers, Arc<Route>>>,
    limit: usize,
}

#[derive(Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    duration: Family<Peers, Histogram, fn() -> Histogram>,
    in_flight: Family<Peers, Gauge>,
    attempts: Family<AttemptLabels, Counter>,
    sent: Family<Peers, Counter>,
    received: Family<Peers, Counter>,
}

impl TrafficMetrics {
    /// Registers the metrics. Beyond `limit` pairs of places, further ones are counted together as `_other`.
    pub fn new(metrics: &Metrics, limit: usize) -> Self {
        let duration: fn() -> Histogram = || Histogram::new(BUCKETS);
        let families = Families {
            requests: metrics.register(&REQUESTS, Family::default()),
            duration: metrics.register(&DURATION, Family::new_with_constructor(duration)),
            in_flight: metrics.register(&IN_FLIGHT, Family::default()),
            attempts: metrics.register(&ATTEMPTS, Family::default()),
            sent: metrics.register(&SENT, Family::default()),
            received: metrics.register(&RECEIVED, Family::default()),
        };
        Self(Arc::new(Table { families: Arc::new(families), routes: Mutex::default(), limit }))
    }

    /// The handles for one pair of places. Takes a lock: keep the route, or use a [`RouteCache`].
    pub fn route(&self, direction: Direction, source: &Party, destination: &Party) -> Arc<Route> {
        let mut peers = Peers { direction, source: source.clone(), destination: destination.clone() };
        let mut routes = self.0.routes.lock();
        if routes.len() >= self.0.limit && !routes.contains_key(&peers) {
            peers = Peers { direction, source: Party::other(), destination: Party::other() };
        }
        let new = || Arc::new(Route::new(peers.clone(), Arc::clone(&self.0.families)));
        Arc::clone(routes.entry(peers.clone()).or_insert_with(new))
    }

    /// A cache for one worker.
    pub fn cache(&self) -> RouteCache {
        RouteCache { metrics: self.clone(), found: HashMap::default() }
    }
}

/// The handles for the requests between two places.
pub struct Route {
    peers: Peers,
    families: Arc<Families>,
    duration: Histogram,
    in_flight: Gauge,
    /// Requests without a reason, by level and code: made on first use, because most never occur.
    plain: [[OnceLock<Counter>; CODES]; LEVELS.len()],
    attempts: [[OnceLock<Counter>; RESULTS]; AttemptKind::ALL.len()],
}

impl Route {
    fn new(peers: Peers, families: Arc<Families>) -> Self {
        Self {
            duration: families.duration.get_or_create_owned(&peers),
            in_flight: families.in_flight.get_or_create_owned(&peers),
            plain: Default::default(),
            attempts: Default::default(),
            peers,
            families,
        }
    }

    /// A request begins: it is in flight until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(Arc::clone(self))
    }

    /// A request ended after `latency`. `level` is the failover level of the place that answered, or was tried last.
    pub fn finish(&self, code: Code, reason: Option<Reason>, level: Option<usize>, latency: Duration) {
        let level = level.map_or(LEVELS.len() - 1, |level| level.min(LEVELS.len() - 2));
        let labels = || RequestLabels { peers: self.peers.clone(), code, reason, level };
        match reason {
            None => self.plain[level][code as usize]
                .get_or_init(|| self.families.requests.get_or_create_owned(&labels()))
                .inc(),
            Some(_) => self.families.requests.get_or_create_owned(&labels()).inc(),
        };
        self.duration.observe(latency.as_secs_f64());
    }

    /// An attempt at this route's destination ended.
    pub fn attempt(&self, kind: AttemptKind, result: AttemptResult) {
        let labels = || AttemptLabels { peers: self.peers.clone(), kind, result };
        self.attempts[kind as usize][result as usize]
            .get_or_init(|| self.families.attempts.get_or_create_owned(&labels()))
            .inc();
    }

    /// Bytes of an open stream passed: towards the destination, and from it.
    pub fn streamed(&self, sent: u64, received: u64) {
        self.families.sent.get_or_create(&self.peers).inc_by(sent);
        self.families.received.get_or_create(&self.peers).inc_by(received);
    }

    fn is(&self, direction: Direction, source: &Party, destination: &Party) -> bool {
        self.peers.direction == direction && self.peers.destination == *destination && self.peers.source == *source
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.peers).finish()
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Route>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// The routes that one worker uses: no lock and no allocation for one that it used before.
#[derive(Debug)]
pub struct RouteCache {
    metrics: TrafficMetrics,
    /// By the hash of the places; those few that share a hash stand in line.
    found: HashMap<u64, Vec<Arc<Route>>, BuildHasherDefault<Ready>>,
}

impl RouteCache {
    /// The handles for one pair of places.
    pub fn route(&mut self, direction: Direction, source: &Party, destination: &Party) -> Arc<Route> {
        let hash = fold(fold(direction as u64, source), destination);
        let known = self.found.get(&hash).and_then(|line| line.iter().find(|r| r.is(direction, source, destination)));
        if let Some(route) = known {
            return Arc::clone(route);
        }
        let route = self.metrics.route(direction, source, destination);
        // What is counted together would never be found again, and must not pile up.
        if route.is(direction, source, destination) {
            self.found.entry(hash).or_default().push(Arc::clone(&route));
        }
        route
    }
}

/// Mixes the names of a party into a hash (FNV-1a): short names, and nobody outside chooses them.
fn fold(seed: u64, party: &Party) -> u64 {
    let service = party.service.as_ref().map(|name| [&name.namespace, &name.service]);
    let zone = party.zone.as_ref().map(|zone| [&zone.cluster, &zone.zone]);
    let names = [service, zone].into_iter().flatten().flatten();
    names.fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, name| {
        // The byte 0xff occurs in no name and keeps neighbours apart.
        let bytes = name.bytes().chain([0xff]);
        bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    })
}

/// The hasher for keys that are hashes already.
#[derive(Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for keys of type u64; any mixing is correct.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RequestLabels {
    peers: Peers,
    code: Code,
    reason: Option<Reason>,
    level: usize,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.peers.encode(encoder)?;
        ("code", self.code.as_str()).encode(encoder.encode_label())?;
        ("reason", self.reason.map_or("none", Reason::code)).encode(encoder.encode_label())?;
        ("failover_level", LEVELS[self.level]).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AttemptLabels {
    peers: Peers,
    kind: AttemptKind,
    result: AttemptResult,
}

impl EncodeLabelSet for AttemptLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.peers.encode(encoder)?;
        ("attempt", self.kind.as_str()).encode(encoder.encode_label())?;
        ("result", self.result.as_str()).encode(encoder.encode_label())
    }
}
