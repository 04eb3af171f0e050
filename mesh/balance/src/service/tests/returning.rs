//! What comes back comes back slowly.

use std::time::Duration;

use eastway_core::Health;
use eastway_core::view::PathState;

use super::harness::*;
use crate::Policy;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn kill(world: &mut World, prefix: &str) {
    world.change(prefix, |e| e.health = Health::Down);
    world.update();
}

fn restart(world: &mut World, prefix: &str) {
    world.change(prefix, |e| {
        e.health = Health::Ready;
        e.incarnation += 1;
    });
    world.update();
}

#[test]
fn a_zone_that_returns_ramps_over_thirty_seconds() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    kill(&mut world, "a-");
    assert_eq!(world.share("us-east/b"), 10_000, "who takes over is not ramped");
    world.wait(secs(20));
    restart(&mut world, "a-");
    for (after, share) in [(0, 0), (3, 1_000), (12, 5_000), (15, 10_000)] {
        world.wait(secs(after));
        assert_eq!(world.share("us-east/a"), share);
    }
}

#[test]
fn what_a_returning_zone_does_not_take_goes_to_the_next_as_far_as_it_can_take_it() {
    let mut world = World::new(&[("a", 2), ("b", 10)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.change("b-0000", |e| e.health = if e.id.as_str() < "b-00005" { Health::Ready } else { Health::Unready });
    world.update();
    kill(&mut world, "a-");
    restart(&mut world, "a-");
    world.wait(secs(3));
    let shares = ["us-east/a", "us-east/b", "eu-west/a"].map(|zone| world.share(zone));
    assert_eq!(shares, [1_000, 7_000, 2_000]);
}

/// A region that was lost comes home in half of a ramp, as both of its zones take part.
#[test]
fn zones_that_return_together_fill_in_for_one_another_before_another_region_does() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    kill(&mut world, "");
    assert_eq!(world.share("eu-west/a"), 10_000);
    world.wait(secs(20));
    restart(&mut world, "");
    let mut shares = |after| {
        world.wait(after);
        ["us-east/a", "us-east/b", "eu-west/a"].map(|zone| world.share(zone))
    };
    assert_eq!(shares(secs(3)), [1_000, 1_000, 8_000]);
    assert_eq!(shares(secs(12)), [5_000, 5_000, 0]);
    assert_eq!(shares(secs(6)), [7_000, 3_000, 0]);
    assert_eq!(shares(secs(9)), [10_000, 0, 0]);
}

#[test]
fn a_zone_that_left_the_view_returns_from_failure_when_it_comes_back() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let all = world.view.endpoints.clone();
    world.view.endpoints.retain(|e| *e.zone == *"b");
    world.update();
    world.wait(secs(60));
    world.view.endpoints = all;
    world.update();
    world.wait(secs(3));
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (1_000, 9_000));
}

