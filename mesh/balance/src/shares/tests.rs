use proptest::prelude::*;

use super::*;

mod exhaustive;

fn locality(hosts: u32, healthy: u32) -> LocalityInput {
    let (total, healthy) = (f64::from(hosts), f64::from(healthy));
    LocalityInput { total, healthy, weight: 1.0, capacity: total, ..LocalityInput::default() }
}

/// With the factors that follow from the priorities' utilisation.
fn native(priorities: &[&[LocalityInput]], options: &Options) -> Shares {
    let factor = |localities: &&[LocalityInput]| {
        utilisation_factor(priority_utilisation(localities), options.target_utilisation)
    };
    native_with(priorities, &priorities.iter().map(factor).collect::<Vec<_>>(), options)
}

fn divide(priorities: &[&[LocalityInput]]) -> Shares {
    native(priorities, &Options::default())
}

fn loads(priorities: &[&[LocalityInput]]) -> Vec<u32> {
    divide(priorities).priorities.iter().map(|priority| priority.healthy_load + priority.degraded_load).collect()
}

#[test]
fn the_written_vectors_of_zones_of_ten() {
    for (dead, expected) in [
        (0, [10_000, 0]),
        (2, [10_000, 0]),
        (3, [9_800, 200]),
        (5, [7_000, 3_000]),
        (9, [1_400, 8_600]),
        (10, [0, 10_000]),
    ] {
        assert_eq!(loads(&[&[locality(10, 10 - dead)], &[locality(10, 10)]]), expected, "{dead} dead");
    }
    assert_eq!(loads(&[&[locality(100, 2)], &[locality(10, 10)]]), [280, 9_720]);
}

#[test]
fn localities_of_a_priority_take_part_by_weight_capacity_and_availability() {
    let priority = [locality(10, 10), locality(10, 5)];
    let shares = divide(&[&priority]);
    assert_eq!(shares.priorities[0].localities.iter().map(|l| l.sum()).collect::<Vec<_>>(), [6_667, 3_333]);
    let weighted = [LocalityInput { weight: 3.0, ..locality(10, 10) }, locality(10, 10)];
    assert_eq!(divide(&[&weighted]).priorities[0].localities[0].sum(), 7_500);
    let large = [LocalityInput { capacity: 30.0, ..locality(10, 10) }, locality(10, 10)];
    assert_eq!(divide(&[&large]).priorities[0].localities[0].sum(), 7_500);
}

#[test]
fn a_weight_of_zero_serves_only_when_nothing_else_of_its_priority_can() {
    let parked = LocalityInput { weight: 0.0, ..locality(10, 10) };
    assert_eq!(divide(&[&[parked, locality(10, 10)]]).priorities[0].localities[0].sum(), 0);
    assert_eq!(divide(&[&[parked, locality(10, 0)]]).priorities[0].localities[0].sum(), 7_000 + 3_000);
}

#[test]
fn degraded_endpoints_come_after_the_healthy_of_every_priority() {
    let first = LocalityInput { degraded: 5.0, ..locality(10, 2) };
    let shares = divide(&[&[first], &[locality(10, 3)]]);
    let got: Vec<_> = shares.priorities.iter().map(|t| (t.healthy_load, t.degraded_load)).collect();
    assert_eq!(got, [(2_800, 3_000), (4_200, 0)]);
    assert_eq!(shares.normalized_total_availability, 10_000);
}

#[test]
fn utilisation_above_the_target_spills() {
    let hot = LocalityInput { utilisation: Some(1.0), ..locality(10, 10) };
    assert_eq!(loads(&[&[hot], &[locality(10, 10)]]), [8_000, 2_000]);
    let warm = LocalityInput { utilisation: Some(0.8), ..locality(10, 10) };
    assert_eq!(loads(&[&[warm], &[locality(10, 10)]]), [10_000, 0]);
    assert_eq!(
        priority_utilisation(&[LocalityInput { capacity: 30.0, ..hot }, LocalityInput { utilisation: None, ..hot }]),
        Some(1.0)
    );
    assert_eq!(priority_utilisation(&[locality(1, 1)]), None);
    // If everything is hot, everything is used, and nothing panics.
    let shares = divide(&[&[LocalityInput { utilisation: Some(4.0), ..locality(10, 10) }]]);
    assert_eq!((shares.priorities[0].healthy_load, shares.priorities[0].panic), (10_000, false));
}

