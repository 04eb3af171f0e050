//! What is told of a decision is what it is.

use std::time::Duration;

use eastway_core::policy::Mode;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{EndpointId, Health, LoadReport, Reason};

use super::harness::*;
use crate::explain::{EndpointExplanation, LocalityExplanation};
use crate::situation::Percent;
use crate::{Outcome, Policy, Tried};

fn localities(world: &World) -> Vec<LocalityExplanation> {
    world.service.explain(world.now).priorities.into_iter().flat_map(|priority| priority.localities).collect()
}

fn endpoint(world: &World, id: &str) -> EndpointExplanation {
    let all = localities(world).into_iter().flat_map(|locality| locality.endpoints);
    all.into_iter().find(|endpoint| endpoint.id.as_str() == id).expect("an endpoint")
}

#[test]
fn shares_are_told_in_percent_and_each_endpoint_with_its_reason() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    world.change("a-00000", |endpoint| endpoint.health = Health::Unready);
    world.change("a-00001", |endpoint| endpoint.health = Health::Unready);
    world.change("b-00003", |endpoint| endpoint.health = Health::Draining);
    world.update();
    let explanation = world.service.explain(world.now);
    assert_eq!(explanation.normalized_total_availability, Percent(10_000));
    assert_eq!(
        (explanation.priorities[0].healthy_load, explanation.priorities[1].healthy_load),
        (Percent(7_000), Percent(3_000))
    );
    let told: Vec<(String, Percent, Percent)> = localities(&world)
        .into_iter()
        .map(|locality| (locality.name.to_string(), locality.share, locality.target))
        .collect();
    let (seven, three) = (Percent(7_000), Percent(3_000));
    assert_eq!(told, [("us-east/a".to_owned(), seven, seven), ("us-east/b".to_owned(), three, three)]);
    for (id, used, why) in [
        ("a-00000", false, "its application's probe fails"),
        ("a-00002", true, "it serves"),
        ("b-00003", true, "it goes away: second choice"),
    ] {
        let told = endpoint(&world, id);
        assert_eq!((told.used, told.why), (used, why), "{id}");
    }
}

#[test]
fn a_new_life_starts_slowly_until_it_has_all_of_its_share() {
    let mut world = World::new(&[("a", 2)]);
    world.change("a-00000", |endpoint| endpoint.incarnation += 1);
    world.update();
    assert_eq!(endpoint(&world, "a-00000").why, "it starts slowly");
    assert_eq!(endpoint(&world, "a-00001").why, "it serves");
    world.wait(Duration::from_secs(11));
    let told = endpoint(&world, "a-00000");
    assert_eq!((told.why, told.acceptance), ("it serves", 1.0));
}

#[test]
fn one_that_never_reported_is_thought_as_busy_as_its_locality() {
    let world = World::new(&[("a", 3)]);
    for (id, active_requests) in [("a-00000", 10), ("a-00001", 20)] {
        let load = LoadReport { active_requests, ..LoadReport::default() };
        world.service.apply_load(&EndpointId::new(id), load, world.now);
    }
    world.service.tick(world.now);
    assert_eq!(endpoint(&world, "a-00002").others, 15.0);
}

#[test]
fn inside_a_ring_the_locality_with_more_room_comes_first() {
    let mut world = World::new(&[]);
    for (id, capacity, ready) in [("eu-west/a", 100.0, 1), ("eu-west/b", 50.0, 10)] {
        world.add_remote(id, "eu", 10);
        let summary = world.summary(id);
        (summary.capacity, summary.ready) = (capacity, ready);
    }
    world.update();
    // Of a hundred places a tenth is there.
    let order: Vec<String> = localities(&world).into_iter().map(|locality| locality.name.to_string()).collect();
    assert_eq!(order, ["eu-west/b", "eu-west/a"]);
}

#[test]
fn nobody_of_a_locality_without_traffic_is_told_to_serve() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let told = endpoint(&world, "b-00000");
    assert_eq!((told.used, told.why), (false, "its locality gets no traffic now"));
    world.change("a-", |endpoint| endpoint.health = Health::Down);
    world.update();
    let told = endpoint(&world, "b-00000");
    assert_eq!((told.used, told.why), (true, "it serves"));
    assert_eq!(endpoint(&world, "a-00000").why, "its host or sidecar is gone, by positive evidence");
}

