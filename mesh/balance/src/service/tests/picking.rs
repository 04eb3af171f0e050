//! Which endpoint is chosen, and what a retry avoids.

use std::time::Duration;

use eastway_core::view::Staleness;
use eastway_core::{EndpointId, Health, LoadReport, Reason};

use super::harness::*;
use crate::{Algorithm, Outcome, Policy, Tried};

#[test]
fn the_less_loaded_of_two_wins() {
    let mut world = World::new(&[("a", 2)]);
    let load = LoadReport { active_requests: 10, ..LoadReport::default() };
    world.service.apply_load(&EndpointId::new("a-00000"), load, world.now);
    assert!(world.counts(500).get("a-00000").is_none_or(|n| *n < 60));
    let held: Vec<_> = (0..20).map(|_| world.pick_of("a-00001")).collect();
    assert!(world.counts(500)["a-00000"] > 400);
    drop(held);
}

#[test]
fn weights_draw_and_divide() {
    let mut world = World::new(&[]);
    world.add("a-0", "a", 3.0);
    world.add("a-1", "a", 1.0);
    world.update();
    let counts = world.counts(8_000);
    let part = counts["a-0"] as f64 / 8_000.0;
    assert!((part - 0.75).abs() < 0.02, "{part}");
}

/// The bits that draw an endpoint by weight are not those that decide on its ramp.
#[test]
fn a_ramp_does_not_favour_a_small_weight() {
    let mut world = World::new(&[]);
    world.add("a-0", "a", 200.0);
    world.add("a-1", "a", 1.0);
    world.update();
    // Both are new: a tenth of the draws is accepted.
    let n = 100_000;
    let small = world.counts(n)["a-1"] as f64;
    let expected = n as f64 / 201.0;
    assert!((small - expected).abs() < 4.0 * expected.sqrt(), "{small}, not {expected}");
}

#[test]
fn the_second_choice_is_drawn_by_weight() {
    let mut world = World::new(&[]);
    world.add("busy", "a", 1.0);
    world.add("heavy", "a", 8.0);
    world.add("light", "a", 1.0);
    world.update();
    // Past their slow start.
    world.wait(Duration::from_secs(11));
    let _held: Vec<_> = (0..10).map(|_| world.pick_of("busy")).collect();
    let counts = world.counts(20_000);
    assert_eq!(counts.get("busy"), None);
    // A tenth is drawn at first, and a ninth of what draws the busy one.
    let light = counts["light"] as f64 / 20_000.0;
    assert!((light - (0.1 + 0.1 / 9.0)).abs() < 0.01, "{light}");
}

#[test]
fn one_weight_that_outdoes_all_others_is_still_compared() {
    let mut world = World::new(&[]);
    world.add("heavy", "a", 1e6);
    world.add("light", "a", 1.0);
    world.update();
    // Past their slow start.
    world.wait(Duration::from_secs(11));
    for (id, latency) in [("heavy", 1_000), ("light", 10)] {
        world.attempts_on(id, 5, Outcome::success(Duration::from_millis(latency)));
    }
    world.wait(Duration::from_secs(2));
    let counts = world.counts(1_000);
    assert!(counts["light"] > 990, "the heavy one is vetoed: {counts:?}");
}

#[test]
fn a_slow_endpoint_loses_unless_the_other_is_slow_too() {
    let mut world = World::new(&[("a", 3)]);
    for (id, ms) in [("a-00000", 10), ("a-00001", 10), ("a-00002", 100)] {
        world.attempts_on(id, 20, Outcome::success(Duration::from_millis(ms)));
    }
    world.wait(Duration::from_secs(1));
    let slow = world.counts(3_000).get("a-00002").copied().unwrap_or(0);
    assert!(slow < 100, "{slow}");
    // Nobody asked it for long: it gets another chance.
    world.wait(Duration::from_secs(30));
    let again = world.counts(3_000).get("a-00002").copied().unwrap_or(0);
    assert!(again > 500, "{again}");
}

