//! What discovery says is followed.

use std::time::Duration;

use eastway_core::{EndpointId, Health, LoadReport};

use super::harness::*;
use crate::Policy;

#[test]
fn what_never_warmed_does_not_count_and_what_is_unready_does() {
    let mut world = World::new(&[("a", 10), ("b", 10)]);
    world.change("a-0000", |e| e.health = Health::Warming);
    world.change("a-00000", |e| e.health = Health::Ready);
    world.update();
    assert_eq!(world.share("us-east/a"), 10_000, "1 of 1 that counts");
    world.change("a-0000", |e| e.health = Health::Unready);
    world.change("a-00000", |e| e.health = Health::Ready);
    world.update();
    assert_eq!(world.share("us-east/a"), 1_400, "1 of 10");
    assert!(world.counts(1_000).keys().all(|id| id == "a-00000" || id.starts_with("b-")));
}

#[test]
fn degraded_and_draining_endpoints_are_second_choice() {
    let mut world = World::new(&[("a", 2)]);
    world.change("a-00000", |e| e.health = Health::Draining);
    world.change("a-00001", |e| e.health = Health::Degraded);
    world.update();
    let counts = world.counts(1_000);
    assert!(counts.values().all(|n| *n > 400), "{counts:?}");
    let localities = |world: &World| -> Vec<_> {
        world.service.explain(world.now).priorities.into_iter().flat_map(|priority| priority.localities).collect()
    };
    assert_eq!((localities(&world)[0].degraded, localities(&world)[0].why.as_str()), (2.0, "it serves"));
    world.add("b-0", "b", 1.0);
    world.update();
    assert_eq!(world.share("us-east/b"), 10_000);
    assert_eq!(localities(&world)[0].why, "nearer priorities have enough capacity");
}

#[test]
fn what_the_node_knows_survives_a_new_view() {
    let mut world = World::new(&[("a", 4), ("b", 1)]);
    let held = world.pick_of("a-00002");
    world.attempts_on("a-00000", 4, error());
    world.change("a-00001", |e| e.weight = 3.0);
    world.add("a-9", "a", 1.0);
    world.update();
    let localities = world.service.explain(world.now).priorities.remove(0).localities;
    let by_id = |id: &str| localities[0].endpoints.iter().find(|e| e.id.as_str() == id).expect("known");
    assert_eq!((by_id("a-00000").breaker, by_id("a-00002").active_requests), ("open", 1));
    assert_eq!(by_id("a-00001").weight, 3.0);
    assert!(by_id("a-9").acceptance < 0.2, "new after the first view: {:?}", by_id("a-9"));
    drop(held);
    assert_eq!(world.pick_of("a-00002").endpoint().expect("local").active_requests(), 1);
}

#[test]
fn a_request_under_way_when_its_endpoint_restarts_is_counted_off_the_old_life() {
    let mut world = World::new(&[("a", 1)]);
    let held = world.pick();
    world.change("a", |e| e.incarnation = 2);
    world.update();
    let fresh = world.pick();
    assert_eq!(
        (held.endpoint().expect("local").active_requests(), fresh.endpoint().expect("local").active_requests()),
        (1, 1)
    );
    world.finish(&held, refused());
    drop(held);
    assert_eq!(world.share("us-east/a"), 10_000, "the evidence is against the old life");
    world.check();
}

#[test]
fn duplicates_and_disorder_in_a_view_do_no_harm() {
    let mut world = World::new(&[("a", 3)]);
    let first = world.view.endpoints[0].clone();
    world.view.endpoints.push(first);
    world.view.endpoints.reverse();
    world.update();
    assert_eq!(world.counts(1_000).len(), 3);
}

#[test]
fn locality_weights_shift_shares_and_still_fail_over() {
    let mut world = World::new(&[("b", 2), ("c", 2)]);
    assert_eq!((world.share("us-east/b"), world.share("us-east/c")), (5_000, 5_000));
    world.view.spec.locality_weights.insert("us-east/b".to_owned(), 3.0);
    world.update();
    assert_eq!(world.share("us-east/b"), 7_500);
    world.change("b", |e| e.health = Health::Down);
    world.update();
    assert_eq!(world.share("us-east/c"), 10_000);
}

#[test]
fn capacities_count_where_every_locality_of_a_priority_states_one() {
    let mut world = World::new(&[("b", 2), ("c", 2)]);
    world.change("b", |e| e.capacity = 900);
    world.update();
    assert_eq!(world.share("us-east/b"), 5_000);
    world.change("c", |e| e.capacity = 300);
    world.update();
    assert_eq!(world.share("us-east/b"), 7_500);
}