#[test]
fn a_zone_found_dead_by_this_node_alone_ramps_too() {
    let mut world = World::new(&[("a", 1), ("b", 1)]);
    world.attempts_on("a-00000", 1, refused());
    assert_eq!(world.share("us-east/a"), 0);
    world.wait(secs(2));
    let probe = world.pick();
    assert!(probe.probe);
    world.finish(&probe, success());
    drop(probe);
    assert_eq!(world.share("us-east/a"), 0);
    world.wait(secs(15));
    assert_eq!(world.share("us-east/a"), 5_000);
    world.wait(secs(15));
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn the_last_locality_takes_all_at_once() {
    let mut world = World::new(&[("a", 2)]);
    kill(&mut world, "a-");
    assert_eq!(world.share("us-east/a"), 0);
    restart(&mut world, "a-");
    assert_eq!(world.share("us-east/a"), 10_000);
}

/// Both were lost. The farther one is back first and serves alone; the nearer one takes its traffic back slowly.
#[test]
fn who_serves_alone_has_returned_and_the_next_one_ramps() {
    let mut world = World::new(&[("a", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.peer("eu-west").path = PathState::Down;
    kill(&mut world, "a-");
    world.peer("eu-west").path = PathState::Up;
    world.update();
    assert_eq!(world.share("eu-west/a"), 10_000);
    world.wait(secs(4));
    restart(&mut world, "a-");
    let shares: Vec<u32> = (0..9)
        .map(|_| {
            world.wait(secs(4));
            world.share("us-east/a")
        })
        .collect();
    assert_eq!(shares, [1_333, 2_666, 4_000, 5_333, 6_666, 8_000, 9_333, 10_000, 10_000]);
}

#[test]
fn zones_that_appear_one_by_one_at_the_start_are_not_ramped() {
    let mut world = World::new(&[("b", 2)]);
    world.add("a-0", "a", 1.0);
    world.change("a-0", |e| e.health = Health::Warming);
    world.update();
    assert_eq!(world.share("us-east/b"), 10_000);
    world.change("a-0", |e| e.health = Health::Ready);
    world.update();
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn a_restarted_node_joins_a_remote_ramp_in_the_middle() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("eu-west/b", "eu", 2);
    world.summary("eu-west/a").returned_ago = Some(secs(6));
    world.update();
    assert_eq!(world.share("eu-west/a"), 2_000);
    world.wait(secs(6));
    world.summary("eu-west/a").returned_ago = Some(secs(12));
    world.update();
    assert_eq!(world.share("eu-west/a"), 4_000);
    world.wait(secs(18));
    assert_eq!(world.share("eu-west/a"), 5_000);
}

#[test]
fn a_path_that_comes_back_ramps() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("ap/a", "ap", 2);
    world.view.spec.failover = vec!["eu-west".to_owned()];
    world.update();
    assert_eq!(world.share("eu-west/a"), 10_000);
    world.peer("eu-west").path = PathState::Down;
    world.update();
    assert_eq!(world.share("ap/a"), 10_000);
    world.peer("eu-west").path = PathState::Up;
    world.update();
    world.wait(secs(3));
    assert_eq!(world.share("eu-west/a"), 1_000);
}

#[test]
fn a_flapping_zone_is_kept_out_while_another_can_serve() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    for _ in 0..4 {
        kill(&mut world, "a-");
        world.wait(secs(10));
        restart(&mut world, "a-");
        world.wait(secs(10));
    }
    assert_eq!(world.share("us-east/a"), 0);
    assert_eq!(world.service.explain(world.now).priorities[0].localities[0].stage, "damped");
    kill(&mut world, "b-");
    assert_eq!(world.share("us-east/a"), 10_000, "never the last locality");
    restart(&mut world, "b-");
    world.wait(secs(340));
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn errors_while_it_ramps_set_a_locality_back() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    kill(&mut world, "a-");
    restart(&mut world, "a-");
    world.wait(secs(15));
    let before = world.share("us-east/a");
    for id in ["a-00000", "a-00001", "a-00002"] {
        world.attempts_on(id, 2, error());
    }
    world.wait(secs(1));
    let after = world.share("us-east/a");
    assert!(before >= 5_000 && after <= before / 2 + 400, "{before} to {after}");
}

#[test]
fn each_node_delays_its_ramp_by_its_own_jitter() {
    let delay = |seed| {
        let mut world = World::with_policy(&[("a", 2), ("b", 2)], Policy { seed, ..Policy::default() });
        kill(&mut world, "a-");
        restart(&mut world, "a-");
        (1..=50).find(|_| {
            world.wait(Duration::from_millis(100));
            world.share("us-east/a") > 0
        })
    };
    let delays: Vec<_> = (0..8).map(|seed| delay(seed).expect("within 5 s")).collect();
    assert!(delays.iter().any(|d| *d != delays[0]), "{delays:?}");
    assert_eq!(delay(3), delay(3));
}

#[test]
fn a_view_that_is_taken_again_grows_old() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.add_remote("ap/a", "ap", 2);
    world.view.spec.failover = vec!["eu-west".to_owned()];
    world.summary("eu-west/a").returned_ago = Some(secs(25));
    world.update();
    world.wait(secs(3));
    world.peer("eu-west").path = PathState::Down;
    world.update();
    world.wait(secs(37));
    // The owner's word is about the return before: 65 s ago by now.
    world.peer("eu-west").path = PathState::Up;
    world.update();
    assert_eq!(world.share("eu-west/a"), 0, "it ramps from the beginning");
    world.wait(secs(3));
    assert_eq!(world.share("eu-west/a"), 1_000);
}

#[test]
fn a_zone_that_was_first_seen_failed_ramps_when_it_serves() {
    let mut world = World::new(&[]);
    (0..2).for_each(|i| world.add(&format!("a-{i}"), "a", 1.0));
    (0..2).for_each(|i| world.add(&format!("b-{i}"), "b", 1.0));
    world.change("a-", |e| e.health = Health::Unready);
    world.update();
    world.change("a-", |e| e.health = Health::Ready);
    world.update();
    world.wait(secs(3));
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (1_000, 9_000));
}
