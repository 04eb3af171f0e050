//! What the other gateways of the cluster say of their endpoints.

use super::*;
use crate::registration::EndpointState;

const SECOND: Duration = Duration::from_secs(1);
/// The stream over which the sibling speaks.
const STREAM: StreamId = StreamId(1_000);

fn state(reported: Health) -> EndpointState {
    EndpointState {
        incarnation: 1,
        session: 1,
        reported: Some(reported),
        down: false,
        load: None,
        attached: true,
        deregistered: false,
    }
}

fn key(endpoint: &str) -> Key {
    (payments(), EndpointId::new(endpoint))
}

fn list(world: &mut World, endpoints: &[&str]) {
    let slice = Slice { endpoints: endpoints.iter().map(|id| registration(id, "a", 1)).collect() };
    world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice), world.now);
}

fn say(world: &mut World, fact: Fact<Key, EndpointState>) {
    world.catalogue.sibling_facts(STREAM, "gw-2", 1, [fact], world.now);
}

fn whole(states: &[(&str, EndpointState)]) -> Fact<Key, EndpointState> {
    Fact::Snapshot(Version::new(1, 1), states.iter().map(|(id, state)| (key(id), *state)).collect())
}

#[test]
fn what_is_not_ready_at_one_gateway_is_not_ready_at_its_siblings_and_nobody_else_probes_it() {
    let mut world = World::new();
    let healths = [Health::Warming, Health::Degraded, Health::Draining, Health::Unready];
    let ids = ["p1", "p2", "p3", "p4"];
    list(&mut world, &ids);
    let states: Vec<_> = ids.into_iter().zip(healths.map(state)).collect();
    say(&mut world, whole(&states));
    world.pass(5 * SECOND, |probe| panic!("a probe of {probe:?}"));
    assert_eq!(ids.map(|id| world.health(id)), healths.map(Some));
    let ready = Fact::Change(Version::new(1, 2), key("p4"), Some(state(Health::Ready)));
    say(&mut world, ready);
    assert_eq!(world.health("p4"), Some(Health::Ready));
}

#[test]
fn what_a_sibling_found_down_is_down_and_its_loads_are_known() {
    let mut world = World::new();
    list(&mut world, &["p1", "p2"]);
    let load = LoadReport { active_requests: 7, utilisation: Some(0.5), error_rate: 0.0 };
    let down = EndpointState { down: true, ..state(Health::Ready) };
    say(&mut world, whole(&[("p1", down), ("p2", EndpointState { load: Some(load), ..state(Health::Ready) })]));
    assert_eq!((world.health("p1"), world.health("p2")), (Some(Health::Down), Some(Health::Ready)));
    assert_eq!(world.catalogue.loads_since(&payments(), 0), [(EndpointId::new("p2"), load)]);
    assert!(world.catalogue.take_changes().loads.contains(&payments()));
}

#[test]
fn a_peer_is_down_only_where_no_gateway_of_the_cluster_has_a_path_to_it() {
    use eastway_core::view::PathState::{self, Down, Suspect, Up};
    let mut world = World::new();
    let path = |world: &mut World, state| {
        let facts = PathFacts { state, ..Default::default() };
        world.catalogue.set_path("eu-west", "192.0.2.1:15443", facts);
        (world.catalogue.mesh().peers[0].path, world.catalogue.take_changes().mesh)
    };
    let reaches = |world: &mut World, stream, clusters: &[&str]| -> (PathState, bool) {
        let clusters = clusters.iter().map(|&cluster| cluster.to_owned()).collect();
        world.catalogue.sibling_reaches(stream, "gw-2", clusters);
        (world.catalogue.mesh().peers[0].path, world.catalogue.take_changes().mesh)
    };
    assert_eq!(path(&mut world, Down), (Down, true));
    assert_eq!(reaches(&mut world, STREAM, &["eu-west"]), (Down, false), "nobody has heard of that gateway");
    say(&mut world, whole(&[]));
    assert_eq!(reaches(&mut world, StreamId(999), &["eu-west"]), (Down, false), "another stream speaks for it");
    assert_eq!(reaches(&mut world, STREAM, &["eu-west", "ap-south"]), (Suspect, true));
    assert_eq!(reaches(&mut world, STREAM, &["eu-west"]), (Suspect, false), "of others nobody asked");
    assert_eq!(world.catalogue.reached().count(), 0, "what siblings reach is theirs to say");
    assert_eq!(path(&mut world, Up), (Up, true));
    assert_eq!(world.catalogue.reached().collect::<Vec<_>>(), ["eu-west"]);
    assert_eq!(reaches(&mut world, STREAM, &[]), (Up, false), "the own path counts");
    reaches(&mut world, STREAM, &["eu-west"]);
    assert_eq!(path(&mut world, Down), (Suspect, true));
    world.catalogue.sibling_lost(STREAM, "gw-2", world.now);
    assert_eq!((world.catalogue.mesh().peers[0].path, world.catalogue.take_changes().mesh), (Down, true));
}