#[test]
fn a_panic_ignores_soft_marks_and_only_those() {
    let ejected = LocalityInput { soft: 8.0, ..locality(10, 2) };
    let shares = divide(&[&[ejected], &[locality(10, 1)]]);
    assert!(shares.priorities[0].panic && shares.priorities[1].panic);
    assert_eq!(loads(&[&[ejected], &[locality(10, 1)]]), [10_000, 0]);
    assert_eq!(shares.normalized_total_availability, 4_200);
    // The same with another priority that can take it all: no panic.
    let shares = divide(&[&[ejected], &[locality(10, 10)]]);
    assert!(!shares.priorities[0].panic);
    assert_eq!(shares.priorities[0].healthy_load, 2_800);
    // Half of it available is no panic.
    let half = LocalityInput { soft: 5.0, utilisation: Some(1.6), ..locality(10, 5) };
    assert!(!divide(&[&[half]]).priorities[0].panic);
}

#[test]
fn nothing_reachable_is_no_share_at_all() {
    for priorities in [&[&[locality(10, 0)][..], &[locality(0, 0)]][..], &[]] {
        assert_eq!(loads(priorities).iter().sum::<u32>(), 0);
    }
}

fn any_locality() -> impl Strategy<Value = LocalityInput> {
    (
        0u32..20,
        [0.0f64..=1.0, 0.0f64..=1.0, 0.0f64..=1.0],
        prop_oneof![4 => Just(1.0), 1 => 0.1f64..10.0],
        prop_oneof![3 => Just(None), 1 => (0.0f64..3.0).prop_map(Some)],
        1u32..100,
    )
        .prop_map(|(total, [healthy, degraded, soft], weight, utilisation, capacity)| {
            let mut rest = total;
            let mut take = |part: f64| {
                let taken = (f64::from(total) * part).floor().min(f64::from(rest));
                rest -= taken as u32;
                taken
            };
            let (healthy, degraded, soft) = (take(healthy), take(degraded), take(soft));
            let capacity = f64::from(capacity);
            LocalityInput { total: f64::from(total), healthy, degraded, soft, weight, capacity, utilisation }
        })
}

fn any_priorities() -> impl Strategy<Value = Vec<Vec<LocalityInput>>> {
    prop::collection::vec(prop::collection::vec(any_locality(), 1..4), 1..4)
}

fn slices(priorities: &[Vec<LocalityInput>]) -> Vec<&[LocalityInput]> {
    priorities.iter().map(Vec::as_slice).collect()
}

fn locality_shares(shares: &Shares) -> Vec<Vec<u32>> {
    shares.priorities.iter().map(|priority| priority.localities.iter().map(|l| l.sum()).collect()).collect()
}

