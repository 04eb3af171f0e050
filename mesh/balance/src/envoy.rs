//! Envoy mode: Envoy's priority levels, in its integers.
//!
//! For operators who must get the same numbers as before; it knows neither weights, capacity and utilisation nor ramps.

use std::iter::Sum;

/// The hosts of one priority level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// All of them.
    pub hosts: u32,
    /// Of them, healthy.
    pub healthy: u32,
    /// Of them, degraded.
    pub degraded: u32,
    /// Of them, never warmed: not counted, except when every level panics.
    pub excluded: u32,
}

/// The division of all traffic, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    /// What all levels together can take, up to 100.
    pub normalized_total_availability: u32,
    /// One for each level, in order.
    pub levels: Vec<Level>,
}

/// The load of one level, in percent of all traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// By its healthy hosts; by all of them in a panic.
    pub healthy_load: u32,
    /// By its degraded hosts.
    pub degraded_load: u32,
    /// Health is ignored in this level.
    pub panic: bool,
}

/// Divides all traffic over `levels` as Envoy does. `panic_threshold` is in percent.
pub fn loads(levels: &[Hosts], overprovisioning: f64, panic_threshold: f64) -> Loads {
    let factor = (100.0 * overprovisioning).round().max(0.0) as u64;
    let ability = |part: u32, level: &Hosts| match u64::from(level.counted()) {
        0 => 0,
        counted => (factor * u64::from(part) / counted).min(100) as u32,
    };
    let healthy: Vec<u32> = levels.iter().map(|l| ability(l.healthy, l)).collect();
    let degraded: Vec<u32> = levels.iter().map(|l| ability(l.degraded, l)).collect();
    let total = healthy.iter().chain(&degraded).map(|x| u64::from(*x)).sum::<u64>().min(100) as u32;
    let mut result = Loads { normalized_total_availability: total, levels: vec![Level::default(); levels.len()] };
    if levels.is_empty() {
        return result;
    }
    if total < 100 {
        for (level, hosts) in result.levels.iter_mut().zip(levels) {
            level.panic = hosts.percent_available() < panic_threshold;
        }
    }
    if result.levels.iter().all(|level| level.panic) {
        by_hosts(&mut result.levels, levels);
    } else if total == 0 {
        result.levels[0].healthy_load = 100;
    } else {
        allocate(&mut result.levels, &healthy, &degraded, total);
    }
    result
}

impl Sum for Hosts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            hosts: a.hosts.saturating_add(b.hosts),
            healthy: a.healthy.saturating_add(b.healthy),
            degraded: a.degraded.saturating_add(b.degraded),
            excluded: a.excluded.saturating_add(b.excluded),
        })
    }
}

impl Hosts {
    fn counted(self) -> u32 {
        self.hosts.saturating_sub(self.excluded)
    }

    fn percent_available(self) -> f64 {
        match self.counted() {
            0 => 0.0,
            counted => 100.0 * (f64::from(self.healthy) + f64::from(self.degraded)) / f64::from(counted),
        }
    }
}

/// Every level panics: load follows the number of hosts, whatever they are.
fn by_hosts(loads: &mut [Level], levels: &[Hosts]) {
    let all: u64 = levels.iter().map(|l| u64::from(l.hosts)).sum();
    if all == 0 {
        loads[0].healthy_load = 100;
        return;
    }
    for (load, level) in loads.iter_mut().zip(levels) {
        load.healthy_load = (100 * u64::from(level.hosts) / all) as u32;
    }
    let rest = 100 - loads.iter().map(|l| l.healthy_load).sum::<u32>();
    if let Some(first) = levels.iter().position(|l| l.hosts > 0) {
        loads[first].healthy_load += rest;
    }
}

/// The healthy pass, then the degraded one; what integer division leaves goes to the first level that can serve.
fn allocate(loads: &mut [Level], healthy: &[u32], degraded: &[u32], total: u32) {
    let mut rest = 100;
    for (load, ability) in loads.iter_mut().zip(healthy) {
        load.healthy_load = (ability * 100 / total).min(rest);
        rest -= load.healthy_load;
    }
    for (load, ability) in loads.iter_mut().zip(degraded) {
        load.degraded_load = (ability * 100 / total).min(rest);
        rest -= load.degraded_load;
    }
    if let Some(first) = healthy.iter().position(|h| *h > 0) {
        loads[first].healthy_load += rest;
    } else if let Some(first) = degraded.iter().position(|d| *d > 0) {
        loads[first].degraded_load += rest;
    }
}

#[cfg(test)]
mod tests;
