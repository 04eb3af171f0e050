//! New facts: a new snapshot of localities and endpoints, with what the node knew of each carried over.

use std::sync::Arc;

use eastway_core::view::{EndpointView, MeshView, PathState, ServiceView, Staleness};
use eastway_core::{Health, Timestamp, ZoneId};
use eastway_resilience::{BreakerConfig, Phase};

use super::Service;
use super::control::{Control, Endpoints, LocalityControl, Tally};
use super::facts::{self, LocalityFacts};
use super::roster::Roster;
use super::views::{Place, ViewControl};
use crate::distance::RingKeeper;
use crate::endpoint::{Cold, Endpoint, HealthClass, sane_weight};
use crate::locality::{CircuitBreaker, LocalityEndpoints, LocalityState};
use crate::policy::{Policy, Rules};
use crate::priorities::{Candidate, Priority, arrange};
use crate::ramp::FailbackRamp;
use crate::utilisation::Smoothed;

/// A locality that left the view is remembered for so long: if it comes back, it returns from failure.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(600);

impl Service {
    /// Takes new facts. What the node knows itself (requests in flight, latencies, breakers, ramps) stays, by locality and
    /// by endpoint; a new incarnation of an endpoint starts afresh, with a slow start unless this is the first view.
    pub fn update(&self, mesh: &MeshView, view: &ServiceView, now: Timestamp) {
        self.wake();
        let mut control = self.state.control.lock();
        let control = &mut *control;
        let mut endpoints: Vec<&Arc<EndpointView>> = view.endpoints.iter().collect();
        if !endpoints.is_sorted_by(|a, b| a.id < b.id) {
            endpoints.sort_by(|a, b| a.id.cmp(&b.id));
            endpoints.dedup_by(|a, b| a.id == b.id);
        }
        if control.configure(&view.spec.policy) {
            let Policy { retry_ratio, retry_min_per_second, .. } = control.rules.policy;
            self.state.budget.configure(retry_ratio, retry_min_per_second);
            self.state.cross_region.configure(retry_ratio, retry_min_per_second);
        }
        let rules = Arc::clone(&control.rules);
        control.remember_measured(mesh);
        let facts = facts::localities(&self.view.caller, &rules.policy, mesh, view, &endpoints);
        let mut old = std::mem::take(&mut control.localities);
        for facts in &facts {
            let known = old.iter().position(|locality| locality.zone == facts.zone).map(|i| old.swap_remove(i));
            let path = facts.remote.as_ref().map(|_| control.path(&facts.zone, now));
            let mut locality = known.unwrap_or_else(|| new_locality(facts, &rules, now));
            locality.path = path;
            locality.learn(facts, &view.spec.accounts, now);
            if facts.remote.is_none() {
                locality.follow(&facts.members, &rules.endpoint, control.started, now);
            }
            control.localities.push(locality);
        }
        control.localities.extend(old.into_iter().filter_map(|locality| locality.leave(now)));
        control.failover.clone_from(&view.spec.failover);
        control.started = true;
        control.place(mesh, &facts);
        control.rings_moved(now);
        control.arrange();
        self.rebuild(control, now);
    }

    /// Takes news of endpoints alone, in place of a whole view: how known ones do. False if it is more than that, and nothing
    /// was taken; then call [`Service::update`].
    pub fn apply(&self, changed: &[Arc<EndpointView>], now: Timestamp) -> bool {
        self.wake();
        let mut control = self.state.control.lock();
        let control = &mut *control;
        let cluster = &self.view.caller.zone.cluster;
        let mut found = Vec::with_capacity(changed.len());
        for view in changed {
            let Some(place) = control.find(cluster, view) else { return false };
            found.push(place);
        }
        let mut regrouped = false;
        for ((locality, index), view) in found.into_iter().zip(changed) {
            regrouped |= control.localities[locality].turn(index, view, control.started, now);
        }
        if regrouped {
            self.rebuild(control, now);
        } else {
            self.replan(control, now);
        }
        true
    }

