//! New facts: a new snapshot of lanes and endpoints, with what the node knew of each carried over.

use std::sync::Arc;

use eastway_core::view::{EndpointView, MeshView, PathState, ServiceView, Staleness};
use eastway_core::{Health, Timestamp, ZoneId};
use eastway_resilience::Phase;

use super::Service;
use super::control::{Control, LaneControl, Tally};
use super::facts::{self, LaneFacts};
use crate::distance::{RingKeeper, ring};
use crate::endpoint::{Endpoint, MarkClass};
use crate::lane::{Circuit, Lane, LaneState, Pool};
use crate::ramp::Returning;
use crate::tiers::{Place, arrange};
use crate::utilisation::{Factor, Smoothed};

/// A lane that left the view is remembered for so long: if it comes back, it returns from failure.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(600);

impl Service {
    /// Takes new facts. What the node knows itself (requests in flight, latencies, breakers, ramps) stays, by lane and by
    /// endpoint; a new incarnation of an endpoint starts afresh, with a slow start unless this is the first view.
    pub fn update(&self, mesh: &MeshView, view: &ServiceView, now: Timestamp) {
        let mut control = self.control.lock();
        let control = &mut *control;
        let mut endpoints: Vec<&Arc<EndpointView>> = view.endpoints.iter().collect();
        if !endpoints.is_sorted_by(|a, b| a.id < b.id) {
            endpoints.sort_by(|a, b| a.id.cmp(&b.id));
            endpoints.dedup_by(|a, b| a.id == b.id);
        }
        let members = self.carry_over(control, &endpoints, now);
        let facts = facts::lanes(&self.caller, &self.policy, mesh, view, &endpoints);
        let mut old = std::mem::take(&mut control.lanes);
        let own_accounts: Arc<[String]> = view.spec.accounts.as_slice().into();
        for facts in &facts {
            let known = old.iter().position(|lane| lane.zone == facts.zone).map(|i| old.swap_remove(i));
            let path = facts.remote.as_ref().map(|_| self.path(control, &facts.zone, now));
            let mut lane = known.unwrap_or_else(|| self.new_lane(facts, now));
            lane.path = path;
            lane.learn(facts, &own_accounts, self, now);
            control.lanes.push(lane);
        }
        control.lanes.extend(old.into_iter().filter_map(|lane| lane.leave(now)));
        control.members = members;
        self.assign_members(control, now);
        control.failover.clone_from(&view.spec.failover);
        control.started = true;
        self.arrange(control);
        self.rebuild(control, now);
    }

    /// The endpoints of the new view: those that live on, and new ones.
    fn carry_over(&self, control: &Control, endpoints: &[&Arc<EndpointView>], now: Timestamp) -> Vec<Arc<Endpoint>> {
        let mut old = control.members.iter().peekable();
        endpoints
            .iter()
            .map(|view| {
                while old.next_if(|member| member.id < view.id).is_some() {}
                match old.next_if(|member| member.id == view.id) {
                    Some(member) if member.is_same_life(view) => Arc::clone(member),
                    _ => {
                        let zone = ZoneId::new(Arc::clone(&self.caller.zone.cluster), Arc::clone(&view.zone));
                        let endpoint = Endpoint::local(view, &zone, &self.breakers.endpoint, control.started, now);
                        if let Some(load) = &view.load {
                            endpoint.report(load, now);
                        }
                        endpoint
                    }
                }
            })
            .zip(endpoints)
            .map(|(endpoint, view)| {
                endpoint.set_weight(view.weight);
                let mut cold = endpoint.cold.lock();
                let first_warm = cold.health == Health::Warming && view.health != Health::Warming;
                if first_warm && control.started && cold.breaker.is_closed() {
                    // The slow start counts from when it can serve, not from when it registered.
                    cold.breaker.close(now);
                    endpoint.set_alert(true);
                }
                (cold.health, cold.weight, cold.capacity) = (view.health, view.weight, view.capacity);
                endpoint.regate(&cold, now);
                drop(cold);
                endpoint
            })
            .collect()
    }