/// Half of what counts is gone and half of the rest ejected: too little, so what is ejected is used again.
#[test]
fn what_is_ejected_is_told_to_be_used_while_its_priority_panics() {
    let mut world = World::with_policy(&[("a", 4), ("b", 1)], Policy { ejection_cap: 1.0, ..Policy::default() });
    world.change("a-00003", |endpoint| endpoint.health = Health::Down);
    world.change("b-", |endpoint| endpoint.health = Health::Down);
    world.update();
    for id in ["a-00000", "a-00001"] {
        world.attempts_on(id, 6, error());
    }
    let explanation = world.service.explain(world.now);
    assert_eq!(explanation.priorities.iter().map(|priority| priority.panic).collect::<Vec<_>>(), [true, true]);
    let told = endpoint(&world, "a-00000");
    assert_eq!((told.used, told.breaker), (true, "open"));
    assert!(told.why.starts_with("it is ejected, but used: its priority panics"), "{}", told.why);
    assert!(world.counts(100).contains_key("a-00000"), "it is used indeed");
    assert_eq!(endpoint(&world, "a-00002").why, "it serves");
    assert!(!endpoint(&world, "a-00003").used, "what is down is not, whatever panics");
    world.attempts_on("a-00002", 6, error());
    let why = localities(&world)[0].why.clone();
    assert!(why.ends_with("; used all the same: its priority panics"), "{why}");
    world.wait(Duration::from_secs(3));
    let told = endpoint(&world, "a-00000");
    assert_eq!((told.used, told.breaker), (true, "half-open"), "{}", told.why);
}

#[test]
fn a_locality_that_returns_and_is_not_needed_is_told_so() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    for health in [Health::Down, Health::Ready] {
        world.change("b-", |endpoint| endpoint.health = health);
        world.update();
    }
    let locality = &localities(&world)[1];
    assert_eq!((locality.stage, locality.cap, locality.target), ("ramping", Some(Percent(0)), Percent(0)));
    assert_eq!(locality.why, "nearer priorities have enough capacity");
    world.change("a-", |endpoint| endpoint.health = Health::Down);
    world.update();
    world.change("a-", |endpoint| endpoint.health = Health::Ready);
    world.update();
    let locality = &localities(&world)[0];
    assert_eq!((locality.target, locality.why.as_str()), (Percent(10_000), "it returned from failure and is ramping"));
}

/// The same numbers as offline: a third of a priority is 33 or 34 percent.
#[test]
fn the_compatible_mode_is_told_in_whole_percent() {
    let mut world = World::new(&[("b", 1), ("c", 1), ("d", 1)]);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.mode = Some(Mode::Envoy);
    world.update();
    let explanation = serde_json::to_value(world.service.explain(world.now)).expect("JSON");
    let localities = explanation["priorities"][0]["localities"].as_array().expect("localities");
    let told = |name: &str| localities.iter().map(|locality| locality[name].clone()).collect::<Vec<_>>();
    assert_eq!(told("share"), [34, 33, 33]);
    assert_eq!(told("target"), [34, 33, 33]);
    let offline = serde_json::to_value(world.service.situation().divide()).expect("JSON");
    let shares =
        |answer: &serde_json::Value| answer["priorities"][0]["localities"].as_array().expect("localities").clone();
    assert_eq!(shares(&offline).iter().map(|locality| locality["share"].clone()).collect::<Vec<_>>(), told("share"));
    for number in ["healthy_load", "degraded_load"] {
        assert!(explanation["priorities"][0][number].is_u64(), "{number}: {explanation}");
    }
    assert!(explanation["normalized_total_availability"].is_u64(), "{explanation}");
}

#[test]
fn the_compatible_mode_tells_of_no_ramp() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.mode = Some(Mode::Envoy);
    for health in [Health::Down, Health::Ready] {
        world.change("a-", |endpoint| endpoint.health = health);
        world.update();
    }
    let locality = &localities(&world)[0];
    assert_eq!((locality.share, locality.cap, locality.why.as_str()), (Percent(10_000), None, "it serves"));
}

#[test]
fn a_residency_fence_is_the_reason_for_what_it_keeps_out() {
    let mut world = World::new(&[("a", 2)]);
    world.add_remote("eu-west/a", "eu", 4);
    world.update();
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.residency = Some(vec!["us".to_owned()]);
    world.update();
    assert_eq!(world.service.explain(world.now).residency, Some(vec!["us".to_owned()]));
    let locality = &localities(&world)[1];
    assert_eq!((locality.share, locality.why.as_str()), (Percent(0), "it is outside of the residency fence: us"));
    for loss in ["cluster=eu-west", "region=eu", "zone=eu-west/a", "cluster=ap"] {
        let error = world.service.answer(&[("lose".to_owned(), loss.to_owned())]).expect_err("out").to_string();
        assert!(error.contains("the residency fence keeps traffic inside of us, where there are us-east/a"), "{error}");
    }
    let answer = world.service.answer(&[("lose".to_owned(), "region=us".to_owned())]).expect("an answer");
    assert_eq!(answer.division.priorities.len(), 1);
}

#[test]
fn a_capacity_that_nobody_states_is_told_in_endpoints() {
    let mut world = World::new(&[("a", 4), ("b", 3)]);
    world.change("b-", |endpoint| endpoint.capacity = 20);
    world.update();
    let capacities: Vec<f64> = localities(&world).iter().map(|locality| locality.capacity).collect();
    assert_eq!(capacities, [4.0, 60.0]);
}

