//! Against the reference in exact fractions: every small case, and random ones.

use proptest::prelude::*;

use super::super::reference::{Counts, PriorityPart, divide as exactly};
use super::*;

fn input(counts: &Counts) -> LocalityInput {
    let total = counts.total();
    let pull = if counts.pull == 0 { total } else { counts.pull };
    LocalityInput {
        total: f64::from(total),
        healthy: f64::from(counts.healthy),
        degraded: f64::from(counts.degraded),
        soft: f64::from(counts.soft),
        weight: 1.0,
        capacity: f64::from(pull),
        utilisation: counts.utilisation.map(|tenths| f64::from(tenths) / 10.0),
    }
}

fn check(priorities: &[Vec<Counts>]) {
    let inputs: Vec<Vec<LocalityInput>> =
        priorities.iter().map(|priority| priority.iter().map(input).collect()).collect();
    let got = divide(&slices(&inputs));
    let (available, expected) = exactly(priorities);
    let pairs = |priority: &PriorityShares| {
        priority.localities.iter().map(|locality| (locality.healthy, locality.degraded)).collect()
    };
    let parts: Vec<_> = got
        .priorities
        .iter()
        .map(|priority| PriorityPart { panic: priority.panic, localities: pairs(priority) })
        .collect();
    assert_eq!((got.normalized_total_availability, parts), (available, expected), "{priorities:?}");
}

/// Every way in which none to four endpoints of a priority can be healthy, degraded, ejected or down; those never warmed are
/// the fewer.
fn every_priority() -> Vec<Vec<Counts>> {
    let upto = |most: u32| 0..=most;
    let mut all = Vec::new();
    for healthy in upto(4) {
        for degraded in upto(4 - healthy) {
            for soft in upto(4 - healthy - degraded) {
                for hard in upto(4 - healthy - degraded - soft) {
                    all.push(vec![Counts { healthy, degraded, soft, hard, ..Counts::default() }]);
                }
            }
        }
    }
    all
}

#[test]
fn exhaustive_small_cases_equal_the_reference() {
    let all = every_priority();
    assert_eq!(all.len(), 70);
    for a in &all {
        check(std::slice::from_ref(a));
        for b in &all {
            check(&[a.clone(), b.clone()]);
            for c in &all {
                check(&[a.clone(), b.clone(), c.clone()]);
            }
        }
    }
}

fn any_counts() -> impl Strategy<Value = Counts> {
    ([0u32..9, 0u32..4, 0u32..4, 0u32..9], 0u32..30, prop::option::of(0u32..25)).prop_map(
        |([healthy, degraded, soft, hard], pull, utilisation)| Counts {
            healthy,
            degraded,
            soft,
            hard,
            pull,
            utilisation,
        },
    )
}

proptest! {
    /// Several localities a priority, with weights, capacities and utilisations.
    #[test]
    fn random_cases_equal_the_reference(
        priorities in prop::collection::vec(prop::collection::vec(any_counts(), 1..4), 1..5),
    ) {
        check(&priorities);
    }
}
