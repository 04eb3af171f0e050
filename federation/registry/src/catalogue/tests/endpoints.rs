//! The life of endpoints that register here.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn never(probe: &Probe) -> ProbeOutcome {
    panic!("{probe:?}: an endpoint with a live stream is not probed")
}

#[test]
fn a_registered_endpoint_is_seen_with_the_health_that_it_reports() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.catalogue.report_health(stream, Health::Unready, "", world.now);
    assert_eq!(world.health("p1"), Some(Health::Unready), "unready stays in the denominator");
    let changes = world.catalogue.take_changes();
    assert!(changes.services.contains(&payments()) && changes.slices.contains(&(payments(), 0)));
    world.catalogue.heard(stream, world.now);
    assert!(world.catalogue.take_changes().is_empty());
}

#[test]
fn a_lost_stream_is_probed_at_once_and_a_refusal_is_evidence() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.pass(SECOND, never);
    world.catalogue.lost(stream, world.now);
    assert_eq!(world.health("p1"), Some(Health::Ready), "the loss of a stream proves nothing");
    let probes = world.catalogue.due_probes(world.now);
    assert_eq!(probes.len(), 1);
    assert!(world.catalogue.due_probes(world.now).is_empty(), "one probe at a time");
    world.catalogue.probed(&probes[0], ProbeOutcome::Refused, world.now);
    assert_eq!(world.health("p1"), Some(Health::Down));
}

#[test]
fn silence_of_probes_needs_a_second_one() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.catalogue.lost(stream, world.now);
    world.pass(SECOND, |_| ProbeOutcome::Silent);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.pass(SECOND, |_| ProbeOutcome::Silent);
    assert_eq!(world.health("p1"), Some(Health::Down));
}

#[test]
fn an_answered_probe_keeps_an_endpoint_and_brings_it_back() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.catalogue.lost(stream, world.now);
    world.pass(60 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.pass(2 * SECOND, |_| ProbeOutcome::Refused);
    assert_eq!(world.health("p1"), Some(Health::Down));
    world.pass(2 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
}

#[test]
fn a_silent_stream_is_noticed_and_heals_when_it_speaks() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.pass(Duration::from_millis(2900), never);
    world.pass(Duration::from_millis(2000), |_| ProbeOutcome::Silent);
    assert_eq!(world.health("p1"), Some(Health::Down), "a vanished host: about 4 s after its last word");
    world.catalogue.heard(stream, world.now);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.pass(SECOND, never);
}

#[test]
fn the_down_stay_in_the_denominator_for_ten_minutes() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.register("p2", "a", 1);
    world.catalogue.lost(stream, world.now);
    let other = StreamId(world.streams);
    for _ in 0..599 {
        world.pass(SECOND, |_| ProbeOutcome::Refused);
        world.catalogue.heard(other, world.now);
    }
    assert_eq!(world.health("p1"), Some(Health::Down));
    world.pass(2 * SECOND, |_| ProbeOutcome::Refused);
    assert_eq!(world.health("p1"), None);
    assert_eq!(world.health("p2"), Some(Health::Ready));
}

#[test]
fn deregistering_removes_at_once_and_that_life_never_comes_back() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 7);
    world.catalogue.deregister(stream, world.now);
    assert_eq!(world.health("p1"), None);
    let again = world.catalogue.register(StreamId(90), registration("p1", "a", 7), Health::Ready, world.now);
    assert!(matches!(again, Err(RegisterError::Stale { highest: 7, .. })));
    world.register("p1", "a", 8);
    assert_eq!(world.health("p1"), Some(Health::Ready));
}

#[test]
fn the_highest_incarnation_wins_whichever_came_first() {
    let mut world = World::new();
    let old = world.register("p1", "a", 5);
    world.register("p1", "b", 6);
    world.catalogue.report_health(old, Health::Down, "", world.now);
    world.catalogue.deregister(old, world.now);
    world.catalogue.lost(old, world.now);
    let endpoint = world.endpoint("p1").expect("still there");
    assert_eq!((endpoint.incarnation, &*endpoint.zone, endpoint.health), (6, "b", Health::Ready));
    let late = world.catalogue.register(StreamId(91), registration("p1", "a", 5), Health::Ready, world.now);
    assert_eq!(late, Err(RegisterError::Stale { endpoint: EndpointId::new("p1"), incarnation: 5, highest: 6 }));
}

