//! Endpoints and localities that fail.

use std::time::Duration;

use eastway_core::policy::BreakerTrigger;
use eastway_core::{EndpointId, Health, LoadReport, Reason};
use eastway_resilience::deadline::Deadline;

use super::harness::*;
use crate::pick::Permits;
use crate::{Attempts, Outcome, Pick, Policy, Tried};

#[test]
fn a_refused_connection_takes_the_endpoint_out_at_once_and_the_last_one_its_locality() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (10_000, 0));
    world.attempts_on("a-00000", 1, refused());
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (7_000, 3_000));
    assert!(!world.counts(500).contains_key("a-00000"));
    world.attempts_on("a-00001", 1, refused());
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (0, 10_000));
    world.check();
}

#[test]
fn a_killed_zone_loses_no_request() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let mut first_attempts_elsewhere = 0;
    for request in 0..500 {
        let mut tried = Tried::new();
        let served = (0..4).any(|attempt| {
            let pick = world.try_pick(&tried).expect("somebody serves");
            let dead = *pick.locality.zone.zone == *"a";
            if attempt == 0 && !dead {
                first_attempts_elsewhere += 1;
            }
            if dead {
                tried.push_endpoint(pick.endpoint().expect("local"));
                tried.push_locality(&pick.locality.zone);
            }
            world.finish(&pick, if dead { refused() } else { success() });
            !dead
        });
        assert!(served, "request {request} is lost");
        world.now = world.now + Duration::from_millis(2);
    }
    assert!(first_attempts_elsewhere >= 495, "{first_attempts_elsewhere}");
}

#[test]
fn a_down_endpoint_is_tried_again_once_and_comes_back_slowly() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    assert!((0..200).all(|_| World::name(&world.pick()) == "a-00001"));
    world.wait(Duration::from_millis(1_600));
    let probe = world.pick();
    assert_eq!((World::name(&probe).as_str(), probe.probe), ("a-00000", true));
    world.wait(Duration::from_millis(200));
    assert!((0..200).all(|_| !world.pick().probe), "one probe at a time");
    world.finish(&probe, success());
    drop(probe);
    let soon = world.counts(4_000).get("a-00000").copied().unwrap_or(0);
    assert!((20..800).contains(&soon), "a tenth of its part at first: {soon}");
    world.wait(Duration::from_secs(11));
    let later = world.counts(4_000)["a-00000"];
    assert!((1_800..2_200).contains(&later), "{later}");
}

#[test]
fn a_probe_with_a_long_answer_is_settled_by_its_beginning() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(2));
    let stream = world.pick();
    assert!(stream.probe);
    world.service.answered(&stream, &success(), world.now);
    world.service.answered(&stream, &success(), world.now);
    assert!(stream.endpoint().expect("local").is_reachable());
    world.wait(Duration::from_secs(11));
    // Its end is judged as any other's.
    world.finish(&stream, refused());
    assert!(!stream.endpoint().expect("local").is_reachable());
}

#[test]
fn the_load_that_a_long_answer_brings_is_as_of_its_head() {
    let mut world = World::new(&[("a", 1)]);
    let load = |active_requests| LoadReport { active_requests, utilisation: None, error_rate: 0.0 };
    let mut attempts = Attempts::new(true, Deadline::NONE);
    let pick = attempts.pick(&world.service, None, &mut world.rng, world.now).expect("the only one");
    let outcome = success().with_load(Some(load(40)));
    assert_eq!(attempts.answered(&world.service, &pick, 200, outcome, world.now), None);
    let endpoint = pick.endpoint().expect("local").clone();
    assert_eq!(endpoint.others(), 39.0, "what it has besides this one");
    world.wait(Duration::from_secs(300));
    world.service.apply_load(&endpoint.id, load(1), world.now);
    world.finish(&pick, outcome);
    assert_eq!(endpoint.others(), 0.0);
}

