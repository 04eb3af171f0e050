//! What changes plans: the state of lanes behind the service's lock, and the making of a new plan from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_core::policy::ServicePolicy;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{EndpointId, Health, Timestamp, ZoneId};
use eastway_resilience::Phase;

use crate::census::{Census, Counted};
use crate::compat::Hosts;
use crate::distance::RingKeeper;
use crate::endpoint::{Cold, Endpoint, MarkClass};
use crate::lane::{Circuit, Lane, LaneState};
use crate::plan::{Plan, Probe, Probing};
use crate::policy::{Policy, Rules};
use crate::ramp::Returning;
use crate::shares::{LaneInput, S, tier_utilisation};
use crate::utilisation::{Factor, Reading, Smoothed};

/// The state behind a service's lock.
#[derive(Debug)]
pub(super) struct Control {
    /// The node's own numbers, before the operator's for this service.
    base: Policy,
    pub(super) rules: Arc<Rules>,
    pub(super) rng: fastrand::Rng,
    /// In tier order, as the plan's lanes.
    pub(super) lanes: Vec<LaneControl>,
    /// One for each tier.
    pub(super) factors: Vec<Factor>,
    pub(super) paths: BTreeMap<Arc<str>, Arc<Circuit>>,
    /// The operator's order of clusters.
    pub(super) failover: Vec<String>,
    /// A first view has come.
    pub(super) started: bool,
    /// When the once-a-second work was last done.
    pub(super) second: Option<Timestamp>,
    pub(super) ticked: Timestamp,
}

/// One lane behind the lock.
#[derive(Debug)]
pub(super) struct LaneControl {
    pub(super) zone: ZoneId,
    pub(super) region: Arc<str>,
    pub(super) remote: bool,
    pub(super) accounts: Arc<[String]>,
    pub(super) state: Arc<LaneState>,
    pub(super) path: Option<Arc<Circuit>>,
    pub(super) tally: Tally,
    /// The endpoints that discovery lists, ordered by id; none in a remote lane.
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
    pub(super) cost_ms: Option<f64>,
    pub(super) ring: RingKeeper,
    pub(super) ring_used: usize,
    pub(super) returning: Returning,
    /// What the view says of its return.
    pub(super) returned_ago: Option<std::time::Duration>,
    /// When that was.
    pub(super) returned_at: Option<Timestamp>,
    pub(super) tier: usize,
    pub(super) level: usize,
    /// Not in the view any more, since then.
    pub(super) absent: Option<Timestamp>,
}

/// The endpoints of a lane, ordered by id, with what picks need of their last view.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) endpoints: Arc<[Arc<Endpoint>]>,
    pub(super) health: Vec<Health>,
    pub(super) weights: Vec<f64>,
}

/// Sums of the weights of a lane's endpoints, by how they count, in thousandths.
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

/// Endpoints of a lane, by how they count.
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

    pub(super) fn add(&mut self, class: MarkClass, units: u64) {
        self.count += u32::from(class != MarkClass::Uncounted);
        *self.endpoints.of(class) += 1;
        if let Some(sum) = self.sum(class) {
            *sum += units;
        }
    }

    pub(super) fn remove(&mut self, class: MarkClass, units: u64) {
        self.count -= u32::from(class != MarkClass::Uncounted);
        *self.endpoints.of(class) -= 1;
        if let Some(sum) = self.sum(class) {
            *sum -= units;
        }
    }

    fn sum(&mut self, class: MarkClass) -> Option<&mut u64> {
        match class {
            MarkClass::Uncounted => None,
            MarkClass::Healthy => Some(&mut self.healthy),
            MarkClass::Degraded => Some(&mut self.degraded),
            MarkClass::Soft => Some(&mut self.soft),
            MarkClass::Hard => Some(&mut self.hard),
        }
    }
}

impl Endpoints {
    fn of(&mut self, class: MarkClass) -> &mut u32 {
        match class {
            MarkClass::Uncounted => &mut self.excluded,
            MarkClass::Healthy => &mut self.healthy,
            MarkClass::Degraded => &mut self.degraded,
            MarkClass::Soft => &mut self.soft,
            MarkClass::Hard => &mut self.hard,
        }
    }
}

impl LaneControl {
    /// Whether something in it has no hard mark, and a path leads to it that works as seen from here.
    pub(super) fn reachable(&self) -> bool {
        self.conceivable() && !self.path.as_deref().is_some_and(is_open)
    }