    /// A locality that shrank, or whose own breaker closed, may hold more ejected weight than is allowed: those that would
    /// come back first do so now.
    fn respect_cap(&self, control: &mut Control, now: Timestamp) {
        let cap = control.rules.policy.ejection_cap;
        for locality in &mut control.localities {
            if locality.remote || !locality.exceeds(cap) || locality.tripped() {
                continue;
            }
            let opened = |endpoint: &Arc<Endpoint>| match endpoint.cold.lock() {
                cold if cold.class != HealthClass::Soft => None,
                cold => match cold.breaker.phase() {
                    Phase::Open { until, .. } => Some(until),
                    Phase::HalfOpen { since, .. } => Some(since),
                    Phase::Closed => None,
                },
            };
            let endpoints = locality.roster.endpoints.iter();
            let mut ejected: Vec<_> = endpoints.filter_map(|e| opened(e).map(|at| (at, Arc::clone(e)))).collect();
            ejected.sort_by_key(|(at, _)| *at);
            for (_, endpoint) in ejected {
                if !locality.exceeds(cap) {
                    break;
                }
                let mut cold = endpoint.cold.lock();
                cold.breaker.close(now);
                endpoint.set_alert(&cold, true);
                locality.recount(&endpoint, &mut cold, now);
            }
        }
    }

    /// Makes new localities for picks, and their plans.
    pub(super) fn rebuild(&self, control: &mut Control, now: Timestamp) {
        self.respect_cap(control, now);
        control.observe_returns(now);
        let rules = &control.rules;
        let localities = |view| {
            let arranged = control.arranged(view).iter();
            arranged.map(|(place, locality)| Arc::new(locality.to_locality(place, rules))).collect()
        };
        let localities: Vec<_> = (0..control.views.len()).map(localities).collect();
        let plans = control.plans(&localities, now);
        for (ViewControl { view, .. }, plan) in control.views.iter().zip(plans) {
            view.plan.store(Arc::new(plan));
        }
    }

    /// Makes new plans for the localities that picks know already, where they differ.
    pub(super) fn replan(&self, control: &mut Control, now: Timestamp) {
        self.respect_cap(control, now);
        control.observe_returns(now);
        let localities: Vec<_> =
            control.views.iter().map(|known| Arc::clone(&known.view.plan.load().localities)).collect();
        let plans = control.plans(&localities, now);
        for (ViewControl { view, .. }, plan) in control.views.iter().zip(plans) {
            if !plan.is_like(&view.plan.load()) {
                view.plan.store(Arc::new(plan));
            }
        }
    }
}

impl Control {
    /// Takes over what gateways have measured, and keeps what they do not know any more, of those that are peers still.
    fn remember_measured(&mut self, mesh: &MeshView) {
        self.measured.retain(|cluster, _| mesh.peers.iter().any(|peer| *peer.cluster.name == **cluster));
        for (peer, rtt) in mesh.peers.iter().filter_map(|peer| Some((&*peer.cluster.name, peer.min_rtt?))) {
            match self.measured.get_mut(peer) {
                Some(known) => *known = rtt,
                None => drop(self.measured.insert(peer.into(), rtt)),
            }
        }
    }