#[test]
fn a_probe_that_fails_waits_longer_and_one_that_is_dropped_frees_its_permit() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_millis(1_600));
    let probe = world.pick();
    assert!(probe.probe);
    drop(probe);
    world.wait(Duration::from_millis(100));
    let probe = world.pick();
    assert!(probe.probe, "the permit of a probe without an end is free again");
    world.finish(&probe, refused());
    drop(probe);
    world.wait(Duration::from_millis(900));
    assert!(!world.pick().probe);
    world.wait(Duration::from_millis(2_200));
    assert!(world.pick().probe);
}

#[test]
fn a_probe_that_is_refused_shows_an_ejected_endpoint_to_be_down() {
    let mut policy = Policy::default();
    policy.endpoint_breaker.jitter = 0.0;
    let mut world = World::with_policy(&[("a", 4)], policy);
    world.attempts_on("a-00000", 4, error());
    world.wait(Duration::from_secs(1));
    let probe = world.pick();
    assert!(probe.probe && World::name(&probe) == "a-00000");
    assert!(probe.endpoint().expect("local").is_reachable(), "ejected, not down");
    world.finish(&probe, refused());
    assert!(!probe.endpoint().expect("local").is_reachable());
    drop(probe);
    world.check();
    // That is one failure more, not two.
    world.wait(Duration::from_millis(1_900));
    assert!(!world.pick().probe);
    world.wait(Duration::from_millis(100));
    assert!(world.pick().probe);
}

#[test]
fn requests_that_must_not_be_repeated_probe_only_what_nobody_else_does() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(2));
    assert!(!world.counts(200).contains_key("a-00000"));
    world.wait(Duration::from_secs(6));
    assert!(world.counts(200).contains_key("a-00000"));
}

#[test]
fn when_nothing_else_is_left_the_half_open_is_tried_by_anybody() {
    let mut world = World::new(&[("a", 1)]);
    world.attempts_on("a-00000", 1, refused());
    let refused_pick = world.try_pick(&Tried::new()).expect_err("down is hard");
    assert_eq!(refused_pick.reason, Reason::NoReadyEndpoint);
    world.wait(Duration::from_secs(2));
    let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), None, false).expect("half-open");
    assert!(pick.probe);
    world.finish(&pick, success());
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn a_new_incarnation_starts_closed_and_slowly() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.change("a-00000", |e| e.incarnation = 2);
    world.update();
    let counts = world.counts(4_000);
    assert!((20..800).contains(&counts["a-00000"]), "{counts:?}");
    world.wait(Duration::from_secs(10));
    let counts = world.counts(4_000);
    assert!((1_800..2_200).contains(&counts["a-00000"]), "{counts:?}");
}

#[test]
fn four_errors_in_a_row_eject_an_endpoint_and_three_do_not() {
    let mut world = World::new(&[("a", 4)]);
    world.attempts_on("a-00000", 3, error());
    // A failure counts as load for some seconds.
    world.wait(Duration::from_secs(10));
    assert!(world.counts(1_000).contains_key("a-00000"));
    world.attempts_on("a-00000", 1, error());
    assert!(!world.counts(1_000).contains_key("a-00000"));
    // What the called sidecar cannot reach counts double.
    world.attempts_on("a-00001", 2, Outcome::failed(Reason::AppUnreachable));
    assert!(!world.counts(1_000).contains_key("a-00001"));
    world.check();
}

#[test]
fn at_most_half_of_a_locality_is_ejected_until_the_locality_itself_trips() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    for id in ["a-00000", "a-00001"] {
        world.attempts_on(id, 4, error());
    }
    world.check();
    assert_eq!(world.share("us-east/a"), 7_000);
    // A third that is bad enough is kept, and does not bring another back either.
    world.attempts_on("a-00002", 2, Outcome::failed(Reason::AppUnreachable));
    let explanation = world.service.explain(world.now);
    let breakers: Vec<_> = explanation.priorities[0].localities[0].endpoints.iter().map(|e| e.breaker).collect();
    assert_eq!(breakers, ["open", "open", "closed", "closed"]);
    world.attempts_on("a-00002", 1, error());
    world.check();
    // The third would exceed the cap; but now enough distinct endpoints failed for the locality's own breaker.
    world.attempts_on("a-00002", 6, error());
    world.attempts_on("a-00003", 6, error());
    world.check();
    assert_eq!(world.share("us-east/a"), 0, "the locality is tripped");
    assert_eq!(world.share("us-east/b"), 10_000);
}

