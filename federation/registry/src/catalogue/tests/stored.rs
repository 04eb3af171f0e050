//! Membership that was stored: by this gateway's former life, or by siblings.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn slice(endpoints: &[&str]) -> Option<Slice> {
    Some(Slice { endpoints: endpoints.iter().map(|id| registration(id, "a", 1)).collect() })
}

fn load(world: &mut World, gateway: &str, content: Option<Slice>) {
    world.catalogue.load_slice(gateway, &payments(), 0, content, world.now);
}

#[test]
fn a_restarted_gateway_serves_what_it_stored_and_probes_it() {
    let mut world = World::new();
    load(&mut world, "gw-1", slice(&["p1", "p2"]));
    assert_eq!(world.health("p1"), Some(Health::Ready), "never an empty view");
    assert!(!world.catalogue.is_probed());
    world.pass(Duration::from_millis(100), |probe| match probe.endpoint.as_str() {
        "p1" => ProbeOutcome::Answered,
        _ => ProbeOutcome::Refused,
    });
    assert!(world.catalogue.is_probed());
    assert_eq!((world.health("p1"), world.health("p2")), (Some(Health::Ready), Some(Health::Down)));
    let stream = world.register("p2", "a", 1);
    assert_eq!(world.health("p2"), Some(Health::Ready));
    world.catalogue.deregister(stream, world.now);
    assert_eq!(world.catalogue.slice(&payments(), 0), slice(&["p1"]));
}

#[test]
fn what_is_written_is_what_was_registered() {
    let mut world = World::new();
    world.catalogue =
        Catalogue::new(meta("us-east"), "gw-1", 1, Options { slice_size: 2, max_endpoints: 100, ..Options::default() });
    for endpoint in ["p1", "p2", "p3"] {
        world.register(endpoint, "a", 1);
    }
    let dirty = world.catalogue.take_changes().slices;
    assert_eq!(dirty, BTreeSet::from([(payments(), 0), (payments(), 1)]));
    assert_eq!(world.catalogue.slice(&payments(), 0), slice(&["p1", "p2"]));
    assert_eq!(world.catalogue.slice(&payments(), 1), slice(&["p3"]));
    world.catalogue.deregister(StreamId(3), world.now);
    assert_eq!(world.catalogue.slice(&payments(), 1), None);
    let text = serde_json::to_string(&slice(&["p1"])).expect("JSON");
    assert_eq!(serde_json::from_str::<Option<Slice>>(&text).expect("read back"), slice(&["p1"]));
}

#[test]
fn registering_again_unchanged_writes_nothing() {
    let mut world = World::new();
    load(&mut world, "gw-1", slice(&["p1"]));
    world.catalogue.take_changes();
    world.register("p1", "a", 1);
    assert!(world.catalogue.take_changes().slices.is_empty());
}

#[test]
fn a_sidecar_that_moved_to_a_sibling_leaves_this_gateway() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.catalogue.lost(stream, world.now);
    let mut moved = registration("p1", "a", 1);
    moved.session = 2;
    load(&mut world, "gw-2", Some(Slice { endpoints: vec![moved] }));
    assert_eq!(world.catalogue.slice(&payments(), 0), None);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    assert_eq!(world.catalogue.siblings(), BTreeSet::from(["gw-2".into()]));
    assert!(world.catalogue.exports_for("eu-west")[&payments()].exported.zones.is_empty(), "the sibling exports it");
}

#[test]
fn endpoints_of_foreign_accounts_and_zones_are_not_believed_from_the_store_either() {
    let mut world = World::new();
    let (mut account, mut zone) = (registration("p1", "a", 1), registration("p2", "a", 1));
    (account.account, zone.zone) = ("cart".to_owned(), "c".into());
    load(&mut world, "gw-2", Some(Slice { endpoints: vec![account, zone] }));
    assert!(world.view().expect("declared").endpoints.is_empty());
}

#[test]
fn half_of_a_service_that_vanishes_from_a_list_is_held_unless_a_probe_confirms_it() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    load(&mut world, "gw-2", slice(&["p1", "p2", "p3", "p4"]));
    let before = world.view();
    load(&mut world, "gw-2", slice(&["p1", "p2"]));
    world.pass(25 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.view(), before);
    world.pass(6 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.view().expect("a view").endpoints.len(), 2);

    load(&mut world, "gw-2", None);
    world.pass(SECOND, |probe| match probe.endpoint.as_str() {
        "p1" => ProbeOutcome::Refused,
        _ => ProbeOutcome::Answered,
    });
    assert_eq!((world.health("p1"), world.health("p2")), (None, Some(Health::Ready)));
}

