use super::*;
use crate::policy::Policy;

fn lane(total: f64, healthy: f64, degraded: f64) -> Counted {
    let input = LaneInput { total, healthy, degraded, weight: 1.0, capacity: total, ..LaneInput::default() };
    let hosts = Hosts { hosts: total as u32, healthy: healthy as u32, degraded: degraded as u32, excluded: 0 };
    Counted { input, hosts, reachable_hosts: hosts.healthy + hosts.degraded, reachable: true, ..Counted::default() }
}

fn census(policy: Policy, tiers: &[&[Counted]]) -> Census {
    let mut start = 0;
    let range = |lanes: &&[Counted]| {
        let range = start..start + lanes.len();
        start = range.end;
        range
    };
    Census {
        tiers: tiers.iter().map(range).collect(),
        factors: vec![1.0; tiers.len()].into(),
        lanes: tiers.iter().flat_map(|lanes| lanes.iter().cloned()).collect(),
        rules: Rules::new(policy),
    }
}

fn native(tiers: &[&[Counted]]) -> Census {
    census(Policy::default(), tiers)
}

fn compatible(panic_threshold: f64, tiers: &[&[Counted]]) -> Census {
    census(Policy { mode: Formulas::Compatible, panic_threshold, ..Policy::default() }, tiers)
}

fn loads(decision: &Decision) -> Vec<(u32, u32)> {
    decision.target.tiers.iter().map(|tier| (tier.healthy_load, tier.degraded_load)).collect()
}

#[test]
fn what_is_not_allowed_is_not_there() {
    let census = native(&[&[lane(10.0, 5.0, 0.0)], &[lane(10.0, 10.0, 0.0), lane(30.0, 30.0, 0.0)]]);
    assert_eq!(census.divide(|_| true).shares, [7_000, 750, 2_250]);
    assert_eq!(census.divide(|i| i != 0).shares, [0, 2_500, 7_500]);
    assert_eq!(census.divide(|i| i == 0).shares, [10_000, 0, 0]);
    assert_eq!(census.divide(|_| false).shares, [0, 0, 0]);
}

#[test]
fn what_is_held_back_goes_on_as_far_as_the_next_tiers_can_take_it() {
    let held = Counted { cap: Some(0), ..lane(10.0, 10.0, 0.0) };
    // Each can take 1.4 * 4 / 20; degraded endpoints take part.
    let next = [lane(10.0, 3.0, 1.0), lane(10.0, 4.0, 0.0)];
    let mut census = native(&[&[held], &next, &[lane(10.0, 10.0, 0.0)]]);
    assert_eq!(census.divide(|_| true).shares, [0, 2_800, 2_800, 4_400]);
    let heavy = Counted { input: LaneInput { weight: 3.0, ..next[1].input }, ..next[1].clone() };
    let weighed = native(&[&[Counted { cap: Some(0), ..lane(10.0, 10.0, 0.0) }], &[next[0].clone(), heavy]]);
    assert_eq!(weighed.divide(|_| true).shares, [0, 2_500, 7_500], "by the operator's weights");
    census.factors[1] = 0.5;
    assert_eq!(census.divide(|_| true).shares, [0, 1_400, 1_400, 7_200]);
}

#[test]
fn bins_tell_healthy_from_degraded() {
    let decision = native(&[&[lane(10.0, 5.0, 5.0)]]).divide(|_| true);
    assert_eq!(decision.bins(), [(0, Mode::Healthy, 7_000), (0, Mode::Degraded, 3_000)]);
    let mut rng = fastrand::Rng::with_seed(5);
    let degraded = (0..10_000).filter(|_| decision.draw(&mut rng) == Some((0, Mode::Degraded))).count();
    assert!((2_800..3_200).contains(&degraded), "{degraded}");
    assert_eq!(native(&[&[lane(10.0, 0.0, 0.0)]]).divide(|_| true).draw(&mut rng), None);
}

