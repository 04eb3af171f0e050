//! The formulas that divide a service's traffic: tiers by availability, lanes by capacity.
//!
//! Pure arithmetic on counts: no endpoint, no time, no breaker. `plan` feeds it what the marks of endpoints add up to;
//! `what-if` feeds it a scenario.

use crate::table::apportion;

/// All of a service's traffic.
pub const S: u32 = 10_000;

/// One lane, in sums. Weights are in any unit, the same for all lanes of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneInput {
    /// Weight that counts: all but what was never warmed.
    pub total: f64,
    /// Of it, healthy.
    pub healthy: f64,
    /// Of it, degraded.
    pub degraded: f64,
    /// Of it, out only by soft marks.
    pub soft: f64,
    /// The operator's weight of the locality.
    pub weight: f64,
    /// Requests that the lane could serve at once, were all of it healthy; in one unit for all lanes of a tier.
    pub capacity: f64,
    /// Use of that capacity, if known.
    pub utilisation: Option<f64>,
}

/// The parameters of the formulas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// A tier keeps its traffic down to 1 / this of its weight.
    pub overprovisioning: f64,
    /// In percent.
    pub panic_threshold: f64,
    /// Utilisation above this spills.
    pub target_utilisation: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { overprovisioning: 1.4, panic_threshold: 50.0, target_utilisation: 0.8 }
    }
}

/// The division of a service's traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// What all tiers together can take, up to [`S`], before any panic.
    pub normalized_total_availability: u32,
    /// One for each tier, in order.
    pub tiers: Vec<TierShares>,
}

/// The part of one tier.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TierShares {
    /// Of all traffic, by its healthy endpoints (in a panic: by those without a hard mark).
    pub healthy_load: u32,
    /// Of all traffic, by its degraded endpoints.
    pub degraded_load: u32,
    /// Soft marks are ignored.
    pub panic: bool,
    /// One for each lane, in order.
    pub lanes: Vec<LaneShare>,
}

/// The part of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneShare {
    /// By healthy endpoints.
    pub healthy: u32,
    /// By degraded ones.
    pub degraded: u32,
}

impl LaneShare {
    /// Both together.
    pub fn sum(self) -> u32 {
        self.healthy + self.degraded
    }
}

/// The factor by which utilisation lowers what a tier keeps: 1 up to the target and where unknown.
pub fn utilisation_factor(utilisation: Option<f64>, target: f64) -> f64 {
    match utilisation {
        Some(u) if u > target => target / u,
        _ => 1.0,
    }
}

/// The utilisation of a tier: the mean of what is known, by capacity.
pub fn tier_utilisation(lanes: &[LaneInput]) -> Option<f64> {
    let known = lanes.iter().filter_map(|lane| lane.utilisation.map(|u| (u, lane.capacity.max(1e-9))));
    let (sum, capacity) = known.fold((0.0, 0.0), |(sum, all), (u, c)| (sum + u * c, all + c));
    (capacity > 0.0).then(|| sum / capacity)
}

/// Divides all traffic over `tiers`, each with the factor given for it (a node moves its factors slowly).
pub fn native_with(tiers: &[&[LaneInput]], factors: &[f64], options: &Options) -> Shares {
    let scale = options.overprovisioning * f64::from(S);
    let ability = |part: f64, total: f64, factor: f64| {
        if total > 0.0 { (scale * part / total).min(f64::from(S)) * factor } else { 0.0 }
    };
    let mut facts: Vec<Tier> = tiers.iter().map(|lanes| Tier::new(lanes)).collect();
    for (tier, factor) in facts.iter_mut().zip(factors) {
        tier.healthy_ability = ability(tier.healthy, tier.total, *factor);
        tier.degraded_ability = ability(tier.degraded, tier.total, *factor);
    }
    let available: f64 = facts.iter().map(|t| t.healthy_ability + t.degraded_ability).sum();
    // The sums of a full tier may fall short of S by rounding noise only.
    let enough = available >= f64::from(S) - 1e-6;
    if !enough {
        for (tier, factor) in facts.iter_mut().zip(factors) {
            // A hair of tolerance: exactly half is no panic, in whatever unit weights are. With nothing else left, soft marks
            // are ignored whatever the threshold is.
            tier.panic = tier.availability() * 100.0 < options.panic_threshold - 1e-9 || available <= 0.0;
            if tier.panic {
                tier.healthy_ability = ability(tier.healthy + tier.soft, tier.total, *factor);
            }
        }
    }
    let loads = pour(&facts);
    Shares {
        normalized_total_availability: available.min(f64::from(S)).round() as u32,
        tiers: tiers.iter().zip(&facts).zip(loads).map(|((lanes, tier), loads)| tier.split(lanes, loads)).collect(),
    }
}