#[test]
fn a_second_stream_of_the_same_life_takes_over_from_the_first() {
    let mut world = World::new();
    let first = world.register("p1", "a", 5);
    let second = StreamId(92);
    let taken = world.catalogue.register(second, registration("p1", "a", 5), Health::Degraded, world.now);
    assert_eq!(taken, Ok(Some(first)));
    world.catalogue.lost(first, world.now);
    assert!(world.catalogue.due_probes(world.now).is_empty());
    assert_eq!(world.health("p1"), Some(Health::Degraded));
}

#[test]
fn only_listed_accounts_and_known_zones_are_taken() {
    let mut world = World::new();
    let mut other = registration("p1", "a", 1);
    other.account = "cart".to_owned();
    let refused = world.catalogue.register(StreamId(93), other, Health::Ready, world.now);
    assert!(matches!(refused, Err(RegisterError::Account { .. })));
    let refused = world.catalogue.register(StreamId(94), registration("p1", "c", 1), Health::Ready, world.now);
    assert!(refused.is_err_and(|error| error.to_string().contains("a, b")));
    assert!(world.endpoint("p1").is_none());
}

#[test]
fn accounts_that_are_no_longer_listed_lose_their_registrations() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    let mut resources = resources();
    resources.services.get_mut(&payments()).expect("declared").accounts = vec!["pay-v2".to_owned()];
    assert_eq!(world.catalogue.set_resources(resources, world.now), [stream]);
    assert!(world.endpoint("p1").is_none());
}

#[test]
fn a_service_is_unknown_until_somebody_declares_or_serves_it() {
    let mut world = World::new();
    let cart = ServiceName::new("shop", "cart");
    assert!(world.catalogue.view(&cart, world.now).is_none());
    assert!(world.view().is_some_and(|view| view.endpoints.is_empty()), "declared, so known");
    let mut one = registration("c1", "a", 1);
    (one.service, one.account) = (cart.clone(), "cart".to_owned());
    world.catalogue.register(StreamId(95), one, Health::Ready, world.now).expect("registered");
    assert!(world.catalogue.view(&cart, world.now).is_some());
    world.catalogue.deregister(StreamId(95), world.now);
    assert!(world.catalogue.view(&cart, world.now).is_none());
    assert!(world.catalogue.take_changes().services.contains(&cart));
}

#[test]
fn names_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new();
    for round in 0..50 {
        let name = ServiceName::new("shop", format!("s{round}"));
        let mut one = registration("c1", "a", 1);
        (one.service, one.account) = (name.clone(), name.service.to_string());
        world.catalogue.register(StreamId(1000 + round), one, Health::Ready, world.now).expect("registered");
        world.catalogue.deregister(StreamId(1000 + round), world.now);
    }
    assert!(world.catalogue.services.len() > 50);
    world.pass(601 * SECOND, never);
    assert_eq!(world.catalogue.services.keys().collect::<Vec<_>>(), [&payments()]);
    assert_eq!(world.catalogue.deregistrations(), [], "nobody is told of them any more");
    assert!(world.catalogue.streams.is_empty());
}

#[test]
fn loads_are_told_once_to_each_who_asks_and_survive_no_restart() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    let load = LoadReport { active_requests: 3, utilisation: None, error_rate: 0.0 };
    world.catalogue.report_load(stream, load, world.now);
    let seq = world.catalogue.load_seq();
    assert_eq!(world.catalogue.loads_since(&payments(), 0), [(EndpointId::new("p1"), load)]);
    assert!(world.catalogue.loads_since(&payments(), seq).is_empty());
    assert!(world.catalogue.take_changes().loads.contains(&payments()));
    world.register("p1", "a", 2);
    assert!(world.catalogue.loads_since(&payments(), 0).is_empty(), "a new life has no load yet");
}

#[test]
fn the_return_of_a_zone_is_published_with_its_age_and_a_first_start_is_none() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    assert!(world.view().expect("a view").returned.is_empty());
    world.catalogue.lost(stream, world.now);
    world.pass(SECOND, |_| ProbeOutcome::Refused);
    let again = world.register("p1", "a", 2);
    for _ in 0..10 {
        world.pass(SECOND, never);
        world.catalogue.heard(again, world.now);
    }
    let returned = world.view().expect("a view").returned.clone();
    assert_eq!(returned, BTreeMap::from([("a".into(), 10 * SECOND)]));
    let exported = world.catalogue.exports_for("eu-west")[&payments()].exported.clone();
    assert!(exported.zones[&Arc::from("a")].returned.is_some());
    for _ in 0..60 {
        world.pass(SECOND, never);
        world.catalogue.heard(again, world.now);
    }
    assert!(world.view().expect("a view").returned.is_empty());
}

