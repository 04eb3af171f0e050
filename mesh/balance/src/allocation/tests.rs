use super::*;
use crate::policy::Policy;

fn locality(total: f64, healthy: f64, degraded: f64) -> LocalityStats {
    let input = LocalityInput { total, healthy, degraded, weight: 1.0, capacity: total, ..LocalityInput::default() };
    let hosts = Hosts { hosts: total as u32, healthy: healthy as u32, degraded: degraded as u32, excluded: 0 };
    LocalityStats {
        input,
        hosts,
        reachable_hosts: hosts.healthy + hosts.degraded,
        reachable: true,
        ..LocalityStats::default()
    }
}

fn stats(policy: Policy, priorities: &[&[LocalityStats]]) -> ServiceStats {
    let mut start = 0;
    let range = |localities: &&[LocalityStats]| {
        let range = start..start + localities.len();
        start = range.end;
        range
    };
    ServiceStats {
        priorities: priorities.iter().map(range).collect(),
        factors: vec![1.0; priorities.len()].into(),
        localities: priorities.iter().flat_map(|localities| localities.iter().cloned()).collect(),
        rules: Rules::new(policy),
    }
}

fn native(priorities: &[&[LocalityStats]]) -> ServiceStats {
    stats(Policy::default(), priorities)
}

fn envoy(panic_threshold: f64, priorities: &[&[LocalityStats]]) -> ServiceStats {
    stats(Policy { mode: Mode::Envoy, panic_threshold, ..Policy::default() }, priorities)
}

fn loads(allocation: &Allocation) -> Vec<(u32, u32)> {
    allocation.target.priorities.iter().map(|priority| (priority.healthy_load, priority.degraded_load)).collect()
}

#[test]
fn what_is_not_allowed_is_not_there() {
    let stats = native(&[&[locality(10.0, 5.0, 0.0)], &[locality(10.0, 10.0, 0.0), locality(30.0, 30.0, 0.0)]]);
    assert_eq!(stats.divide(|_| true).shares, [7_000, 750, 2_250]);
    assert_eq!(stats.divide(|i| i != 0).shares, [0, 2_500, 7_500]);
    assert_eq!(stats.divide(|i| i == 0).shares, [10_000, 0, 0]);
    assert_eq!(stats.divide(|_| false).shares, [0, 0, 0]);
}

#[test]
fn what_is_held_back_goes_on_as_far_as_the_next_priorities_can_take_it() {
    let held = LocalityStats { cap: Some(0), ..locality(10.0, 10.0, 0.0) };
    // Each can take 1.4 * 4 / 20; degraded endpoints take part.
    let next = [locality(10.0, 3.0, 1.0), locality(10.0, 4.0, 0.0)];
    let mut stats = native(&[&[held], &next, &[locality(10.0, 10.0, 0.0)]]);
    assert_eq!(stats.divide(|_| true).shares, [0, 2_800, 2_800, 4_400]);
    let heavy = LocalityStats { input: LocalityInput { weight: 3.0, ..next[1].input }, ..next[1].clone() };
    let weighed = native(&[&[LocalityStats { cap: Some(0), ..locality(10.0, 10.0, 0.0) }], &[next[0].clone(), heavy]]);
    assert_eq!(weighed.divide(|_| true).shares, [0, 2_500, 7_500], "by the operator's weights");
    stats.factors[1] = 0.5;
    assert_eq!(stats.divide(|_| true).shares, [0, 1_400, 1_400, 7_200]);
}

#[test]
fn bins_tell_healthy_from_degraded() {
    let allocation = native(&[&[locality(10.0, 5.0, 5.0)]]).divide(|_| true);
    assert_eq!(allocation.bins(), [(0, HealthBand::Healthy, 7_000), (0, HealthBand::Degraded, 3_000)]);
    let mut rng = fastrand::Rng::with_seed(5);
    let degraded = (0..10_000).filter(|_| allocation.draw(&mut rng) == Some((0, HealthBand::Degraded))).count();
    assert!((2_800..3_200).contains(&degraded), "{degraded}");
    assert_eq!(native(&[&[locality(10.0, 0.0, 0.0)]]).divide(|_| true).draw(&mut rng), None);
}