#[test]
fn one_bad_endpoint_never_trips_its_locality() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    world.attempts_on("a-00000", 100, error());
    assert_eq!(world.service.explain(world.now).priorities[0].localities[0].breaker, "closed");
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn a_single_endpoint_is_ejected_only_if_another_locality_can_serve() {
    let mut alone = World::new(&[("a", 1)]);
    alone.attempts_on("a-00000", 4, error());
    assert_eq!(alone.service.explain(alone.now).priorities[0].localities[0].endpoints[0].breaker, "closed");
    alone.pick();
    let mut pair = World::new(&[("a", 1), ("b", 1)]);
    pair.attempts_on("a-00000", 4, error());
    assert_eq!((pair.share("us-east/a"), pair.share("us-east/b")), (0, 10_000));
}

#[test]
fn a_dependency_that_fails_everywhere_empties_nothing() {
    let mut world = World::new(&[("a", 3), ("b", 3)]);
    for _ in 0..2_000 {
        let pick = world.pick();
        world.finish(&pick, error());
        drop(pick);
        world.now = world.now + Duration::from_millis(1);
    }
    world.check();
    let explanation = world.service.explain(world.now);
    assert!(explanation.priorities.iter().all(|priority| priority.panic), "{explanation:#?}");
    // And it recovers.
    for _ in 0..200 {
        world.wait(Duration::from_millis(500));
        for _ in 0..20 {
            let pick = world.pick();
            world.finish(&pick, success());
            drop(pick);
            world.now = world.now + Duration::from_millis(20);
        }
    }
    assert_eq!(world.share("us-east/a"), 10_000, "{:#?}", world.service.explain(world.now));
}

#[test]
fn the_usual_error_rate_is_that_of_the_other_localities_and_is_not_learned_from_an_alarm() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    let p0 = |world: &World| world.service.state.control.lock().localities[0].state.p0();
    for _ in 0..5 {
        world.attempts_on("b-00000", 1, error());
        world.attempts_on("b-00000", 19, success());
    }
    world.wait(Duration::from_secs(1));
    assert!((p0(&world) - 0.05).abs() < 1e-6, "{}", p0(&world));
    world.attempts_on("a-00000", 4, error());
    world.attempts_on("b-00001", 150, success());
    world.wait(Duration::from_secs(1));
    assert!((p0(&world) - 0.05).abs() < 1e-6, "frozen: {}", p0(&world));
    world.attempts_on("a-00000", 40, success());
    world.wait(Duration::from_secs(1));
    assert!((p0(&world) - 0.02).abs() < 1e-6, "5 of 250: {}", p0(&world));
}

#[test]
fn callers_faults_and_limits_cost_nobody_its_health() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 50, Outcome::cancelled());
    world.attempts_on("a-00000", 50, Outcome::failed(Reason::CallerGone));
    world.attempts_on("a-00000", 50, Outcome::status(429, LATENCY));
    world.attempts_on("a-00000", 50, Outcome::status(404, LATENCY));
    assert_eq!(world.service.explain(world.now).priorities[0].localities[0].endpoints[0].breaker, "closed");
}

#[test]
fn only_the_first_end_of_a_pick_counts() {
    let world = World::new(&[("a", 2)]);
    let pick = world.pick_of("a-00000");
    (0..10).for_each(|_| world.finish(&pick, error()));
    let shown = |world: &World| world.service.explain(world.now).priorities[0].localities[0].endpoints[0].clone();
    let (after_ten, pressure) = (shown(&world), shown(&world).statistic);
    assert_eq!(after_ten.breaker, "closed");
    let another = world.pick_of("a-00000");
    world.finish(&another, error());
    assert!((shown(&world).statistic - 2.0 * pressure).abs() < 1e-3, "two requests, two failures");
}

