//! The decision object of one service in one node.
//!
//! Workers share it as `Arc<Service>`: [`Service::pick`] reads an immutable plan and a few atomics and takes no lock.
//! Everything that changes the plan (new facts, time, a breaker that trips) happens under one lock that
//! picks never take, and ends with a new plan. The control runtime calls [`Service::update`] and [`Service::tick`]; workers
//! call `pick`, [`Service::choose`] and [`Service::finish`].

mod arranged;
mod asking;
mod control;
mod explaining;
mod facts;
mod finishing;
mod picking;
mod roster;
mod ticking;
mod updating;
mod views;

use std::sync::Arc;

use arc_swap::ArcSwap;
use eastway_core::{EndpointId, LoadReport, Locality, ServiceName, Timestamp};
use eastway_resilience::RetryBudget;

use crate::endpoint::Endpoint;
use crate::locality::LocalityEndpoints;
use crate::plan::Plan;
use crate::policy::{Policy, Rules};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::atomic::{AtomicBool, AtomicU64};
pub use asking::WhatIf;
use control::Control;
use views::ViewControl;

/// Where the requests of one node to one service go that come from one locality.
///
/// What the node knows of the service's endpoints is there once, whatever the number of callers: see [`Service::beside`]. Clones
/// are handles of the same.
#[derive(Clone, Debug)]
pub struct Service {
    view: Arc<CallerView>,
    state: Arc<ServiceState>,
}

/// The service as callers in one locality see it.
#[derive(Debug)]
struct CallerView {
    caller: Locality,
    plan: ArcSwap<Plan>,
}

/// What the node knows of a service, wherever its callers are.
#[derive(Debug)]
struct ServiceState {
    name: ServiceName,
    control: Mutex<Control>,
    /// Something happened since the last tick.
    awake: AtomicBool,
    /// Nanoseconds before which no further probe starts: for requests that may not be repeated, and for those that may.
    next_probe: [AtomicU64; 2],
    budget: RetryBudget,
    cross_region: RetryBudget,
}

impl Service {
    /// The service `name` as called from `caller`. Until the first [`Service::update`] it has no endpoint.
    pub fn new(name: ServiceName, caller: Locality, policy: Policy) -> Self {
        let budget = || RetryBudget::new(policy.retry_ratio, policy.retry_min_per_second);
        let (budget, cross_region) = (budget(), budget());
        let seed = seed(&name, &policy);
        let rules = Rules::new(policy);
        let view = CallerView::new(caller, &rules);
        let mut control = Control::new(seed, rules);
        control.views.push(ViewControl::new(Arc::clone(&view)));
        let state = ServiceState {
            name,
            control: Mutex::new(control),
            awake: AtomicBool::new(true),
            next_probe: [AtomicU64::new(0), AtomicU64::new(0)],
            budget,
            cross_region,
        };
        Self { view, state: Arc::new(state) }
    }

    /// The same service as called from another zone of the same cluster. Both share what the node knows, so that it is enough
    /// to update one of them, and to tell one of the time. Until the next [`Service::update`] this one has no endpoint.
    #[must_use]
    pub fn beside(&self, caller: Locality) -> Self {
        let mut control = self.state.control.lock();
        let view = CallerView::new(caller, &control.rules);
        control.views.push(ViewControl::new(Arc::clone(&view)));
        Self { view, state: Arc::clone(&self.state) }
    }

    /// Which service.
    pub fn name(&self) -> &ServiceName {
        &self.state.name
    }

    /// Where its requests come from.
    pub fn caller(&self) -> &Locality {
        &self.view.caller
    }

    /// Its numbers.
    pub fn policy(&self) -> Policy {
        self.state.control.lock().rules.policy.clone()
    }

    /// What its retries may cost.
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.state.budget
    }

    /// What retries that cross a region may cost, besides.
    pub fn cross_region_budget(&self) -> &RetryBudget {
        &self.state.cross_region
    }

    /// The localities of the present plan, in priority order, with their shares of 10,000.
    pub fn localities(&self) -> Vec<(Arc<LocalityEndpoints>, u32)> {
        let plan = self.view.plan.load();
        plan.localities.iter().cloned().zip(plan.allocation.shares.iter().copied()).collect()
    }

    /// The shared state of an endpoint of a remote locality that a session led to.
    pub fn session(&self, locality: &Arc<LocalityEndpoints>, endpoint: &EndpointId) -> Arc<Endpoint> {
        locality.state.session(endpoint, &locality.zone, &locality.rules.endpoint)
    }

    /// What an endpoint of any locality says of its load, outside of a response (which brings it by [`Service::finish`]).
    pub fn report(&self, endpoint: &Endpoint, load: LoadReport, now: Timestamp) {
        endpoint.report(&load, now);
        self.wake();
    }

    /// What an endpoint of the own cluster says of its load, by way of discovery. Unknown endpoints are ignored.
    pub fn apply_load(&self, endpoint: &EndpointId, load: LoadReport, now: Timestamp) {
        let control = self.state.control.lock();
        if let Some(member) = control.member(endpoint) {
            member.report(&load, now);
            self.wake();
        }
    }

    /// Something happened that time goes on to change.
    #[inline]
    fn wake(&self) {
        // Read first: workers share the flag, and find it raised.
        if !self.state.awake.load(Relaxed) {
            self.state.awake.store(true, Relaxed);
        }
    }
}

impl CallerView {
    fn new(caller: Locality, rules: &Arc<Rules>) -> Arc<Self> {
        let plan = ArcSwap::from_pointee(Plan::empty(Arc::clone(rules)));
        Arc::new(Self { caller, plan })
    }
}

fn seed(name: &ServiceName, policy: &Policy) -> u64 {
    // FNV-1a, so that services of one process do not share their jitter.
    let text = name.namespace.bytes().chain([b'/']).chain(name.service.bytes());
    text.fold(policy.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
