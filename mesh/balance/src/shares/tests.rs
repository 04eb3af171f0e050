use proptest::prelude::*;

use super::*;

mod exhaustive;

fn lane(hosts: u32, healthy: u32) -> LaneInput {
    let (total, healthy) = (f64::from(hosts), f64::from(healthy));
    LaneInput { total, healthy, weight: 1.0, capacity: total, ..LaneInput::default() }
}

/// With the factors that follow from the tiers' utilisation.
fn native(tiers: &[&[LaneInput]], options: &Options) -> Shares {
    let factor = |lanes: &&[LaneInput]| utilisation_factor(tier_utilisation(lanes), options.target_utilisation);
    native_with(tiers, &tiers.iter().map(factor).collect::<Vec<_>>(), options)
}

fn divide(tiers: &[&[LaneInput]]) -> Shares {
    native(tiers, &Options::default())
}

fn loads(tiers: &[&[LaneInput]]) -> Vec<u32> {
    divide(tiers).tiers.iter().map(|tier| tier.healthy_load + tier.degraded_load).collect()
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
        assert_eq!(loads(&[&[lane(10, 10 - dead)], &[lane(10, 10)]]), expected, "{dead} dead");
    }
    assert_eq!(loads(&[&[lane(100, 2)], &[lane(10, 10)]]), [280, 9_720]);
}

#[test]
fn lanes_of_a_tier_take_part_by_weight_capacity_and_availability() {
    let tier = [lane(10, 10), lane(10, 5)];
    let shares = divide(&[&tier]);
    assert_eq!(shares.tiers[0].lanes.iter().map(|l| l.sum()).collect::<Vec<_>>(), [6_667, 3_333]);
    let weighted = [LaneInput { weight: 3.0, ..lane(10, 10) }, lane(10, 10)];
    assert_eq!(divide(&[&weighted]).tiers[0].lanes[0].sum(), 7_500);
    let large = [LaneInput { capacity: 30.0, ..lane(10, 10) }, lane(10, 10)];
    assert_eq!(divide(&[&large]).tiers[0].lanes[0].sum(), 7_500);
}

#[test]
fn a_weight_of_zero_serves_only_when_nothing_else_of_its_tier_can() {
    let parked = LaneInput { weight: 0.0, ..lane(10, 10) };
    assert_eq!(divide(&[&[parked, lane(10, 10)]]).tiers[0].lanes[0].sum(), 0);
    assert_eq!(divide(&[&[parked, lane(10, 0)]]).tiers[0].lanes[0].sum(), 7_000 + 3_000);
}

#[test]
fn degraded_endpoints_come_after_the_healthy_of_every_tier() {
    let first = LaneInput { degraded: 5.0, ..lane(10, 2) };
    let shares = divide(&[&[first], &[lane(10, 3)]]);
    let got: Vec<_> = shares.tiers.iter().map(|t| (t.healthy_load, t.degraded_load)).collect();
    assert_eq!(got, [(2_800, 3_000), (4_200, 0)]);
    assert_eq!(shares.normalized_total_availability, 10_000);
}

#[test]
fn utilisation_above_the_target_spills() {
    let hot = LaneInput { utilisation: Some(1.0), ..lane(10, 10) };
    assert_eq!(loads(&[&[hot], &[lane(10, 10)]]), [8_000, 2_000]);
    let warm = LaneInput { utilisation: Some(0.8), ..lane(10, 10) };
    assert_eq!(loads(&[&[warm], &[lane(10, 10)]]), [10_000, 0]);
    assert_eq!(
        tier_utilisation(&[LaneInput { capacity: 30.0, ..hot }, LaneInput { utilisation: None, ..hot }]),
        Some(1.0)
    );
    assert_eq!(tier_utilisation(&[lane(1, 1)]), None);
    // If everything is hot, everything is used, and nothing panics.
    let shares = divide(&[&[LaneInput { utilisation: Some(4.0), ..lane(10, 10) }]]);
    assert_eq!((shares.tiers[0].healthy_load, shares.tiers[0].panic), (10_000, false));
}

