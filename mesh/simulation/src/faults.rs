//! Faults as actions at moments: what a scenario says of them, taken apart.

use std::rc::Rc;

use eastway_core::Timestamp;

use crate::scenario::{Fault, Scenario};
use crate::world::{World, at, millis};

/// Something that is done to the world.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Endpoints die.
    Die { servers: Rc<[usize]>, silent: bool },
    /// Endpoints that died so live again unless something else holds them dead; slow by a factor for a while.
    Rise { servers: Rc<[usize]>, silent: bool, cold: Option<(f64, f64)> },
    /// Endpoints fail this part of their requests, or do so no more.
    Errors { servers: Rc<[usize]>, ratio: f64, on: bool },
    /// Service times are multiplied, or are so no more.
    Slow { servers: Rc<[usize]>, factor: f64, on: bool },
    /// Clusters stop hearing their peers, or hear them again.
    Stale { clusters: Vec<usize>, on: bool },
    /// The rate of requests is multiplied, or is so no more.
    Load { factor: f64, on: bool },
}

/// What faults that overlap do at once: each that begins is added, and taken out by itself when it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Active(Vec<f64>);

impl Active {
    pub(crate) fn set(&mut self, value: f64, on: bool) {
        if on {
            return self.0.push(value);
        }
        if let Some(index) = self.0.iter().position(|other| *other == value) {
            self.0.swap_remove(index);
        }
    }

    /// Of factors.
    pub(crate) fn product(&self) -> f64 {
        self.0.iter().product()
    }

    /// Of parts that fail independently of one another: the part that fails by any.
    pub(crate) fn any(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, part| sum + (1.0 - sum) * part)
    }
}

/// The actions of a scenario, in order of time. Deaths after its end are left out.
pub(crate) fn actions(scenario: &Scenario, world: &World) -> Vec<(Timestamp, Action)> {
    let mut actions = Vec::new();
    for fault in &scenario.faults {
        plan(fault, scenario, world, &mut actions);
    }
    actions.sort_by_key(|(at, _)| *at);
    actions
}

fn plan(fault: &Fault, scenario: &Scenario, world: &World, actions: &mut Vec<(Timestamp, Action)>) {
    let servers = servers(fault, world);
    let (from, until) = fault.span();
    let mut add = |seconds: f64, action: Action| actions.push((at(seconds), action));
    match fault {
        Fault::Kill { silent, cold_s, cold_factor, .. } => {
            add(from, Action::Die { servers: servers.clone(), silent: *silent });
            if let Some(until) = until {
                let cold = (*cold_s > 0.0).then_some((*cold_s, *cold_factor));
                add(until + scenario.warm_ms / 1000.0, Action::Rise { servers, silent: *silent, cold });
            }
        }
        Fault::Flap { until_s, period_s, down_s, .. } => {
            let until = until_s.min(scenario.duration_s);
            let times = (0u32..).map(|i| from + f64::from(i) * period_s).take_while(|at| *at < until);
            for time in times {
                add(time, Action::Die { servers: servers.clone(), silent: false });
                let rise = Action::Rise { servers: servers.clone(), silent: false, cold: None };
                add(time + down_s + scenario.warm_ms / 1000.0, rise);
            }
        }
        Fault::Errors { ratio, .. } => {
            let action = |on| Action::Errors { servers: servers.clone(), ratio: *ratio, on };
            add(from, action(true));
            until.into_iter().for_each(|until| add(until, action(false)));
        }
        Fault::Slow { factor, .. } => {
            let action = |on| Action::Slow { servers: servers.clone(), factor: *factor, on };
            add(from, action(true));
            until.into_iter().for_each(|until| add(until, action(false)));
        }
        Fault::Stale { cluster, .. } => {
            let is_meant = |i: &usize| cluster.as_ref().is_none_or(|name| **name == *world.clusters[*i].name);
            let clusters: Vec<usize> = (0..world.clusters.len()).filter(is_meant).collect();
            add(from, Action::Stale { clusters: clusters.clone(), on: true });
            until.into_iter().for_each(|until| add(until, Action::Stale { clusters: clusters.clone(), on: false }));
        }
        Fault::Load { factor, .. } => {
            add(from, Action::Load { factor: *factor, on: true });
            until.into_iter().for_each(|until| add(until, Action::Load { factor: *factor, on: false }));
        }
    }
}

/// The endpoints that a fault is about.
fn servers(fault: &Fault, world: &World) -> Rc<[usize]> {
    let (zone, count) = fault.place();
    let places = world.zones.iter().filter(|place| zone.is_none_or(|zone| place.id == *zone));
    places.flat_map(|place| place.servers.clone()).take(count.map_or(usize::MAX, |count| count as usize)).collect()
}

/// How long in-flight requests and connections to a vanished host take to be given up: a ping after 200 ms of silence,
/// and 250 ms for its answer.
pub(crate) fn silence() -> std::time::Duration {
    millis(450.0)
}