/// The sums of one tier, and what follows from them.
struct Tier {
    total: f64,
    healthy: f64,
    degraded: f64,
    soft: f64,
    healthy_ability: f64,
    degraded_ability: f64,
    panic: bool,
}

impl Tier {
    fn new(lanes: &[LaneInput]) -> Self {
        let sum = |of: fn(&LaneInput) -> f64| lanes.iter().map(of).sum();
        Self {
            total: sum(|l| l.total),
            healthy: sum(|l| l.healthy),
            degraded: sum(|l| l.degraded),
            soft: sum(|l| l.soft),
            healthy_ability: 0.0,
            degraded_ability: 0.0,
            panic: false,
        }
    }

    fn availability(&self) -> f64 {
        if self.total > 0.0 { (self.healthy + self.degraded) / self.total } else { 0.0 }
    }

    /// Divides the tier's loads among its lanes: by weight × capacity × availability.
    fn split(&self, lanes: &[LaneInput], [healthy, degraded]: [u32; 2]) -> TierShares {
        let by_healthy = parts(lanes, |l| l.healthy + if self.panic { l.soft } else { 0.0 });
        let by_degraded = parts(lanes, |l| l.degraded);
        let lanes = apportion(&by_healthy, healthy)
            .into_iter()
            .zip(apportion(&by_degraded, degraded))
            .map(|(healthy, degraded)| LaneShare { healthy, degraded })
            .collect();
        TierShares { healthy_load: healthy, degraded_load: degraded, panic: self.panic, lanes }
    }
}

/// The healthy pass, then the degraded one, in tier order; whole numbers that sum to [`S`], or all 0.
fn pour(tiers: &[Tier]) -> Vec<[u32; 2]> {
    let ability: f64 = tiers.iter().map(|t| t.healthy_ability + t.degraded_ability).sum();
    let mut loads = vec![0.0; tiers.len() * 2];
    if ability > 0.0 {
        let all = f64::from(S);
        let stretch = all / ability.min(all);
        let mut rest = all;
        for (pass, load) in [(0, Tier::healthy_load as fn(&Tier) -> f64), (1, |t| t.degraded_ability)] {
            for (i, tier) in tiers.iter().enumerate() {
                let taken = rest.min(load(tier) * stretch);
                loads[i * 2 + pass] = taken;
                rest -= taken;
            }
        }
    }
    apportion(&loads, S).chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

impl Tier {
    fn healthy_load(&self) -> f64 {
        self.healthy_ability
    }
}

/// The parts of a tier's lanes. Lanes that the operator weighs 0 serve only when no other lane of the tier can.
pub(crate) fn parts(lanes: &[LaneInput], available: impl Fn(&LaneInput) -> f64) -> Vec<f64> {
    let part = |lane: &LaneInput, weight: f64| {
        let part = available(lane);
        if part > 0.0 { weight * lane.capacity.max(1e-9) * part / lane.total } else { 0.0 }
    };
    let weighted: Vec<f64> = lanes.iter().map(|lane| part(lane, lane.weight.max(0.0))).collect();
    if weighted.iter().any(|p| *p > 0.0) {
        return weighted;
    }
    lanes.iter().map(|lane| part(lane, 1.0)).collect()
}

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
