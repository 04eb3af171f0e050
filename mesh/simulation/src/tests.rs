//! The model itself: times that can be computed by hand, and faults one by one.

use eastway_core::ZoneId;

use crate::scenario::{Callers, Fault, Overrides, Rtt, Scenario, ServiceTime, Zone};
use crate::{Report, run};

fn zone(name: &str) -> ZoneId {
    name.parse().expect("a zone")
}

/// One caller in us/a, so many endpoints in each zone, a constant service time of 10 ms, round trips of 2, 6 and 80 ms.
fn scenario(zones: &[(&str, u32)]) -> Scenario {
    Scenario {
        seed: 1,
        duration_s: 60.0,
        rate: 50.0,
        callers: vec![Callers { zone: zone("us/a"), count: 1 }],
        zones: zones
            .iter()
            .map(|(name, endpoints)| Zone { zone: zone(name), region: None, endpoints: *endpoints })
            .collect(),
        service: ServiceTime::Constant { mean_ms: 10.0 },
        concurrency: 0,
        queue_limit: 0,
        rtt: Rtt { zone_ms: 2.0, region_ms: 6.0, remote_ms: 80.0 },
        report_ms: 100.0,
        probes: 0,
        idempotent: true,
        timeout_s: 15.0,
        warm_ms: 500.0,
        sample_s: 1.0,
        policy: Overrides::default(),
        faults: Vec::new(),
    }
}

fn kill(name: &str, at_s: f64, until_s: Option<f64>, silent: bool) -> Fault {
    Fault::Kill { zone: Some(zone(name)), endpoints: None, at_s, until_s, silent, cold_s: 0.0, cold_factor: 3.0 }
}

fn run_checked(scenario: &Scenario) -> Report {
    assert_eq!(scenario.mistakes(), []);
    run(scenario)
}

#[test]
fn a_request_takes_its_round_trip_and_its_service_time() {
    for (zones, expected) in
        [(&[("us/a", 2)][..], 12.0), (&[("us/a", 0), ("us/b", 2)][..], 16.0), (&[("us/a", 0), ("eu/a", 2)][..], 90.0)]
    {
        let report = run_checked(&scenario(zones));
        assert_eq!((report.failures, report.offered_ratio), (0, 1.0), "{zones:?}");
        assert!((report.p50_ms - expected).abs() < 0.01, "{zones:?}: {}", report.p50_ms);
    }
}

#[test]
fn the_first_request_of_a_connection_waits_for_it() {
    let mut first = scenario(&[("us/a", 1)]);
    (first.duration_s, first.rate, first.seed) = (5.0, 0.2, 3);
    let report = run_checked(&first);
    assert!(report.requests >= 1, "another seed is needed");
    // Two more round trips: of the connection, and of its handshake.
    assert!((report.p999_ms - 16.0).abs() < 0.01, "{}", report.p999_ms);
}

#[test]
fn a_full_queue_is_answered_with_a_failure() {
    let mut full = scenario(&[("us/a", 1)]);
    (full.concurrency, full.queue_limit, full.rate) = (1, 1, 300.0);
    let report = run_checked(&full);
    // 100 requests a second can be served.
    let served = (report.requests - report.failures) as f64 / 60.0;
    assert!((90.0..=101.0).contains(&served), "{served}");
    assert!(report.p999_ms < 40.0, "one at work and one that waits: {}", report.p999_ms);
}

#[test]
fn who_waits_too_long_has_failed() {
    let mut slow = scenario(&[("us/a", 2)]);
    slow.timeout_s = 0.008;
    let report = run_checked(&slow);
    assert_eq!(report.failures, report.requests);
}

#[test]
fn a_silent_host_costs_time_and_a_refusing_one_hardly_any() {
    let lost = |silent| {
        let mut lost = scenario(&[("us/a", 2), ("us/b", 2)]);
        lost.faults = vec![kill("us/a", 20.0, None, silent)];
        run_checked(&lost)
    };
    let (refusing, silent) = (lost(false), lost(true));
    assert_eq!((refusing.failures, silent.failures), (0, 0));
    assert!(refusing.p999_ms < 50.0, "{}", refusing.p999_ms);
    // The pings over the connections that were open.
    assert!((400.0..1_000.0).contains(&silent.p999_ms), "{}", silent.p999_ms);
    assert!(refusing.shift_ms.expect("it shifts") <= silent.shift_ms.expect("it shifts"));
}

