//! What the localities of a service have now, and how its traffic divides over all of them or over some.
//!
//! A pick that may use every locality reads the table made of it once. One that may not, because it names a cluster or
//! because something was tried already, is divided by the same formulas over the localities that are left.

use std::ops::Range;
use std::sync::Arc;

use eastway_core::policy::Mode;

use crate::envoy::{self, Hosts};
use crate::policy::Rules;
use crate::ramp::{Headroom, apply_caps};
use crate::shares::{LocalityInput, LocalityShare, Options, PriorityShares, S, Shares, native_with, parts};
use crate::table::{HealthBand, apportion};

/// What the localities of a service have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceStats {
    /// In priority order.
    pub(crate) localities: Box<[LocalityStats]>,
    /// The localities of each priority.
    pub(crate) priorities: Box<[Range<usize>]>,
    /// What its utilisation leaves of each priority.
    pub(crate) factors: Box<[f64]>,
    pub(crate) rules: Arc<Rules>,
}

/// What one locality has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LocalityStats {
    /// In sums, without its utilisation: that is in the factors.
    pub(crate) input: LocalityInput,
    /// The same, were what is known of it fresh. Only where it is stale.
    pub(crate) fresh: Option<LocalityInput>,
    /// In endpoints.
    pub(crate) hosts: Hosts,
    /// Endpoints without a hard mark.
    pub(crate) reachable_hosts: u32,
    /// The most that it may take now, if something holds it back.
    pub(crate) cap: Option<u32>,
    /// Something in it has no hard mark, and there is a path, though it may fail as seen from here.
    pub(crate) reachable: bool,
    /// The path to it is down.
    pub(crate) path_down: bool,
}

/// How traffic is divided.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allocation {
    /// By the formulas alone.
    pub(crate) target: Shares,
    /// What each locality gets, held back and floored.
    pub(crate) shares: Vec<u32>,
}

impl LocalityStats {
    /// Whether something in it serves without any mark.
    pub(crate) fn serves(&self) -> bool {
        self.input.healthy + self.input.degraded > 0.0
    }
}

/// What one locality gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ShownShare {
    /// Of all traffic.
    pub(crate) share: u32,
    /// What it would be if nothing were held back, and everybody there could be picked.
    pub(crate) target: u32,
    /// Soft marks of its priority are ignored.
    pub(crate) panic: bool,
}

impl ServiceStats {
    /// Of no localities.
    pub(crate) fn empty(rules: Arc<Rules>) -> Self {
        Self { localities: Box::default(), priorities: Box::default(), factors: Box::default(), rules }
    }

    /// Divides all traffic over the localities that are `allowed`, as if there were no others.
    pub(crate) fn divide(&self, allowed: impl Fn(usize) -> bool) -> Allocation {
        let nothing = LocalityStats::default();
        let localities: Vec<&LocalityStats> = self
            .localities
            .iter()
            .enumerate()
            .map(|(i, locality)| if allowed(i) { locality } else { &nothing })
            .collect();
        let policy = &self.rules.policy;
        Localities { localities: &localities, priorities: &self.priorities, factors: &self.factors }
            .divide(policy.mode, &policy.options())
    }
}

/// What there is to divide traffic among: all that a node counts, a part of it, or what an operator asks about.
pub(crate) struct Localities<'a> {
    /// In priority order.
    pub(crate) localities: &'a [&'a LocalityStats],
    /// The localities of each priority.
    pub(crate) priorities: &'a [Range<usize>],
    /// What its utilisation leaves of each priority.
    pub(crate) factors: &'a [f64],
}

