use proptest::prelude::*;

use super::*;

const P0: f64 = 0.01;

fn breaker(config: BreakerConfig) -> Breaker {
    Breaker::new(Arc::new(config), Timestamp::ZERO)
}

fn endpoint() -> Breaker {
    breaker(BreakerConfig::endpoint())
}

/// Feeds `F`ailures, `S`uccesses and `D`ouble failures, and trips when asked to. Returns whether it is open.
fn feed(breaker: &mut Breaker, events: &str) -> bool {
    let mut rng = fastrand::Rng::with_seed(1);
    for event in events.chars() {
        let wants = match event {
            'F' => breaker.on_failure(1, P0, 1.0, Timestamp::ZERO),
            'D' => breaker.on_failure(2, P0, 1.0, Timestamp::ZERO),
            _ => breaker.on_success(None, P0, Timestamp::ZERO),
        };
        if wants {
            breaker.trip(false, Timestamp::ZERO, &mut rng);
        }
    }
    !breaker.is_closed()
}

#[test]
fn the_written_vectors_of_the_cumulative_sum() {
    for (events, open, statistic) in [("FFF", false, 11.74), ("FFFF", true, 15.65), ("FFFSF", true, 14.96)] {
        let mut breaker = endpoint();
        assert_eq!(feed(&mut breaker, events), open, "{events}");
        let got = breaker.statistic(Timestamp::ZERO);
        assert!((got - statistic).abs() < 0.01, "{events}: {got}");
    }
    let mut breaker = endpoint();
    assert!(!feed(&mut breaker, &format!("FFF{}", "S".repeat(20))));
    assert_eq!(breaker.statistic(Timestamp::ZERO), 0.0);
}

#[test]
fn two_hard_failures_trip_an_endpoint_and_seven_ordinary_ones_a_locality() {
    assert!(!feed(&mut endpoint(), "D") && feed(&mut endpoint(), "DD"));
    let locality = || breaker(BreakerConfig::locality());
    assert!(!feed(&mut locality(), "FFFFFF") && feed(&mut locality(), "FFFFFFF"));
}

/// Requests until a trip at the error rate `rate`, on average over `runs`.
fn run_length(threshold: f64, rate: f64, runs: u32) -> f64 {
    let mut rng = fastrand::Rng::with_seed(42);
    let config = BreakerConfig { trigger: Trigger::Cusum { p1: 0.5, threshold }, ..BreakerConfig::endpoint() };
    let mut requests = 0u64;
    for _ in 0..runs {
        let mut breaker = breaker(config);
        loop {
            requests += 1;
            if rng.f64() >= rate {
                breaker.on_success(None, P0, Timestamp::ZERO);
            } else if breaker.on_failure(1, P0, 1.0, Timestamp::ZERO) {
                break;
            }
        }
    }
    requests as f64 / f64::from(runs)
}

#[test]
fn other_numbers_keep_what_is_known_unless_the_trigger_changes() {
    let mut breaker = endpoint();
    feed(&mut breaker, "FF");
    let before = breaker.statistic(Timestamp::ZERO);
    let slower = BreakerConfig { base: Duration::from_secs(5), ..BreakerConfig::endpoint() };
    breaker.configure(&Arc::new(slower));
    assert_eq!(breaker.statistic(Timestamp::ZERO), before);
    assert_eq!(breaker.open_time(0), Duration::from_secs(5));
    let consecutive = BreakerConfig { trigger: Trigger::Consecutive { failures: 2 }, ..slower };
    breaker.configure(&Arc::new(consecutive));
    assert_eq!(breaker.statistic(Timestamp::ZERO), 0.0);
    assert!(!breaker.on_failure(1, 0.01, 1.0, Timestamp::ZERO) && breaker.on_failure(1, 0.01, 1.0, Timestamp::ZERO));
}

#[test]
fn average_run_lengths_are_as_documented() {
    for (threshold, rate, expected) in [
        (ENDPOINT_THRESHOLD, 0.5, 9.0),
        (ENDPOINT_THRESHOLD, 0.3, 19.0),
        (ENDPOINT_THRESHOLD, 0.2, 42.0),
        (ENDPOINT_THRESHOLD, 0.1, 345.0),
        (LANE_THRESHOLD, 0.3, 36.0),
    ] {
        let got = run_length(threshold, rate, 4_000);
        assert!((got / expected - 1.0).abs() < 0.1, "h {threshold}, {rate}: {got:.1} requests, not {expected}");
    }
}