#[test]
fn what_must_not_be_repeated_is_lost_with_its_host() {
    let mut lost = scenario(&[("us/a", 2), ("us/b", 2)]);
    (lost.rate, lost.faults) = (1_000.0, vec![kill("us/a", 20.0, None, false)]);
    let repeated = run_checked(&lost);
    lost.idempotent = false;
    let once = run_checked(&lost);
    assert_eq!(repeated.failures, 0);
    // About as many as were in flight: a thousand a second for 12 ms.
    assert!((3..40).contains(&once.failures), "{}", once.failures);
}

#[test]
fn sessions_to_another_region_survive_the_loss_of_an_endpoint() {
    let mut lost = scenario(&[("us/a", 0), ("eu/a", 4)]);
    let faults = [Some(10.0), Some(30.0)].map(|at| Fault::Kill {
        zone: Some(zone("eu/a")),
        endpoints: Some(2),
        at_s: at.expect("a time"),
        until_s: at.map(|at| at + 5.0),
        silent: false,
        cold_s: 0.0,
        cold_factor: 3.0,
    });
    lost.faults = faults.to_vec();
    let report = run_checked(&lost);
    assert_eq!(report.failures, 0);
    assert_eq!(report.localities(), ["eu/a"], "a zone without endpoints is no locality");
}

#[test]
fn faults_change_no_arrivals() {
    let calm = scenario(&[("us/a", 2), ("us/b", 2)]);
    let mut lost = calm.clone();
    lost.faults = vec![kill("us/a", 20.0, Some(30.0), false)];
    let counts = |report: &Report| report.seconds.iter().map(|second| second.requests).collect::<Vec<_>>();
    assert_eq!(counts(&run_checked(&calm)), counts(&run_checked(&lost)));
}

#[test]
fn the_load_follows_its_factor() {
    let mut varied = scenario(&[("us/a", 2)]);
    varied.rate = 200.0;
    varied.faults = vec![
        Fault::Load { at_s: 10.0, until_s: Some(20.0), factor: 0.0 },
        Fault::Load { at_s: 30.0, until_s: Some(40.0), factor: 3.0 },
    ];
    let report = run_checked(&varied);
    let mean = |from: usize| report.seconds[from..from + 10].iter().map(|s| f64::from(s.requests)).sum::<f64>() / 10.0;
    assert!((180.0..220.0).contains(&mean(0)) && mean(10) == 0.0, "{} {}", mean(0), mean(10));
    assert!((560.0..640.0).contains(&mean(30)) && (180.0..220.0).contains(&mean(45)), "{} {}", mean(30), mean(45));
}

#[test]
fn the_table_and_the_plot_show_every_locality() {
    let report = run_checked(&scenario(&[("us/a", 2), ("us/b", 2), ("eu/a", 2)]));
    let (text, svg) = (crate::table::text(&report), crate::plot::svg(&report, "a < b & \"c\""));
    for locality in ["us/a", "us/b", "eu/a"] {
        assert!(text.contains(locality) && svg.contains(locality), "{locality}");
    }
    assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.ends_with("</svg>\n"));
    assert!(text.lines().count() < 40, "{text}");
}

/// A flap that goes on for a million years after the end of the scenario costs nothing.
#[test]
fn what_flaps_does_so_until_the_end() {
    let mut flapping = scenario(&[("us/a", 2), ("us/b", 2)]);
    let fault = |until_s| Fault::Flap { zone: zone("us/a"), at_s: 20.0, until_s, period_s: 10.0, down_s: 2.0 };
    flapping.faults = vec![fault(60.0)];
    let ended = run_checked(&flapping);
    flapping.faults = vec![fault(3e13)];
    let endless = run_checked(&flapping);
    assert_eq!((ended.requests, ended.failures), (endless.requests, endless.failures));
}

