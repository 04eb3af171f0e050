use super::*;

fn scenario() -> Scenario {
    Scenario {
        seed: 1,
        duration_s: 10.0,
        rate: 10.0,
        callers: vec![Callers { zone: ZoneId::new("us", "a"), count: 2 }],
        zones: vec![Zone { zone: ZoneId::new("us", "a"), region: None, endpoints: 3 }],
        service: ServiceTime::default(),
        concurrency: 0,
        queue_limit: 0,
        rtt: Rtt::default(),
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

#[test]
fn every_mistake_is_named_with_its_place() {
    assert_eq!(scenario().mistakes(), []);
    let mut bad = scenario();
    bad.duration_s = f64::NAN;
    bad.queue_limit = 3;
    bad.callers.push(Callers { zone: ZoneId::new("us", "b"), count: 1 });
    bad.zones.push(Zone { zone: ZoneId::new("us", "a"), region: Some("elsewhere".to_owned()), endpoints: 0 });
    bad.policy.attempts = Some(9);
    bad.faults = vec![
        Fault::Errors { zone: None, endpoints: Some(4), at_s: 3.0, until_s: Some(2.0), ratio: 2.0 },
        Fault::Stale { cluster: Some("eu".to_owned()), at_s: 0.0, until_s: None },
        Fault::Flap { zone: ZoneId::new("eu", "a"), at_s: 0.0, until_s: 5.0, period_s: 2.0, down_s: 3.0 },
    ];
    let paths: Vec<String> = bad.mistakes().into_iter().map(|mistake| mistake.path).collect();
    let expected = [
        "duration_s",
        "queue_limit",
        "policy.attempts",
        "zones[1].zone",
        "zones[1].region",
        "callers[1].zone",
        "faults[0].at_s",
        "faults[0].until_s",
        "faults[0].endpoints",
        "faults[0].ratio",
        "faults[1].at_s",
        "faults[1].cluster",
        "faults[2].at_s",
        "faults[2].zone",
        "faults[2].down_s",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn service_times_have_the_mean_that_was_asked_for() {
    let mut rng = fastrand::Rng::with_seed(3);
    let times = [
        ServiceTime::Constant { mean_ms: 20.0 },
        ServiceTime::Exponential { mean_ms: 20.0 },
        ServiceTime::Lognormal { mean_ms: 20.0, sigma: 1.0 },
    ];
    for time in times {
        let mean = (0..200_000).map(|_| time.draw(&mut rng)).sum::<f64>() / 200_000.0;
        assert!((mean - 20.0).abs() < 0.5, "{time:?}: {mean}");
    }
}

/// The one mistake of a scenario.
fn only_mistake(change: impl FnOnce(&mut Scenario)) -> String {
    let mut scenario = scenario();
    change(&mut scenario);
    match &scenario.mistakes()[..] {
        [only] => only.to_string(),
        others => panic!("{others:?}"),
    }
}

/// Each number of these scenarios is allowed; together they would fill the memory.
#[test]
fn amounts_are_bounded_with_what_to_do() {
    let load = |factor| Fault::Load { at_s: 1.0, until_s: Some(5.0), factor };
    for (mistake, words) in [
        (
            only_mistake(|s| (s.rate, s.duration_s, s.timeout_s) = (1e4, 2_001.0, 1.0)),
            "rate: rate 10000 × duration_s 2001 is 20010000 requests, at most 20000000: lower the rate",
        ),
        (
            only_mistake(|s| {
                (s.rate, s.duration_s, s.timeout_s) = (1e4, 100.0, 1.0);
                s.faults = vec![load(5.0), load(5.0)];
            }),
            "rate 10000 × duration_s 100 × the greatest load factor 25 is 25000000 requests",
        ),
        (
            only_mistake(|s| (s.rate, s.duration_s, s.timeout_s) = (1e5, 100.0, 60.0)),
            "rate 100000 × timeout_s, 60 s, is 6000000 requests at once, at most 2000000: lower the rate or shorten timeout_s",
        ),
        (
            only_mistake(|s| {
                (s.rate, s.duration_s, s.timeout_s) = (1e4, 1_000.0, 1.0);
                s.service = ServiceTime::Constant { mean_ms: 30_000.0 };
                s.faults = vec![Fault::Slow { zone: None, endpoints: None, at_s: 0.0, until_s: None, factor: 10.0 }];
            }),
            "× the time that an endpoint works on one, 300 s, is 3000000 requests at once",
        ),
        (
            only_mistake(|s| (s.rate, s.probes, s.rtt.zone_ms) = (1e4, 100, 10_000.0)),
            "probes: rate 10000 × 100 probes × 10 s of round trip is 10000000 at once",
        ),
        (
            only_mistake(|s| (s.callers[0].count, s.zones[0].endpoints) = (1_000, 1_000)),
            "callers: 1000 callers and 1 gateways know 1000 endpoints each: 1001000, at most 1000000 together",
        ),
        (
            only_mistake(|s| (s.report_ms, s.rtt.zone_ms, s.zones[0].endpoints) = (1.0, 10_000.0, 1_000)),
            "report_ms: 1000 endpoints × 10000 ms on the way is 10000000 reports at once",
        ),
        (
            only_mistake(|s| {
                (s.rate, s.duration_s, s.sample_s) = (0.01, 86_400.0, 0.1);
                let zone = |i| Zone { zone: ZoneId::new("us", format!("z{i}")), region: None, endpoints: 0 };
                s.zones.extend((0..4).map(zone));
            }),
            "sample_s: duration_s 86400 by sample_s 0.1 × 5 zones is 4320000 shares",
        ),
        (
            only_mistake(|s| {
                let zone = |i| Zone { zone: ZoneId::new("us", format!("z{i}")), region: None, endpoints: 0 };
                s.zones.extend((0..100).map(zone));
            }),
            "zones: 101 zones: at most 100",
        ),
        (
            only_mistake(|s| s.faults = (0..1_001).map(|_| load(1.0)).collect()),
            "faults: 1001 faults: at most 1000; use flap",
        ),
        (
            only_mistake(|s| {
                (s.rate, s.duration_s) = (0.01, 86_400.0);
                let zone = ZoneId::new("us", "a");
                s.faults = vec![Fault::Flap { zone, at_s: 0.0, until_s: 1e12, period_s: 0.1, down_s: 0.05 }];
            }),
            "faults[0].period_s: it dies 864000 times, at most 10000: lengthen period_s, or end it sooner",
        ),
    ] {
        assert!(mistake.contains(words), "{mistake}");
    }
}