#[test]
fn open_times_double_to_the_maximum_and_heal() {
    let config = BreakerConfig { jitter: 0.0, ..BreakerConfig::endpoint() };
    let mut breaker = breaker(config);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut now = Timestamp::ZERO;
    let mut times = Vec::new();
    breaker.trip(false, now, &mut rng);
    for _ in 0..8 {
        let Phase::Open { until, .. } = breaker.phase() else { panic!("open: {breaker:?}") };
        times.push((until - now).as_secs());
        now = until;
        assert!(breaker.poll(now));
        breaker.probe_ended(false, now, &mut rng);
    }
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60]);
    breaker.poll(now + Duration::from_secs(60));
    breaker.probe_ended(true, now, &mut rng);
    // Level 9 after nine trips; eight of them healed by 80 s.
    now = now + Duration::from_secs(85);
    breaker.trip(false, now, &mut rng);
    assert_eq!(breaker.phase(), Phase::Open { until: now + Duration::from_secs(2), down: false });
}

#[test]
fn acceptance_rises_over_ten_seconds_after_a_probe() {
    let (mut breaker, mut rng) = (endpoint(), fastrand::Rng::with_seed(3));
    let start = Timestamp::from_millis(100_000);
    breaker.trip(true, Timestamp::ZERO, &mut rng);
    assert!(breaker.is_down());
    assert_eq!(breaker.acceptance(start), 0.0);
    assert!(breaker.poll(start) && breaker.is_down());
    assert_eq!(breaker.acceptance(start), 0.0);
    breaker.probe_ended(true, start, &mut rng);
    let at = |ms| start + Duration::from_millis(ms);
    for (ms, expected) in [(0, 0.1), (5_000, 0.55), (10_000, 1.0), (60_000, 1.0)] {
        assert!((breaker.acceptance(at(ms)) - expected).abs() < 1e-3, "{ms} ms");
    }
    assert!(breaker.settle_rise(at(9_999)) && breaker.is_rising());
    assert!(breaker.settle_rise(at(10_000)) && !breaker.is_rising() && !breaker.settle_rise(at(10_000)));
    assert!(!breaker.is_down() && breaker.pressure(at(0)) == 0.0);
}

#[test]
fn a_new_incarnation_starts_slowly_and_any_other_breaker_at_once() {
    let starting = Breaker::starting(Arc::new(BreakerConfig::endpoint()), Timestamp::ZERO);
    assert!(starting.is_rising() && starting.is_closed());
    for (ms, accepted) in [(0, 0.1), (5_000, 0.55), (10_000, 1.0), (20_000, 1.0)] {
        let got = starting.acceptance(Timestamp::from_millis(ms));
        assert!((got - accepted).abs() < 1e-3, "{got} after {ms} ms");
    }
    assert_eq!(endpoint().acceptance(Timestamp::ZERO), 1.0);
}

#[test]
fn an_open_time_is_waited_for() {
    let mut breaker = breaker(BreakerConfig { jitter: 0.0, ..BreakerConfig::endpoint() });
    breaker.trip(false, Timestamp::ZERO, &mut fastrand::Rng::with_seed(1));
    assert!(!breaker.poll(Timestamp::from_millis(999)));
    assert!(matches!(breaker.phase(), Phase::Open { .. }));
    assert!(breaker.poll(Timestamp::from_millis(1_000)));
    assert!(matches!(breaker.phase(), Phase::HalfOpen { .. }));
}

#[test]
fn hard_evidence_outlives_a_failed_probe_and_statistics_do_not_become_hard() {
    let (mut breaker, mut rng) = (endpoint(), fastrand::Rng::with_seed(3));
    let later = Timestamp::from_millis(100_000);
    breaker.trip(true, Timestamp::ZERO, &mut rng);
    breaker.poll(later);
    breaker.probe_ended(false, later, &mut rng);
    assert!(breaker.is_down());
    let mut soft = endpoint();
    soft.trip(false, Timestamp::ZERO, &mut rng);
    soft.poll(later);
    soft.probe_ended(false, later, &mut rng);
    assert!(!soft.is_down() && !soft.is_closed());
}

#[test]
fn late_results_and_stray_probes_change_nothing() {
    let (mut breaker, mut rng) = (endpoint(), fastrand::Rng::with_seed(3));
    breaker.probe_ended(false, Timestamp::ZERO, &mut rng);
    assert!(breaker.is_closed());
    breaker.trip(false, Timestamp::ZERO, &mut rng);
    let before = breaker.statistic(Timestamp::ZERO);
    assert!(!breaker.on_failure(5, P0, 1.0, Timestamp::ZERO) && !breaker.on_success(None, P0, Timestamp::ZERO));
    assert_eq!(breaker.statistic(Timestamp::ZERO), before);
}