#[test]
fn fast_failures_attract_nobody() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, Outcome::status(500, Duration::from_micros(50)));
    let counts = world.counts(1_000);
    assert!(counts.get("a-00000").is_none_or(|n| *n < 100), "{counts:?}");
    world.wait(Duration::from_secs(10));
    let counts = world.counts(1_000);
    assert!(counts["a-00000"] > 400, "{counts:?}");
}

#[test]
fn a_retry_leaves_the_endpoint_then_the_locality_then_the_path() {
    let mut world = World::new(&[("a", 2), ("b", 1)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("ap/a", "ap", 2);
    world.update();
    let mut tried = Tried::new();
    let first = world.pick();
    tried.push_endpoint(first.endpoint().expect("local"));
    for _ in 0..50 {
        let second = world.try_pick(&tried).expect("the other of zone a");
        assert_eq!(&*second.locality.zone.zone, "a");
        assert_ne!(World::name(&second), World::name(&first));
    }
    tried.push_locality(&zone("us-east/a"));
    assert!((0..50).all(|_| World::name(&world.try_pick(&tried).expect("zone b")) == "b-00000"));
    tried.push_locality(&zone("us-east/b"));
    let remote: Vec<_> = (0..50).map(|_| World::name(&world.try_pick(&tried).expect("a region"))).collect();
    assert!(remote.iter().all(|name| name == "eu-west/a" || name == "ap/a"), "{remote:?}");
    tried.push_cluster("eu-west");
    assert!((0..50).all(|_| World::name(&world.try_pick(&tried).expect("the other path")) == "ap/a"));
    tried.push_cluster("ap");
    // Everything failed once: localities that were left are better than a path that failed.
    let name = World::name(&world.try_pick(&tried).expect("still somebody untried"));
    assert!(name.starts_with("b-") || name.starts_with("a-"), "{name}");
    assert_ne!(name, World::name(&first));
}

#[test]
fn what_a_retry_is_left_with_is_divided_by_priority_and_by_part() {
    let mut world = World::new(&[("a", 4), ("b", 4), ("tried", 4)]);
    for (zone, count) in [("eu-west/a", 1), ("eu-west/b", 2), ("eu-west/c", 3)] {
        world.add_remote(zone, "eu", count);
    }
    for zone in ["a", "b"] {
        world.change(zone, |e| e.health = Health::Unready);
        world.change(&format!("{zone}-00000"), |e| e.health = Health::Ready);
    }
    world.update();
    let mut tried = Tried::new();
    tried.push_locality(&zone("us-east/tried"));
    let mut counts = std::collections::BTreeMap::<_, u32>::new();
    for _ in 0..20_000 {
        *counts.entry(World::name(&world.try_pick(&tried).expect("a locality"))).or_default() += 1;
    }
    // One of four serves, overprovisioned by 1.4: 35 % for each of the first two priorities. The rest is divided 1 : 2 : 3.
    let expected = [("a-00000", 0.35), ("b-00000", 0.35), ("eu-west/a", 0.05), ("eu-west/b", 0.1), ("eu-west/c", 0.15)];
    for (name, share) in expected {
        let measured = f64::from(counts[name]) / 20_000.0;
        assert!((measured - share).abs() < 0.015, "{name}: {measured}, not {share}");
    }
    assert_eq!(counts.len(), expected.len(), "{counts:?}");
}

#[test]
fn whoever_was_tried_is_followed_by_what_serves_before_what_is_left_out() {
    for (ready, degraded) in [(2, 0), (0, 2)] {
        let mut world = World::new(&[("a", 1)]);
        world.add_remote("eu-west/a", "eu", 2);
        world.add_remote("ap/a", "ap", 2);
        world.view.spec.failover = vec!["eu-west".to_owned(), "ap".to_owned()];
        // A cluster that is silent for long is a last resort.
        world.peer("eu-west").staleness = Staleness::Stale3;
        let summary = world.summary("ap/a");
        (summary.ready, summary.degraded) = (ready, degraded);
        world.update();
        let mut tried = Tried::new();
        tried.push_endpoint(world.pick().endpoint().expect("the only one here"));
        for _ in 0..20 {
            assert_eq!(World::name(&world.try_pick(&tried).expect("somebody")), "ap/a");
        }
    }
}

#[test]
fn neither_a_pick_nor_a_success_waits_for_a_lock() {
    let mut world = World::new(&[("a", 3), ("b", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(10));
    let (service, now) = (&world.service, world.now);
    let retry = {
        let mut tried = Tried::new();
        tried.push_locality(&zone("us-east/b"));
        tried
    };
    let picks = move || {
        let mut rng = fastrand::Rng::with_seed(1);
        // What is half-open first: it is there once.
        let mut pick = |tried: &Tried, cluster| service.pick(&mut rng, now, tried, cluster, true).expect("somebody");
        assert_eq!(World::name(&pick(&Tried::new(), None)), "a-00000");
        for _ in 0..100 {
            let picks = [pick(&Tried::new(), None), pick(&retry, None), pick(&Tried::new(), Some("eu-west"))];
            picks.iter().for_each(|pick| service.finish(pick, success(), now));
        }
    };
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Held here, so that they are released before the scope waits for its thread, also where the thread needs them.
        let control = service.state.control.lock();
        let members: Vec<_> = control.localities.iter().flat_map(|locality| locality.roster.endpoints.iter()).collect();
        let _cold: Vec<_> = members.iter().map(|member| member.cold.lock()).collect();
        scope.spawn(move || {
            picks();
            done.send(()).expect("somebody waits");
        });
        finished.recv_timeout(Duration::from_secs(20)).expect("picks do not wait for a lock");
    });
}

#[test]
fn what_was_tried_is_tried_again_only_when_nothing_else_exists() {
    let mut world = World::new(&[("a", 2)]);
    let mut tried = Tried::new();
    tried.push_endpoint(world.pick_of("a-00000").endpoint().expect("local"));
    tried.push_locality(&zone("us-east/a"));
    assert_eq!(World::name(&world.try_pick(&tried).expect("the other")), "a-00001");
    tried.push_endpoint(world.pick_of("a-00001").endpoint().expect("local"));
    world.try_pick(&tried).expect("one of them again");
    world.attempts_on("a-00001", 1, refused());
    assert_eq!(World::name(&world.try_pick(&tried).expect("the one that is not down")), "a-00000");
}

#[test]
fn a_name_of_one_cluster_never_leaves_it() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("eu-west/b", "eu", 2);
    world.update();
    let mut pick = |tried: &Tried, cluster| world.service.pick(&mut world.rng, world.now, tried, Some(cluster), true);
    let names: Vec<_> = (0..200).map(|_| World::name(&pick(&Tried::new(), "eu-west").expect("there"))).collect();
    assert!(names.iter().all(|n| n.starts_with("eu-west/")));
    assert!(names.iter().any(|n| n == "eu-west/a") && names.iter().any(|n| n == "eu-west/b"));
    let mut tried = Tried::new();
    tried.push_cluster("eu-west");
    assert!(World::name(&pick(&tried, "eu-west").expect("no other way")).starts_with("eu-west/"));
    assert!(World::name(&pick(&Tried::new(), "us-east").expect("here")).starts_with("a-"));
    assert_eq!(pick(&Tried::new(), "nowhere").expect_err("unknown").reason, Reason::NoReadyEndpoint);
}

#[test]
fn every_algorithm_uses_every_endpoint_and_avoids_what_is_out() {
    use Algorithm::*;
    for algorithm in [TwoChoices, LeastRequest, LeastConnections, Random, RoundRobin] {
        let mut world = World::with_policy(&[("a", 4)], Policy { algorithm, ..Policy::default() });
        let counts = world.counts(4_000);
        assert!(counts.len() == 4 && counts.values().all(|n| *n > 800), "{algorithm:?}: {counts:?}");
        world.attempts_on("a-00001", 1, refused());
        assert!(!world.counts(1_000).contains_key("a-00001"), "{algorithm:?}");
    }
}

#[test]
fn turns_are_taken_in_order_and_by_weight() {
    let policy = || Policy { algorithm: Algorithm::RoundRobin, ..Policy::default() };
    let mut world = World::with_policy(&[("a", 3)], policy());
    let names: Vec<_> = (0..6).map(|_| World::name(&world.pick())).collect();
    assert_eq!(names[..3], names[3..]);
    let mut weighted = World::with_policy(&[], policy());
    weighted.add("a-0", "a", 3.0);
    weighted.add("a-1", "a", 1.0);
    weighted.update();
    weighted.wait(Duration::from_secs(11));
    let part = weighted.counts(1_000)["a-0"];
    assert!((740..=760).contains(&part), "{part}");
}

#[test]
fn least_request_ignores_what_others_report() {
    let policy = Policy { algorithm: Algorithm::LeastRequest, ..Policy::default() };
    let mut world = World::with_policy(&[("a", 2)], policy);
    let load = LoadReport { active_requests: 100, ..LoadReport::default() };
    world.service.apply_load(&EndpointId::new("a-00000"), load, world.now);
    assert!(world.counts(1_000)["a-00000"] > 400);
    let _held = world.pick_of("a-00001");
    assert!(world.counts(1_000)["a-00000"] > 900);
}

#[test]
fn sessions_are_chosen_by_load_and_avoid_what_was_tried() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 3);
    world.update();
    let locality = world.pick().locality.clone();
    let sessions: Vec<_> =
        ["p-1", "p-2"].map(|id| world.service.session(&locality, &EndpointId::new(id))).into_iter().collect();
    assert!(std::sync::Arc::ptr_eq(&sessions[0], &world.service.session(&locality, &EndpointId::new("p-1"))));
    let mut bound = world.pick();
    assert!(bound.bind(sessions[0].clone()) && sessions[0].active_requests() == 1);
    let choose =
        |world: &mut World, tried: &Tried| world.service.choose(&mut world.rng, world.now, &sessions, tried, true);
    assert!((0..100).all(|_| choose(&mut world, &Tried::new()) == Some(1)), "the idle one");
    let mut tried = Tried::new();
    tried.push_endpoint(&sessions[1]);
    assert!((0..100).all(|_| choose(&mut world, &tried) == Some(0)));
    tried.push_endpoint(&sessions[0]);
    assert_eq!(choose(&mut world, &tried), None);
    assert_eq!(world.service.choose(&mut world.rng, world.now, &[], &Tried::new(), true), None);
    assert!(bound.bind(sessions[1].clone()));
    assert_eq!((sessions[0].active_requests(), sessions[1].active_requests()), (0, 1));
    drop(bound);
    assert_eq!(sessions[1].active_requests(), 0);
}

