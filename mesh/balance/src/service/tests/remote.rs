//! Other clusters: paths, silence, distance.

use std::time::Duration;

use eastway_core::view::{PathState, Staleness};
use eastway_core::{Coordinates, Health, Reason};

use super::harness::*;
use crate::{Outcome, Tried};

/// us-east with one zone, and two zones of eu-west behind it.
fn world() -> World {
    let mut world = World::new(&[("a", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("eu-west/b", "eu", 2);
    world.update();
    world
}

fn lose_home(world: &mut World) {
    world.change("a-", |e| e.health = Health::Down);
    world.update();
}

#[test]
fn a_lost_region_moves_to_the_next_one() {
    let mut world = world();
    assert_eq!(world.share("us-east/a"), 10_000);
    lose_home(&mut world);
    assert_eq!((world.share("eu-west/a"), world.share("eu-west/b")), (5_000, 5_000));
    let pick = world.pick();
    assert!(
        pick.locality.remote && pick.endpoint().is_none() && (pick.locality.priority, pick.locality.level) == (1, 2)
    );
    assert_eq!(&*pick.locality.accounts, ["payments".to_owned()]);
}

#[test]
fn a_service_that_exists_only_elsewhere_is_failed_over_from_the_first_request() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    let locality = world.pick().locality.clone();
    assert_eq!((locality.priority, locality.level), (0, 2));
    let levels: Vec<usize> =
        world.service.explain(world.now).priorities.iter().map(|priority| priority.level).collect();
    assert_eq!(levels, [2]);
}

#[test]
fn a_path_that_is_down_is_a_hard_mark() {
    let mut world = world();
    world.peer("eu-west").path = PathState::Down;
    lose_home(&mut world);
    assert_eq!(world.try_pick(&Tried::new()).expect_err("no way").reason, Reason::NoReadyEndpoint);
    let only = world.service.pick(&mut world.rng, world.now, &Tried::new(), Some("eu-west"), true);
    assert_eq!(only.expect_err("no way").reason, Reason::PathDown);
    for path in [PathState::Unknown, PathState::Up, PathState::Suspect] {
        world.peer("eu-west").path = path;
        world.update();
        world.pick();
    }
}

#[test]
fn a_cluster_that_is_no_peer_any_more_is_no_way() {
    let mut world = world();
    world.mesh.peers.clear();
    lose_home(&mut world);
    assert!(world.try_pick(&Tried::new()).is_err());
}

#[test]
fn silence_makes_a_cluster_second_choice_then_last_resort_but_never_nothing() {
    let mut world = world();
    world.add_remote("ap/a", "ap", 2);
    lose_home(&mut world);
    let eu = |world: &World| world.share("eu-west/a") + world.share("eu-west/b");
    let ring = |world: &mut World, ms| world.peer("ap").min_rtt = Some(Duration::from_millis(ms));
    ring(&mut world, 200);
    world.peer("eu-west").min_rtt = Some(Duration::from_millis(80));
    world.update();
    world.wait(Duration::from_secs(61));
    assert_eq!(eu(&world), 10_000);
    for (staleness, share) in [(Staleness::Stale1, 10_000), (Staleness::Stale2, 200), (Staleness::Stale3, 0)] {
        world.peer("eu-west").staleness = staleness;
        world.update();
        assert_eq!(eu(&world), share, "{staleness:?}");
    }
    world.peer("ap").staleness = Staleness::Stale3;
    world.update();
    assert_eq!(eu(&world), 10_000, "all are stale: as if none were");
}

#[test]
fn the_last_resort_is_divided_by_all_that_serves() {
    let mut world = world();
    lose_home(&mut world);
    (world.summary("eu-west/a").ready, world.summary("eu-west/a").degraded) = (1, 1);
    world.peer("eu-west").staleness = Staleness::Stale3;
    world.update();
    assert_eq!((world.share("eu-west/a"), world.share("eu-west/b")), (5_000, 5_000));
}

#[test]
fn counts_that_cannot_be_true_are_no_fault_of_the_caller() {
    let mut world = world();
    lose_home(&mut world);
    let summary = world.summary("eu-west/a");
    (summary.total, summary.ready, summary.degraded, summary.draining) = (1, u32::MAX, u32::MAX, u32::MAX);
    world.update();
    assert!(world.share("eu-west/a") > 0);
}

#[test]
fn tunnel_failures_trip_the_path_and_blame_no_locality() {
    let mut world = world();
    lose_home(&mut world);
    world.add_remote("ap/a", "ap", 2);
    world.update();
    while let Ok(pick) = world.try_pick(&Tried::new()) {
        if pick.probe || &*pick.locality.zone.cluster != "eu-west" {
            break;
        }
        world.finish(&pick, Outcome::failed(Reason::StreamOpenTimeout));
    }
    for _ in 0..20 {
        let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), Some("eu-west"), false).expect("soft");
        world.finish(&pick, Outcome::failed(Reason::GatewayUnreachable));
    }
    assert_eq!(world.share("ap/a"), 10_000);
    let localities: Vec<_> =
        world.service.explain(world.now).priorities.into_iter().flat_map(|t| t.localities).collect();
    assert!(
        localities.iter().all(|locality| locality.breaker == "closed" && locality.pressure == 0.0),
        "{localities:#?}"
    );
    world.wait(Duration::from_secs(2));
    let probe = world.pick();
    assert!(probe.probe && &*probe.locality.zone.cluster == "eu-west");
    // An answer from beyond shows the path to work, even a failure there.
    world.finish(&probe, Outcome::failed(Reason::NoReadyEndpoint));
    drop(probe);
    world.wait(Duration::from_secs(12));
    assert!(world.share("eu-west/a") > 0);
}