#[test]
fn a_share_bounds_the_statistic_until_enough_contribute() {
    let mut locality = breaker(BreakerConfig::locality());
    for _ in 0..50 {
        assert!(!locality.on_failure(1, P0, 1.0 / 3.0, Timestamp::ZERO));
    }
    assert!((locality.pressure(Timestamp::ZERO) - 1.0 / 3.0).abs() < 1e-9);
    assert!(!locality.on_failure(1, P0, 2.0 / 3.0, Timestamp::ZERO));
    let trips = (0..7).filter(|_| locality.on_failure(1, P0, 1.0, Timestamp::ZERO)).count();
    assert!(trips > 0);
}

#[test]
fn failures_in_a_row_trip_a_consecutive_breaker() {
    let config = BreakerConfig { trigger: Trigger::Consecutive { failures: 3 }, ..BreakerConfig::endpoint() };
    assert!(!feed(&mut breaker(config), "FFSFFSFF"));
    assert!(feed(&mut breaker(config), "FFSFFF"));
    assert!(feed(&mut breaker(config), "DF"));
}

#[test]
fn an_error_rate_needs_its_minimum_and_forgets_with_its_window() {
    let trigger = Trigger::ErrorRate { ratio: 0.5, window: Duration::from_secs(10), min_requests: 6 };
    let mut breaker = breaker(BreakerConfig { trigger, ..BreakerConfig::endpoint() });
    assert!(!feed(&mut breaker, "FFFFF"));
    let later = Timestamp::from_millis(20_000);
    assert!(!breaker.on_failure(1, P0, 1.0, later));
    for _ in 0..4 {
        breaker.on_success(None, P0, later);
    }
    assert!(!breaker.on_failure(1, P0, 1.0, later), "2 of 6");
    assert!(!breaker.on_failure(1, P0, 1.0, later), "3 of 7");
    assert!(breaker.on_failure(1, P0, 1.0, later), "4 of 8");
}

#[test]
fn a_window_forgets_what_is_as_old_as_it_is_wide() {
    let trigger = Trigger::ErrorRate { ratio: 0.5, window: Duration::from_secs(10), min_requests: 1 };
    let mut breaker = breaker(BreakerConfig { trigger, ..BreakerConfig::endpoint() });
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
    breaker.on_failure(1, P0, 1.0, at(1_000));
    for (seconds, statistic) in [(999, 0.0), (1_000, 1.0), (1_009, 1.0), (1_010, 0.0), (1_030, 0.0)] {
        assert_eq!(breaker.statistic(at(seconds)), statistic, "at {seconds} s");
    }
    breaker.on_success(None, P0, at(1_005));
    assert_eq!(breaker.statistic(at(1_009)), 0.5);
    assert_eq!(breaker.statistic(at(1_010)), 0.0, "only the success is left");
}

#[test]
fn what_is_closed_again_remembers_nothing() {
    let window = Duration::from_secs(10);
    for trigger in [
        BreakerConfig::endpoint().trigger,
        Trigger::Consecutive { failures: 9 },
        Trigger::ErrorRate { ratio: 0.5, window, min_requests: 1 },
    ] {
        let mut breaker = breaker(BreakerConfig { trigger, ..BreakerConfig::endpoint() });
        breaker.on_failure(1, P0, 1.0, Timestamp::ZERO);
        assert!(breaker.statistic(Timestamp::ZERO) > 0.0 && breaker.pressure(Timestamp::ZERO) > 0.0, "{trigger:?}");
        breaker.close(Timestamp::ZERO);
        assert_eq!((breaker.statistic(Timestamp::ZERO), breaker.pressure(Timestamp::ZERO)), (0.0, 0.0), "{trigger:?}");
    }
}

