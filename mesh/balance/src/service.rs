//! The decision object of one service in one node.
//!
//! Workers share it as `Arc<Service>`: [`Service::pick`] reads an immutable plan and a few atomics and takes no lock.
//! Everything that changes the plan (new facts, time, a breaker that trips) happens under one lock that
//! picks never take, and ends with a new plan. The control runtime calls [`Service::update`] and [`Service::tick`]; workers
//! call `pick`, [`Service::choose`] and [`Service::finish`].

mod asking;
mod control;
mod explaining;
mod facts;
mod finishing;
mod picking;
mod ticking;
mod updating;

use std::sync::Arc;

use arc_swap::ArcSwap;
use eastway_core::{EndpointId, LoadReport, Locality, ServiceName, Timestamp};
use eastway_resilience::RetryBudget;

use crate::endpoint::Endpoint;
use crate::locality::LocalityEndpoints;
use crate::plan::Plan;
use crate::policy::{Policy, Rules};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
pub use asking::WhatIf;
use control::Control;

/// Where the requests of one node to one service go.
#[derive(Debug)]
pub struct Service {
    name: ServiceName,
    caller: Locality,
    plan: ArcSwap<Plan>,
    control: Mutex<Control>,
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
        Self {
            plan: ArcSwap::from_pointee(Plan::empty(Arc::clone(&rules))),
            control: Mutex::new(Control::new(seed, rules)),
            next_probe: [AtomicU64::new(0), AtomicU64::new(0)],
            budget,
            cross_region,
            name,
            caller,
        }
    }

    /// Which service.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Where its requests come from.
    pub fn caller(&self) -> &Locality {
        &self.caller
    }

    /// Its numbers.
    pub fn policy(&self) -> Policy {
        self.control.lock().rules.policy.clone()
    }

    /// What its retries may cost.
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// What retries that cross a region may cost, besides.
    pub fn cross_region_budget(&self) -> &RetryBudget {
        &self.cross_region
    }

    /// The localities of the present plan, in priority order, with their shares of 10,000.
    pub fn localities(&self) -> Vec<(Arc<LocalityEndpoints>, u32)> {
        let plan = self.plan.load();
        plan.localities.iter().cloned().zip(plan.allocation.shares.iter().copied()).collect()
    }

    /// The shared state of an endpoint of a remote locality that a session led to.
    pub fn session(&self, locality: &Arc<LocalityEndpoints>, endpoint: &EndpointId) -> Arc<Endpoint> {
        locality.state.session(endpoint, &locality.zone, &locality.rules.endpoint)
    }

    /// What an endpoint of any locality says of its load, outside of a response (which brings it by [`Service::finish`]).
    pub fn report(&self, endpoint: &Endpoint, load: LoadReport, now: Timestamp) {
        endpoint.report(&load, now);
    }

    /// What an endpoint of the own cluster says of its load, by way of discovery. Unknown endpoints are ignored.
    pub fn apply_load(&self, endpoint: &EndpointId, load: LoadReport, now: Timestamp) {
        let control = self.control.lock();
        if let Some(member) = control.member(endpoint) {
            member.report(&load, now);
        }
    }
}

fn seed(name: &ServiceName, policy: &Policy) -> u64 {
    // FNV-1a, so that services of one process do not share their jitter.
    let text = name.namespace.bytes().chain([b'/']).chain(name.service.bytes());
    text.fold(policy.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