#[test]
fn a_slow_session_loses_to_a_busier_one() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    let locality = world.pick().locality.clone();
    let sessions = ["p-1", "p-2"].map(|id| world.service.session(&locality, &EndpointId::new(id)));
    for (session, ms) in sessions.iter().zip([10, 100]) {
        let mut pick = world.pick();
        assert!(pick.bind(session.clone()));
        world.finish(&pick, Outcome::success(Duration::from_millis(ms)));
    }
    let mut busy = world.pick();
    assert!(busy.bind(sessions[0].clone()));
    let choose = |world: &mut World| {
        world.service.choose(&mut world.rng, world.now, &sessions, &Tried::new(), true).expect("two to choose from")
    };
    assert!((0..100).all(|_| choose(&mut world) == 0));
    // The fast one is down: what it was is no measure any more.
    world.service.mark_down(&sessions[0], world.now);
    assert!((0..100).all(|_| choose(&mut world) == 1));
}

#[test]
fn sessions_are_judged_by_the_caller() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 4);
    world.update();
    let locality = world.pick().locality.clone();
    let session = |world: &World, id: &str| world.service.session(&locality, &EndpointId::new(id));
    let (bad, good) = (session(&world, "p-1"), session(&world, "p-2"));
    let fail = |world: &mut World, session: &std::sync::Arc<crate::Endpoint>, outcome| {
        let mut pick = world.pick();
        assert!(pick.bind(session.clone()));
        world.finish(&pick, outcome);
    };
    (0..4).for_each(|_| fail(&mut world, &bad, error()));
    let candidates = [bad.clone(), good.clone()];
    let choose = |world: &mut World| world.service.choose(&mut world.rng, world.now, &candidates, &Tried::new(), true);
    assert!((0..100).all(|_| choose(&mut world) == Some(1)));
    // Half-open: chosen by the next, and bound by one at a time.
    world.wait(Duration::from_secs(2));
    assert_eq!(choose(&mut world), Some(0));
    let (mut probe, mut second) = (world.pick(), world.pick());
    assert!(probe.bind(bad.clone()) && probe.probe && !second.bind(bad.clone()));
    assert_eq!(choose(&mut world), Some(1));
    world.finish(&probe, success());
    drop(probe);
    assert!(second.bind(bad.clone()) && !second.probe);
    // Down by a refusal, alive by a new session.
    fail(&mut world, &good, refused());
    assert!(!good.is_reachable());
    world.service.revive(&good, world.now);
    assert!(good.is_reachable());
}