impl Localities<'_> {
    /// Divides all traffic: by the formulas, then floored for evidence, then held back.
    pub(crate) fn divide(&self, mode: Mode, options: &Options) -> Allocation {
        match mode {
            Mode::Native => self.native(options),
            Mode::Envoy => self.envoy(options),
        }
    }

    fn native(&self, options: &Options) -> Allocation {
        let inputs: Vec<LocalityInput> = self.localities.iter().map(|locality| locality.input).collect();
        let target = self.formulas(&inputs, options);
        let mut shares = by_locality(&target);
        if self.localities.iter().any(|locality| locality.fresh.is_some()) {
            let fresh: Vec<LocalityInput> =
                self.localities.iter().map(|locality| locality.fresh.unwrap_or(locality.input)).collect();
            min_probe_share(&mut shares, &by_locality(&self.formulas(&fresh, options)), self.localities);
        }
        apply_caps(&mut shares, &self.headrooms(options));
        Allocation { target, shares }
    }

    fn formulas(&self, inputs: &[LocalityInput], options: &Options) -> Shares {
        let priorities: Vec<&[LocalityInput]> = self.priorities.iter().map(|range| &inputs[range.clone()]).collect();
        native_with(&priorities, self.factors, options)
    }

    fn headrooms(&self, options: &Options) -> Vec<Headroom> {
        let mut headrooms = Vec::with_capacity(self.localities.len());
        for (priority, (range, factor)) in self.priorities.iter().zip(self.factors).enumerate() {
            let localities = &self.localities[range.clone()];
            let total: f64 = localities.iter().map(|locality| locality.input.total).sum();
            let inputs: Vec<LocalityInput> = localities.iter().map(|locality| locality.input).collect();
            let parts = parts(&inputs, |locality| locality.healthy + locality.degraded);
            headrooms.extend(localities.iter().zip(parts).map(|(locality, part)| {
                let able = locality.input.healthy + locality.input.degraded;
                let ability = if total > 0.0 { options.overprovisioning * f64::from(S) * able / total } else { 0.0 };
                Headroom { priority, available: able > 0.0, cap: locality.cap, ability: ability * factor, part }
            }));
        }
        headrooms
    }

    /// The Envoy mode: Envoy's loads for the priorities, divided among localities by hosts.
    ///
    /// One thing is not as in Envoy: what has a hard mark is never picked, also in a panic. The load of a priority where
    /// nothing can be picked goes to the others in proportion.
    fn envoy(&self, options: &Options) -> Allocation {
        let levels: Vec<Hosts> = self
            .priorities
            .iter()
            .map(|range| self.localities[range.clone()].iter().map(|locality| locality.hosts).sum())
            .collect();
        let loads = envoy::loads(&levels, options.overprovisioning, options.panic_threshold);
        let priorities = self.priorities.iter().zip(&loads.levels);
        let priorities = priorities.map(|(range, level)| split(*level, &self.localities[range.clone()])).collect();
        let target =
            Shares { normalized_total_availability: loads.normalized_total_availability * PERCENT, priorities };
        let shares = complete(by_locality(&target), self.localities);
        Allocation { target, shares }
    }
}

impl Allocation {
    /// Each locality's share, divided among its healthy and degraded endpoints as the formulas say.
    pub(crate) fn bins(&self) -> Vec<(usize, HealthBand, u32)> {
        let priorities = &self.target.priorities;
        let localities = priorities
            .iter()
            .flat_map(|priority| priority.localities.iter().map(|locality| (priority.panic, *locality)));
        let mut bins = Vec::with_capacity(self.shares.len() * 2);
        for (index, ((panic, locality), share)) in localities.zip(&self.shares).enumerate() {
            let healthy = if panic { HealthBand::Panic } else { HealthBand::Healthy };
            let by_degraded = match locality.sum() {
                // Took over what another locality does not take yet; a pick falls back if only degraded ones serve.
                0 => 0,
                sum => (u64::from(*share) * u64::from(locality.degraded) / u64::from(sum)) as u32,
            };
            bins.push((index, healthy, share - by_degraded));
            bins.push((index, HealthBand::Degraded, by_degraded));
        }
        bins
    }