#[test]
fn a_locality_that_shrinks_below_the_cap_takes_the_ejected_back() {
    let mut world = World::new(&[("a", 4)]);
    for id in ["a-00000", "a-00001"] {
        world.attempts_on(id, 4, error());
    }
    world.view.endpoints.retain(|e| e.id.as_str() != "a-00003");
    world.update();
    let used = world.service.explain(world.now).priorities[0].localities[0].endpoints.iter().filter(|e| e.used).count();
    assert_eq!(used, 2);
    world.change("a-00002", |e| e.health = Health::Unready);
    world.update();
    world.pick();
}

#[test]
fn a_grey_zone_loses_its_traffic_after_some_forty_requests() {
    let runs = 200;
    let mut seen = Vec::new();
    for seed in 0..runs {
        let mut world = World::new(&[("a", 10), ("b", 10)]);
        world.rng = fastrand::Rng::with_seed(seed);
        let mut requests = 0;
        while world.share("us-east/a") > 500 {
            let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), None, false).expect("a pick");
            let grey = *pick.locality.zone.zone == *"a";
            requests += usize::from(grey);
            let fails = grey && world.rng.f64() < 0.3;
            world.finish(&pick, if fails { error() } else { success() });
            assert!(requests < 500, "seed {seed}");
        }
        world.check();
        seen.push(requests);
    }
    seen.sort_unstable();
    let mean = seen.iter().sum::<usize>() as f64 / runs as f64;
    assert!(mean <= 40.0, "{mean} requests on average");
    assert!(seen[seen.len() * 99 / 100] <= 100, "{seen:?}");
}

#[test]
fn an_endpoint_that_is_ejected_for_being_slow_is_tried_again() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let slow = BreakerTrigger::Latency {
        quantile: 0.5,
        limit: Duration::from_millis(100),
        window: Duration::from_secs(10),
        min_requests: 10,
    };
    std::sync::Arc::make_mut(&mut world.view.spec.policy).breaker.endpoint = Some(slow);
    world.update();
    world.attempts_on("a-00000", 10, Outcome::success(Duration::from_millis(500)));
    let breaker = |world: &World| world.service.explain(world.now).priorities[0].localities[0].endpoints[0].breaker;
    assert_eq!(breaker(&world), "open");
    world.wait(Duration::from_secs(2));
    assert_eq!(breaker(&world), "half-open");
    let probe = world.pick();
    assert!(probe.probe && World::name(&probe) == "a-00000");
    world.finish(&probe, success());
    assert_eq!(breaker(&world), "closed");
}

#[test]
fn remote_endpoints_that_are_gone_protect_no_other_from_ejection() {
    let mut world = World::new(&[("a", 1)]);
    world.add_remote("eu-west/a", "eu", 4);
    world.update();
    let locality = |world: &World| {
        world
            .service
            .localities()
            .into_iter()
            .map(|(locality, _)| locality)
            .find(|locality| locality.remote)
            .expect("one")
    };
    let session = |world: &World, id: &str| world.service.session(&locality(world), &EndpointId::new(id));
    let fail = |world: &mut World, id: &str, times: usize, outcome: Outcome| {
        for _ in 0..times {
            let mut pick = Pick::remote(locality(world), Permits::default());
            assert!(pick.bind(session(world, id)));
            world.finish(&pick, outcome);
        }
    };
    std::sync::Arc::make_mut(&mut world.view.spec.policy).breaker.locality =
        Some(BreakerTrigger::Consecutive { failures: 1_000 });
    world.update();
    for id in ["gone-1", "gone-2"] {
        fail(&mut world, id, 1, refused());
        assert!(!session(&world, id).is_reachable());
    }
    fail(&mut world, "bad", 4, error());
    assert_eq!(session(&world, "bad").acceptance(), 0.0, "ejected");
    fail(&mut world, "worse", 4, error());
    assert_eq!(session(&world, "worse").acceptance(), 0.0, "half of four may be");
    fail(&mut world, "third", 4, error());
    assert_eq!(session(&world, "third").acceptance(), 1.0, "no more");
    assert_eq!(locality(&world).total(), 4);
}

