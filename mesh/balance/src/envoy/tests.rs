use proptest::prelude::*;

use super::*;

fn hosts(text: &str) -> Vec<Hosts> {
    let level = |level: &str| {
        let numbers: Vec<u32> = level.split('/').map(|n| n.parse().expect("a number")).collect();
        Hosts { hosts: numbers[0], healthy: numbers[1], degraded: numbers.get(2).copied().unwrap_or(0), excluded: 0 }
    };
    text.trim_matches(['[', ']']).split("][").map(level).collect()
}

fn divide(text: &str) -> Loads {
    loads(&hosts(text), 1.4, 50.0)
}

fn healthy(loads: &Loads) -> Vec<u32> {
    loads.levels.iter().map(|l| l.healthy_load).collect()
}

#[test]
fn the_written_vectors() {
    for (levels, expected, panics) in [
        ("[4/2][4/2]", vec![70, 30], "no"),
        ("[2/1][2/1]", vec![70, 30], "no"),
        ("[4/1][2/2]", vec![35, 65], "no"),
        ("[4/1][4/1]", vec![50, 50], "all"),
        ("[2/1][2/1][2/1]", vec![70, 30, 0], "no"),
        ("[4/1][2/2][2/1]", vec![35, 65, 0], "no"),
        ("[4/1][4/1][4/1]", vec![35, 35, 30], ""),
        ("[5/1][5/1][5/1]", vec![34, 33, 33], "all"),
        ("[5/0][5/0][5/5]", vec![0, 0, 100], "no"),
        ("[5/0][5/0][5/2]", vec![34, 33, 33], "all"),
        ("[5/0][3/0][2/0]", vec![50, 30, 20], "all"),
        ("[3/0][3/0][3/0]", vec![34, 33, 33], "all"),
    ] {
        let loads = divide(levels);
        assert_eq!(healthy(&loads), expected, "{levels}");
        let panicking = loads.levels.iter().filter(|l| l.panic).count();
        match panics {
            "no" => assert_eq!(panicking, 0, "{levels}"),
            "all" => assert_eq!(panicking, loads.levels.len(), "{levels}"),
            _ => {}
        }
    }
}

#[test]
fn degraded_hosts_take_what_the_healthy_leave() {
    let loads = divide("[5/0/1][5/0/5][5/1]");
    assert_eq!(healthy(&loads), [0, 0, 28]);
    assert_eq!(loads.levels.iter().map(|l| l.degraded_load).collect::<Vec<_>>(), [28, 44, 0]);
}

#[test]
fn the_first_level_keeps_its_load_down_to_72_percent() {
    for (percent, expected) in [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35), (0, 0)] {
        assert_eq!(healthy(&divide(&format!("[100/{percent}][100/100]")))[0], expected, "{percent} %");
    }
}

#[test]
fn without_overprovisioning_half_is_half() {
    assert_eq!(healthy(&loads(&hosts("[4/2][4/2]"), 1.0, 50.0)), [50, 50]);
}

#[test]
fn what_rounding_leaves_goes_to_the_first_that_serves() {
    let divided = loads(&hosts("[5/0][4/1][5/1]"), 1.4, 0.0);
    assert_eq!(healthy(&divided), [0, 56, 44]);
    let divided = loads(&hosts("[5/0/0][4/0/1][5/0/1]"), 1.4, 0.0);
    assert_eq!(divided.levels.iter().map(|l| l.degraded_load).collect::<Vec<_>>(), [0, 56, 44]);
}

#[test]
fn the_corners() {
    assert_eq!(loads(&[], 1.4, 50.0), Loads::default());
    let empty = divide("[0/0][0/0]");
    assert_eq!(healthy(&empty), [100, 0]);
    let unprotected = loads(&hosts("[5/0][5/0]"), 1.4, 0.0);
    assert_eq!((healthy(&unprotected), unprotected.levels[0].panic), (vec![100, 0], false));
    // Hosts that never warmed do not count, except when every level panics.
    let warming =
        [Hosts { hosts: 10, healthy: 2, degraded: 0, excluded: 8 }, Hosts { hosts: 2, healthy: 2, ..Hosts::default() }];
    assert_eq!(healthy(&loads(&warming, 1.4, 50.0)), [100, 0]);
    let all_warming = [Hosts { hosts: 3, excluded: 3, ..Hosts::default() }, Hosts { hosts: 1, ..Hosts::default() }];
    assert_eq!(healthy(&loads(&all_warming, 1.4, 50.0)), [75, 25]);
}

