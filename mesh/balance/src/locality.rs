//! A locality: one zone of one cluster, as picks see it, and what survives when its snapshot is replaced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::policy::Algorithm;
use eastway_core::{EndpointId, Timestamp, ZoneId};
use eastway_resilience::breaker::ProbePermit;
use eastway_resilience::window::Window;
use eastway_resilience::{Breaker, BreakerConfig};

use crate::alias::{AliasTable, uniform};
use crate::endpoint::{Endpoint, HARD};
use crate::policy::Rules;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use crate::table::HealthBand;
use crate::tried::Tried;

/// A locality of one snapshot.
#[derive(Debug)]
pub struct LocalityEndpoints {
    /// Cluster and zone.
    pub zone: ZoneId,
    /// The region of the cluster.
    pub region: Arc<str>,
    /// Its priority among those of the service, 0 for the nearest that has a locality.
    pub priority: usize,
    /// The failover level of a request that it serves: 0 in the caller's zone, 1 in its region, 2 and up beyond.
    pub level: usize,
    /// Reached through gateways: the caller chooses among its sessions.
    pub remote: bool,
    /// The accounts that may serve the service there.
    pub accounts: Arc<[String]>,
    /// Endpoints that count.
    pub(crate) total: usize,
    pub(crate) ready: Pool,
    pub(crate) degraded: Pool,
    pub(crate) state: Arc<LocalityState>,
    /// The path to its cluster, if it is remote.
    pub(crate) path: Option<Arc<CircuitBreaker>>,
    pub(crate) rules: Arc<Rules>,
}

/// What a locality remembers over snapshots.
#[derive(Debug)]
pub(crate) struct LocalityState {
    pub(crate) circuit: CircuitBreaker,
    /// The median of the endpoints' latencies in µs, as an `f32`.
    median: AtomicU32,
    /// The usual error rate elsewhere, as an `f32`.
    p0: AtomicU32,
    pub(crate) succeeded: Window<RATE_BUCKETS>,
    pub(crate) failed: Window<RATE_BUCKETS>,
    /// Whose turn it is, where endpoints serve in turn.
    turn: AtomicU32,
    /// Endpoints of a remote locality that sessions led to.
    sessions: Mutex<HashMap<EndpointId, Arc<Endpoint>>>,
}

/// Sixty seconds of error rate, and the current one.
pub(crate) const RATE_BUCKETS: usize = 61;
/// Endpoints known through sessions; beyond this, those nobody holds are forgotten.
const MAX_SESSIONS: usize = 256;

/// The breaker of a locality or a path.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    pub(crate) guard: Mutex<BreakerState>,
    pub(crate) permit: ProbePermit,
    alert: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct BreakerState {
    pub(crate) breaker: Breaker,
    /// The distinct endpoints whose failures the statistic holds, as hashes of their names.
    contributors: Vec<u64>,
}

impl LocalityEndpoints {
    /// Endpoints that count, whether they can serve or not.
    pub const fn total(&self) -> usize {
        self.total
    }
}

impl CircuitBreaker {
    pub(crate) fn new(config: &Arc<BreakerConfig>, now: Timestamp) -> Self {
        let guard = BreakerState { breaker: Breaker::new(Arc::clone(config), now), contributors: Vec::new() };
        Self { guard: Mutex::new(guard), permit: ProbePermit::default(), alert: AtomicBool::new(false) }
    }

    /// A success; takes the lock only if there is something to forget, or if `every` success counts.
    pub(crate) fn succeeded(&self, every: bool, latency: Option<Duration>, p0: f64, now: Timestamp) -> bool {
        if !every && !self.alert.load(Relaxed) {
            return false;
        }
        let mut guard = self.guard.lock();
        let wants = guard.breaker.on_success(latency, p0, now);
        if guard.breaker.statistic(now) == 0.0 {
            guard.contributors.clear();
            self.alert.store(false, Relaxed);
        }
        wants
    }

    /// A failure. `contributor` is the endpoint that failed, if it was one; `needed` distinct ones make the charge full.
    pub(crate) fn failed(&self, contributor: Option<u64>, needed: usize, p0: f64, now: Timestamp) -> bool {
        let mut guard = self.guard.lock();
        self.alert.store(true, Relaxed);
        let share = match contributor {
            None => 1.0,
            Some(hash) => {
                if guard.contributors.len() < needed && !guard.contributors.contains(&hash) {
                    guard.contributors.push(hash);
                }
                guard.contributors.len() as f64 / needed.max(1) as f64
            }
        };
        guard.breaker.on_failure(1, p0, share, now)
    }
}

