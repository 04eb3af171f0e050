//! Where nothing moves and nobody calls, time passes without work; whatever happens wakes the service.

use std::time::Duration;

use super::harness::World;
use crate::Outcome;

const LONG: Duration = Duration::from_secs(300);

fn sleeps(world: &World) -> bool {
    world.service.state.control.lock().asleep
}

fn asleep() -> World {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    assert!(!sleeps(&world));
    world.wait(LONG);
    assert!(sleeps(&world));
    world
}

#[test]
fn a_service_that_nobody_calls_sleeps_until_something_happens() {
    type Happens = fn(&mut World);
    let happens: [(&str, Happens); 5] = [
        ("a view", |world| world.update()),
        ("a failure", |world| world.attempts_on("a-00000", 1, super::harness::error())),
        ("a success", |world| world.attempts_on("a-00000", 1, super::harness::success())),
        ("hard evidence", |world| world.attempts_on("a-00000", 1, Outcome::down(eastway_core::Reason::ConnectFailed))),
        ("a load", |world| {
            let load = eastway_core::LoadReport { active_requests: 3, utilisation: Some(0.5), error_rate: 0.0 };
            world.service.apply_load(&eastway_core::EndpointId::new("b-00000"), load, world.now);
        }),
    ];
    for (what, happen) in happens {
        let mut world = asleep();
        happen(&mut world);
        world.wait(Duration::from_millis(200));
        assert!(!sleeps(&world), "{what}");
    }
}

#[test]
fn it_does_not_sleep_while_something_waits_to_be_tried() {
    let mut world = asleep();
    world.attempts_on("a-00000", 1, Outcome::down(eastway_core::Reason::ConnectFailed));
    world.wait(LONG);
    assert!(!sleeps(&world), "an endpoint is half-open");
    world.attempts_on("a-00000", 1, super::harness::success());
}
