//! Schedules by seed: the short form of what `make figures` runs, rules broken on purpose, and what schedules once found.
//!
//! Replay one with `cargo bench -p eastway-model --bench schedules -- --seed N`.

use std::collections::BTreeMap;

use eastway_model::{Plan, Sabotage, Schedule, run};

fn schedule(seed: u64) -> Schedule {
    Schedule { seed, ..Schedule::default() }
}

#[test]
fn the_invariants_hold_over_a_hundred_schedules_that_together_make_every_fault() {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=100 {
        let outcome = run(&schedule(seed)).unwrap_or_else(|violation| panic!("{violation}"));
        for (kind, count) in outcome.faults {
            *faults.entry(kind).or_default() += count;
        }
    }
    assert!(faults.len() >= 20, "only {faults:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let traced = || run(&Schedule { trace: true, ..schedule(7) }).expect("no violation");
    let (first, second) = (traced(), traced());
    assert!(first.trace.len() > 20, "{}", first.trace.len());
    assert_eq!((first.steps, first.trace), (second.steps, second.trace));
}

#[test]
fn clusters_that_are_left_alone_serve_on_and_know_everything_soon_after() {
    let quarter_of_an_hour = Plan::Isolation(900_000);
    let outcome = run(&Schedule { plan: quarter_of_an_hour, ..schedule(1) }).unwrap_or_else(|v| panic!("{v}"));
    let calls = outcome.calls;
    assert!(calls.succeeded > 5_000 && calls.failed * 2_000 <= calls.succeeded, "{calls:?}");
    assert!(outcome.recovered_ms.is_some_and(|after| after <= 5_000), "after {:?} ms", outcome.recovered_ms);
}

/// A rule that is broken is noticed within this many schedules; the rarest needs an endpoint that a restored store no longer
/// lists while no gateway speaks of it.
const NOTICED_WITHIN: u64 = 1_500;

#[test]
fn every_rule_that_is_broken_on_purpose_is_noticed() {
    let found = |sabotage| {
        let broken = |seed| Schedule { sabotage: Some(sabotage), ..schedule(seed) };
        (1..=NOTICED_WITHIN).any(|seed| run(&broken(seed)).is_err())
    };
    let missed: Vec<_> = Sabotage::ALL.into_iter().filter(|sabotage| !found(*sabotage)).collect();
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

#[test]
fn a_violation_says_how_to_see_it_again() {
    let broken = |seed| Schedule { sabotage: Some(Sabotage::CollectionWait), ..schedule(seed) };
    let violation = (1..=NOTICED_WITHIN).find_map(|seed| run(&broken(seed)).err()).expect("noticed");
    assert!(violation.rule.starts_with("collection:"), "{violation}");
    assert!(violation.last.iter().any(|line| line.contains("FAULT")), "{violation}");
    let again = run(&broken(violation.seed)).expect_err("the same");
    assert_eq!(
        (again.step, again.at_ms, &again.rule, &again.last),
        (violation.step, violation.at_ms, &violation.rule, &violation.last)
    );
}