#[test]
fn a_single_endpoint_of_many_goes_after_the_window() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    load(&mut world, "gw-2", slice(&["p1", "p2", "p3", "p4"]));
    load(&mut world, "gw-2", slice(&["p1", "p2", "p3"]));
    world.pass(9 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p4"), Some(Health::Ready));
    world.pass(2 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p4"), None);
}

#[test]
fn what_others_took_from_a_gateway_that_is_gone_stays_while_its_probes_are_answered() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    load(&mut world, "gw-2", slice(&["p1", "p2"]));
    world.catalogue.gateway_unregistered("gw-2");
    load(&mut world, "gw-2", None);
    world.pass(600 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!((world.health("p1"), world.health("p2")), (Some(Health::Ready), Some(Health::Ready)));
    world.pass(SECOND, |probe| match probe.endpoint.as_str() {
        "p1" => ProbeOutcome::Refused,
        _ => ProbeOutcome::Answered,
    });
    assert_eq!((world.health("p1"), world.health("p2")), (None, Some(Health::Ready)));

    // The gateway returns, and has not yet written its slices again: they are not taken for what it means.
    world.catalogue.gateway_registered("gw-2", world.now);
    world.pass(5 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p2"), Some(Health::Ready));
    load(&mut world, "gw-2", slice(&["p2"]));
    world.pass(60 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p2"), Some(Health::Ready));
}

#[test]
fn an_answer_from_an_address_that_is_another_endpoints_now_keeps_nobody() {
    let mut world = World::new();
    load(&mut world, "gw-2", slice(&["p1"]));
    load(&mut world, "gw-2", None);
    world.pass(60 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    let mut successor = registration("p9", "a", 1);
    successor.address = registration("p1", "a", 1).address;
    world.catalogue.register(StreamId(9), successor, Health::Ready, world.now).expect("registered");
    world.pass(SECOND, |_| ProbeOutcome::Answered);
    assert_eq!((world.health("p1"), world.health("p9")), (None, Some(Health::Ready)));
}

#[test]
fn of_a_gone_gateways_slice_only_what_is_dead_or_registered_elsewhere_is_collected() {
    let mut world = World::new();
    let stored = slice(&["p1", "p2", "p3", "p4"]).expect("a slice");
    load(&mut world, "gw-2", Some(stored.clone()));
    let mut moved = registration("p2", "a", 1);
    moved.session = 2;
    world.catalogue.register(StreamId(1), moved, Health::Ready, world.now).expect("registered");
    world.pass(3 * SECOND, |probe| match probe.endpoint.as_str() {
        "p3" => ProbeOutcome::Refused,
        _ => ProbeOutcome::Answered,
    });
    let rest = world.catalogue.remaining("gw-2", &payments(), &stored);
    assert_eq!(Some(rest), slice(&["p1", "p4"]));
}

#[test]
fn the_own_slices_are_those_with_endpoints() {
    let mut world = World::new();
    assert!(world.catalogue.own_slices().is_empty());
    let stream = world.register("p1", "a", 1);
    load(&mut world, "gw-2", slice(&["p2"]));
    assert_eq!(world.catalogue.own_slices(), BTreeSet::from([(payments(), 0)]));
    world.catalogue.deregister(stream, world.now);
    assert!(world.catalogue.own_slices().is_empty());
}

fn listed(endpoint: &str, incarnation: u64, session: u64) -> Slice {
    Slice { endpoints: vec![Registration { session, ..registration(endpoint, "a", incarnation) }] }
}

fn version(world: &World, id: &str) -> Option<(u64, u64)> {
    let reports = world.catalogue.endpoints(&payments(), world.now);
    let report = reports.into_iter().find(|report| report.view.id.as_str() == id)?;
    Some((report.view.incarnation, report.session))
}

/// Found by the simulation: the sidecar had moved here from a gateway that died since.
#[test]
fn what_said_goodbye_here_does_not_come_back_from_the_slice_of_a_gateway_that_is_gone() {
    let mut world = World::new();
    load(&mut world, "gw-2", Some(listed("p1", 1, 1)));
    let stream = StreamId(9);
    let moved = Registration { session: 2, ..registration("p1", "a", 1) };
    world.catalogue.register(stream, moved, Health::Ready, world.now).expect("registered");
    world.catalogue.deregister(stream, world.now);
    assert_eq!(world.endpoint("p1"), None);
    let left = world.catalogue.remaining("gw-2", &payments(), &listed("p1", 1, 1));
    assert_eq!(left, Slice::default(), "and is collected from there");
    world.register("p1", "a", 2);
    assert_eq!(version(&world, "p1"), Some((2, 1)), "its next life is welcome");
}

/// Found by the simulation: a copy of the store was restored that lists it in the slice of a gateway that is gone.
#[test]
fn what_said_goodbye_and_is_listed_after_that_does_not_show_and_is_known_to_be_collected() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.catalogue.deregister(stream, world.now);
    load(&mut world, "gw-2", Some(listed("p1", 1, 1)));
    assert_eq!(world.endpoint("p1"), None);
    assert_eq!(world.catalogue.siblings(), BTreeSet::from(["gw-2".into()]));
    world.pass(3_600 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.endpoint("p1"), None, "however long it is listed");
    assert_eq!(world.catalogue.remaining("gw-2", &payments(), &listed("p1", 1, 1)), Slice::default());
    load(&mut world, "gw-2", None);
    assert!(world.catalogue.leaving.is_empty() && world.catalogue.siblings().is_empty(), "nor is it held then");
}

/// Found by the simulation: the gateway had come back and written it just before the leader, who had not read that yet, collected.
#[test]
fn that_its_former_life_is_down_takes_no_endpoint_away() {
    let mut world = World::new();
    load(&mut world, "gw-2", Some(listed("p1", 1, 1)));
    world.pass(SECOND, |_| ProbeOutcome::Refused);
    let remaining = |listed: Slice| world.catalogue.remaining("gw-2", &payments(), &listed);
    assert_eq!(remaining(listed("p1", 1, 1)), Slice::default());
    assert_eq!(remaining(listed("p1", 2, 1)), listed("p1", 2, 1));
}

/// Found by the simulation: a slice that was deleted by hand uncovered the endpoint's former life.
#[test]
fn an_earlier_life_does_not_show_while_a_later_one_is_held() {
    let mut world = World::new();
    load(&mut world, "gw-2", Some(listed("p1", 1, 1)));
    load(&mut world, "gw-3", Some(listed("p1", 2, 1)));
    load(&mut world, "gw-3", None);
    assert_eq!(version(&world, "p1"), Some((2, 1)));
    world.pass(60 * SECOND, |_| ProbeOutcome::Refused);
    assert_eq!(version(&world, "p1"), None, "neither after it has ended");
}

/// Found by the simulation.
#[test]
fn a_copy_of_the_store_that_is_restored_takes_no_endpoint_back_to_an_earlier_life() {
    let mut world = World::new();
    load(&mut world, "gw-2", Some(listed("p1", 2, 1)));
    load(&mut world, "gw-2", Some(listed("p1", 1, 1)));
    assert_eq!(version(&world, "p1"), Some((2, 1)));
}

/// Found by the simulation: a copy of the store was restored that lists the one that had the address before.
#[test]
fn who_is_listed_at_an_address_but_not_heard_there_has_not_taken_it() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-3", world.now);
    load(&mut world, "gw-2", slice(&["p1"]));
    load(&mut world, "gw-2", None);
    let address = registration("p1", "a", 1).address;
    let before = Registration { address, ..registration("p0", "a", 1) };
    load(&mut world, "gw-3", Some(Slice { endpoints: vec![before] }));
    world.pass(SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    assert_eq!(world.catalogue.remaining("gw-2", &payments(), &listed("p1", 1, 1)), listed("p1", 1, 1));
}

/// Found by the simulation: it was under way to a gateway that stood still, while its sidecar went on to another one and ended.
#[test]
fn a_registration_that_comes_after_a_later_one_has_ended_is_not_taken() {
    let mut world = World::new();
    load(&mut world, "gw-2", Some(listed("p1", 1, 3)));
    load(&mut world, "gw-2", None);
    world.pass(SECOND, |_| ProbeOutcome::Refused);
    assert_eq!(world.endpoint("p1"), None);
    let register = |world: &mut World, session| {
        let registration = Registration { session, ..registration("p1", "a", 1) };
        world.catalogue.register(StreamId(9), registration, Health::Ready, world.now)
    };
    let late = register(&mut world, 2);
    assert!(matches!(late, Err(RegisterError::Stale { highest: 1, .. })), "{late:?}");
    assert_eq!(register(&mut world, 4), Ok(None), "it was not dead");
}

/// Found by the simulation: its sidecar was still heard here when the sibling's slice was read, and is not any more.
#[test]
fn an_own_statement_is_given_up_once_its_sidecar_has_moved_however_the_news_came() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    load(&mut world, "gw-2", Some(listed("p1", 1, 2)));
    assert!(world.catalogue.slice(&payments(), 0).is_some(), "two sidecars, as it seems");
    world.catalogue.lost(stream, world.now);
    world.pass(SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.catalogue.slice(&payments(), 0), None);
    assert_eq!(version(&world, "p1"), Some((1, 2)));
}

/// Found by the simulation: the dead one's probes were answered by its successor for ever.
#[test]
fn an_endpoint_whose_address_has_another_one_by_now_is_gone() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.catalogue.lost(stream, world.now);
    let address = registration("p1", "a", 1).address;
    let successor = Registration { address, ..registration("p2", "a", 1) };
    world.catalogue.register(StreamId(9), successor, Health::Ready, world.now).expect("registered");
    world.catalogue.heard(StreamId(9), world.now);
    world.pass(2 * SECOND, |_| ProbeOutcome::Answered);
    assert!(world.endpoint("p1").is_some(), "its stream may come back");
    for _ in 0..4 {
        world.pass(SECOND, |_| ProbeOutcome::Answered);
        world.catalogue.heard(StreamId(9), world.now);
    }
    assert_eq!((world.endpoint("p1"), world.health("p2")), (None, Some(Health::Ready)));
}
