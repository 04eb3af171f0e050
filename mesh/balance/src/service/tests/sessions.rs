//! Sessions in a remote locality: which is chosen when the endpoints of some or all of them were ejected.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::{EndpointId, Reason};

use super::harness::*;
use crate::{Endpoint, LocalityEndpoints, Outcome, Tried};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A service of one remote locality with so many endpoints, and sessions to all of them.
fn sessions(endpoints: u32) -> (World, Arc<LocalityEndpoints>, Vec<Arc<Endpoint>>) {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", endpoints);
    world.update();
    let locality = Arc::clone(&world.pick().locality);
    let ids = (0..endpoints).map(|i| EndpointId::new(format!("p-{i}")));
    let sessions = ids.map(|id| world.service.session(&locality, &id)).collect();
    (world, locality, sessions)
}

/// A POST as the sidecar sends it in a remote locality, where no further session leads elsewhere: whether it was answered.
/// What it finds at the endpoint is said by `ends`.
fn post(world: &mut World, sessions: &[Arc<Endpoint>], ends: impl Fn(&Endpoint) -> Outcome) -> bool {
    let tried = Tried::new();
    let Ok(mut pick) = world.service.pick(&mut world.rng, world.now, &tried, None, false) else { return false };
    let locality = Arc::clone(&pick.locality);
    let chosen = world.service.choose(&mut world.rng, world.now, sessions, &tried, false);
    let bound = chosen.is_some_and(|index| pick.bind(sessions[index].clone()));
    if !bound {
        match world.service.choose_any(&locality, sessions, &tried) {
            Some(index) => pick.bind_anyway(sessions[index].clone()),
            None => {
                world.finish(&pick, Outcome::failed(Reason::NoReadyEndpoint));
                return false;
            }
        }
    }
    let outcome = ends(pick.endpoint().expect("bound"));
    world.finish(&pick, outcome);
    outcome.failure().is_none()
}

#[test]
fn callers_that_only_post_find_remote_endpoints_again_that_were_all_ejected() {
    let unreachable = || Outcome::failed(Reason::AppUnreachable);
    for endpoints in 1..=3 {
        for (named, out) in [("unreachable", unreachable()), ("refused", refused()), ("failing", error())] {
            let (mut world, _, sessions) = sessions(endpoints);
            assert!(post(&mut world, &sessions, |_| success()), "{endpoints} {named}");
            for _ in 0..200 {
                post(&mut world, &sessions, |_| out);
                world.wait(Duration::from_millis(20));
            }
            assert!((0..20).all(|_| post(&mut world, &sessions, |_| success())), "{endpoints} {named}: back");
            for _ in 0..2_000 {
                assert!(post(&mut world, &sessions, |_| success()));
                world.wait(Duration::from_millis(20));
            }
            let closed = sessions.iter().filter(|session| session.acceptance() == 1.0).count();
            assert_eq!(closed, sessions.len(), "{endpoints} {named}: each was tried and is whole again");
        }
    }
}

#[test]
fn one_ejected_remote_endpoint_of_two_is_tried_by_posts_too_but_not_before_it_waited() {
    let (mut world, _, sessions) = sessions(2);
    let bad = EndpointId::new("p-0");
    let half = |endpoint: &Endpoint| if endpoint.id == bad { error() } else { success() };
    for _ in 0..4 {
        let mut pick = world.pick();
        assert!(pick.bind(sessions[0].clone()));
        world.finish(&pick, error());
    }
    assert_eq!(sessions[0].acceptance(), 0.0, "ejected");
    world.wait(secs(2));
    assert!((0..100).all(|_| post(&mut world, &sessions, half)), "no POST tries it at once");
    world.wait(secs(5));
    (0..10).for_each(|_| assert!(post(&mut world, &sessions, |_| success())));
    assert!(sessions[0].acceptance() > 0.0, "one was its probe");
}

#[test]
fn an_ejected_remote_endpoint_is_no_last_resort_while_another_locality_can_serve() {
    let (mut world, locality, sessions) = sessions(1);
    world.add_remote("ap/a", "ap", 1);
    world.update();
    let mut tried = Tried::new();
    assert_eq!(world.service.choose_any(&locality, &sessions, &tried), None);
    tried.push_locality(&zone("ap/a"));
    assert_eq!(world.service.choose_any(&locality, &sessions, &tried), Some(0), "the other was tried");
    tried = Tried::new();
    tried.push_locality(&zone("eu-west/a"));
    assert_eq!(
        world.service.choose_any(&locality, &sessions, &tried),
        Some(0),
        "it was left before, and nothing else is left"
    );
    assert_eq!(world.service.choose_any(&locality, &[], &tried), None);
}

#[test]
fn the_last_resort_prefers_what_was_not_tried_then_what_waits_then_what_is_not_down() {
    let (mut world, locality, sessions) = sessions(3);
    let now = world.now;
    world.service.mark_down(&sessions[0], now);
    let chosen = |world: &World, tried: &Tried| world.service.choose_any(&locality, &sessions, tried);
    assert!(chosen(&world, &Tried::new()).is_some_and(|index| index != 0));
    world.wait(secs(2));
    assert_eq!(chosen(&world, &Tried::new()), Some(0), "half-open: it waits for its probe");
    let mut tried = Tried::new();
    tried.push_endpoint(&sessions[0]);
    tried.push_endpoint(&sessions[1]);
    assert_eq!(chosen(&world, &tried), Some(2));
    let mut probe = world.pick();
    probe.bind_anyway(sessions[0].clone());
    assert!(probe.probe);
    let mut beside = world.pick();
    beside.bind_anyway(sessions[0].clone());
    assert!(!beside.probe && beside.endpoint().is_some(), "one probe at a time");
}
