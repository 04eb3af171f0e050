//! What the lanes of a service have now, and how its traffic divides over all of them or over some.
//!
//! A pick that may use every lane reads the table made of it once. One that may not, because it names a cluster or because
//! something was tried already, is divided by the same formulas over the lanes that are left.

use std::ops::Range;
use std::sync::Arc;

use eastway_core::policy::Mode as Formulas;

use crate::compat::{self, Hosts};
use crate::policy::Rules;
use crate::ramp::{Room, hold_back};
use crate::shares::{LaneInput, LaneShare, Options, S, Shares, TierShares, native_with, parts};
use crate::table::{Mode, apportion};

/// What the lanes of a service have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Census {
    /// In tier order.
    pub(crate) lanes: Box<[Counted]>,
    /// The lanes of each tier.
    pub(crate) tiers: Box<[Range<usize>]>,
    /// What its utilisation leaves of each tier.
    pub(crate) factors: Box<[f64]>,
    pub(crate) rules: Arc<Rules>,
}

/// What one lane has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// In sums, without its utilisation: that is in the factors.
    pub(crate) input: LaneInput,
    /// The same, were what is known of it fresh. Only where it is stale.
    pub(crate) fresh: Option<LaneInput>,
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
pub(crate) struct Decision {
    /// By the formulas alone.
    pub(crate) target: Shares,
    /// What each lane gets, held back and floored.
    pub(crate) shares: Vec<u32>,
}

impl Counted {
    /// Whether something in it serves without any mark.
    pub(crate) fn serves(&self) -> bool {
        self.input.healthy + self.input.degraded > 0.0
    }
}

/// What one lane gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// Of all traffic.
    pub(crate) share: u32,
    /// What it would be if nothing were held back, and everybody there could be picked.
    pub(crate) target: u32,
    /// Soft marks of its tier are ignored.
    pub(crate) panic: bool,
}

impl Census {
    /// Of no lanes.
    pub(crate) fn empty(rules: Arc<Rules>) -> Self {
        Self { lanes: Box::default(), tiers: Box::default(), factors: Box::default(), rules }
    }

    /// Divides all traffic over the lanes that are `allowed`, as if there were no others.
    pub(crate) fn divide(&self, allowed: impl Fn(usize) -> bool) -> Decision {
        let nothing = Counted::default();
        let lanes: Vec<&Counted> =
            self.lanes.iter().enumerate().map(|(i, lane)| if allowed(i) { lane } else { &nothing }).collect();
        let policy = &self.rules.policy;
        Lanes { lanes: &lanes, tiers: &self.tiers, factors: &self.factors }.divide(policy.mode, &policy.options())
    }
}

/// What there is to divide traffic among: all that a node counts, a part of it, or what an operator asks about.
pub(crate) struct Lanes<'a> {
    /// In tier order.
    pub(crate) lanes: &'a [&'a Counted],
    /// The lanes of each tier.
    pub(crate) tiers: &'a [Range<usize>],
    /// What its utilisation leaves of each tier.
    pub(crate) factors: &'a [f64],
}

impl Lanes<'_> {
    /// Divides all traffic: by the formulas, then floored for evidence, then held back.
    pub(crate) fn divide(&self, formulas: Formulas, options: &Options) -> Decision {
        match formulas {
            Formulas::Native => self.native(options),
            Formulas::Compatible => self.compatible(options),
        }
    }

    fn native(&self, options: &Options) -> Decision {
        let inputs: Vec<LaneInput> = self.lanes.iter().map(|lane| lane.input).collect();
        let target = self.formulas(&inputs, options);
        let mut shares = by_lane(&target);
        if self.lanes.iter().any(|lane| lane.fresh.is_some()) {
            let fresh: Vec<LaneInput> = self.lanes.iter().map(|lane| lane.fresh.unwrap_or(lane.input)).collect();
            keep_evidence(&mut shares, &by_lane(&self.formulas(&fresh, options)), self.lanes);
        }
        hold_back(&mut shares, &self.rooms(options));
        Decision { target, shares }
    }

    fn formulas(&self, inputs: &[LaneInput], options: &Options) -> Shares {
        let tiers: Vec<&[LaneInput]> = self.tiers.iter().map(|range| &inputs[range.clone()]).collect();
        native_with(&tiers, self.factors, options)
    }

    fn rooms(&self, options: &Options) -> Vec<Room> {
        let mut rooms = Vec::with_capacity(self.lanes.len());
        for (tier, (range, factor)) in self.tiers.iter().zip(self.factors).enumerate() {
            let lanes = &self.lanes[range.clone()];
            let total: f64 = lanes.iter().map(|lane| lane.input.total).sum();
            let inputs: Vec<LaneInput> = lanes.iter().map(|lane| lane.input).collect();
            let parts = parts(&inputs, |lane| lane.healthy + lane.degraded);
            rooms.extend(lanes.iter().zip(parts).map(|(lane, part)| {
                let able = lane.input.healthy + lane.input.degraded;
                let ability = if total > 0.0 { options.overprovisioning * f64::from(S) * able / total } else { 0.0 };
                Room { tier, available: able > 0.0, cap: lane.cap, ability: ability * factor, part }
            }));
        }
        rooms
    }

    /// The compatible mode: Envoy's loads for the tiers, divided among lanes by hosts.
    ///
    /// One thing is not as in Envoy: what has a hard mark is never picked, also in a panic. The load of a tier where
    /// nothing can be picked goes to the others in proportion.
    fn compatible(&self, options: &Options) -> Decision {
        let levels: Vec<Hosts> =
            self.tiers.iter().map(|range| self.lanes[range.clone()].iter().map(|lane| lane.hosts).sum()).collect();
        let loads = compat::loads(&levels, options.overprovisioning, options.panic_threshold);
        let tiers = self.tiers.iter().zip(&loads.levels);
        let tiers = tiers.map(|(range, level)| split(*level, &self.lanes[range.clone()])).collect();
        let target = Shares { normalized_total_availability: loads.normalized_total_availability * PERCENT, tiers };
        let shares = complete(by_lane(&target), self.lanes);
        Decision { target, shares }
    }
}

