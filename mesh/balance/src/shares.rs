//! The formulas that divide a service's traffic: priorities by availability, localities by capacity.
//!
//! Pure arithmetic on counts: no endpoint, no time, no breaker. `plan` feeds it what the marks of endpoints add up to;
//! `what-if` feeds it a scenario.

use crate::table::apportion;

/// All of a service's traffic.
pub const S: u32 = 10_000;

/// One locality, in sums. Weights are in any unit, the same for all localities of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalityInput {
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
    /// Requests that the locality could serve at once, were all of it healthy; in one unit for all localities of a priority.
    pub capacity: f64,
    /// Use of that capacity, if known.
    pub utilisation: Option<f64>,
}

/// The parameters of the formulas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// A priority keeps its traffic down to 1 / this of its weight.
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
    /// What all priorities together can take, up to [`S`], before any panic.
    pub normalized_total_availability: u32,
    /// One for each priority, in order.
    pub priorities: Vec<PriorityShares>,
}

/// The part of one priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PriorityShares {
    /// Of all traffic, by its healthy endpoints (in a panic: by those without a hard mark).
    pub healthy_load: u32,
    /// Of all traffic, by its degraded endpoints.
    pub degraded_load: u32,
    /// Soft marks are ignored.
    pub panic: bool,
    /// One for each locality, in order.
    pub localities: Vec<LocalityShare>,
}

/// The part of one locality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalityShare {
    /// By healthy endpoints.
    pub healthy: u32,
    /// By degraded ones.
    pub degraded: u32,
}

impl LocalityShare {
    /// Both together.
    pub fn sum(self) -> u32 {
        self.healthy + self.degraded
    }
}

/// The factor by which utilisation lowers what a priority keeps: 1 up to the target and where unknown.
pub fn utilisation_factor(utilisation: Option<f64>, target: f64) -> f64 {
    match utilisation {
        Some(u) if u > target => target / u,
        _ => 1.0,
    }
}

/// The utilisation of a priority: the mean of what is known, by capacity.
pub fn priority_utilisation(localities: &[LocalityInput]) -> Option<f64> {
    let known = localities.iter().filter_map(|locality| locality.utilisation.map(|u| (u, locality.capacity.max(1e-9))));
    let (sum, capacity) = known.fold((0.0, 0.0), |(sum, all), (u, c)| (sum + u * c, all + c));
    (capacity > 0.0).then(|| sum / capacity)
}

/// Divides all traffic over `priorities`, each with the factor given for it (a node moves its factors slowly).
pub fn native_with(priorities: &[&[LocalityInput]], factors: &[f64], options: &Options) -> Shares {
    let scale = options.overprovisioning * f64::from(S);
    let ability = |part: f64, total: f64, factor: f64| {
        if total > 0.0 { (scale * part / total).min(f64::from(S)) * factor } else { 0.0 }
    };
    let mut facts: Vec<Priority> = priorities.iter().map(|localities| Priority::new(localities)).collect();
    for (priority, factor) in facts.iter_mut().zip(factors) {
        priority.healthy_ability = ability(priority.healthy, priority.total, *factor);
        priority.degraded_ability = ability(priority.degraded, priority.total, *factor);
    }
    let available: f64 = facts.iter().map(|t| t.healthy_ability + t.degraded_ability).sum();
    // The sums of a full priority may fall short of S by rounding noise only.
    let enough = available >= f64::from(S) - 1e-6;
    if !enough {
        for (priority, factor) in facts.iter_mut().zip(factors) {
            // A hair of tolerance: exactly half is no panic, in whatever unit weights are. With nothing else left, soft
            // marks are ignored whatever the threshold is.
            priority.panic = priority.availability() * 100.0 < options.panic_threshold - 1e-9 || available <= 0.0;
            if priority.panic {
                priority.healthy_ability = ability(priority.healthy + priority.soft, priority.total, *factor);
            }
        }
    }
    let loads = allocate(&facts);
    Shares {
        normalized_total_availability: available.min(f64::from(S)).round() as u32,
        priorities: priorities
            .iter()
            .zip(&facts)
            .zip(loads)
            .map(|((localities, priority), loads)| priority.split(localities, loads))
            .collect(),
    }
}

/// The sums of one priority, and what follows from them.
struct Priority {
    total: f64,
    healthy: f64,
    degraded: f64,
    soft: f64,
    healthy_ability: f64,
    degraded_ability: f64,
    panic: bool,
}

impl Priority {
    fn new(localities: &[LocalityInput]) -> Self {
        let sum = |of: fn(&LocalityInput) -> f64| localities.iter().map(of).sum();
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

    /// Divides the priority's loads among its localities: by weight × capacity × availability.
    fn split(&self, localities: &[LocalityInput], [healthy, degraded]: [u32; 2]) -> PriorityShares {
        let by_healthy = parts(localities, |l| l.healthy + if self.panic { l.soft } else { 0.0 });
        let by_degraded = parts(localities, |l| l.degraded);
        let localities = apportion(&by_healthy, healthy)
            .into_iter()
            .zip(apportion(&by_degraded, degraded))
            .map(|(healthy, degraded)| LocalityShare { healthy, degraded })
            .collect();
        PriorityShares { healthy_load: healthy, degraded_load: degraded, panic: self.panic, localities }
    }
}

/// The healthy pass, then the degraded one, in priority order; whole numbers that sum to [`S`], or all 0.
fn allocate(priorities: &[Priority]) -> Vec<[u32; 2]> {
    let ability: f64 = priorities.iter().map(|t| t.healthy_ability + t.degraded_ability).sum();
    let mut loads = vec![0.0; priorities.len() * 2];
    if ability > 0.0 {
        let all = f64::from(S);
        let stretch = all / ability.min(all);
        let mut rest = all;
        for (pass, load) in [(0, Priority::healthy_load as fn(&Priority) -> f64), (1, |t| t.degraded_ability)] {
            for (i, priority) in priorities.iter().enumerate() {
                let taken = rest.min(load(priority) * stretch);
                loads[i * 2 + pass] = taken;
                rest -= taken;
            }
        }
    }
    apportion(&loads, S).chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

impl Priority {
    fn healthy_load(&self) -> f64 {
        self.healthy_ability
    }
}

/// The parts of a priority's localities. Localities that the operator weighs 0 serve only when no other locality of the
/// priority can.
pub(crate) fn parts(localities: &[LocalityInput], available: impl Fn(&LocalityInput) -> f64) -> Vec<f64> {
    let part = |locality: &LocalityInput, weight: f64| {
        let part = available(locality);
        if part > 0.0 { weight * locality.capacity.max(1e-9) * part / locality.total } else { 0.0 }
    };
    let weighted: Vec<f64> = localities.iter().map(|locality| part(locality, locality.weight.max(0.0))).collect();
    if weighted.iter().any(|p| *p > 0.0) {
        return weighted;
    }
    localities.iter().map(|locality| part(locality, 1.0)).collect()
}

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