#[test]
fn the_edges_of_the_triggers() {
    let mut cusum = endpoint();
    feed(&mut cusum, "FFFS");
    let exact = 3.0 * 50f64.ln() + (0.5f64 / 0.99).ln();
    assert!((cusum.statistic(Timestamp::ZERO) - exact).abs() < 1e-9, "{}", cusum.statistic(Timestamp::ZERO));

    let mut three_of_nine =
        breaker(BreakerConfig { trigger: Trigger::Consecutive { failures: 9 }, ..BreakerConfig::locality() });
    for _ in 0..20 {
        assert!(!three_of_nine.on_failure(1, P0, 1.0 / 3.0, Timestamp::ZERO), "one of three contributors");
    }
    assert_eq!(three_of_nine.statistic(Timestamp::ZERO), 3.0);

    let (window, limit) = (Duration::from_secs(10), Duration::from_millis(100));
    let rate = Trigger::ErrorRate { ratio: 0.5, window, min_requests: 4 };
    let mut rate = breaker(BreakerConfig { trigger: rate, ..BreakerConfig::endpoint() });
    let wants: Vec<_> = (0..4).map(|_| rate.on_failure(1, P0, 1.0, Timestamp::ZERO)).collect();
    assert_eq!(wants, [false, false, false, true], "as soon as there are enough");

    let slow = Trigger::Latency { quantile: 0.5, limit, window, min_requests: 1 };
    let mut slow = breaker(BreakerConfig { trigger: slow, ..BreakerConfig::endpoint() });
    assert!(!slow.on_success(Some(limit), P0, Timestamp::ZERO), "not above the limit");
    assert!(
        !slow.on_success(Some(limit + Duration::from_nanos(1)), P0, Timestamp::ZERO),
        "half of them are no more than half"
    );
    assert!(slow.on_success(Some(limit * 2), P0, Timestamp::ZERO));
}

#[test]
fn a_latency_quantile_trips_on_slow_successes() {
    let trigger = Trigger::Latency {
        quantile: 0.9,
        limit: Duration::from_millis(100),
        window: Duration::from_secs(10),
        min_requests: 20,
    };
    let mut breaker = breaker(BreakerConfig { trigger, ..BreakerConfig::endpoint() });
    let mut success = |ms| breaker.on_success(Some(Duration::from_millis(ms)), P0, Timestamp::ZERO);
    assert!(!(0..18).any(|_| success(5)));
    assert!(!success(500) && !success(500), "2 of 20 are not more than a tenth");
    assert!(success(500), "3 of 21 are");
}

proptest! {
    /// Fewer than four ordinary failures from reset never trip an endpoint, fewer than seven never a locality.
    #[test]
    fn a_few_failures_never_trip(events in "[SF]{0,60}", p0 in 0.01f64..0.1) {
        let failures = events.matches('F').count();
        let count = |threshold| {
            let trigger = Trigger::Cusum { p1: 0.5, threshold };
            let mut breaker = breaker(BreakerConfig { trigger, ..BreakerConfig::endpoint() });
            events.chars().any(|e| match e {
                'F' => breaker.on_failure(1, p0, 1.0, Timestamp::ZERO),
                _ => breaker.on_success(None, p0, Timestamp::ZERO),
            })
        };
        prop_assert!(!(failures < 4 && count(ENDPOINT_THRESHOLD)));
        prop_assert!(!(failures < 7 && count(LANE_THRESHOLD)));
    }

    #[test]
    fn success_never_raises_the_statistic(events in "[SFD]{0,80}", p0 in 0.0f64..0.6) {
        let mut breaker = endpoint();
        for event in events.chars() {
            let before = breaker.statistic(Timestamp::ZERO);
            match event {
                'F' => { breaker.on_failure(1, p0, 0.9, Timestamp::ZERO); }
                'D' => { breaker.on_failure(2, p0, 0.9, Timestamp::ZERO); }
                _ => {
                    breaker.on_success(None, p0, Timestamp::ZERO);
                    prop_assert!(breaker.statistic(Timestamp::ZERO) <= before);
                }
            }
        }
    }

    #[test]
    fn open_times_stay_within_half_the_base_and_half_again_the_maximum(trips in 1usize..40, seed in any::<u64>()) {
        let (mut breaker, mut rng) = (endpoint(), fastrand::Rng::with_seed(seed));
        let mut now = Timestamp::ZERO;
        for _ in 0..trips {
            breaker.trip(rng.bool(), now, &mut rng);
            let Phase::Open { until, .. } = breaker.phase() else { panic!("open") };
            prop_assert!(until - now >= Duration::from_millis(500) && until - now <= Duration::from_secs(90));
            now = until + Duration::from_millis(rng.u64(0..5_000));
            breaker.poll(now);
            if rng.bool() {
                breaker.probe_ended(rng.bool(), now, &mut rng);
            }
        }
    }
}

#[test]
fn a_locality_does_not_trip_at_the_usual_error_rate() {
    let (mut locality, mut rng) = (breaker(BreakerConfig::locality()), fastrand::Rng::with_seed(17));
    for request in 0..5_000_000u32 {
        match rng.u32(..) < u32::MAX / 100 {
            true => assert!(!locality.on_failure(1, P0, 1.0, Timestamp::ZERO), "tripped at request {request}"),
            false => {
                locality.on_success(None, P0, Timestamp::ZERO);
            }
        }
    }
}
