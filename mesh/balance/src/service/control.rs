//! What changes plans: the state of localities behind the service's lock, and the making of a new plan from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::policy::ServicePolicy;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{EndpointId, Timestamp, ZoneId};
use eastway_resilience::Phase;

use super::roster::Roster;
use super::views::ViewControl;
use crate::allocation::LocalityStats;
use crate::endpoint::{Cold, Endpoint, HealthClass};
use crate::envoy::Hosts;
use crate::locality::{CircuitBreaker, LocalityState};
use crate::policy::{Policy, Rules};
use crate::ramp::FailbackRamp;
use crate::shares::{LocalityInput, S};
use crate::utilisation::Smoothed;

/// The state behind a service's lock.
#[derive(Debug)]
pub(super) struct Control {
    /// The node's own numbers, before the operator's for this service.
    base: Policy,
    pub(super) rules: Arc<Rules>,
    pub(super) rng: fastrand::Rng,
    /// In no order: each view has its own.
    pub(super) localities: Vec<LocalityControl>,
    /// Of the callers' localities, one or more.
    pub(super) views: Vec<ViewControl>,
    pub(super) paths: BTreeMap<Arc<str>, Arc<CircuitBreaker>>,
    /// The round trip to each peer as it was measured last: a gateway that was just started has not measured any.
    pub(super) measured: BTreeMap<Arc<str>, Duration>,
    /// The operator's order of clusters.
    pub(super) failover: Vec<String>,
    /// A first view has come.
    pub(super) started: bool,
    /// When the once-a-second work was last done.
    pub(super) second: Option<Timestamp>,
    pub(super) ticked: Timestamp,
    /// When something happened last.
    pub(super) woken: Timestamp,
    /// Nothing moves until something happens.
    pub(super) asleep: bool,
}

/// One locality behind the lock.
#[derive(Debug)]
pub(super) struct LocalityControl {
    pub(super) zone: ZoneId,
    pub(super) region: Arc<str>,
    pub(super) remote: bool,
    pub(super) accounts: Arc<[String]>,
    pub(super) state: Arc<LocalityState>,
    pub(super) path: Option<Arc<CircuitBreaker>>,
    pub(super) tally: Tally,
    /// The endpoints that discovery lists, ordered by id; none in a remote locality.
    pub(super) roster: Roster,
    /// Those of them whose breaker is half-open.
    pub(super) half_open: Vec<Arc<Endpoint>>,
    pub(super) weight: f64,
    /// Requests at once; `None` if not all of its endpoints say.
    pub(super) capacity: Option<f64>,
    pub(super) utilisation: Smoothed,
    /// What went into it last.
    pub(super) latest_utilisation: Option<f64>,
    /// Of the remote summary.
    pub(super) reported_utilisation: Option<f64>,
    pub(super) path_state: PathState,
    pub(super) staleness: Staleness,
    pub(super) failback: FailbackRamp,
    /// What the view says of its return.
    pub(super) returned_ago: Option<Duration>,
    /// When that was.
    pub(super) returned_at: Option<Timestamp>,
    /// Not in the view any more, since then.
    pub(super) absent: Option<Timestamp>,
}

/// Sums of the weights of a locality's endpoints, by how they count, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Endpoints that count.
    pub(super) count: u32,
    pub(super) healthy: u64,
    pub(super) degraded: u64,
    pub(super) soft: u64,
    pub(super) hard: u64,
    /// The same in endpoints, for formulas that know no weights.
    pub(super) endpoints: Endpoints,
}

/// Endpoints of a locality, by how they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) excluded: u32,
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    pub(super) soft: u32,
    pub(super) hard: u32,
}

impl Tally {
    pub(super) fn total(&self) -> u64 {
        self.healthy + self.degraded + self.soft + self.hard
    }

    pub(super) fn add(&mut self, class: HealthClass, units: u64) {
        self.count += u32::from(class != HealthClass::Uncounted);
        *self.endpoints.of(class) += 1;
        if let Some(sum) = self.sum(class) {
            *sum += units;
        }
    }

