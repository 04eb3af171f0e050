//! The native formulas once more, to compare with: in exact fractions, and by cutting one line into pieces instead of
//! pouring.

use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Sub};

/// A fraction in lowest terms, with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fraction {
    over: i128,
    under: i128,
}

impl Fraction {
    pub(crate) fn new(over: i128, under: i128) -> Self {
        let (mut a, mut b) = (over.unsigned_abs(), under.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = (a.max(1) as i128) * under.signum();
        Self { over: over / divisor, under: under / divisor }
    }

    pub(crate) fn whole(number: u32) -> Self {
        Self { over: i128::from(number), under: 1 }
    }

    fn floor(self) -> u32 {
        (self.over / self.under) as u32
    }

    fn is_zero(self) -> bool {
        self.over == 0
    }
}

impl Ord for Fraction {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.over * other.under).cmp(&(other.over * self.under))
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Add for Fraction {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.over * other.under + other.over * self.under, self.under * other.under)
    }
}

impl Sub for Fraction {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::new(self.over * other.under - other.over * self.under, self.under * other.under)
    }
}

impl Mul for Fraction {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self::new(self.over * other.over, self.under * other.under)
    }
}

impl Div for Fraction {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Self::new(self.over * other.under, self.under * other.over)
    }
}

/// One locality by its endpoints, each of weight 1; those never warmed are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) healthy: u32,
    pub(crate) degraded: u32,
    pub(crate) soft: u32,
    pub(crate) hard: u32,
    /// Weight times capacity, against the other localities of its priority; 0 means as many as count.
    pub(crate) pull: u32,
    /// In tenths.
    pub(crate) utilisation: Option<u32>,
}

impl Counts {
    pub(crate) fn total(&self) -> u32 {
        self.healthy + self.degraded + self.soft + self.hard
    }

    /// What `count` of its endpoints have of its pull.
    fn share(&self, count: u32) -> Fraction {
        match self.total() {
            0 => Fraction::whole(0),
            total => {
                let pull = if self.pull == 0 { total } else { self.pull };
                Fraction::new(i128::from(pull) * i128::from(count), i128::from(total))
            }
        }
    }
}

/// What a priority gets: `(healthy, degraded)` of 10,000 for each of its localities, and whether it panics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PriorityPart {
    pub(crate) panic: bool,
    pub(crate) localities: Vec<(u32, u32)>,
}

/// The division of 10,000 over the priorities, and how much they could take, rounded.
pub(crate) fn divide(priorities: &[Vec<Counts>]) -> (u32, Vec<PriorityPart>) {
    let all = Fraction::whole(10_000);
    let sum = |priority: &[Counts], of: fn(&Counts) -> u32| Fraction::whole(priority.iter().map(of).sum());
    let take = |priority: &[Counts], part: Fraction| match sum(priority, Counts::total) {
        total if total.is_zero() => total,
        total => all.min(Fraction::new(14_000, 1) * part / total) * calm(priority),
    };
    let healthy = |priority: &[Counts]| take(priority, sum(priority, |c| c.healthy));
    let degraded = |priority: &[Counts]| take(priority, sum(priority, |c| c.degraded));
    let available =
        priorities.iter().fold(Fraction::whole(0), |a, priority| a + healthy(priority) + degraded(priority));
    let lacking = available < all;

    // One line of pieces: the healthy part of each priority, then the degraded part of each. All traffic covers it from the
    // left.
    let mut pieces: Vec<Fraction> = Vec::new();
    for priority in priorities {
        let soft = if lacking && is_mostly_down(priority) { sum(priority, |c| c.soft) } else { Fraction::whole(0) };
        pieces.push(take(priority, sum(priority, |c| c.healthy) + soft));
    }
    pieces.extend(priorities.iter().map(|priority| degraded(priority)));
    let line = pieces.iter().fold(Fraction::whole(0), |a, piece| a + *piece);
    let covered = line.min(all);
    let mut left = Fraction::whole(0);
    let exact = pieces.iter().map(|piece| {
        let right = left + *piece;
        let inside = right.min(covered) - left.min(covered);
        left = right;
        if covered.is_zero() { inside } else { inside * all / covered }
    });
    // Where remainders are equal, the nearer priority has the unit, and its healthy part before its degraded one.
    let exact: Vec<Fraction> = exact.collect();
    let by_priority: Vec<Fraction> =
        (0..priorities.len()).flat_map(|i| [exact[i], exact[priorities.len() + i]]).collect();
    let loads = largest_remainder(&by_priority, 10_000);

    let parts = priorities.iter().enumerate().map(|(i, priority)| {
        let panic = lacking && is_mostly_down(priority);
        let up = |locality: &Counts| locality.share(locality.healthy + if panic { locality.soft } else { 0 });
        let first = split(&priority.iter().map(up).collect::<Vec<_>>(), loads[2 * i]);
        let second = split(
            &priority.iter().map(|locality| locality.share(locality.degraded)).collect::<Vec<_>>(),
            loads[2 * i + 1],
        );
        PriorityPart { panic, localities: first.into_iter().zip(second).collect() }
    });
    let parts = parts.collect();
    let half = Fraction::new(1, 2);
    ((available.min(all) + half).floor(), parts)
}

/// Whether fewer than half of a priority's endpoints are up, or it has none.
fn is_mostly_down(priority: &[Counts]) -> bool {
    let up: u32 = priority.iter().map(|c| c.healthy + c.degraded).sum();
    let total: u32 = priority.iter().map(Counts::total).sum();
    up * 2 < total.max(1)
}

/// What utilisation leaves of a priority: all up to 0.8 and where it is unknown; the mean is by capacity.
fn calm(priority: &[Counts]) -> Fraction {
    let capacity = |locality: &Counts| if locality.pull == 0 { locality.total() } else { locality.pull };
    let known =
        || priority.iter().filter_map(|locality| locality.utilisation.map(|tenths| (tenths, capacity(locality))));
    let weight: u32 = known().map(|(_, capacity)| capacity).sum();
    let used: u32 = known().map(|(tenths, capacity)| tenths * capacity).sum();
    let one = Fraction::whole(1);
    if weight == 0 || used == 0 { one } else { one.min(Fraction::new(8 * i128::from(weight), i128::from(used))) }
}

/// `total` in proportion to `parts`.
fn split(parts: &[Fraction], total: u32) -> Vec<u32> {
    let sum = parts.iter().fold(Fraction::whole(0), |a, part| a + *part);
    if sum.is_zero() {
        return vec![0; parts.len()];
    }
    let exact: Vec<Fraction> = parts.iter().map(|part| *part * Fraction::whole(total) / sum).collect();
    largest_remainder(&exact, total)
}

/// Whole numbers that sum to `total` (or all 0): each rounded down, and one more for the largest remainders, the earlier
/// first.
fn largest_remainder(exact: &[Fraction], total: u32) -> Vec<u32> {
    let mut units: Vec<u32> = exact.iter().map(|e| e.floor()).collect();
    if exact.iter().all(|e| e.is_zero()) {
        return units;
    }
    while units.iter().sum::<u32>() < total {
        let remainder = |i: &usize| exact[*i] - Fraction::whole(units[*i]);
        let best = (0..units.len()).max_by(|a, b| remainder(a).cmp(&remainder(b)).then(b.cmp(a)));
        units[best.expect("parts")] += 1;
    }
    units
}