#[test]
fn a_panic_ignores_soft_marks_and_only_those() {
    let ejected = LaneInput { soft: 8.0, ..lane(10, 2) };
    let shares = divide(&[&[ejected], &[lane(10, 1)]]);
    assert!(shares.tiers[0].panic && shares.tiers[1].panic);
    assert_eq!(loads(&[&[ejected], &[lane(10, 1)]]), [10_000, 0]);
    assert_eq!(shares.normalized_total_availability, 4_200);
    // The same with another tier that can take it all: no panic.
    let shares = divide(&[&[ejected], &[lane(10, 10)]]);
    assert!(!shares.tiers[0].panic);
    assert_eq!(shares.tiers[0].healthy_load, 2_800);
    // Half of it available is no panic.
    let half = LaneInput { soft: 5.0, utilisation: Some(1.6), ..lane(10, 5) };
    assert!(!divide(&[&[half]]).tiers[0].panic);
}

#[test]
fn nothing_reachable_is_no_share_at_all() {
    for tiers in [&[&[lane(10, 0)][..], &[lane(0, 0)]][..], &[]] {
        assert_eq!(loads(tiers).iter().sum::<u32>(), 0);
    }
}

fn any_lane() -> impl Strategy<Value = LaneInput> {
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
            LaneInput { total: f64::from(total), healthy, degraded, soft, weight, capacity, utilisation }
        })
}

fn any_tiers() -> impl Strategy<Value = Vec<Vec<LaneInput>>> {
    prop::collection::vec(prop::collection::vec(any_lane(), 1..4), 1..4)
}

fn slices(tiers: &[Vec<LaneInput>]) -> Vec<&[LaneInput]> {
    tiers.iter().map(Vec::as_slice).collect()
}

fn lane_shares(shares: &Shares) -> Vec<Vec<u32>> {
    shares.tiers.iter().map(|tier| tier.lanes.iter().map(|l| l.sum()).collect()).collect()
}