    /// The same, were the path's failures as seen from here a mistake: what a pick does when nothing else is left.
    pub(super) fn conceivable(&self) -> bool {
        self.path_state != PathState::Down && self.tally.healthy + self.tally.degraded + self.tally.soft > 0
    }

    /// Whether the whole lane has a soft mark.
    pub(super) fn tripped(&self) -> bool {
        is_open(&self.state.circuit)
    }

    /// The lane in sums. `fresh` leaves staleness out.
    pub(super) fn input(&self, fresh: bool) -> LaneInput {
        let Tally { healthy, degraded, soft, .. } = self.tally;
        let [healthy, degraded, soft] = self.as_seen([healthy, degraded, soft], fresh).map(|units| units as f64);
        let total = self.tally.total() as f64;
        let capacity = self.capacity.unwrap_or(total / 1000.0);
        LaneInput { total, healthy, degraded, soft, weight: self.weight, capacity, utilisation: self.utilisation.get() }
    }

    /// The lane in endpoints, and how many of them have no hard mark.
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

    /// What is healthy, degraded and softly marked, once the marks of the lane as a whole are laid over those of its endpoints.
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

    /// The most that it may take now, by its ramp and its breaker's.
    pub(super) fn cap(&self, policy: &Policy, now: Timestamp) -> Option<u32> {
        let rising = |circuit: &Circuit| {
            let acceptance = circuit.guard.lock().breaker.acceptance(now);
            (acceptance > 0.0 && acceptance < 1.0).then_some((acceptance * S as f32) as u32)
        };
        let caps =
            [self.returning.cap(policy, now), rising(&self.state.circuit), self.path.as_deref().and_then(rising)];
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
            lanes: Vec::new(),
            factors: Vec::new(),
            paths: BTreeMap::new(),
            failover: Vec::new(),
            started: false,
            second: None,
            ticked: Timestamp::ZERO,
        }
    }

    pub(super) fn member(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.lanes.iter().find_map(|lane| {
            let endpoints = &lane.roster.endpoints;
            endpoints.binary_search_by(|member| member.id.cmp(id)).ok().map(|i| &endpoints[i])
        })
    }

    pub(super) fn lane_mut(&mut self, zone: &ZoneId) -> Option<&mut LaneControl> {
        self.lanes.iter_mut().find(|lane| lane.zone == *zone)
    }

    /// Takes note of which lanes can serve at all, for what returns from failure.
    pub(super) fn observe_returns(&mut self, now: Timestamp) {
        let policy = &self.rules.policy;
        for lane in &mut self.lanes {
            let available = lane.reachable();
            let failed = lane.tally.count > 0 && !available;
            let returned_ago = lane.returned_at.map(|at| now - at);
            lane.returning.observe(available, failed, returned_ago, policy, now, &mut self.rng);
            lane.returning.poll(policy, now, &mut self.rng);
        }
    }

    /// Makes the plan for `lanes` (in the order of the control's lanes).
    pub(super) fn plan(&self, lanes: Arc<[Arc<Lane>]>, now: Timestamp) -> Plan {
        Plan::new(lanes, self.census(now), self.probes().into())
    }

    fn census(&self, now: Timestamp) -> Census {
        let policy = &self.rules.policy;
        let held = |(lane, counted): (&LaneControl, Counted)| Counted {
            // It is in the factors, which move slowly.
            input: LaneInput { utilisation: None, ..counted.input },
            cap: lane.cap(policy, now),
            ..counted
        };
        Census {
            lanes: self.lanes.iter().zip(self.count()).map(held).collect(),
            tiers: self.tiers().into(),
            factors: self.factors.iter().map(Factor::get).collect(),
            rules: Arc::clone(&self.rules),
        }
    }

    /// What each lane has, whatever holds it back.
    pub(super) fn count(&self) -> Vec<Counted> {
        let stale = |lane: &LaneControl| lane.staleness == Staleness::Stale2 && lane.reachable();
        let fresh = self.lanes.iter().any(stale).then(|| self.inputs(true));
        let count = |(i, (lane, input)): (usize, (&LaneControl, LaneInput))| {
            let (hosts, reachable_hosts) = lane.hosts();
            Counted {
                input,
                fresh: fresh.as_ref().filter(|_| stale(lane)).map(|fresh| fresh[i]),
                hosts,
                reachable_hosts,
                cap: None,
                reachable: lane.conceivable(),
                path_down: lane.path_state == PathState::Down,
            }
        };
        self.lanes.iter().zip(self.inputs(false)).enumerate().map(count).collect()
    }

    /// Takes the operator's numbers for the service. Answers whether any is new.
    pub(super) fn configure(&mut self, set: &ServicePolicy) -> bool {
        let policy = self.base.with(set);
        if policy == self.rules.policy {
            return false;
        }
        self.rules = Rules::new(policy);
        let rules = &self.rules;
        for lane in &self.lanes {
            lane.state.circuit.guard.lock().breaker.configure(&rules.lane);
            lane.each_endpoint(|endpoint| endpoint.cold.lock().breaker.configure(&rules.endpoint));
        }
        self.paths.values().for_each(|path| path.guard.lock().breaker.configure(&rules.path));
        true
    }

    pub(super) fn inputs(&self, fresh: bool) -> Vec<LaneInput> {
        let mut inputs: Vec<LaneInput> = self.lanes.iter().map(|lane| lane.input(fresh)).collect();
        // Capacities compare only where every lane of a tier states one.
        for range in self.tiers() {
            if self.lanes[range.clone()].iter().any(|lane| lane.capacity.is_none()) {
                inputs[range].iter_mut().for_each(|input| input.capacity = input.total / 1000.0);
            }
        }
        inputs
    }

    /// The tiers as ranges of lanes.
    pub(super) fn tiers(&self) -> Vec<std::ops::Range<usize>> {
        let mut start = 0;
        let range = |lanes: &[LaneControl]| {
            let range = start..start + lanes.len();
            start = range.end;
            range
        };
        self.lanes.chunk_by(|a, b| a.tier == b.tier).map(range).collect()
    }

    /// What is half-open and waits to be tried.
    fn probes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        let since = |phase: Phase| match phase {
            Phase::HalfOpen { since, .. } => Some(since),
            _ => None,
        };
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.path_state == PathState::Down {
                continue;
            }
            let mut add = |what, since| probes.push(Probe { lane: index, what, since });
            if lane.conceivable() {
                if let Some(at) = since(lane.state.circuit.guard.lock().breaker.phase()) {
                    add(Probing::Lane, at);
                }
                if let Some(at) = lane.path.as_ref().and_then(|path| since(path.guard.lock().breaker.phase())) {
                    add(Probing::Path, at);
                }
            }
            for endpoint in &lane.half_open {
                let cold = endpoint.cold.lock();
                // What discovery says is gone or unready is not tried.
                if endpoint.gate() & crate::endpoint::HALF_OPEN != 0
                    && let Some(at) = since(cold.breaker.phase())
                {
                    add(Probing::Endpoint(Arc::clone(endpoint)), at);
                }
            }
        }
        probes
    }

    /// Moves the tiers' factors, and returns whether any did move. `lacking` says that all tiers together lack room.
    pub(super) fn move_factors(&mut self, lacking: bool, now: Timestamp) -> bool {
        let policy = &self.rules.policy;
        let inputs = self.inputs(false);
        let readings: Vec<Option<Reading>> =
            self.tiers().into_iter().map(|range| self.reading(&inputs, range)).collect();
        // Where all lack room, none can reach the target: then each aims at the mean, or all would sink.
        let mean = tier_utilisation(&inputs).filter(|_| lacking).unwrap_or_default();
        let target = policy.target_utilisation.max(mean);
        let mut moved = false;
        for (factor, reading) in self.factors.iter_mut().zip(readings) {
            let before = factor.get();
            factor.update(reading, target, now);
            moved |= factor.get() != before;
        }
        moved
    }

    /// The utilisation of the tier that has these lanes.
    fn reading(&self, inputs: &[LaneInput], range: std::ops::Range<usize>) -> Option<Reading> {
        let inputs = &inputs[range.clone()];
        let latest: Vec<LaneInput> = inputs
            .iter()
            .zip(&self.lanes[range])
            .map(|(input, lane)| LaneInput { utilisation: lane.latest_utilisation, ..*input })
            .collect();
        let mean = tier_utilisation(inputs)?;
        Some(Reading { mean, latest: tier_utilisation(&latest).unwrap_or(mean) })
    }
}

fn is_open(circuit: &Circuit) -> bool {
    !circuit.guard.lock().breaker.is_closed()
}