proptest! {
    /// Invariant 1: shares sum to S if anything is reachable, else to 0; a locality with nothing reachable has 0.
    #[test]
    fn shares_sum_up(priorities in any_priorities()) {
        let shares = divide(&slices(&priorities));
        let reachable = |locality: &LocalityInput| locality.healthy + locality.degraded + locality.soft > 0.0;
        let any = priorities.iter().flatten().any(reachable);
        let got = locality_shares(&shares);
        prop_assert_eq!(got.iter().flatten().sum::<u32>(), if any { S } else { 0 });
        for (locality, share) in priorities.iter().flatten().zip(got.iter().flatten()) {
            prop_assert!(reachable(locality) || *share == 0);
        }
        for (priority, localities) in shares.priorities.iter().zip(&got) {
            prop_assert_eq!(priority.healthy_load + priority.degraded_load, localities.iter().sum::<u32>());
        }
    }

    /// Invariant 2: what makes an endpoint of a priority unhealthy never raises the priority's share, nor lowers what all
    /// lower priorities have together; neither while there is capacity for all, nor where the rest is stretched to fit.
    #[test]
    fn losing_an_endpoint_moves_traffic_away_only(
        priorities in any_priorities(), priority in any::<prop::sample::Index>(), locality in any::<prop::sample::Index>(), ejected in any::<bool>(),
    ) {
        let priority = priority.index(priorities.len());
        let locality = locality.index(priorities[priority].len());
        let mut priorities = priorities;
        priorities[priority][locality].total += 1.0;
        priorities[priority][locality].healthy += 1.0;
        let mut after = priorities.clone();
        after[priority][locality].healthy -= 1.0;
        after[priority][locality].soft += f64::from(u8::from(ejected));
        let (before, after) = (divide(&slices(&priorities)), divide(&slices(&after)));
        if before.priorities.iter().chain(&after.priorities).any(|t| t.panic) {
            return Ok(());
        }
        let load = |priority: &PriorityShares| priority.healthy_load + priority.degraded_load;
        let below = |shares: &Shares| shares.priorities[priority + 1..].iter().map(load).sum::<u32>();
        // Each load is rounded by less than one, once before and once after.
        let parts = 2 * (priorities.len() - priority) as u32;
        prop_assert!(load(&after.priorities[priority]) <= load(&before.priorities[priority]) + 3, "priority {priority}: {before:?}\n{after:?}");
        prop_assert!(below(&after) + parts >= below(&before), "below {priority}: {before:?}\n{after:?}");
    }

    /// Invariant 3: the first priority keeps everything while enough of it is healthy and it is not too busy.
    #[test]
    fn a_priority_that_can_keeps_its_traffic(total in 1u32..1_000, healthy in 0.0f64..=1.0, busy in 0.0f64..=0.8, rest in any_priorities()) {
        let healthy = (f64::from(total) * (1.0 / 1.4 + (1.0 - 1.0 / 1.4) * healthy)).ceil().min(f64::from(total));
        let first = LocalityInput { healthy, utilisation: Some(busy), ..locality(total, 0) };
        let first = [first];
        let mut priorities: Vec<&[LocalityInput]> = vec![&first];
        priorities.extend(slices(&rest));
        prop_assert_eq!(divide(&priorities).priorities[0].healthy_load, S);
    }

    /// Invariant 4: neither the unit of weights nor the order of localities matters.
    #[test]
    fn units_and_order_do_not_matter(priorities in any_priorities(), scale in 0.01f64..1_000.0, seed in any::<u64>()) {
        let before = locality_shares(&divide(&slices(&priorities)));
        let mut scaled = priorities.clone();
        for locality in scaled.iter_mut().flatten() {
            for sum in [&mut locality.total, &mut locality.healthy, &mut locality.degraded, &mut locality.soft, &mut locality.weight, &mut locality.capacity] {
                *sum *= scale;
            }
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let orders: Vec<Vec<usize>> = priorities.iter().map(|priority| {
            let mut order: Vec<usize> = (0..priority.len()).collect();
            rng.shuffle(&mut order);
            order
        }).collect();
        let permuted: Vec<Vec<LocalityInput>> =
            priorities.iter().zip(&orders).map(|(priority, order)| order.iter().map(|i| priority[*i]).collect()).collect();
        let after_scaling = locality_shares(&divide(&slices(&scaled)));
        let after_permuting = locality_shares(&divide(&slices(&permuted)));
        for (i, priority) in before.iter().enumerate() {
            for (j, share) in priority.iter().enumerate() {
                prop_assert!(after_scaling[i][j].abs_diff(*share) <= 1, "{:?} {:?}", before, after_scaling);
                let moved = orders[i].iter().position(|k| *k == j).expect("a permutation");
                prop_assert!(after_permuting[i][moved].abs_diff(*share) <= 1, "{:?} {:?}", before, after_permuting);
            }
        }
    }

    /// Invariant 6: with full availability there is no panic.
    #[test]
    fn no_panic_at_full_availability(priorities in any_priorities()) {
        let shares = divide(&slices(&priorities));
        let panics = shares.priorities.iter().any(|t| t.panic);
        prop_assert!(!(panics && shares.normalized_total_availability == S));
    }
}

#[test]
fn what_is_out_by_soft_marks_alone_serves_where_nothing_else_is_left_whatever_the_threshold() {
    let locality = LocalityInput { total: 2.0, soft: 2.0, weight: 1.0, capacity: 2.0, ..LocalityInput::default() };
    let options = Options { panic_threshold: 0.0, ..Options::default() };
    let shares = native(&[&[locality], &[locality]], &options);
    assert_eq!(shares.priorities.iter().map(|priority| priority.healthy_load).collect::<Vec<_>>(), [S, 0]);
    assert_eq!(native(&[&[LocalityInput { soft: 0.0, ..locality }]], &options).priorities[0].healthy_load, 0);
    let healthy = LocalityInput { healthy: 1.0, soft: 1.0, ..locality };
    let shares = native(&[&[healthy], &[locality]], &options);
    assert!(!shares.priorities.iter().any(|priority| priority.panic), "no panic by threshold while something serves");
}