/// An independent reading of the written rules, in wide signed integers and a different order of steps.
fn reference(levels: &[Hosts], factor_percent: i128, threshold: i128) -> (Vec<(i128, i128, bool)>, i128) {
    let n = levels.len();
    let counted: Vec<i128> = levels.iter().map(|l| i128::from(l.hosts) - i128::from(l.excluded)).collect();
    let cap = |x: i128| if x > 100 { 100 } else { x };
    let of =
        |count: u32, i: usize| if counted[i] <= 0 { 0 } else { cap(factor_percent * i128::from(count) / counted[i]) };
    let h: Vec<i128> = (0..n).map(|i| of(levels[i].healthy, i)).collect();
    let d: Vec<i128> = (0..n).map(|i| of(levels[i].degraded, i)).collect();
    let nta = cap(h.iter().sum::<i128>() + d.iter().sum::<i128>());
    let panics = |i: usize| {
        let up = i128::from(levels[i].healthy) + i128::from(levels[i].degraded);
        nta < 100 && if counted[i] <= 0 { 0 < threshold } else { up * 100 < threshold * counted[i] }
    };
    let flags: Vec<bool> = (0..n).map(panics).collect();
    let all_hosts: i128 = levels.iter().map(|l| i128::from(l.hosts)).sum();
    let mut result: Vec<(i128, i128, bool)> = flags.iter().map(|f| (0, 0, *f)).collect();
    if flags.iter().all(|f| *f) {
        if all_hosts == 0 {
            result[0].0 = 100;
            return (result, nta);
        }
        for i in 0..n {
            result[i].0 = i128::from(levels[i].hosts) * 100 / all_hosts;
        }
        let given: i128 = result.iter().map(|r| r.0).sum();
        let first = (0..n).find(|i| levels[*i].hosts != 0).expect("there are hosts");
        result[first].0 += 100 - given;
        return (result, nta);
    }
    if nta == 0 {
        result[0].0 = 100;
        return (result, nta);
    }
    let mut given = 0;
    for i in 0..n {
        let want = h[i] * 100 / nta;
        result[i].0 = if want < 100 - given { want } else { 100 - given };
        given += result[i].0;
    }
    for i in 0..n {
        let want = d[i] * 100 / nta;
        result[i].1 = if want < 100 - given { want } else { 100 - given };
        given += result[i].1;
    }
    let missing = 100 - given;
    match ((0..n).find(|i| h[*i] > 0), (0..n).find(|i| d[*i] > 0)) {
        (Some(i), _) => result[i].0 += missing,
        (None, Some(i)) => result[i].1 += missing,
        (None, None) => {}
    }
    (result, nta)
}

fn any_hosts() -> impl Strategy<Value = Hosts> {
    (0u32..30, 0.0f64..=1.0, 0.0f64..=1.0, prop_oneof![3 => Just(0.0), 1 => 0.0f64..=1.0]).prop_map(
        |(hosts, h, d, e)| {
            let part = |of: u32, share: f64| (f64::from(of) * share).round() as u32;
            let excluded = part(hosts, e);
            let healthy = part(hosts - excluded, h);
            let degraded = part(hosts - excluded - healthy, d);
            Hosts { hosts, healthy, degraded, excluded }
        },
    )
}

proptest! {
    /// Invariant 5: equal to an independent integer reference.
    #[test]
    fn it_equals_the_reference(
        levels in prop::collection::vec(any_hosts(), 1..6),
        factor in 100u32..300,
        threshold in prop_oneof![Just(0u32), Just(50), 0u32..=100],
    ) {
        let got = loads(&levels, f64::from(factor) / 100.0, f64::from(threshold));
        let (expected, nta) = reference(&levels, i128::from(factor), i128::from(threshold));
        prop_assert_eq!(i128::from(got.normalized_total_availability), nta);
        let got: Vec<_> = got
            .levels
            .iter()
            .map(|l| (i128::from(l.healthy_load), i128::from(l.degraded_load), l.panic))
            .collect();
        prop_assert_eq!(got.iter().map(|l| l.0 + l.1).sum::<i128>(), 100);
        prop_assert_eq!(got, expected);
    }
}

/// Every health combination of up to 4 hosts in 1 to 3 levels.
#[test]
fn exhaustive_small_cases_equal_the_reference() {
    let level = |hosts: u32| {
        (0..=hosts).flat_map(move |healthy| {
            (0..=hosts - healthy).flat_map(move |degraded| {
                (0..=hosts - healthy - degraded).map(move |excluded| Hosts { hosts, healthy, degraded, excluded })
            })
        })
    };
    let all: Vec<Hosts> = (0..=4).flat_map(level).collect();
    let check = |levels: &[Hosts], factor: i32, threshold: i32| {
        let got = loads(levels, f64::from(factor) / 100.0, f64::from(threshold));
        let (expected, available) = reference(levels, factor.into(), threshold.into());
        assert_eq!(i128::from(got.normalized_total_availability), available, "{levels:?}");
        for (got, expected) in got.levels.iter().zip(expected) {
            let got = (i128::from(got.healthy_load), i128::from(got.degraded_load), got.panic);
            assert_eq!(got, expected, "{levels:?} {factor} {threshold}");
        }
    };
    for a in &all {
        check(&[*a], 140, 50);
        for b in &all {
            for (factor, threshold) in [(140, 50), (100, 50), (140, 0), (140, 100), (250, 71)] {
                check(&[*a, *b], factor, threshold);
            }
            for c in &all {
                check(&[*a, *b, *c], 140, 50);
            }
        }
    }
}