/// Found by the simulation: the store was restored just after an endpoint had moved.
#[test]
fn an_endpoint_that_a_gateway_lets_go_of_is_still_there_if_another_states_that_it_has_it() {
    let mut world = World::new();
    let slice = |session| Slice { endpoints: vec![Registration { session, ..registration("p1", "a", 1) }] };
    let of = |session| EndpointState { session, ..state(Health::Ready) };
    world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice(2)), world.now);
    say(&mut world, whole(&[("p1", of(2))]));
    let moved = Fact::Snapshot(Version::new(1, 1), [(key("p1"), of(3))].into());
    world.catalogue.sibling_facts(StreamId(2_000), "gw-3", 1, [moved], world.now);
    // What the store lists of where it is now is older still.
    world.catalogue.load_slice("gw-3", &payments(), 0, Some(slice(1)), world.now);
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), None));
    world.catalogue.load_slice("gw-2", &payments(), 0, None, world.now);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.catalogue.load_slice("gw-3", &payments(), 0, Some(slice(3)), world.now);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    // It deregisters there.
    let gone = Fact::Change(Version::new(1, 2), key("p1"), Some(EndpointState::deregistered(1)));
    world.catalogue.sibling_facts(StreamId(2_000), "gw-3", 1, [gone], world.now);
    world.catalogue.load_slice("gw-3", &payments(), 0, None, world.now);
    assert_eq!(world.health("p1"), None);
}

#[test]
fn the_endpoints_of_a_sibling_that_fell_silent_are_probed_and_stay_as_they_were_until_then() {
    let mut world = World::new();
    list(&mut world, &["p1", "p2", "p3"]);
    let down = EndpointState { down: true, ..state(Health::Ready) };
    say(&mut world, whole(&[("p1", state(Health::Unready)), ("p2", state(Health::Ready)), ("p3", down)]));
    world.catalogue.sibling_lost(StreamId(999), "gw-2", world.now);
    world.pass(SECOND, |probe| panic!("another stream than the one that speaks was lost: {probe:?}"));
    world.catalogue.sibling_lost(STREAM, "gw-2", world.now);
    assert_eq!(["p1", "p2", "p3"].map(|id| world.health(id)), [Health::Unready, Health::Ready, Health::Down].map(Some));
    world.pass(3 * SECOND, |probe| match probe.endpoint.as_str() {
        "p2" => ProbeOutcome::Refused,
        _ => ProbeOutcome::Answered,
    });
    assert_eq!(["p1", "p2", "p3"].map(|id| world.health(id)), [Health::Unready, Health::Down, Health::Ready].map(Some));
    // It speaks again, and knows better.
    say(&mut world, Fact::Snapshot(Version::new(1, 5), [(key("p2"), state(Health::Ready))].into()));
    assert_eq!(world.health("p2"), Some(Health::Ready));
}

#[test]
fn what_said_goodbye_to_a_sibling_goes_at_once_and_what_that_still_states_is_held() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    list(&mut world, &["p1", "p2"]);
    say(&mut world, whole(&[("p1", state(Health::Draining)), ("p2", state(Health::Ready))]));
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), Some(EndpointState::deregistered(1))));
    list(&mut world, &[]);
    assert_eq!((world.health("p1"), world.health("p2")), (None, Some(Health::Ready)));
}