    /// Where the localities stand in each view that somebody still has. `facts` are of the first ones.
    fn place(&mut self, mesh: &MeshView, facts: &[LocalityFacts<'_>]) {
        self.views.retain(|known| Arc::strong_count(&known.view) > 1);
        for ViewControl { view, places, .. } in &mut self.views {
            let mut old = std::mem::take(places);
            for (at, LocalityControl { zone, .. }) in self.localities.iter().enumerate() {
                let known = old.iter().position(|place| place.zone == *zone).map(|i| old.swap_remove(i));
                let mut place = known.unwrap_or_else(|| Place::new(zone.clone()));
                place.at = at;
                if let Some(remote) = facts.get(at).and_then(|facts| facts.remote.as_ref()) {
                    let cost = remote.cost_ms(&view.caller, mesh, &self.measured);
                    place.ring.learn(cost, remote.peer.path != PathState::Down);
                }
                places.push(place);
            }
        }
    }

    /// Puts the localities in each view's priority order.
    pub(super) fn arrange(&mut self) {
        for ViewControl { view, places, factors } in &mut self.views {
            let candidate = |place: &Place| self.localities[place.at].candidate(&place.ring);
            let priorities = arrange(&view.caller, &places.iter().map(candidate).collect::<Vec<_>>(), &self.failover);
            let mut old: Vec<Option<Place>> = places.drain(..).map(Some).collect();
            let known = std::mem::take(factors);
            for (priority, Priority { level, localities }) in priorities.iter().enumerate() {
                // A priority goes on with the factor that its localities had, whatever became of the priorities before it.
                let factor = localities.iter().filter_map(|i| known.get(old[*i].as_ref()?.priority)).next();
                factors.push(factor.copied().unwrap_or_default());
                for index in localities {
                    places.extend(old[*index].take().map(|place| Place { priority, level: *level, ..place }));
                }
            }
        }
    }

    /// The locality and the member that `view` is news of, if it only says how that does.
    fn find(&self, cluster: &str, view: &EndpointView) -> Option<(usize, usize)> {
        let is_its = |locality: &LocalityControl| {
            !locality.remote && *locality.zone.cluster == *cluster && *locality.zone.zone == *view.zone
        };
        let at = self.localities.iter().position(is_its)?;
        let roster = &self.localities[at].roster;
        let index = roster.endpoints.binary_search_by(|member| member.id.cmp(&view.id)).ok()?;
        let same = roster.endpoints[index].is_same_life(view)
            && roster.weights[index] == sane_weight(view.weight)
            && roster.capacities[index] == view.capacity;
        same.then_some((at, index))
    }

    fn path(&mut self, zone: &ZoneId, now: Timestamp) -> Arc<CircuitBreaker> {
        let new = || Arc::new(CircuitBreaker::new(&self.rules.path, now));
        Arc::clone(self.paths.entry(Arc::clone(&zone.cluster)).or_insert_with(new))
    }
}

fn new_locality(facts: &LocalityFacts<'_>, rules: &Rules, now: Timestamp) -> LocalityControl {
    LocalityControl {
        zone: facts.zone.clone(),
        region: Arc::clone(&facts.region),
        remote: facts.remote.is_some(),
        accounts: Arc::new([]),
        state: LocalityState::new(&rules.locality, now),
        path: None,
        tally: Tally::default(),
        roster: Roster::default(),
        half_open: Vec::new(),
        weight: 1.0,
        capacity: None,
        utilisation: Smoothed::default(),
        latest_utilisation: None,
        reported_utilisation: None,
        path_state: PathState::Unknown,
        staleness: Staleness::Fresh,
        failback: FailbackRamp::default(),
        returned_ago: None,
        returned_at: None,
        absent: None,
    }
}

impl LocalityControl {
    /// Takes the facts of the view, without the endpoints.
    fn learn(&mut self, facts: &LocalityFacts<'_>, own_accounts: &Arc<[String]>, now: Timestamp) {
        self.region = Arc::clone(&facts.region);
        self.weight = if facts.weight.is_finite() { facts.weight.max(0.0) } else { 1.0 };
        self.absent = None;
        // A view that is taken again, for example with news of the mesh, is as old as it was.
        if self.returned_ago != facts.returned_ago {
            self.returned_ago = facts.returned_ago;
            self.returned_at = facts.returned_ago.map(|ago| now.before(ago));
        }
        let Some(remote) = &facts.remote else {
            self.accounts = Arc::clone(own_accounts);
            return;
        };
        let summary = &remote.zone.summary;
        let units = |count: u32| u64::from(count) * 1000;
        // What a peer counts need not add up; what is left of it here does.
        let ready = summary.ready;
        let degraded = summary.degraded.saturating_add(summary.draining).min(u32::MAX - ready);
        let total = summary.total.max(ready + degraded);
        self.tally = Tally {
            count: total,
            healthy: units(ready),
            degraded: units(degraded),
            soft: 0,
            hard: units(total) - units(ready) - units(degraded),
            endpoints: Endpoints { excluded: 0, healthy: ready, degraded, soft: 0, hard: total - ready - degraded },
        };
        self.accounts = Arc::clone(&remote.zone.accounts);
        self.capacity = Some(summary.capacity).filter(|capacity| *capacity > 0.0 && capacity.is_finite());
        self.reported_utilisation = summary.utilisation.map(f64::from).filter(|u| u.is_finite());
        (self.path_state, self.staleness) = (remote.peer.path, remote.peer.staleness);
    }