proptest! {
    /// Invariant 1: shares sum to S if anything is reachable, else to 0; a lane with nothing reachable has 0.
    #[test]
    fn shares_sum_up(tiers in any_tiers()) {
        let shares = divide(&slices(&tiers));
        let reachable = |lane: &LaneInput| lane.healthy + lane.degraded + lane.soft > 0.0;
        let any = tiers.iter().flatten().any(reachable);
        let got = lane_shares(&shares);
        prop_assert_eq!(got.iter().flatten().sum::<u32>(), if any { S } else { 0 });
        for (lane, share) in tiers.iter().flatten().zip(got.iter().flatten()) {
            prop_assert!(reachable(lane) || *share == 0);
        }
        for (tier, lanes) in shares.tiers.iter().zip(&got) {
            prop_assert_eq!(tier.healthy_load + tier.degraded_load, lanes.iter().sum::<u32>());
        }
    }

    /// Invariant 2: what makes an endpoint of a tier unhealthy never raises the tier's share, nor lowers what all lower tiers
    /// have together; neither while there is capacity for all, nor where the rest is stretched to fit.
    #[test]
    fn losing_an_endpoint_moves_traffic_away_only(
        tiers in any_tiers(), tier in any::<prop::sample::Index>(), lane in any::<prop::sample::Index>(), ejected in any::<bool>(),
    ) {
        let tier = tier.index(tiers.len());
        let lane = lane.index(tiers[tier].len());
        let mut tiers = tiers;
        tiers[tier][lane].total += 1.0;
        tiers[tier][lane].healthy += 1.0;
        let mut after = tiers.clone();
        after[tier][lane].healthy -= 1.0;
        after[tier][lane].soft += f64::from(u8::from(ejected));
        let (before, after) = (divide(&slices(&tiers)), divide(&slices(&after)));
        if before.tiers.iter().chain(&after.tiers).any(|t| t.panic) {
            return Ok(());
        }
        let load = |tier: &TierShares| tier.healthy_load + tier.degraded_load;
        let below = |shares: &Shares| shares.tiers[tier + 1..].iter().map(load).sum::<u32>();
        // Each load is rounded by less than one, once before and once after.
        let parts = 2 * (tiers.len() - tier) as u32;
        prop_assert!(load(&after.tiers[tier]) <= load(&before.tiers[tier]) + 3, "tier {tier}: {before:?}\n{after:?}");
        prop_assert!(below(&after) + parts >= below(&before), "below {tier}: {before:?}\n{after:?}");
    }

    /// Invariant 3: the first tier keeps everything while enough of it is healthy and it is not too busy.
    #[test]
    fn a_tier_that_can_keeps_its_traffic(total in 1u32..1_000, healthy in 0.0f64..=1.0, busy in 0.0f64..=0.8, rest in any_tiers()) {
        let healthy = (f64::from(total) * (1.0 / 1.4 + (1.0 - 1.0 / 1.4) * healthy)).ceil().min(f64::from(total));
        let first = LaneInput { healthy, utilisation: Some(busy), ..lane(total, 0) };
        let first = [first];
        let mut tiers: Vec<&[LaneInput]> = vec![&first];
        tiers.extend(slices(&rest));
        prop_assert_eq!(divide(&tiers).tiers[0].healthy_load, S);
    }

    /// Invariant 4: neither the unit of weights nor the order of lanes matters.
    #[test]
    fn units_and_order_do_not_matter(tiers in any_tiers(), scale in 0.01f64..1_000.0, seed in any::<u64>()) {
        let before = lane_shares(&divide(&slices(&tiers)));
        let mut scaled = tiers.clone();
        for lane in scaled.iter_mut().flatten() {
            for sum in [&mut lane.total, &mut lane.healthy, &mut lane.degraded, &mut lane.soft, &mut lane.weight, &mut lane.capacity] {
                *sum *= scale;
            }
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let orders: Vec<Vec<usize>> = tiers.iter().map(|tier| {
            let mut order: Vec<usize> = (0..tier.len()).collect();
            rng.shuffle(&mut order);
            order
        }).collect();
        let permuted: Vec<Vec<LaneInput>> =
            tiers.iter().zip(&orders).map(|(tier, order)| order.iter().map(|i| tier[*i]).collect()).collect();
        let after_scaling = lane_shares(&divide(&slices(&scaled)));
        let after_permuting = lane_shares(&divide(&slices(&permuted)));
        for (i, tier) in before.iter().enumerate() {
            for (j, share) in tier.iter().enumerate() {
                prop_assert!(after_scaling[i][j].abs_diff(*share) <= 1, "{:?} {:?}", before, after_scaling);
                let moved = orders[i].iter().position(|k| *k == j).expect("a permutation");
                prop_assert!(after_permuting[i][moved].abs_diff(*share) <= 1, "{:?} {:?}", before, after_permuting);
            }
        }
    }

    /// Invariant 6: with full availability there is no panic.
    #[test]
    fn no_panic_at_full_availability(tiers in any_tiers()) {
        let shares = divide(&slices(&tiers));
        let panics = shares.tiers.iter().any(|t| t.panic);
        prop_assert!(!(panics && shares.normalized_total_availability == S));
    }
}

#[test]
fn what_is_out_by_soft_marks_alone_serves_where_nothing_else_is_left_whatever_the_threshold() {
    let lane = LaneInput { total: 2.0, soft: 2.0, weight: 1.0, capacity: 2.0, ..LaneInput::default() };
    let options = Options { panic_threshold: 0.0, ..Options::default() };
    let shares = native(&[&[lane], &[lane]], &options);
    assert_eq!(shares.tiers.iter().map(|tier| tier.healthy_load).collect::<Vec<_>>(), [S, 0]);
    assert_eq!(native(&[&[LaneInput { soft: 0.0, ..lane }]], &options).tiers[0].healthy_load, 0);
    let healthy = LaneInput { healthy: 1.0, soft: 1.0, ..lane };
    let shares = native(&[&[healthy], &[lane]], &options);
    assert!(!shares.tiers.iter().any(|tier| tier.panic), "no panic by threshold while something serves");
}