/// Found by the simulation: the gateway that it had moved to died, and the store was restored, before it was told here.
#[test]
fn what_a_sibling_let_go_of_without_a_goodbye_may_have_moved_and_is_held_while_probes_are_answered() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    list(&mut world, &["p1", "p2", "p3"]);
    let down = EndpointState { down: true, ..state(Health::Ready) };
    say(&mut world, whole(&[("p1", state(Health::Ready)), ("p2", state(Health::Ready)), ("p3", down)]));
    for (seq, endpoint) in [(2, "p1"), (3, "p2"), (4, "p3")] {
        say(&mut world, Fact::Change(Version::new(1, seq), key(endpoint), None));
    }
    list(&mut world, &[]);
    world.pass(SECOND, |probe| match probe.endpoint.as_str() {
        "p1" => ProbeOutcome::Answered,
        _ => ProbeOutcome::Refused,
    });
    assert_eq!(["p1", "p2", "p3"].map(|id| world.health(id)), [Some(Health::Ready), None, None]);
    world.pass(30 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), None, "it has not come back anywhere");
}

#[test]
fn what_a_sibling_let_go_of_because_its_account_may_not_serve_any_more_goes_at_once() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    let mut resources = resources();
    let others = vec!["others".to_owned()];
    resources.services.insert(payments(), Service { accounts: others, ..Service::default() });
    world.catalogue.set_resources(resources, world.now);
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), None));
    list(&mut world, &[]);
    world.pass(Duration::from_millis(100), |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), None);
}

#[test]
fn the_word_of_a_siblings_earlier_life_no_longer_counts() {
    let mut world = World::new();
    list(&mut world, &["p1"]);
    world.catalogue.sibling_facts(
        STREAM,
        "gw-2",
        2,
        [Fact::Snapshot(Version::new(2, 0), [(key("p1"), state(Health::Ready))].into())],
        world.now,
    );
    say(&mut world, whole(&[("p1", state(Health::Unready))]));
    assert_eq!(world.health("p1"), Some(Health::Ready));
}

#[test]
fn the_name_of_a_workload_that_speaks_to_a_sibling_is_not_to_be_had_here_by_another_one() {
    let mut world = World::new();
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    let stream = StreamId(7);
    let own = registration("p1", "a", 2);
    let other = Registration { address: ([127, 0, 0, 1], 9_999).into(), incarnation: 1_000_000, ..own.clone() };
    let evicting = world.catalogue.register(stream, other.clone(), Health::Ready, world.now);
    assert!(matches!(evicting, Err(RegisterError::Taken { .. })), "{evicting:?}");
    // Its stream to the sibling is lost: it may have moved to another host.
    let lost = EndpointState { attached: false, ..state(Health::Ready) };
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), Some(lost)));
    assert_eq!(world.catalogue.register(stream, other, Health::Ready, world.now), Ok(None));
}

#[test]
fn a_sidecar_that_moves_from_a_sibling_to_this_gateway_keeps_its_name() {
    let mut world = World::new();
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    let moved = Registration { session: 2, ..registration("p1", "a", 1) };
    assert_eq!(world.catalogue.register(StreamId(7), moved, Health::Ready, world.now), Ok(None));
}

#[test]
fn whether_the_stream_of_an_own_endpoint_speaks_is_stated() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    let attached = |world: &World| world.catalogue.statements().1[&key("p1")].attached;
    assert!(attached(&world));
    world.pass(4 * SECOND, |_| ProbeOutcome::Answered);
    assert!(!attached(&world), "silent");
    world.catalogue.heard(stream, world.now);
    assert!(attached(&world), "it speaks again");
    world.catalogue.lost(stream, world.now);
    assert!(!attached(&world), "lost");
}