#[test]
fn reported_load_and_a_busy_priority_move_traffic_slowly() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let report = |world: &World, utilisation: f32| {
        for id in ["a-00000", "a-00001"] {
            let load = LoadReport { active_requests: 9, utilisation: Some(utilisation), error_rate: 0.0 };
            world.service.apply_load(&EndpointId::new(id), load, world.now);
        }
    };
    let mut last = world.share("us-east/a");
    for _ in 0..180 {
        // Its callers want twice what it has; what is left of that is its utilisation.
        report(&world, 2.0 * last as f32 / 10_000.0);
        world.wait(Duration::from_secs(1));
        let share = world.share("us-east/a");
        assert!(last - share <= 500, "more than 5 % in a second: {last} to {share}");
        last = share;
    }
    assert!((3_900..4_700).contains(&last), "towards 0.8 / 2: {last}");
    world.service.apply_load(&EndpointId::new("nobody"), LoadReport::default(), world.now);
    world.wait(Duration::from_secs(120));
    assert_eq!(world.share("us-east/a"), 10_000, "old reports are no reports");
}

#[test]
fn the_shares_follow_also_where_every_priority_is_on_its_way() {
    let mut world = World::new(&[("a", 1), ("b", 1)]);
    for (id, utilisation) in [("a-00000", 2.0), ("b-00000", 1.0)] {
        let load = LoadReport { active_requests: 9, utilisation: Some(utilisation), error_rate: 0.0 };
        world.service.apply_load(&EndpointId::new(id), load, world.now);
    }
    world.wait(Duration::from_secs(5));
    assert!(world.share("us-east/a") < 9_900, "{:?}", world.shares());
}

#[test]
fn residency_is_a_hard_fence() {
    let regions = Some([std::sync::Arc::from("us")].into());
    let mut world = World::with_policy(&[("a", 1)], Policy { regions, ..Policy::default() });
    world.add_remote("eu-west/a", "eu", 5);
    world.change("a", |e| e.health = Health::Down);
    world.update();
    assert!(world.try_pick(&crate::Tried::new()).is_err());
    assert_eq!(world.share("eu-west/a"), 0);
}

#[test]
fn a_service_without_a_view_or_without_endpoints_says_so() {
    let mut world = World::new(&[]);
    let error = world.try_pick(&crate::Tried::new()).expect_err("nothing there");
    assert_eq!(error.reason, eastway_core::Reason::NoReadyEndpoint);
    assert!(error.to_string().contains("no_ready_endpoint"));
    assert!(serde_json::to_value(world.service.explain(world.now)).is_ok());
}

#[test]
fn a_priority_keeps_its_factor_when_others_come_and_go() {
    let mut world = World::new(&[("b", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.change("", |e| e.capacity = 10);
    world.update();
    for _ in 0..100 {
        for endpoint in ["b-00000", "b-00001"] {
            let load = LoadReport { active_requests: 0, utilisation: Some(1.6), error_rate: 0.0 };
            world.service.apply_load(&EndpointId::new(endpoint), load, world.now);
        }
        world.wait(Duration::from_millis(500));
    }
    let factors = |world: &World| -> Vec<Option<f64>> {
        world.service.explain(world.now).priorities.iter().map(|priority| priority.utilisation_factor).collect()
    };
    let before = factors(&world)[0].expect("known");
    assert!(before < 0.8, "{before}");
    world.add("a-0", "a", 1.0);
    world.update();
    assert_eq!(factors(&world)[1], Some(before), "the zone is second now, and as busy as before");
    world.view.endpoints.retain(|endpoint| endpoint.id.as_str() != "a-0");
    world.update();
    assert!(factors(&world).contains(&Some(before)));
}

#[test]
fn a_plan_that_would_be_the_same_is_not_replaced() {
    let world = World::new(&[("a", 2), ("b", 1)]);
    let before = world.service.view.plan.load_full();
    world.service.replan(&mut world.service.state.control.lock(), world.now);
    assert!(std::sync::Arc::ptr_eq(&before, &world.service.view.plan.load_full()));
    world.service.mark_down(world.pick_of("a-00000").endpoint().expect("local"), world.now);
    assert!(!std::sync::Arc::ptr_eq(&before, &world.service.view.plan.load_full()));
}