impl LocalityState {
    pub(crate) fn new(config: &Arc<BreakerConfig>, now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            circuit: CircuitBreaker::new(config, now),
            median: AtomicU32::new(0),
            p0: AtomicU32::new(LEAST_P0.to_bits()),
            succeeded: Window::new(Duration::from_secs(1)),
            failed: Window::new(Duration::from_secs(1)),
            turn: AtomicU32::new(0),
            sessions: Mutex::new(HashMap::new()),
        })
    }

    pub(crate) fn p0(&self) -> f64 {
        f64::from(f32::from_bits(self.p0.load(Relaxed)))
    }

    /// Sets the usual error rate, within 1 % and 10 %.
    pub(crate) fn set_p0(&self, rate: f32) {
        self.p0.store(rate.clamp(LEAST_P0, MOST_P0).to_bits(), Relaxed);
    }

    pub(crate) fn median(&self) -> f32 {
        f32::from_bits(self.median.load(Relaxed))
    }

    pub(crate) fn set_median(&self, median: f32) {
        self.median.store(median.to_bits(), Relaxed);
    }

    /// The shared state of a remote endpoint.
    pub(crate) fn session(&self, id: &EndpointId, zone: &ZoneId, breaker: &Arc<BreakerConfig>) -> Arc<Endpoint> {
        let mut sessions = self.sessions.lock();
        if let Some(known) = sessions.get(id) {
            return Arc::clone(known);
        }
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let endpoint = Endpoint::remote(id.clone(), zone.clone(), breaker);
        if sessions.len() < MAX_SESSIONS {
            sessions.insert(id.clone(), Arc::clone(&endpoint));
        }
        endpoint
    }

    /// Calls `each` for the remote endpoints known.
    pub(crate) fn each_session(&self, each: impl FnMut(&Arc<Endpoint>)) {
        self.sessions.lock().values().for_each(each);
    }

    /// The remote endpoints known.
    pub(crate) fn known(&self) -> Vec<Arc<Endpoint>> {
        let mut known: Vec<_> = self.sessions.lock().values().cloned().collect();
        known.sort_by(|a, b| a.id.cmp(&b.id));
        known
    }
}

const LEAST_P0: f32 = 0.01;
const MOST_P0: f32 = 0.1;

/// Endpoints of one kind in a locality, with the table that draws them by weight.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    pub(crate) endpoints: Arc<[Arc<Endpoint>]>,
    alias: Option<AliasTable>,
}

/// The place of an endpoint in its locality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointSlot {
    degraded: bool,
    index: u32,
}

/// How to choose among endpoints.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    pub(crate) algorithm: Algorithm,
    /// Ejections are ignored.
    pub(crate) panic: bool,
    pub(crate) tried: &'a Tried,
    /// Latencies above this many µs lose; 0 for none.
    pub(crate) veto_us: f32,
}

impl Pool {
    pub(crate) fn new(endpoints: Arc<[Arc<Endpoint>]>, weights: &[f64]) -> Self {
        Self { endpoints, alias: AliasTable::new(weights) }
    }

    #[inline]
    fn draw(&self, rng: &mut fastrand::Rng, turn: &AtomicU32, choice: Choice<'_>) -> Option<usize> {
        choice.choose(&self.endpoints, self.alias.as_ref(), rng, turn)
    }
}

impl LocalityEndpoints {
    /// Chooses an endpoint, or `None` if the locality has none for this mode.
    #[inline]
    pub(crate) fn draw(
        &self,
        mode: HealthBand,
        rng: &mut fastrand::Rng,
        algorithm: Algorithm,
        veto: f32,
        tried: &Tried,
    ) -> Option<EndpointSlot> {
        let choice = Choice { algorithm, panic: mode == HealthBand::Panic, tried, veto_us: self.state.median() * veto };
        let turn = &self.state.turn;
        let index = if mode == HealthBand::Degraded { None } else { self.ready.draw(rng, turn, choice) };
        if let Some(index) = index {
            return Some(EndpointSlot { degraded: false, index: index as u32 });
        }
        if mode == HealthBand::Healthy {
            return None;
        }
        let index = self.degraded.draw(rng, turn, choice)?;
        Some(EndpointSlot { degraded: true, index: index as u32 })
    }

    /// The endpoint in a place that [`LocalityEndpoints::draw`] gave.
    #[inline]
    pub(crate) fn member(&self, slot: EndpointSlot) -> &Arc<Endpoint> {
        let pool = if slot.degraded { &self.degraded } else { &self.ready };
        &pool.endpoints[slot.index as usize]
    }
}

/// Draws before a scan; the first one included.
const DRAWS: usize = 5;
/// Endpoints that a scan weighs.
const WINDOW: usize = 256;