#[test]
fn own_endpoints_are_stated_as_they_change() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.register("p2", "a", 1);
    list(&mut world, &["p3"]);
    let (version, states) = world.catalogue.statements();
    assert_eq!(states.keys().cloned().collect::<Vec<_>>(), [key("p1"), key("p2")], "a sibling's are its own to state");
    assert_eq!(states[&key("p1")], state(Health::Ready));
    assert!(world.catalogue.take_changes().statements);
    let load = LoadReport { active_requests: 3, ..LoadReport::default() };
    world.catalogue.report_load(stream, load, world.now);
    world.catalogue.report_health(stream, Health::Unready, "", world.now);
    assert!(world.catalogue.take_changes().statements);
    let (later, changes) = world.catalogue.statements_since(version.seq).expect("remembered");
    assert!(later > version);
    assert_eq!(changes, [(key("p1"), Some(EndpointState { load: Some(load), ..state(Health::Unready) }))]);
    world.catalogue.deregister(stream, world.now);
    let (last, changes) = world.catalogue.statements_since(later.seq).expect("remembered");
    let goodbye = [(key("p1"), Some(EndpointState::deregistered(1)))];
    assert_eq!(changes, goodbye);
    assert_eq!(world.catalogue.statements().1.len(), 1, "it is none of those that are here");
    assert_eq!(world.catalogue.deregistrations(), goodbye, "and yet told to who begins to listen");
    world.pass(601 * SECOND, |_| ProbeOutcome::Answered);
    let (_, changes) = world.catalogue.statements_since(last.seq).expect("remembered");
    assert_eq!(changes.iter().find(|(changed, _)| *changed == key("p1")), Some(&(key("p1"), None)));
}

/// Found by the simulation: a registration was still under way to one gateway when the workload said goodbye at another.
#[test]
fn who_said_goodbye_at_one_gateway_is_gone_at_all_of_them() {
    let mut world = World::new();
    let goodbye = Fact::Change(Version::new(1, 2), key("p1"), Some(EndpointState::deregistered(1)));
    let moved = |session| Registration { session, ..registration("p1", "a", 1) };
    let listed = |session| Some(Slice { endpoints: vec![moved(session)] });
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    assert_eq!(world.catalogue.register(StreamId(7), moved(2), Health::Ready, world.now), Ok(None));
    world.catalogue.load_slice("gw-3", &payments(), 0, listed(3), world.now);
    say(&mut world, goodbye.clone());
    assert_eq!(world.health("p1"), None, "neither what is registered here nor what a third one lists");
    let late = world.catalogue.register(StreamId(8), moved(4), Health::Ready, world.now);
    assert!(matches!(late, Err(RegisterError::Stale { highest: 1, .. })), "{late:?}");
    world.catalogue.load_slice("gw-3", &payments(), 0, listed(5), world.now);
    assert_eq!(world.health("p1"), None);
    assert_eq!(world.catalogue.deregistrations(), [], "who heard it tells it");
    // Its next life is welcome, whatever is said of the one before.
    let next = Registration { session: 1, ..registration("p1", "a", 2) };
    assert_eq!(world.catalogue.register(StreamId(9), next, Health::Ready, world.now), Ok(None));
    say(&mut world, goodbye);
    assert_eq!(world.health("p1"), Some(Health::Ready));
}