    pub(super) fn remove(&mut self, class: HealthClass, units: u64) {
        self.count -= u32::from(class != HealthClass::Uncounted);
        *self.endpoints.of(class) -= 1;
        if let Some(sum) = self.sum(class) {
            *sum -= units;
        }
    }

    fn sum(&mut self, class: HealthClass) -> Option<&mut u64> {
        match class {
            HealthClass::Uncounted => None,
            HealthClass::Healthy => Some(&mut self.healthy),
            HealthClass::Degraded => Some(&mut self.degraded),
            HealthClass::Soft => Some(&mut self.soft),
            HealthClass::Hard => Some(&mut self.hard),
        }
    }
}

impl Endpoints {
    fn of(&mut self, class: HealthClass) -> &mut u32 {
        match class {
            HealthClass::Uncounted => &mut self.excluded,
            HealthClass::Healthy => &mut self.healthy,
            HealthClass::Degraded => &mut self.degraded,
            HealthClass::Soft => &mut self.soft,
            HealthClass::Hard => &mut self.hard,
        }
    }
}

impl LocalityControl {
    /// Whether something in it has no hard mark, and a path leads to it that works as seen from here.
    pub(super) fn reachable(&self) -> bool {
        self.conceivable() && !self.path.as_deref().is_some_and(is_open)
    }

    /// The same, were the path's failures as seen from here a mistake: what a pick does when nothing else is left.
    pub(super) fn conceivable(&self) -> bool {
        self.path_state != PathState::Down && self.tally.healthy + self.tally.degraded + self.tally.soft > 0
    }

    /// Whether the whole locality has a soft mark.
    pub(super) fn tripped(&self) -> bool {
        is_open(&self.state.circuit)
    }

    /// The locality in sums. `fresh` leaves staleness out.
    pub(super) fn input(&self, fresh: bool) -> LocalityInput {
        let Tally { healthy, degraded, soft, .. } = self.tally;
        let [healthy, degraded, soft] = self.as_seen([healthy, degraded, soft], fresh).map(|units| units as f64);
        let total = self.tally.total() as f64;
        let capacity = self.capacity.unwrap_or(total / 1000.0);
        LocalityInput {
            total,
            healthy,
            degraded,
            soft,
            weight: self.weight,
            capacity,
            utilisation: self.utilisation.get(),
        }
    }

    /// The locality in endpoints, and how many of them have no hard mark.
    pub(super) fn hosts(&self) -> (Hosts, u32) {
        let Endpoints { excluded, healthy, degraded, soft, .. } = self.tally.endpoints;
        let [healthy, degraded, soft] = self.as_seen([healthy, degraded, soft].map(u64::from), false);
        let count = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
        let hosts = Hosts {
            hosts: self.tally.count.saturating_add(excluded),
            healthy: count(healthy),
            degraded: count(degraded),
            excluded,
        };
        (hosts, count(healthy + degraded + soft))
    }

    /// What is healthy, degraded and softly marked, once the marks of the locality as a whole are laid over those of its
    /// endpoints.
    fn as_seen(&self, [healthy, degraded, soft]: [u64; 3], fresh: bool) -> [u64; 3] {
        if !self.reachable() {
            return [0, 0, 0];
        }
        if self.tripped() || !fresh && self.staleness == Staleness::Stale3 {
            return [0, 0, healthy + degraded + soft];
        }
        if !fresh && self.staleness == Staleness::Stale2 {
            return [0, healthy + degraded, soft];
        }
        [healthy, degraded, soft]
    }

    /// Whether it can serve, but what is known of it is stale.
    pub(super) fn is_stale(&self) -> bool {
        self.staleness == Staleness::Stale2 && self.reachable()
    }

    /// What it has, whatever holds it back. `fresh` is its input without staleness, if that was made.
    pub(super) fn stats(&self, input: LocalityInput, fresh: Option<LocalityInput>) -> LocalityStats {
        let (hosts, reachable_hosts) = self.hosts();
        LocalityStats {
            input,
            fresh: fresh.filter(|_| self.is_stale()),
            hosts,
            reachable_hosts,
            cap: None,
            reachable: self.conceivable(),
            path_down: self.path_state == PathState::Down,
        }
    }