impl Choice<'_> {
    /// Chooses by the algorithm: an index, or `None` if nothing can be chosen.
    #[inline]
    pub(crate) fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        alias: Option<&AliasTable>,
        rng: &mut fastrand::Rng,
        turn: &AtomicU32,
    ) -> Option<usize> {
        match self.algorithm {
            Algorithm::RoundRobin => return self.in_turn(endpoints, alias, rng, turn),
            Algorithm::Random => return self.draw(endpoints, alias, rng),
            Algorithm::TwoChoices | Algorithm::LeastRequest | Algorithm::LeastConnections => {}
        }
        let first = self.draw(endpoints, alias, rng)?;
        let Some(second) = self.redraw(first, endpoints, alias, rng) else { return Some(first) };
        Some(if self.beats(&endpoints[second], &endpoints[first]) { second } else { first })
    }

    /// Draws until one is accepted; then takes the next acceptable one from the last draw on.
    #[inline]
    fn draw(&self, endpoints: &[Arc<Endpoint>], alias: Option<&AliasTable>, rng: &mut fastrand::Rng) -> Option<usize> {
        if endpoints.is_empty() {
            return None;
        }
        for _ in 0..DRAWS {
            // The index is made of the upper bits, so the lowest are still free to decide on the ramp.
            let random = rng.u64(..);
            let index = alias.map_or_else(|| uniform(random, endpoints.len()), |table| table.draw(random));
            if self.accepts(&endpoints[index], random as u32) {
                return Some(index);
            }
        }
        self.scan(endpoints, rng)
    }

    /// Where draws find little: weighs a window of endpoints exactly, and failing that takes any of the rest.
    #[cold]
    fn scan(&self, endpoints: &[Arc<Endpoint>], rng: &mut fastrand::Rng) -> Option<usize> {
        let start = rng.usize(..endpoints.len());
        let mut order = (start..endpoints.len()).chain(0..start);
        let part = |i: usize| if self.accepts(&endpoints[i], 0) { endpoints[i].draw_weight(self.panic) } else { 0.0 };
        let sum: f32 = order.clone().take(WINDOW).map(part).sum();
        let mut point = rng.f32() * sum;
        let mut last = None;
        for index in order.by_ref().take(WINDOW).filter(|i| part(*i) > 0.0) {
            last = Some(index);
            if point < part(index) {
                break;
            }
            point -= part(index);
        }
        last.or_else(|| order.find(|i| self.accepts(&endpoints[*i], 0)))
    }

    /// A second endpoint to compare with, if one comes up.
    #[inline]
    fn redraw(
        &self,
        first: usize,
        endpoints: &[Arc<Endpoint>],
        alias: Option<&AliasTable>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        if endpoints.len() < 2 {
            return None;
        }
        for draw in 1..=DRAWS {
            let random = rng.u64(..);
            let index = match alias {
                Some(table) if draw < DRAWS => table.draw(random),
                // Any other than the first; at last also where one weight outdoes all others.
                _ => {
                    let other = uniform(random, endpoints.len() - 1);
                    other + usize::from(other >= first)
                }
            };
            if index != first && self.accepts(&endpoints[index], random as u32) {
                return Some(index);
            }
        }
        None
    }

    fn in_turn(
        &self,
        endpoints: &[Arc<Endpoint>],
        alias: Option<&AliasTable>,
        rng: &mut fastrand::Rng,
        turn: &AtomicU32,
    ) -> Option<usize> {
        for _ in 0..DRAWS {
            let turn = turn.fetch_add(1, Relaxed);
            let index = match alias {
                None => turn as usize % endpoints.len().max(1),
                // The golden ratio spreads any run of turns evenly over the table.
                Some(table) => table.draw(u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            };
            if endpoints.get(index).is_some_and(|e| self.accepts(e, rng.u32(..))) {
                return Some(index);
            }
        }
        self.draw(endpoints, alias, rng)
    }

    /// Whether an endpoint may be chosen, given random bits for its ramp.
    #[inline]
    pub(crate) fn accepts(&self, endpoint: &Endpoint, random: u32) -> bool {
        let gate = endpoint.gate();
        let open = if self.panic { gate & HARD == 0 } else { Endpoint::accepts(gate, random) };
        open && (self.tried.is_empty() || !self.tried.has_endpoint(endpoint))
    }

    /// Whether the second draw is better than the first.
    #[inline]
    fn beats(&self, second: &Endpoint, first: &Endpoint) -> bool {
        if self.veto_us > 0.0 {
            let (slow_second, slow_first) = (second.latency_us() > self.veto_us, first.latency_us() > self.veto_us);
            if slow_second != slow_first {
                return slow_first;
            }
        }
        match self.algorithm {
            Algorithm::TwoChoices => second.load() < first.load(),
            _ => second.own_load() < first.own_load(),
        }
    }
}

#[cfg(test)]
mod tests;