#[test]
fn loads_that_overlap_are_multiplied() {
    let mut varied = scenario(&[("us/a", 2)]);
    varied.rate = 100.0;
    let load = |at_s, until_s, factor| Fault::Load { at_s, until_s: Some(until_s), factor };
    varied.faults = vec![load(10.0, 50.0, 4.0), load(20.0, 30.0, 2.0), load(35.0, 45.0, 0.5)];
    let report = run_checked(&varied);
    let mean = |from: usize, until: usize| {
        let seconds = &report.seconds[from..until];
        seconds.iter().map(|s| f64::from(s.requests)).sum::<f64>() / seconds.len() as f64
    };
    for (from, until, expected) in [
        (0, 10, 100.0),
        (10, 20, 400.0),
        (20, 30, 800.0),
        (30, 35, 400.0),
        (35, 45, 200.0),
        (45, 50, 400.0),
        (50, 60, 100.0),
    ] {
        let found = mean(from, until);
        assert!((found / expected - 1.0f64).abs() < 0.15, "{from} to {until} s: {found}, not {expected}");
    }
}

#[test]
fn a_zone_is_dead_while_any_fault_holds_it_dead() {
    for silent in [false, true] {
        let mut lost = scenario(&[("us/a", 2), ("us/b", 2)]);
        lost.faults = vec![kill("us/a", 20.0, Some(40.0), false), kill("us/a", 25.0, Some(30.0), silent)];
        let report = run_checked(&lost);
        let measured = |from: f64, until: f64| {
            let its = report.shares.iter().filter(|share| share.locality == "us/a" && (from..until).contains(&share.t));
            its.filter_map(|share| share.measured).fold(0.0, f64::max)
        };
        // What tries whether it is back is no traffic.
        assert!(measured(23.0, 40.0) < 5.0, "silent {silent}: {}", measured(23.0, 40.0));
        assert!(measured(41.0, 60.0) > 10.0, "silent {silent}: it returns");
        assert_eq!(report.failures, 0, "silent {silent}");
    }
}

#[test]
fn errors_and_slowness_that_overlap_end_one_by_one() {
    let mut both = scenario(&[("us/a", 2)]);
    both.policy.attempts = Some(1);
    let errors =
        |at_s, until_s| Fault::Errors { zone: None, endpoints: None, at_s, until_s: Some(until_s), ratio: 0.5 };
    let slow =
        |at_s, until_s, factor| Fault::Slow { zone: None, endpoints: None, at_s, until_s: Some(until_s), factor };
    both.faults = vec![errors(10.0, 30.0), errors(15.0, 20.0), slow(10.0, 30.0, 3.0), slow(15.0, 20.0, 7.0)];
    let report = run_checked(&both);
    let failed = |from: usize, until: usize| {
        let (requests, failures) =
            report.seconds[from..until].iter().fold((0, 0), |(r, f), s| (r + s.requests, f + s.failures));
        f64::from(failures) / f64::from(requests)
    };
    assert!((0.65..0.85).contains(&failed(15, 20)), "{}", failed(15, 20));
    assert!((0.4..0.6).contains(&failed(20, 30)), "{}", failed(20, 30));
    assert_eq!(failed(31, 60), 0.0);
    // Three times seven as long, for as long as both last.
    assert!((report.p99_ms - 212.0).abs() < 1.0, "{}", report.p99_ms);
    assert!((report.p50_ms - 12.0).abs() < 0.1, "{}", report.p50_ms);
}

/// A zone that dies within a row gets a part of its requests, not the share that it had at the row's start.
#[test]
fn a_row_of_the_table_has_the_shares_of_its_requests() {
    let mut lost = scenario(&[("us/a", 2), ("us/b", 2)]);
    (lost.duration_s, lost.faults) = (200.0, vec![kill("us/a", 45.0, None, false)]);
    let report = run_checked(&lost);
    let text = crate::table::text(&report);
    let row = text.lines().find(|line| line.trim_start().starts_with("40.0 s")).expect("a row of ten seconds");
    let shares: Vec<f64> = row.split_whitespace().filter_map(|word| word.parse().ok()).skip(3).collect();
    assert!((40.0..60.0).contains(&shares[0]) && (40.0..60.0).contains(&shares[1]), "{row}");
}

#[test]
fn a_simulation_that_ends_before_ten_seconds_has_no_imbalance() {
    let mut short = scenario(&[("us/a", 2)]);
    for (duration, known) in [(5.0, false), (10.0, false), (15.0, true)] {
        short.duration_s = duration;
        let report = run_checked(&short);
        assert_eq!((report.imbalance.is_some(), report.baseline.imbalance.is_some()), (known, known), "{duration} s");
        let text = crate::table::text(&report);
        assert_eq!(text.contains("imbalance      -"), !known, "{text}");
    }
}