fn why(world: &World, zone: &str) -> String {
    localities(world).into_iter().find(|locality| locality.name.to_string() == zone).expect("a locality").why
}

#[test]
fn every_reason_against_a_locality_of_the_own_cluster_is_told() {
    let mut world = World::new(&[("a", 4), ("b", 2), ("c", 2), ("d", 1)]);
    world.change("b-", |endpoint| endpoint.health = Health::Warming);
    world.change("c-", |endpoint| endpoint.health = Health::Unready);
    world.update();
    assert_eq!(why(&world, "us-east/b"), "it has no endpoint that counts");
    assert_eq!(why(&world, "us-east/c"), "all of its endpoints are unready or down");
    world.attempts_on("d-00000", 4, error());
    assert_eq!(why(&world, "us-east/d"), "all of its endpoints that could serve are ejected");
    for i in 0..4 {
        world.attempts_on(&format!("a-0000{i}"), 8, error());
    }
    assert!(why(&world, "us-east/a").starts_with("its breaker is open"), "{}", why(&world, "us-east/a"));
}

#[test]
fn every_reason_against_a_locality_of_another_cluster_is_told() {
    let mut world = World::new(&[("a", 1)]);
    for cluster in ["down", "failing", "old", "older"] {
        world.add_remote(&format!("{cluster}/a"), cluster, 2);
    }
    let summary = world.summary("old/a");
    (summary.total, summary.ready, summary.degraded) = (4, 2, 1);
    world.peer("down").path = PathState::Down;
    world.peer("old").staleness = Staleness::Stale2;
    world.peer("older").staleness = Staleness::Stale3;
    world.update();
    for _ in 0..8 {
        let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), Some("failing"), false).expect("it");
        world.finish(&pick, Outcome::failed(Reason::StreamOpenTimeout));
    }
    assert_eq!(why(&world, "down/a"), "the path to its cluster is down");
    assert_eq!(why(&world, "failing/a"), "the path to its cluster fails as seen from here");
    assert!(why(&world, "old/a").contains("30 seconds"), "{}", why(&world, "old/a"));
    assert!(why(&world, "older/a").contains("15 minutes"), "{}", why(&world, "older/a"));
    assert_eq!(why(&world, "us-east/a"), "it serves");
    let old = localities(&world).into_iter().find(|locality| locality.name.to_string() == "old/a").expect("a locality");
    assert_eq!((old.healthy, old.degraded, old.total), (0.0, 3.0, 4.0), "all of it is second choice");
}

#[test]
fn endpoints_are_told_in_whole_ones_by_their_state() {
    let mut world = World::new(&[("a", 6)]);
    world.change("a-00000", |endpoint| endpoint.health = Health::Degraded);
    world.change("a-00001", |endpoint| endpoint.health = Health::Unready);
    world.update();
    world.attempts_on("a-00002", 4, error());
    let a = localities(&world).remove(0);
    assert_eq!((a.healthy, a.degraded, a.soft, a.total, a.hosts), (3.0, 1.0, 1.0, 6.0, 6));
}

#[test]
fn a_factor_is_told_where_there_is_one() {
    let mut world = World::new(&[("a", 1)]);
    let factor = |world: &World| world.service.explain(world.now).priorities[0].utilisation_factor;
    assert_eq!(factor(&world), None, "nothing is known");
    world.service.apply_load(
        &EndpointId::new("a-00000"),
        LoadReport { active_requests: 0, utilisation: Some(0.5), error_rate: 0.0 },
        world.now,
    );
    world.wait(Duration::from_millis(200));
    assert_eq!(factor(&world), Some(1.0));
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.mode = Some(Mode::Envoy);
    world.update();
    assert_eq!(factor(&world), None, "the Envoy mode knows none");
}

#[test]
fn endpoints_that_are_down_or_wait_for_a_probe_are_told_so() {
    let mut world = World::new(&[("a", 3)]);
    world.change("a-00002", |endpoint| endpoint.health = Health::Degraded);
    world.update();
    world.attempts_on("a-00000", 1, refused());
    assert_eq!(endpoint(&world, "a-00000").why, "it refused or reset a fresh connection from here");
    assert_eq!(why(&world, "us-east/a"), "it serves", "one that is healthy and one that is degraded");
    world.wait(Duration::from_secs(2));
    let waiting = endpoint(&world, "a-00000");
    assert_eq!((waiting.used, waiting.why), (false, "it waits for one request to try it"));
}

#[test]
fn a_zone_that_has_just_returned_is_told_to_be_held_back() {
    let mut world = World::new(&[("a", 1), ("b", 1)]);
    world.change("a-", |endpoint| endpoint.health = Health::Unready);
    world.update();
    world.change("a-", |endpoint| endpoint.health = Health::Ready);
    world.update();
    assert_eq!(world.share("us-east/a"), 0);
    assert_eq!(why(&world, "us-east/a"), "it returned from failure and is ramping");
    assert_eq!(why(&world, "us-east/b"), "it serves");
}
