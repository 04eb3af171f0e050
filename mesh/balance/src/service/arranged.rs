//! The localities in the order of one view, and the plans that follow from it.

use std::ops::Range;
use std::sync::Arc;

use eastway_core::Timestamp;
use eastway_core::policy::Mode;
use eastway_core::view::PathState;
use eastway_resilience::Phase;

use super::CallerView;
use super::control::{Control, LocalityControl};
use super::views::{Place, ViewControl};
use crate::allocation::{LocalityStats, ServiceStats};
use crate::locality::LocalityEndpoints;
use crate::plan::{Plan, Probe, Probing};
use crate::policy::Rules;
use crate::shares::{LocalityInput, priority_utilisation};
use crate::utilisation::{Factor, Reading};

/// The localities in the order of one view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arranged<'a> {
    localities: &'a [LocalityControl],
    pub(super) view: &'a ViewControl,
    rules: &'a Arc<Rules>,
}

impl Control {
    /// The view number `view`.
    pub(super) fn arranged(&self, view: usize) -> Arranged<'_> {
        Arranged { localities: &self.localities, view: &self.views[view], rules: &self.rules }
    }

    /// The view of the callers of `view`, which is one of these.
    pub(super) fn arranged_for(&self, view: &Arc<CallerView>) -> Arranged<'_> {
        let number = self.views.iter().position(|known| Arc::ptr_eq(&known.view, view));
        self.arranged(number.unwrap_or_default())
    }

    /// Makes a plan for each view, of these localities in its order, and ends the ramps that one of them overtakes.
    pub(super) fn plans(&mut self, localities: &[Arc<[Arc<LocalityEndpoints>]>], now: Timestamp) -> Vec<Plan> {
        let plans = |control: &Self| {
            let views = localities.iter().enumerate();
            views.map(|(view, localities)| control.arranged(view).plan(Arc::clone(localities), now)).collect::<Vec<_>>()
        };
        let made = plans(self);
        let overtaken =
            made.iter().enumerate().fold(false, |any, (view, plan)| self.overtakes_ramps(view, plan, now) || any);
        if overtaken { plans(self) } else { made }
    }

    /// Whether a plan gives localities more than their ramps allow, because nothing else can serve: those have returned.
    fn overtakes_ramps(&mut self, view: usize, plan: &Plan, now: Timestamp) -> bool {
        let policy = &self.rules.policy;
        if policy.mode == Mode::Envoy {
            return false;
        }
        let shares = self.views[view].places.iter().zip(&plan.allocation.shares);
        let localities = &mut self.localities;
        shares.fold(false, |ended, (place, share)| localities[place.at].failback.overtake(*share, policy, now) || ended)
    }

    /// Moves the factors of a view's priorities, and returns whether any did move.
    pub(super) fn move_factors(&mut self, view: usize, now: Timestamp) -> bool {
        let arranged = self.arranged(view);
        // All priorities together lack room.
        let lacking = arranged.view.view.plan.load().lacks_room();
        let inputs = arranged.inputs(false);
        let readings: Vec<Option<Reading>> =
            arranged.priorities().into_iter().map(|range| arranged.reading(&inputs, range)).collect();
        // Where all lack room, none can reach the target: then each aims at the mean, or all would sink.
        let mean = priority_utilisation(&inputs).filter(|_| lacking).unwrap_or_default();
        let target = self.rules.policy.target_utilisation.max(mean);
        let mut moved = false;
        for (factor, reading) in self.views[view].factors.iter_mut().zip(readings) {
            let before = factor.get();
            factor.update(reading, target, now);
            moved |= factor.get() != before;
        }
        moved
    }
}

impl<'a> Arranged<'a> {
    /// The locality in place `index`.
    pub(super) fn locality(&self, index: usize) -> &'a LocalityControl {
        &self.localities[self.view.places[index].at]
    }

    /// The localities with their places.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a Place, &'a LocalityControl)> + Clone {
        self.view.places.iter().map(move |place| (place, &self.localities[place.at]))
    }

    /// The priorities as ranges of places.
    pub(super) fn priorities(&self) -> Vec<Range<usize>> {
        let (mut ranges, mut start) = (Vec::new(), 0);
        for places in self.view.places.chunk_by(|a, b| a.priority == b.priority) {
            let end = start + places.len();
            ranges.push(start..end);
            start = end;
        }
        ranges
    }

    fn inputs(&self, fresh: bool) -> Vec<LocalityInput> {
        let mut inputs: Vec<LocalityInput> = self.iter().map(|(_, locality)| locality.input(fresh)).collect();
        // Capacities compare only where every locality of a priority states one.
        for range in self.priorities() {
            if range.clone().any(|i| self.locality(i).capacity.is_none()) {
                inputs[range].iter_mut().for_each(|input| input.capacity = input.total / 1000.0);
            }
        }
        inputs
    }

    /// What each locality has, whatever holds it back.
    pub(super) fn count(&self) -> Vec<LocalityStats> {
        let fresh = self.iter().any(|(_, locality)| locality.is_stale()).then(|| self.inputs(true));
        let inputs = self.iter().zip(self.inputs(false)).enumerate();
        inputs.map(|(i, ((_, locality), input))| locality.stats(input, fresh.as_ref().map(|fresh| fresh[i]))).collect()
    }

    fn plan(&self, localities: Arc<[Arc<LocalityEndpoints>]>, now: Timestamp) -> Plan {
        Plan::new(localities, self.stats(now), self.probes().into())
    }

    fn stats(&self, now: Timestamp) -> ServiceStats {
        let policy = &self.rules.policy;
        let counted = self.iter().zip(self.count());
        ServiceStats {
            localities: counted.map(|((_, locality), counted)| locality.capped(counted, policy, now)).collect(),
            priorities: self.priorities().into(),
            factors: self.view.factors.iter().map(Factor::get).collect(),
            rules: Arc::clone(self.rules),
        }
    }

    /// What is half-open and waits to be tried.
    fn probes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        let since = |phase: Phase| match phase {
            Phase::HalfOpen { since, .. } => Some(since),
            _ => None,
        };
        for (index, (_, locality)) in self.iter().enumerate() {
            if locality.path_state == PathState::Down {
                continue;
            }
            let mut add = |what, since| probes.push(Probe { locality: index, what, since });
            if locality.conceivable() {
                if let Some(at) = since(locality.state.circuit.guard.lock().breaker.phase()) {
                    add(Probing::Locality, at);
                }
                if let Some(at) = locality.path.as_ref().and_then(|path| since(path.guard.lock().breaker.phase())) {
                    add(Probing::Path, at);
                }
            }
            for endpoint in &locality.half_open {
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

    /// The utilisation of the priority that has these places.
    fn reading(&self, inputs: &[LocalityInput], range: Range<usize>) -> Option<Reading> {
        let latest: Vec<LocalityInput> = range
            .clone()
            .map(|i| LocalityInput { utilisation: self.locality(i).latest_utilisation, ..inputs[i] })
            .collect();
        let mean = priority_utilisation(&inputs[range])?;
        Some(Reading { mean, latest: priority_utilisation(&latest).unwrap_or(mean) })
    }
}
