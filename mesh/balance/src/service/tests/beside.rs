//! One service as called from several zones: what one caller finds out, all know; where they go, each decides.

use std::time::Duration;

use eastway_core::Locality;

use super::harness::World;
use crate::service::Service;
use crate::{Outcome, Tried};

fn beside(world: &World, zone: &str) -> Service {
    world.service.beside(Locality::new("us-east", "us", zone))
}

/// Where most picks of a caller go.
fn zone_of(service: &Service, world: &World) -> String {
    let mut rng = fastrand::Rng::with_seed(3);
    let pick = service.pick(&mut rng, world.now, &Tried::new(), None, false).expect("a pick");
    pick.locality.zone.to_string()
}

#[test]
fn each_caller_prefers_its_own_zone() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let other = beside(&world, "b");
    assert!(other.localities().is_empty(), "before the next update");
    world.update();
    assert_eq!(
        (zone_of(&world.service, &world), zone_of(&other, &world)),
        ("us-east/a".to_owned(), "us-east/b".to_owned())
    );
    let priorities = |service: &Service| {
        service
            .localities()
            .into_iter()
            .map(|(locality, _)| (locality.zone.to_string(), locality.priority))
            .collect::<Vec<_>>()
    };
    assert_eq!(priorities(&world.service), [("us-east/a".to_owned(), 0), ("us-east/b".to_owned(), 1)]);
    assert_eq!(priorities(&other), [("us-east/b".to_owned(), 0), ("us-east/a".to_owned(), 1)]);
}

#[test]
fn what_one_caller_finds_out_all_know_at_once() {
    let mut world = World::new(&[("a", 1), ("b", 2)]);
    let other = beside(&world, "b");
    world.update();
    let refused = world.pick_of("a-00000");
    other.finish(&refused, Outcome::down(eastway_core::Reason::ConnectFailed), world.now);
    assert_eq!(world.share("us-east/a"), 0, "found by a caller in b");
    assert_eq!(zone_of(&world.service, &world), "us-east/b");
    world.service.revive(refused.endpoint().expect("an endpoint"), world.now);
    world.wait(Duration::from_secs(10));
    let found =
        other.localities().into_iter().find(|(locality, _)| &*locality.zone.zone == "a").expect("known to both");
    assert!(world.share("us-east/a") > 0 && found.0.total() == 1);
}

#[test]
fn time_and_news_reach_every_caller_and_those_that_are_gone_cost_nothing() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let other = beside(&world, "b");
    world.update();
    world.change("b", |endpoint| endpoint.health = eastway_core::Health::Down);
    world.update();
    assert_eq!(zone_of(&other, &world), "us-east/a");
    world.change("b", |endpoint| endpoint.health = eastway_core::Health::Ready);
    world.update();
    world.wait(Duration::from_secs(60));
    assert_eq!(zone_of(&other, &world), "us-east/b", "the ramp has ended for it, too");
    drop(other);
    world.update();
    assert_eq!(world.service.state.control.lock().views.len(), 1);
}
