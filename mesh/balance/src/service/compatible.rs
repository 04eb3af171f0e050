//! The compatible mode in a running node: Envoy's loads for the tiers, divided among lanes by hosts.
//!
//! One thing is not as in Envoy: what has a hard mark is never picked, also in a panic. The load of a tier where nothing
//! can be picked goes to the others in proportion.

use super::control::{Control, LaneControl};
use crate::compat::{self, Hosts};
use crate::plan::Decision;
use crate::policy::Policy;
use crate::shares::{LaneShare, S, Shares, TierShares};
use crate::table::apportion;

pub(super) fn decide(control: &Control, policy: &Policy) -> Decision {
    let ranges = control.tiers();
    let hosts: Vec<(Hosts, u32)> = control.lanes.iter().map(LaneControl::hosts).collect();
    let levels: Vec<Hosts> =
        ranges.iter().map(|range| hosts[range.clone()].iter().map(|(hosts, _)| *hosts).sum()).collect();
    let loads = compat::loads(&levels, policy.overprovisioning, policy.panic_threshold);
    let tiers: Vec<TierShares> =
        ranges.iter().zip(&loads.levels).map(|(range, level)| split(*level, &hosts[range.clone()])).collect();
    let shares = tiers.iter().flat_map(|tier| tier.lanes.iter().map(|lane| lane.sum())).collect();
    let target = Shares { normalized_total_availability: loads.normalized_total_availability * PERCENT, tiers };
    Decision { target, shares: complete(shares, &hosts) }
}

/// One percent of all traffic, in the units of shares.
const PERCENT: u32 = S / 100;

fn split(level: compat::Level, lanes: &[(Hosts, u32)]) -> TierShares {
    let by = |count: &dyn Fn(&(Hosts, u32)) -> u32, load: u32| {
        apportion(&lanes.iter().map(|lane| f64::from(count(lane))).collect::<Vec<_>>(), load)
    };
    let (healthy_load, degraded_load) = (level.healthy_load * PERCENT, level.degraded_load * PERCENT);
    let healthy = by(&|(hosts, reachable)| if level.panic { *reachable } else { hosts.healthy }, healthy_load);
    let degraded = by(&|(hosts, _)| hosts.degraded, degraded_load);
    let lanes = healthy.into_iter().zip(degraded).map(|(healthy, degraded)| LaneShare { healthy, degraded });
    TierShares { healthy_load, degraded_load, panic: level.panic, lanes: lanes.collect() }
}

/// What cannot be picked where the formulas sent it goes to the lanes that can serve.
fn complete(shares: Vec<u32>, hosts: &[(Hosts, u32)]) -> Vec<u32> {
    let sum: u32 = shares.iter().sum();
    if sum == S {
        return shares;
    }
    let parts: Vec<f64> = match sum {
        0 => hosts.iter().map(|(_, reachable)| f64::from(*reachable)).collect(),
        _ => shares.iter().copied().map(f64::from).collect(),
    };
    apportion(&parts, S)
}