#[test]
fn the_catalogue_is_bounded() {
    let mut world = World::new();
    let options = Options { max_endpoints: 2, ..Options::default() };
    world.catalogue = Catalogue::new(meta("us-east"), "gw-1", 1, options);
    world.register("p1", "a", 1);
    world.register("p2", "a", 1);
    let full = world.catalogue.register(StreamId(96), registration("p3", "a", 1), Health::Ready, world.now);
    assert_eq!(full, Err(RegisterError::Full(2)));
    world.register("p2", "a", 2);
    world.catalogue.deregister(StreamId(1), world.now);
    world.register("p3", "a", 1);
}

/// Registers `p1` at the port `port` over a new stream, as `account`.
fn claim(world: &mut World, incarnation: u64, port: u16, account: &str) -> Result<Option<StreamId>, RegisterError> {
    world.streams += 1;
    let address = ([127, 0, 0, 1], port).into();
    let claim = Registration { address, account: account.to_owned(), ..registration("p1", "a", incarnation) };
    world.catalogue.register(StreamId(world.streams), claim, Health::Ready, world.now)
}

#[test]
fn a_replica_cannot_take_the_name_of_a_living_one_with_any_incarnation() {
    let mut world = World::new();
    let service = Service { accounts: vec!["payments".to_owned(), "other".to_owned()], ..Service::default() };
    let resources = Resources { services: BTreeMap::from([(payments(), service)]), ..resources() };
    world.catalogue.set_resources(resources, world.now);
    claim(&mut world, 1, 15_008, "payments").expect("taken");
    for incarnation in [2, 1_000_000, u64::MAX] {
        let evicting = claim(&mut world, incarnation, 15_009, "payments");
        assert!(matches!(evicting, Err(RegisterError::Taken { .. })), "{evicting:?}");
        let foreign = claim(&mut world, incarnation, 15_008, "other");
        assert!(matches!(foreign, Err(RegisterError::Taken { .. })), "{foreign:?}");
    }
    assert_eq!(world.endpoint("p1").map(|endpoint| endpoint.address.port()), Some(15_008));
}

#[test]
fn a_restarted_or_moved_sidecar_takes_its_own_name_over() {
    let mut world = World::new();
    claim(&mut world, 1, 15_008, "payments").expect("taken");
    let first = StreamId(world.streams);
    assert_eq!(claim(&mut world, 2, 15_008, "payments"), Ok(Some(first)), "restarted, before its loss was noticed");
    let restarted = StreamId(world.streams);
    assert!(claim(&mut world, 3, 15_009, "payments").is_err(), "moved, while the old one still speaks");
    world.catalogue.lost(restarted, world.now);
    assert_eq!(claim(&mut world, 3, 15_009, "payments"), Ok(None), "moved");
    world.pass(Duration::from_secs(4), |_| ProbeOutcome::Answered);
    assert!(claim(&mut world, 4, 15_010, "payments").is_ok(), "moved away from a host that is silent");
}

#[test]
fn an_incarnation_that_no_clock_says_is_refused_and_leaves_room_for_successors() {
    let mut world = World::new();
    for incarnation in [u64::MAX, (1 << 52) + 1] {
        let refused = claim(&mut world, incarnation, 15_008, "payments");
        assert!(matches!(refused, Err(RegisterError::Incarnation { .. })), "{refused:?}");
    }
    claim(&mut world, 1 << 52, 15_008, "payments").expect("the greatest first one");
    claim(&mut world, (1 << 52) + 1, 15_008, "payments").expect("and its successor");
    assert!(claim(&mut world, 1 << 53, 15_008, "payments").is_err(), "a jump of many years");
}

#[test]
fn an_account_registers_no_more_endpoints_than_its_quota_whether_their_streams_live_or_not() {
    let mut world = World::new();
    world.catalogue = Catalogue::new(meta("us-east"), "gw-1", 1, Options { max_per_account: 3, ..Options::default() });
    world.catalogue.set_resources(resources(), world.now);
    for endpoint in ["p1", "p2", "p3"] {
        let stream = world.register(endpoint, "a", 1);
        world.catalogue.lost(stream, world.now);
    }
    world.streams += 1;
    let beyond =
        world.catalogue.register(StreamId(world.streams), registration("p4", "a", 1), Health::Ready, world.now);
    assert!(matches!(beyond, Err(RegisterError::Quota { count: 3, .. })), "{beyond:?}");
    let stream = world.register("p3", "a", 2);
    world.catalogue.deregister(stream, world.now);
    world.register("p4", "a", 1);
}