/// How often picks for one cluster lead to each name, in parts of all.
fn pinned(world: &mut World, cluster: &str, tried: &Tried) -> std::collections::BTreeMap<String, f64> {
    const PICKS: u32 = 10_000;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..PICKS {
        let pick = world.service.pick(&mut world.rng, world.now, tried, Some(cluster), false).expect("somebody");
        *counts.entry(World::name(&pick)).or_insert(0.0) += 1.0 / f64::from(PICKS);
    }
    counts
}

#[test]
fn a_pick_for_one_cluster_divides_by_the_formulas() {
    let mut world = World::new(&[("a", 10), ("b", 10)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("eu-west/b", "eu", 6);
    world.update();
    assert_eq!(pinned(&mut world, "us-east", &Tried::new()).len(), 10, "nothing spills");
    let remote = pinned(&mut world, "eu-west", &Tried::new());
    assert!((remote["eu-west/a"] - 0.25).abs() < 0.02, "{remote:?}");
    // One of ten serves, the others go away: they are second choice, after the next zone.
    world.change("a-", |e| e.health = Health::Draining);
    world.change("a-00000", |e| e.health = Health::Ready);
    world.update();
    for tried in [Tried::new(), tried_locality("eu-west/a")] {
        let counts = pinned(&mut world, "us-east", &tried);
        assert!((counts["a-00000"] - 0.14).abs() < 0.015, "{counts:?}");
        assert!(counts.keys().all(|id| id == "a-00000" || id.starts_with("b-")), "{counts:?}");
    }
    // Nothing serves without a soft mark: a panic uses what is ejected, over all of it.
    world.change("a-", |e| e.health = Health::Ready);
    world.change("b-", |e| e.health = Health::Unready);
    world.update();
    for i in 0..6 {
        world.attempts_on(&format!("a-0000{i}"), 12, error());
    }
    world.wait(Duration::from_secs(1));
    let shown = &world.service.explain(world.now).priorities[0];
    assert_eq!(shown.localities[0].breaker, "open");
    let counts = pinned(&mut world, "us-east", &Tried::new());
    assert!(counts.len() == 10 && counts.values().all(|part| (part - 0.1).abs() < 0.03), "{counts:?}");
}

#[test]
fn a_pick_for_one_cluster_knows_how_busy_its_priorities_are() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    world.change("", |e| e.capacity = 10);
    world.update();
    let report = |world: &World, utilisation| {
        for endpoint in ["a-00000", "a-00001"] {
            let load = LoadReport { active_requests: 0, utilisation: Some(utilisation), error_rate: 0.0 };
            world.service.apply_load(&EndpointId::new(endpoint), load, world.now);
        }
    };
    for _ in 0..100 {
        report(&world, 1.6);
        world.wait(Duration::from_millis(500));
    }
    let share = f64::from(world.share("us-east/a")) / 10_000.0;
    assert!(share < 0.8, "{share}");
    let counts = pinned(&mut world, "us-east", &Tried::new());
    let measured = counts["a-00000"] + counts["a-00001"];
    assert!((measured - share).abs() < 0.02, "{measured}, not {share}");
}

fn tried_locality(id: &str) -> Tried {
    let mut tried = Tried::new();
    tried.push_locality(&zone(id));
    tried
}