#[test]
fn a_stale_lane_is_topped_up_to_one_percent() {
    let fresh = lane(10.0, 10.0, 0.0).input;
    let stale = Counted { fresh: Some(fresh), ..lane(10.0, 0.0, 10.0) };
    // 1.4 * 710.7 / 1000 is 9,950: the stale one gets the 50 that are left, and 139 if it were fresh.
    let busy = lane(990.0, 9_950.0 / 14.0, 0.0);
    assert_eq!(
        native(&[&[busy.clone(), Counted { fresh: None, ..stale.clone() }]]).divide(|_| true).shares,
        [9_950, 50]
    );
    assert_eq!(native(&[&[busy, stale.clone()]]).divide(|_| true).shares, [9_900, 100]);
    let idle = lane(30.0, 30.0, 0.0);
    assert_eq!(native(&[&[idle, stale]]).divide(|_| true).shares, [9_900, 100]);
}

#[test]
fn the_compatible_mode_counts_percent_in_hundreds() {
    let half = || lane(4.0, 2.0, 0.0);
    let decision = compatible(50.0, &[&[half()], &[half()]]).divide(|_| true);
    assert_eq!((loads(&decision), decision.target.normalized_total_availability), (vec![(7_000, 0), (3_000, 0)], S));
    assert_eq!(decision.shares, [7_000, 3_000]);
    // One of the written vectors.
    let tiers = [lane(5.0, 0.0, 1.0), lane(5.0, 0.0, 5.0), lane(5.0, 1.0, 0.0)];
    let decision = compatible(50.0, &[&tiers[..1], &tiers[1..2], &tiers[2..]]).divide(|_| true);
    assert_eq!(loads(&decision), [(0, 2_800), (0, 4_400), (2_800, 0)]);
    assert_eq!(decision.shares, [2_800, 4_400, 2_800]);
}

#[test]
fn lanes_of_a_level_divide_by_what_serves_and_in_a_panic_by_what_can_be_picked() {
    let unequal = || [Counted { reachable_hosts: 4, ..lane(4.0, 1.0, 0.0) }, lane(4.0, 2.0, 0.0)];
    let shares = |threshold| compatible(threshold, &[&unequal(), &[lane(4.0, 0.0, 0.0)]]).divide(|_| true).shares;
    assert_eq!(shares(0.0), [3_333, 6_667, 0]);
    assert_eq!(shares(50.0), [6_667, 3_333, 0]);
}

#[test]
fn what_is_told_of_the_compatible_mode_is_whole_percents() {
    let thirds = [lane(1.0, 1.0, 0.0), lane(1.0, 1.0, 0.0), lane(1.0, 1.0, 0.0)];
    let told = |decision: &Decision, mode| decision.told(mode).iter().map(|lane| lane.share).collect::<Vec<_>>();
    let decision = compatible(50.0, &[&thirds]).divide(|_| true);
    assert_eq!(told(&decision, Formulas::Compatible), [3_400, 3_300, 3_300]);
    let decision = native(&[&thirds]).divide(|_| true);
    assert_eq!(told(&decision, Formulas::Native), [3_334, 3_333, 3_333]);
}

#[test]
fn what_cannot_be_picked_leaves_its_load_to_what_can() {
    let soft = Counted { reachable_hosts: 2, ..lane(2.0, 0.0, 0.0) };
    let hard = lane(2.0, 0.0, 0.0);
    // No panic, and everything to the first tier, says Envoy; but nobody there can be picked.
    let decision = compatible(0.0, &[std::slice::from_ref(&hard), std::slice::from_ref(&soft)]).divide(|_| true);
    assert_eq!((loads(&decision)[0].0, decision.shares), (S, vec![0, S]));
    // All panic: half each, by hosts.
    let decision = compatible(50.0, &[&[hard], &[soft]]).divide(|_| true);
    assert_eq!((loads(&decision)[0].0, decision.shares), (S / 2, vec![0, S]));
}
