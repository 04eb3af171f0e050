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