    /// Takes the endpoints of the view: those that live on, and new ones. `started` says that this is not the first view:
    /// what is new then starts slowly.
    fn follow(&mut self, views: &[&Arc<EndpointView>], breaker: &Arc<BreakerConfig>, started: bool, now: Timestamp) {
        let old = std::mem::take(&mut self.roster.endpoints);
        let mut old = old.iter().peekable();
        let mut endpoints = Vec::with_capacity(views.len());
        self.tally = Tally::default();
        self.half_open.clear();
        for view in views {
            while let Some(gone) = old.next_if(|member| member.id < view.id) {
                gone.cold.lock().member = false;
            }
            let endpoint = match old.next_if(|member| member.id == view.id) {
                Some(member) if member.is_same_life(view) => Arc::clone(member),
                other => {
                    if let Some(gone) = other {
                        gone.cold.lock().member = false;
                    }
                    Endpoint::local(view, &self.zone, breaker, started, now)
                }
            };
            self.admit(&endpoint, view, started, now);
            endpoints.push(endpoint);
        }
        old.for_each(|gone| gone.cold.lock().member = false);
        self.roster = Roster::new(endpoints, views);
        self.capacity = self.roster.capacity();
    }

    /// The member number `index` does as `view` says now. Whether picks must be told of other members than before.
    fn turn(&mut self, index: usize, view: &EndpointView, started: bool, now: Timestamp) -> bool {
        let endpoint = Arc::clone(&self.roster.endpoints[index]);
        let cold = &mut *endpoint.cold.lock();
        self.warm(&endpoint, cold, view.health, started, now);
        self.recount(&endpoint, cold, now);
        let regrouped = self.roster.turn(index, view.health);
        if regrouped {
            self.capacity = self.roster.capacity();
        }
        regrouped
    }

    /// Its health is another now. The slow start counts from when it can serve, not from when it registered.
    fn warm(&self, endpoint: &Arc<Endpoint>, cold: &mut Cold, health: Health, started: bool, now: Timestamp) {
        let first_warm = cold.health == Health::Warming && health != Health::Warming;
        if first_warm && started && cold.breaker.is_closed() {
            cold.breaker.close(now);
            endpoint.set_alert(cold, true);
        }
        cold.health = health;
    }

    /// Counts an endpoint in, as the view describes it.
    fn admit(&mut self, endpoint: &Arc<Endpoint>, view: &EndpointView, started: bool, now: Timestamp) {
        endpoint.set_weight(view.weight);
        let cold = &mut *endpoint.cold.lock();
        self.warm(endpoint, cold, view.health, started, now);
        (cold.weight, cold.capacity) = (view.weight, view.capacity);
        (cold.member, cold.class) = (true, HealthClass::Uncounted);
        self.tally.add(HealthClass::Uncounted, cold.units());
        self.recount(endpoint, cold, now);
    }

    /// The view does not have it any more: it is kept for a while, without endpoints.
    fn leave(mut self, now: Timestamp) -> Option<Self> {
        let since = *self.absent.get_or_insert(now);
        self.roster.endpoints.iter().for_each(|gone| gone.cold.lock().member = false);
        self.roster = Roster::default();
        self.half_open.clear();
        self.tally = Tally::default();
        (now - since < REMEMBERED).then_some(self)
    }

    /// Whether more of its weight is ejected than the share `cap` of it.
    fn exceeds(&self, cap: f64) -> bool {
        self.tally.count >= 2 && self.tally.soft as f64 > cap * self.tally.total() as f64
    }

    fn candidate(&self, ring: &RingKeeper) -> Candidate {
        let input = self.input(false);
        let availability = if input.total > 0.0 { input.healthy / input.total } else { 0.0 };
        let idle = 1.0 - self.utilisation.get().unwrap_or_default().clamp(0.0, 1.0);
        Candidate {
            zone: self.zone.clone(),
            region: Arc::clone(&self.region),
            ring: ring.ring(),
            cost_ms: ring.cost_ms(),
            headroom: input.capacity * availability * idle,
        }
    }

    fn to_locality(&self, place: &Place, rules: &Arc<Rules>) -> LocalityEndpoints {
        LocalityEndpoints {
            zone: self.zone.clone(),
            region: Arc::clone(&self.region),
            priority: place.priority,
            level: place.level,
            remote: self.remote,
            accounts: Arc::clone(&self.accounts),
            total: self.tally.count as usize,
            ready: self.roster.ready.clone(),
            degraded: self.roster.degraded.clone(),
            state: Arc::clone(&self.state),
            path: self.path.clone(),
            rules: Arc::clone(rules),
        }
    }
}