    /// What each locality gets, for a human: in the Envoy mode in whole percent, as Envoy counts, though localities are
    /// drawn in hundredths of that.
    pub(crate) fn told(&self, mode: Mode) -> Vec<ShownShare> {
        let round = |parts: Vec<u32>| if mode == Mode::Envoy { whole_percents(&parts) } else { parts };
        let mut told = Vec::with_capacity(self.shares.len());
        for priority in &self.target.priorities {
            let healthy = round(priority.localities.iter().map(|locality| locality.healthy).collect());
            let degraded = round(priority.localities.iter().map(|locality| locality.degraded).collect());
            let targets = healthy.iter().zip(degraded).map(|(healthy, degraded)| healthy + degraded);
            told.extend(targets.map(|target| ShownShare { share: target, target, panic: priority.panic }));
        }
        if by_locality(&self.target) != self.shares {
            let shares = round(self.shares.clone());
            told.iter_mut().zip(shares).for_each(|(told, share)| told.share = share);
        }
        told
    }

    /// Draws a locality and how it serves; `None` if no locality has a share.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> Option<(usize, HealthBand)> {
        let all: u32 = self.shares.iter().sum();
        let mut point = rng.u32(..all.max(1));
        for (index, mode, share) in self.bins() {
            if point < share {
                return Some((index, mode));
            }
            point -= share;
        }
        None
    }
}

fn by_locality(shares: &Shares) -> Vec<u32> {
    shares.priorities.iter().flat_map(|priority| priority.localities.iter().map(|locality| locality.sum())).collect()
}

/// A stale locality keeps one percent of what it would get, were it fresh, up to one percent of all: enough to notice
/// whether it still serves.
fn min_probe_share(shares: &mut [u32], fresh: &[u32], localities: &[&LocalityStats]) {
    for (i, locality) in localities.iter().enumerate() {
        let floor = fresh[i].min(S / 100);
        if locality.fresh.is_none() || shares[i] >= floor {
            continue;
        }
        let Some(richest) = (0..shares.len()).max_by_key(|j| (shares[*j], std::cmp::Reverse(*j))) else { continue };
        let moved = (floor - shares[i]).min(shares[richest]);
        shares[richest] -= moved;
        shares[i] += moved;
    }
}

/// One percent of all traffic, in the units of shares.
const PERCENT: u32 = S / 100;

fn whole_percents(parts: &[u32]) -> Vec<u32> {
    let all: u32 = parts.iter().sum();
    let parts: Vec<f64> = parts.iter().copied().map(f64::from).collect();
    apportion(&parts, all / PERCENT).into_iter().map(|share| share * PERCENT).collect()
}

fn split(level: envoy::Level, localities: &[&LocalityStats]) -> PriorityShares {
    let by = |count: &dyn Fn(&LocalityStats) -> u32, load: u32| {
        apportion(&localities.iter().map(|locality| f64::from(count(locality))).collect::<Vec<_>>(), load)
    };
    let (healthy_load, degraded_load) = (level.healthy_load * PERCENT, level.degraded_load * PERCENT);
    // Load that was given to nobody in particular: without a panic, all of it to the first level.
    let nobody = localities.iter().all(|locality| locality.hosts.healthy == 0 && locality.hosts.degraded == 0);
    let any = level.panic || nobody;
    let healthy = by(&|locality| if any { locality.reachable_hosts } else { locality.hosts.healthy }, healthy_load);
    let degraded = by(&|locality| locality.hosts.degraded, degraded_load);
    let localities = healthy.into_iter().zip(degraded).map(|(healthy, degraded)| LocalityShare { healthy, degraded });
    PriorityShares { healthy_load, degraded_load, panic: level.panic, localities: localities.collect() }
}

/// What cannot be picked where the formulas sent it goes to the localities that can serve.
fn complete(shares: Vec<u32>, localities: &[&LocalityStats]) -> Vec<u32> {
    let parts: Vec<f64> = match shares.iter().sum() {
        S => return shares,
        0 => localities.iter().map(|locality| f64::from(locality.reachable_hosts)).collect(),
        _ => shares.iter().copied().map(f64::from).collect(),
    };
    apportion(&parts, S)
}

#[cfg(test)]
mod tests;