    fn path(&self, control: &mut Control, zone: &ZoneId, now: Timestamp) -> Arc<Circuit> {
        let new = || Arc::new(Circuit::new(&self.breakers.path, now));
        Arc::clone(control.paths.entry(Arc::clone(&zone.cluster)).or_insert_with(new))
    }

    fn new_lane(&self, facts: &LaneFacts<'_>, now: Timestamp) -> LaneControl {
        LaneControl {
            zone: facts.zone.clone(),
            region: Arc::clone(&facts.region),
            remote: facts.remote.is_some(),
            accounts: Arc::new([]),
            state: LaneState::new(&self.breakers.lane, now),
            path: None,
            tally: Tally::default(),
            members: Vec::new(),
            weight: 1.0,
            capacity: None,
            utilisation: Smoothed::default(),
            reported_utilisation: None,
            path_state: PathState::Unknown,
            staleness: Staleness::Fresh,
            cost_ms: None,
            ring: RingKeeper::default(),
            ring_used: 0,
            returning: Returning::default(),
            returned_ago: None,
            tier: 0,
            absent: None,
        }
    }

    /// Counts each endpoint into its lane.
    fn assign_members(&self, control: &mut Control, now: Timestamp) {
        for lane in control.lanes.iter_mut().filter(|lane| !lane.remote) {
            for gone in lane.members.drain(..) {
                gone.cold.lock().member = false;
            }
            lane.tally = Tally::default();
        }
        let mut last = 0;
        for endpoint in &control.members {
            let is_its = |lane: &LaneControl| !lane.remote && lane.zone.zone == endpoint.zone.zone;
            if !control.lanes.get(last).is_some_and(is_its) {
                let Some(index) = control.lanes.iter().position(is_its) else { continue };
                last = index;
            }
            let lane = &mut control.lanes[last];
            let mut cold = endpoint.cold.lock();
            cold.member = true;
            cold.class = MarkClass::Uncounted;
            lane.tally.add(MarkClass::Uncounted, cold.units());
            lane.recount(endpoint, &mut cold, now);
            drop(cold);
            lane.members.push(Arc::clone(endpoint));
        }
    }

    /// Puts the lanes in tier order.
    pub(super) fn arrange(&self, control: &mut Control) {
        let places: Vec<Place> = control.lanes.iter().map(LaneControl::place).collect();
        let tiers = arrange(&self.caller, &places, &control.failover);
        let mut lanes: Vec<Option<LaneControl>> = control.lanes.drain(..).map(Some).collect();
        for (tier, indices) in tiers.iter().enumerate() {
            for index in indices {
                control.lanes.extend(lanes[*index].take().map(|lane| LaneControl { tier, ..lane }));
            }
        }
        control.factors.resize(tiers.len(), Factor::default());
    }

    /// A lane that shrank, or whose own breaker closed, may hold more ejected weight than is allowed: those that would
    /// come back first do so now.
    fn respect_cap(&self, control: &mut Control, now: Timestamp) {
        for lane in &mut control.lanes {
            let over = |lane: &LaneControl| {
                lane.tally.count >= 2 && lane.tally.soft as f64 > self.policy.ejection_cap * lane.tally.total() as f64
            };
            if lane.remote || !over(lane) || lane.tripped() {
                continue;
            }
            while over(lane) {
                let opened = |endpoint: &Arc<Endpoint>| match endpoint.cold.lock() {
                    cold if cold.class != MarkClass::Soft => None,
                    cold => match cold.breaker.phase() {
                        Phase::Open { until, .. } => Some(until),
                        Phase::HalfOpen { since, .. } => Some(since),
                        Phase::Closed => None,
                    },
                };
                let first = lane
                    .members
                    .iter()
                    .filter_map(|e| opened(e).map(|at| (at, Arc::clone(e))))
                    .min_by_key(|(at, _)| *at);
                let Some((_, endpoint)) = first else { break };
                let mut cold = endpoint.cold.lock();
                cold.breaker.close(now);
                endpoint.set_alert(true);
                lane.recount(&endpoint, &mut cold, now);
            }
        }
    }