#[test]
fn a_locality_whose_gateway_finds_no_endpoint_is_left() {
    let mut world = world();
    lose_home(&mut world);
    for _ in 0..100 {
        let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), None, false).expect("a pick");
        let empty = &*pick.locality.zone.zone == "a";
        world.finish(&pick, if empty { Outcome::failed(Reason::NoReadyEndpoint) } else { success() });
    }
    assert_eq!((world.share("eu-west/a"), world.share("eu-west/b")), (0, 10_000));
    // Half-open: one probe, whose success lets its share rise over ten seconds.
    world.wait(Duration::from_secs(2));
    let probe = world.pick();
    assert!(probe.probe && World::name(&probe) == "eu-west/a");
    world.wait(Duration::from_millis(100));
    assert!((0..100).all(|_| !world.pick().probe), "one probe at a time");
    world.finish(&probe, success());
    drop(probe);
    assert_eq!(world.share("eu-west/a"), 1_000);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.share("eu-west/a"), 2_800);
    world.wait(Duration::from_secs(9));
    assert_eq!(world.share("eu-west/a"), 5_000);
}

#[test]
fn the_nearest_region_is_next_by_measurement_or_by_geography() {
    let mut world = World::new(&[("a", 1)]);
    world.add_remote("far/a", "far", 1);
    world.add_remote("near/a", "near", 1);
    let at = |latitude, longitude| Some(Coordinates { latitude, longitude });
    world.mesh.cluster.zones.insert("a".to_owned(), at(38.13, -78.45));
    world.peer("far").cluster.zones.insert("a".to_owned(), at(35.6762, 139.6503));
    world.peer("near").cluster.zones.insert("a".to_owned(), at(53.3498, -6.2603));
    lose_home(&mut world);
    assert_eq!(world.share("near/a"), 10_000);
    // Twenty pings say otherwise; believed after a minute.
    world.peer("far").min_rtt = Some(Duration::from_millis(30));
    world.peer("near").min_rtt = Some(Duration::from_millis(150));
    world.update();
    assert_eq!(world.share("near/a"), 10_000);
    world.wait(Duration::from_secs(61));
    assert_eq!(world.share("far/a"), 10_000);
    world.view.spec.failover = vec!["near".to_owned()];
    world.update();
    assert_eq!(world.share("near/a"), 10_000, "the operator's order wins");
}

#[test]
fn the_summary_divides_a_cluster_among_its_zones() {
    let mut world = world();
    lose_home(&mut world);
    world.summary("eu-west/a").ready = 1;
    world.update();
    assert_eq!((world.share("eu-west/a"), world.share("eu-west/b")), (3_333, 6_667));
    world.summary("eu-west/a").total = 0;
    world.summary("eu-west/a").ready = 0;
    world.update();
    assert_eq!((world.share("eu-west/a"), world.share("eu-west/b")), (0, 10_000));
}