#[test]
fn a_remote_locality_of_three_that_fails_is_left() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 3);
    world.add_remote("ap/a", "ap", 3);
    world.view.spec.failover = vec!["eu-west".to_owned()];
    world.update();
    let locality = world.service.localities()[0].0.clone();
    assert_eq!(&*locality.zone.cluster, "eu-west");
    // The first of two sessions is ejected; the second may not be, and gets everything.
    for id in ["one", "two"].into_iter().chain(std::iter::repeat_n("two", 40)) {
        for _ in 0..4 {
            let mut pick = Pick::remote(locality.clone(), Permits::default());
            pick.bind(world.service.session(&locality, &EndpointId::new(id)));
            world.finish(&pick, error());
        }
        if id == "one" {
            assert_eq!(world.share("eu-west/a"), 10_000, "one bad endpoint trips no locality");
        }
    }
    assert_eq!((world.share("eu-west/a"), world.share("ap/a")), (0, 10_000));
}

#[test]
fn what_is_half_open_beside_one_that_recovers_is_tried_as_well() {
    let mut world = World::new(&[("a", 4)]);
    for id in ["a-00000", "a-00001", "a-00002"] {
        world.attempts_on(id, 1, refused());
    }
    world.wait(Duration::from_secs(2));
    let mut tried = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let probe = world.pick();
        assert!(probe.probe, "{tried:?}");
        tried.insert(World::name(&probe));
        world.finish(&probe, success());
        drop(probe);
        world.wait(Duration::from_millis(100));
    }
    assert_eq!(tried.len(), 3);
}

/// A pick that tries `id`, which was refused two seconds ago.
fn probe(world: &mut World, id: &str) -> Pick {
    world.attempts_on(id, 1, refused());
    world.wait(Duration::from_secs(2));
    let probe = world.pick();
    assert!(probe.probe && World::name(&probe) == id);
    probe
}

fn breaker_of(world: &World, id: &str) -> &'static str {
    let localities = world.service.explain(world.now).priorities.into_iter().flat_map(|priority| priority.localities);
    localities
        .flat_map(|locality| locality.endpoints)
        .find(|endpoint| endpoint.id.as_str() == id)
        .expect("known")
        .breaker
}

#[test]
fn a_probe_is_settled_by_what_speaks_of_its_endpoint_only() {
    for (outcome, settled) in [
        (success(), "closed"),
        (error(), "open"),
        (Outcome::status(429, LATENCY), "closed"),
        (Outcome::failed(Reason::AppUnreachable), "open"),
        (refused(), "open"),
        (Outcome::failed(Reason::StreamOpenTimeout), "half-open"),
        (Outcome::cancelled(), "half-open"),
    ] {
        let mut world = World::new(&[("a", 2)]);
        let pick = probe(&mut world, "a-00000");
        world.finish(&pick, outcome);
        assert_eq!(breaker_of(&world, "a-00000"), settled, "{outcome:?}");
    }
}

#[test]
fn an_error_that_has_begun_settles_no_probe_until_it_ends() {
    let mut world = World::new(&[("a", 2)]);
    let pick = probe(&mut world, "a-00000");
    world.service.answered(&pick, &error(), world.now);
    assert_eq!(breaker_of(&world, "a-00000"), "half-open");
    world.finish(&pick, error());
    assert_eq!(breaker_of(&world, "a-00000"), "open");
}

#[test]
fn the_probe_of_a_locality_is_settled_by_what_speaks_of_the_locality() {
    for (outcome, settled) in [
        (success(), "closed"),
        (error(), "open"),
        (Outcome::failed(Reason::NoReadyEndpoint), "open"),
        (Outcome::failed(Reason::StreamOpenTimeout), "half-open"),
    ] {
        let mut world = World::new(&[("a", 4), ("b", 4)]);
        for i in 0..4 {
            world.attempts_on(&format!("a-0000{i}"), 8, error());
        }
        let locality = |world: &World| world.service.explain(world.now).priorities[0].localities[0].breaker;
        assert_eq!(locality(&world), "open");
        world.wait(Duration::from_secs(2));
        assert_eq!(locality(&world), "half-open");
        let control = world.service.view.plan.load();
        let at =
            control.probes.iter().position(|p| matches!(p.what, crate::plan::Probing::Locality)).expect("it waits");
        assert_eq!(control.probes[at].locality, 0);
        let pick = loop {
            world.now = world.now + Duration::from_millis(25);
            let pick = world.pick();
            if pick.permits().locality {
                break pick;
            }
        };
        world.finish(&pick, outcome);
        assert_eq!(locality(&world), settled, "{outcome:?}");
    }
}

