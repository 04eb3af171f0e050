//! What an operator sets for a service, and questions about it.

use std::time::Duration;

use eastway_core::policy::{Algorithm, BreakerTrigger, Mode};
use eastway_core::{Health, LoadReport};

use super::harness::*;
use crate::{Loss, Question, Tried};

#[test]
fn numbers_that_an_operator_changes_hold_from_the_next_view_on_and_forget_nothing() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let pick = world.pick();
    world.finish(&pick, refused());
    let down = World::name(&pick);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.algorithm = Some(Algorithm::Random);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).breaker.endpoint =
        Some(BreakerTrigger::Consecutive { failures: 2 });
    world.update();
    assert_eq!(world.service.policy().algorithm, Algorithm::Random);
    // What is down stays down, and the other one trips by the new rule.
    let other = world.pick();
    assert_ne!(World::name(&other), down);
    world.finish(&other, error());
    let again = world.pick();
    assert_eq!(World::name(&again), World::name(&other), "the first error does not eject it");
    world.finish(&again, error());
    assert!(World::name(&world.pick()).starts_with("b-"), "the second one in a row does");
    world.view.spec.policy = eastway_core::policy::ServicePolicy::unset();
    world.update();
    assert_eq!(world.service.policy().algorithm, Algorithm::TwoChoices);
}

#[test]
fn the_compatible_mode_divides_as_envoy_does() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.mode = Some(Mode::Envoy);
    let set = |world: &mut World, prefixes: &[&str], health| {
        prefixes.iter().for_each(|prefix| world.change(prefix, |endpoint| endpoint.health = health));
        world.update();
    };
    set(&mut world, &["a-00000", "a-00001", "b-00000", "b-00001"], Health::Unready);
    // [4/2][4/2] is one of the written vectors: 70 and 30.
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (7_000, 3_000));
    // Ramps are none of Envoy's: what returns gets its part at once.
    set(&mut world, &["a-"], Health::Unready);
    set(&mut world, &["a-"], Health::Ready);
    assert_eq!((world.share("us-east/a"), world.share("us-east/b")), (10_000, 0));
    set(&mut world, &["a-", "b-"], Health::Unready);
    assert!(world.try_pick(&Tried::new()).is_err(), "a panic never picks what has a hard mark");
    set(&mut world, &["b-00003"], Health::Ready);
    assert_eq!(world.share("us-east/b"), 10_000, "the load of what cannot be picked goes to what can");
}

#[test]
fn what_if_starts_from_the_live_state() {
    let mut world = World::new(&[("a", 10), ("b", 10)]);
    for endpoint in &mut world.view.endpoints {
        std::sync::Arc::make_mut(endpoint).capacity = 10;
    }
    world.update();
    let load = |utilisation| LoadReport { active_requests: 1, utilisation: Some(utilisation), error_rate: 0.0 };
    for endpoint in world.view.endpoints.clone() {
        world.service.apply_load(&endpoint.id, load(if &*endpoint.zone == "a" { 0.7 } else { 0.2 }), world.now);
    }
    world.wait(Duration::from_millis(100));
    let question = |load| Question { losses: vec![Loss::Locality("us-east/a".to_owned())], load };
    let answer = world.service.what_if(&question(1.0)).expect("known");
    let b = &answer.division.priorities[1].localities[0];
    assert_eq!((b.share.0, b.utilisation), (10_000, Some(Some(0.9))));
    assert_eq!(answer.division.warnings, Some(vec![]));
    assert_eq!(answer.loaded, ["us-east/a", "us-east/b"]);
    let more = world.service.what_if(&question(1.3)).expect("known");
    assert_eq!(more.division.priorities[1].localities[0].utilisation, Some(Some(1.17)));
    assert_eq!(more.division.warnings.map(|warnings| warnings.len()), Some(1));
    // Asking changes nothing.
    assert_eq!(world.share("us-east/a"), 10_000);
}

#[test]
fn a_compatible_panic_divides_by_what_can_be_picked() {
    let mut world = World::new(&[("b", 4), ("c", 4)]);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).balancing.mode = Some(Mode::Envoy);
    world.change("", |endpoint| endpoint.health = Health::Unready);
    world.change("b-00000", |endpoint| endpoint.health = Health::Ready);
    world.change("b-00001", |endpoint| endpoint.health = Health::Draining);
    world.change("c-00000", |endpoint| endpoint.health = Health::Ready);
    world.update();
    assert_eq!((world.share("us-east/b"), world.share("us-east/c")), (6_667, 3_333), "2 and 1 of 8");
}