    /// What was counted of it, with the most that it may take now.
    pub(super) fn capped(&self, counted: LocalityStats, policy: &Policy, now: Timestamp) -> LocalityStats {
        LocalityStats {
            // It is in the factors, which move slowly.
            input: LocalityInput { utilisation: None, ..counted.input },
            cap: self.cap(policy, now),
            ..counted
        }
    }

    /// The most that it may take now, by its ramp and its breaker's.
    pub(super) fn cap(&self, policy: &Policy, now: Timestamp) -> Option<u32> {
        let rising = |circuit: &CircuitBreaker| {
            let acceptance = circuit.guard.lock().breaker.acceptance(now);
            (acceptance > 0.0 && acceptance < 1.0).then_some((acceptance * S as f32) as u32)
        };
        let caps = [self.failback.cap(policy, now), rising(&self.state.circuit), self.path.as_deref().and_then(rising)];
        caps.into_iter().flatten().min()
    }

    /// Applies a change of one member's marks to the tally and to the word that picks read. Returns whether it counts
    /// differently now.
    pub(super) fn recount(&mut self, endpoint: &Arc<Endpoint>, cold: &mut Cold, now: Timestamp) -> bool {
        endpoint.regate(cold, now);
        if cold.member {
            self.half_open.retain(|known| !std::ptr::eq(&**known, &**endpoint));
            if matches!(cold.breaker.phase(), Phase::HalfOpen { .. }) {
                self.half_open.push(Arc::clone(endpoint));
            }
        }
        let class = cold.classify();
        if !cold.member || class == cold.class {
            return false;
        }
        self.tally.remove(cold.class, cold.units());
        self.tally.add(class, cold.units());
        cold.class = class;
        true
    }
}

impl Control {
    pub(super) fn new(seed: u64, rules: Arc<Rules>) -> Self {
        Self {
            base: rules.policy.clone(),
            rules,
            rng: fastrand::Rng::with_seed(seed),
            localities: Vec::new(),
            views: Vec::new(),
            paths: BTreeMap::new(),
            measured: BTreeMap::new(),
            failover: Vec::new(),
            started: false,
            second: None,
            ticked: Timestamp::ZERO,
            woken: Timestamp::ZERO,
            asleep: false,
        }
    }

    pub(super) fn member(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.localities.iter().find_map(|locality| {
            let endpoints = &locality.roster.endpoints;
            endpoints.binary_search_by(|member| member.id.cmp(id)).ok().map(|i| &endpoints[i])
        })
    }

    pub(super) fn locality_mut(&mut self, zone: &ZoneId) -> Option<&mut LocalityControl> {
        self.localities.iter_mut().find(|locality| locality.zone == *zone)
    }

    /// Takes note of which localities can serve at all, for what returns from failure.
    pub(super) fn observe_returns(&mut self, now: Timestamp) {
        let policy = &self.rules.policy;
        for locality in &mut self.localities {
            let available = locality.reachable();
            let failed = locality.tally.count > 0 && !available;
            let returned_ago = locality.returned_at.map(|at| now - at);
            locality.failback.observe(available, failed, returned_ago, policy, now, &mut self.rng);
            locality.failback.poll(policy, now, &mut self.rng);
        }
    }

    /// Takes the operator's numbers for the service. Answers whether any is new.
    pub(super) fn configure(&mut self, set: &ServicePolicy) -> bool {
        let policy = self.base.with(set);
        if policy == self.rules.policy {
            return false;
        }
        self.rules = Rules::new(policy);
        let rules = &self.rules;
        for locality in &self.localities {
            locality.state.circuit.guard.lock().breaker.configure(&rules.locality);
            locality.each_endpoint(|endpoint| endpoint.cold.lock().breaker.configure(&rules.endpoint));
        }
        self.paths.values().for_each(|path| path.guard.lock().breaker.configure(&rules.path));
        true
    }
}

fn is_open(circuit: &CircuitBreaker) -> bool {
    !circuit.guard.lock().breaker.is_closed()
}