#[test]
fn one_failure_of_a_tunnel_is_no_failing_path() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("ap/a", "ap", 2);
    world.update();
    let before = world.shares();
    let pick = world.pick();
    world.finish(&pick, Outcome::failed(Reason::StreamOpenTimeout));
    assert_eq!(world.shares(), before);
}

#[test]
fn what_this_sidecar_itself_did_wrong_is_charged_to_nobody() {
    let mut world = World::new(&[("a", 4)]);
    for i in 0..4 {
        world.attempts_on(&format!("a-0000{i}"), 10, Outcome::failed(Reason::Internal));
    }
    let locality = &world.service.explain(world.now).priorities[0].localities[0];
    assert_eq!((locality.breaker, locality.pressure), ("closed", 0.0));
    assert!(locality.endpoints.iter().all(|e| e.others == 0.0 && e.statistic == 0.0), "{locality:?}");
}

#[test]
fn one_of_two_may_be_ejected_and_the_only_one_not_without_another_locality() {
    let mut two = World::new(&[("a", 2)]);
    two.attempts_on("a-00000", 4, error());
    assert_eq!(breaker_of(&two, "a-00000"), "open");
    let mut alone = World::new(&[("a", 1), ("b", 1)]);
    alone.change("b-", |e| e.health = Health::Unready);
    alone.update();
    alone.attempts_on("a-00000", 4, error());
    assert_eq!(breaker_of(&alone, "a-00000"), "closed");
}

#[test]
fn too_many_requests_make_an_endpoint_look_slower_by_the_median_of_its_locality() {
    let mut world = World::new(&[("a", 3)]);
    for i in 0..3 {
        world.attempts_on(&format!("a-0000{i}"), 3, Outcome::success(Duration::from_millis(5)));
    }
    world.wait(Duration::from_secs(2));
    world.attempts_on("a-00000", 1, Outcome::status(429, Duration::from_micros(10)));
    let shown = world.service.explain(world.now).priorities[0].localities[0].endpoints[0].latency_ms.expect("known");
    // A fifth of the way from 5 ms to four medians.
    assert!((shown - 8.0).abs() < 1e-3, "{shown}");
}

#[test]
fn a_remote_locality_of_four_needs_three_that_fail() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 4);
    world.add_remote("ap/a", "ap", 4);
    world.view.spec.failover = vec!["eu-west".to_owned()];
    world.update();
    let locality = world.service.localities()[0].0.clone();
    for (id, share) in [("one", 10_000), ("two", 10_000), ("three", 0)] {
        for _ in 0..30 {
            let mut pick = Pick::remote(locality.clone(), Permits::default());
            pick.bind(world.service.session(&locality, &EndpointId::new(id)));
            world.finish(&pick, error());
        }
        assert_eq!(world.share("eu-west/a"), share, "{id}");
    }
}

#[test]
fn a_list_of_what_waits_is_not_searched_by_every_request_that_may_not_try_it() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(2));
    assert!(world.counts(1).contains_key("a-00001"));
    let [unsafe_at, safe_at] = &world.service.state.next_probe;
    let due = |at: &crate::sync::atomic::AtomicU64| at.load(crate::sync::atomic::Ordering::Relaxed);
    assert!(due(unsafe_at) > world.now.as_nanos(), "not again at once");
    assert!(due(safe_at) <= world.now.as_nanos());
    assert!(world.pick().probe, "one that may be repeated is not kept from it");
}