proptest! {
    /// What two siblings say, and what the store lists of them, comes over three ways: in any order of those, the view is
    /// the same.
    #[test]
    fn the_order_of_slices_and_statements_does_not_matter(
        changes in prop::collection::vec((any::<bool>(), 0usize..3, 0usize..5), 1..20),
        one in any::<u64>(),
        other in any::<u64>(),
    ) {
        let healths = [Health::Warming, Health::Ready, Health::Degraded, Health::Draining, Health::Unready];
        let end = |seed: u64| {
            let mut world = World::new();
            // The snapshot opens a stream; the slices come when they come, and so does what was delayed.
            let mut rest: Vec<usize> = (0..changes.len() + 2).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut rest);
            for gateway in ["gw-2", "gw-3"] {
                let fact = Fact::Snapshot(Version::new(1, 0), BTreeMap::new());
                world.catalogue.sibling_facts(STREAM, gateway, 1, [fact], world.now);
            }
            let gateway = |second: bool| if second { "gw-3" } else { "gw-2" };
            let id = |second: bool, index: usize| format!("{}-{index}", gateway(second));
            for step in rest {
                match step.checked_sub(2) {
                    None => {
                        let second = step == 1;
                        let endpoints = (0..3).map(|index| registration(&id(second, index), "a", 1)).collect();
                        let slice = Some(Slice { endpoints });
                        world.catalogue.load_slice(gateway(second), &payments(), 0, slice, world.now);
                    }
                    Some(change) => {
                        let (second, index, health) = changes[change];
                        let version = Version::new(1, 1 + change as u64);
                        let fact = Fact::Change(version, key(&id(second, index)), Some(state(healths[health])));
                        world.catalogue.sibling_facts(STREAM, gateway(second), 1, [fact], world.now);
                    }
                }
            }
            world.view().expect("declared").endpoints.iter().map(|e| (e.id.clone(), e.health)).collect::<Vec<_>>()
        };
        prop_assert_eq!(end(one), end(other));
    }
}

/// Found by the simulation: the sibling's statements came later than the store's changes.
#[test]
fn what_a_sibling_has_not_stated_yet_has_not_ended_there() {
    let mut world = World::new();
    say(&mut world, whole(&[]));
    list(&mut world, &["p1"]);
    list(&mut world, &[]);
    assert_eq!(world.health("p1"), Some(Health::Ready), "held, because the list proves nothing");
    list(&mut world, &["p1"]);
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), Some(state(Health::Ready))));
    say(&mut world, Fact::Change(Version::new(1, 3), key("p1"), Some(EndpointState::deregistered(1))));
    list(&mut world, &[]);
    assert_eq!(world.health("p1"), None, "it ended there");
}

/// Found by the simulation: the store was restored and read late, and hid that an endpoint had moved.
#[test]
fn what_another_gateway_states_that_it_has_now_is_held_until_the_store_says_so() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    list(&mut world, &["p1", "p2", "p3"]);
    let stated = EndpointState { session: 2, ..state(Health::Ready) };
    let moved = Fact::Snapshot(Version::new(1, 1), [(key("p1"), stated)].into());
    world.catalogue.sibling_facts(StreamId(2_000), "gw-3", 1, [moved], world.now);
    say(&mut world, whole(&[("p1", state(Health::Ready)), ("p2", state(Health::Ready)), ("p3", state(Health::Ready))]));
    say(&mut world, Fact::Change(Version::new(1, 2), key("p1"), None));
    list(&mut world, &["p2", "p3"]);
    world.pass(120 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.catalogue.sibling_lost(StreamId(2_000), "gw-3", world.now);
    world.pass(9 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.pass(2 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), None, "nobody says any more that it is anywhere");
}

/// Found by the simulation: the gateway stood still for longer than the hold, and then lost the stream of the one that vouched.
#[test]
fn what_was_vouched_for_is_held_anew_once_nobody_is_heard_to() {
    let mut world = World::new();
    world.catalogue.gateway_registered("gw-2", world.now);
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    list(&mut world, &[]);
    world.now = world.now + 120 * SECOND;
    world.catalogue.sibling_lost(STREAM, "gw-2", world.now);
    world.pass(25 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.pass(6 * SECOND, |_| ProbeOutcome::Answered);
    assert_eq!(world.health("p1"), None);
}

/// Found by the simulation: a copy of the store without it was restored, and then the store was not reached from here.
#[test]
fn what_its_gateway_still_states_is_held_for_as_long_as_it_does() {
    let mut world = World::new();
    list(&mut world, &["p1"]);
    say(&mut world, whole(&[("p1", state(Health::Ready))]));
    list(&mut world, &[]);
    world.pass(120 * SECOND, |probe| panic!("a probe of {probe:?}"));
    assert_eq!(world.health("p1"), Some(Health::Ready));
    world.catalogue.sibling_lost(STREAM, "gw-2", world.now);
    world.pass(SECOND, |_| ProbeOutcome::Refused);
    assert_eq!(world.health("p1"), None);
}