impl Decision {
    /// Each lane's share, divided among its healthy and degraded endpoints as the formulas say.
    pub(crate) fn bins(&self) -> Vec<(usize, Mode, u32)> {
        let tiers = &self.target.tiers;
        let lanes = tiers.iter().flat_map(|tier| tier.lanes.iter().map(|lane| (tier.panic, *lane)));
        let mut bins = Vec::with_capacity(self.shares.len() * 2);
        for (index, ((panic, lane), share)) in lanes.zip(&self.shares).enumerate() {
            let healthy = if panic { Mode::Panic } else { Mode::Healthy };
            let by_degraded = match lane.sum() {
                // Took over what another lane does not take yet; a pick falls back if only degraded ones serve.
                0 => 0,
                sum => (u64::from(*share) * u64::from(lane.degraded) / u64::from(sum)) as u32,
            };
            bins.push((index, healthy, share - by_degraded));
            bins.push((index, Mode::Degraded, by_degraded));
        }
        bins
    }

    /// What each lane gets, for a human: in the compatible mode in whole percent, as Envoy counts, though lanes are drawn in
    /// hundredths of that.
    pub(crate) fn told(&self, formulas: Formulas) -> Vec<Told> {
        let round = |parts: Vec<u32>| if formulas == Formulas::Compatible { whole_percents(&parts) } else { parts };
        let mut told = Vec::with_capacity(self.shares.len());
        for tier in &self.target.tiers {
            let healthy = round(tier.lanes.iter().map(|lane| lane.healthy).collect());
            let degraded = round(tier.lanes.iter().map(|lane| lane.degraded).collect());
            let targets = healthy.iter().zip(degraded).map(|(healthy, degraded)| healthy + degraded);
            told.extend(targets.map(|target| Told { share: target, target, panic: tier.panic }));
        }
        if by_lane(&self.target) != self.shares {
            let shares = round(self.shares.clone());
            told.iter_mut().zip(shares).for_each(|(told, share)| told.share = share);
        }
        told
    }

    /// Draws a lane and how it serves; `None` if no lane has a share.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> Option<(usize, Mode)> {
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

fn by_lane(shares: &Shares) -> Vec<u32> {
    shares.tiers.iter().flat_map(|tier| tier.lanes.iter().map(|lane| lane.sum())).collect()
}

/// A stale lane keeps one percent of what it would get, were it fresh, up to one percent of all: enough to notice
/// whether it still serves.
fn keep_evidence(shares: &mut [u32], fresh: &[u32], lanes: &[&Counted]) {
    for (i, lane) in lanes.iter().enumerate() {
        let floor = fresh[i].min(S / 100);
        if lane.fresh.is_none() || shares[i] >= floor {
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

fn split(level: compat::Level, lanes: &[&Counted]) -> TierShares {
    let by = |count: &dyn Fn(&Counted) -> u32, load: u32| {
        apportion(&lanes.iter().map(|lane| f64::from(count(lane))).collect::<Vec<_>>(), load)
    };
    let (healthy_load, degraded_load) = (level.healthy_load * PERCENT, level.degraded_load * PERCENT);
    // Load that was given to nobody in particular: without a panic, all of it to the first level.
    let nobody = lanes.iter().all(|lane| lane.hosts.healthy == 0 && lane.hosts.degraded == 0);
    let any = level.panic || nobody;
    let healthy = by(&|lane| if any { lane.reachable_hosts } else { lane.hosts.healthy }, healthy_load);
    let degraded = by(&|lane| lane.hosts.degraded, degraded_load);
    let lanes = healthy.into_iter().zip(degraded).map(|(healthy, degraded)| LaneShare { healthy, degraded });
    TierShares { healthy_load, degraded_load, panic: level.panic, lanes: lanes.collect() }
}

/// What cannot be picked where the formulas sent it goes to the lanes that can serve.
fn complete(shares: Vec<u32>, lanes: &[&Counted]) -> Vec<u32> {
    let parts: Vec<f64> = match shares.iter().sum() {
        S => return shares,
        0 => lanes.iter().map(|lane| f64::from(lane.reachable_hosts)).collect(),
        _ => shares.iter().copied().map(f64::from).collect(),
    };
    apportion(&parts, S)
}

#[cfg(test)]
mod tests;