    /// Makes new lanes for picks, and their plan.
    pub(super) fn rebuild(&self, control: &mut Control, now: Timestamp) {
        self.respect_cap(control, now);
        control.observe_returns(&self.policy, now);
        let lanes: Arc<[Arc<Lane>]> = control.lanes.iter().map(|lane| Arc::new(lane.to_lane())).collect();
        self.plan.store(Arc::new(control.plan(lanes, &self.policy, now)));
    }

    /// Makes a new plan for the lanes that picks know already, if it differs.
    pub(super) fn replan(&self, control: &mut Control, now: Timestamp) {
        self.respect_cap(control, now);
        control.observe_returns(&self.policy, now);
        let old = self.plan.load();
        let new = control.plan(Arc::clone(&old.lanes), &self.policy, now);
        let same = new.entries == old.entries
            && new.probes == old.probes
            && new.decision == old.decision
            && new.table == old.table;
        if !same {
            self.plan.store(Arc::new(new));
        }
    }
}

impl LaneControl {
    /// Takes the facts of the view, without the endpoints.
    fn learn(&mut self, facts: &LaneFacts<'_>, own_accounts: &Arc<[String]>, service: &Service, now: Timestamp) {
        self.region = Arc::clone(&facts.region);
        self.weight = if facts.weight.is_finite() { facts.weight.max(0.0) } else { 1.0 };
        self.absent = None;
        self.returned_ago = facts.returned_ago;
        let Some(remote) = &facts.remote else {
            self.accounts = Arc::clone(own_accounts);
            self.capacity = facts::capacity(&facts.members);
            return;
        };
        let summary = &remote.zone.summary;
        let units = |count: u32| u64::from(count) * 1000;
        let (ready, degraded) = (summary.ready, summary.degraded.saturating_add(summary.draining));
        let total = summary.total.max(ready.saturating_add(degraded));
        self.tally = Tally {
            count: total,
            healthy: units(ready),
            degraded: units(degraded),
            soft: 0,
            hard: units(total) - units(ready) - units(degraded),
        };
        self.accounts = remote.zone.accounts.as_slice().into();
        self.capacity = Some(summary.capacity).filter(|capacity| *capacity > 0.0 && capacity.is_finite());
        self.reported_utilisation = summary.utilisation.map(f64::from).filter(|u| u.is_finite());
        (self.path_state, self.staleness) = (remote.path, remote.staleness);
        self.cost_ms = remote.cost_ms;
        let policy = &service.policy;
        self.ring_used = self.ring.observe(ring(self.cost_ms, &policy.rings), policy.ring_evidence, now);
    }

    /// The view does not have it any more: it is kept for a while, without endpoints.
    fn leave(mut self, now: Timestamp) -> Option<Self> {
        let since = *self.absent.get_or_insert(now);
        self.members.iter().for_each(|gone| gone.cold.lock().member = false);
        self.members.clear();
        self.tally = Tally::default();
        (now - since < REMEMBERED).then_some(self)
    }

    fn place(&self) -> Place {
        let input = self.input(false);
        let availability = if input.total > 0.0 { input.healthy / input.total } else { 0.0 };
        let idle = 1.0 - self.utilisation.get().unwrap_or_default().clamp(0.0, 1.0);
        Place {
            zone: self.zone.clone(),
            region: Arc::clone(&self.region),
            ring: self.ring_used,
            cost_ms: self.cost_ms,
            headroom: input.capacity * availability * idle,
        }
    }

    fn to_lane(&self) -> Lane {
        let pool = |of: fn(Health) -> bool| {
            let serving = self.members.iter().filter_map(|endpoint| {
                let cold = endpoint.cold.lock();
                of(cold.health).then(|| (Arc::clone(endpoint), crate::endpoint::sane_weight(cold.weight)))
            });
            let (endpoints, weights): (Vec<_>, Vec<_>) = serving.unzip();
            Pool::new(endpoints, &weights)
        };
        Lane {
            zone: self.zone.clone(),
            region: Arc::clone(&self.region),
            tier: self.tier,
            remote: self.remote,
            accounts: Arc::clone(&self.accounts),
            total: self.tally.count as usize,
            ready: pool(|health| health == Health::Ready),
            degraded: pool(|health| matches!(health, Health::Degraded | Health::Draining)),
            state: Arc::clone(&self.state),
            path: self.path.clone(),
        }
    }
}