#[test]
fn a_stale_locality_is_topped_up_to_one_percent() {
    let fresh = locality(10.0, 10.0, 0.0).input;
    let stale = LocalityStats { fresh: Some(fresh), ..locality(10.0, 0.0, 10.0) };
    // 1.4 * 710.7 / 1000 is 9,950: the stale one gets the 50 that are left, and 139 if it were fresh.
    let busy = locality(990.0, 9_950.0 / 14.0, 0.0);
    assert_eq!(
        native(&[&[busy.clone(), LocalityStats { fresh: None, ..stale.clone() }]]).divide(|_| true).shares,
        [9_950, 50]
    );
    assert_eq!(native(&[&[busy, stale.clone()]]).divide(|_| true).shares, [9_900, 100]);
    let idle = locality(30.0, 30.0, 0.0);
    assert_eq!(native(&[&[idle, stale]]).divide(|_| true).shares, [9_900, 100]);
}

#[test]
fn the_compatible_mode_counts_percent_in_hundreds() {
    let half = || locality(4.0, 2.0, 0.0);
    let allocation = envoy(50.0, &[&[half()], &[half()]]).divide(|_| true);
    assert_eq!(
        (loads(&allocation), allocation.target.normalized_total_availability),
        (vec![(7_000, 0), (3_000, 0)], S)
    );
    assert_eq!(allocation.shares, [7_000, 3_000]);
    // One of the written vectors.
    let priorities = [locality(5.0, 0.0, 1.0), locality(5.0, 0.0, 5.0), locality(5.0, 1.0, 0.0)];
    let allocation = envoy(50.0, &[&priorities[..1], &priorities[1..2], &priorities[2..]]).divide(|_| true);
    assert_eq!(loads(&allocation), [(0, 2_800), (0, 4_400), (2_800, 0)]);
    assert_eq!(allocation.shares, [2_800, 4_400, 2_800]);
}

#[test]
fn localities_of_a_level_divide_by_what_serves_and_in_a_panic_by_what_can_be_picked() {
    let unequal = || [LocalityStats { reachable_hosts: 4, ..locality(4.0, 1.0, 0.0) }, locality(4.0, 2.0, 0.0)];
    let shares = |threshold| envoy(threshold, &[&unequal(), &[locality(4.0, 0.0, 0.0)]]).divide(|_| true).shares;
    assert_eq!(shares(0.0), [3_333, 6_667, 0]);
    assert_eq!(shares(50.0), [6_667, 3_333, 0]);
}

#[test]
fn what_is_told_of_the_compatible_mode_is_whole_percents() {
    let thirds = [locality(1.0, 1.0, 0.0), locality(1.0, 1.0, 0.0), locality(1.0, 1.0, 0.0)];
    let told =
        |allocation: &Allocation, mode| allocation.told(mode).iter().map(|locality| locality.share).collect::<Vec<_>>();
    let allocation = envoy(50.0, &[&thirds]).divide(|_| true);
    assert_eq!(told(&allocation, Mode::Envoy), [3_400, 3_300, 3_300]);
    let allocation = native(&[&thirds]).divide(|_| true);
    assert_eq!(told(&allocation, Mode::Native), [3_334, 3_333, 3_333]);
}

#[test]
fn what_cannot_be_picked_leaves_its_load_to_what_can() {
    let soft = LocalityStats { reachable_hosts: 2, ..locality(2.0, 0.0, 0.0) };
    let hard = locality(2.0, 0.0, 0.0);
    // No panic, and everything to the first priority, says Envoy; but nobody there can be picked.
    let allocation = envoy(0.0, &[std::slice::from_ref(&hard), std::slice::from_ref(&soft)]).divide(|_| true);
    assert_eq!((loads(&allocation)[0].0, allocation.shares), (S, vec![0, S]));
    // All panic: half each, by hosts.
    let allocation = envoy(50.0, &[&[hard], &[soft]]).divide(|_| true);
    assert_eq!((loads(&allocation)[0].0, allocation.shares), (S / 2, vec![0, S]));
}
