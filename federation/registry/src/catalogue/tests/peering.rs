//! What peers say.

use eastway_core::view::PathState;
use litemap::LiteMap;

use super::*;
use crate::peers::{Beside, Zones};

const SECOND: Duration = Duration::from_secs(1);

fn no_probe(_: &Probe) -> ProbeOutcome {
    ProbeOutcome::Answered
}

#[test]
fn a_peer_is_visible_with_its_first_whole_snapshot() {
    let mut world = World::new();
    world.peer_says(1, Fact::Change(Version::new(1, 5), payments(), Some(exported(&[("a", 2, 2)]))));
    assert!(world.remote_ready().is_empty() && world.staleness().is_none());
    world.peer_says(1, snapshot(1, 4, &[(payments(), exported(&[("a", 2, 2), ("b", 1, 1)]))]));
    assert_eq!(world.remote_ready(), BTreeMap::from([("eu-west/a".into(), 2), ("eu-west/b".into(), 1)]));
    let mesh = world.catalogue.mesh();
    assert_eq!((mesh.peers[0].staleness, mesh.peers[0].trust_bundle.len()), (Staleness::Fresh, 1));
    assert!(world.catalogue.take_changes().mirrors.contains("eu-west"));
}

#[test]
fn the_ladder_follows_the_heartbeat_and_silence_empties_nothing() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 2, 2)]))]));
    let start = world.now;
    for (seconds, expected) in
        [(2.9, Staleness::Fresh), (3.1, Staleness::Stale1), (31.0, Staleness::Stale2), (901.0, Staleness::Stale3)]
    {
        world.now = start + Duration::from_secs_f64(seconds);
        world.catalogue.tick(world.now);
        assert_eq!(world.staleness(), Some(expected), "{seconds} s");
        assert_eq!(world.remote_ready()["eu-west/a"], 2, "{seconds} s");
    }
    world.peer_says(1, Fact::Alive);
    assert_eq!(world.staleness(), Some(Staleness::Fresh));
}

#[test]
fn a_lower_epoch_changes_nothing_and_proves_no_life() {
    let mut world = World::new();
    world.peer_says(5, snapshot(5, 0, &[(payments(), exported(&[("a", 2, 2)]))]));
    world.pass(10 * SECOND, no_probe);
    world.peer_says(4, snapshot(4, 900, &[]));
    world.peer_says(4, Fact::Change(Version::new(4, 901), payments(), None));
    world.peer_says(4, Fact::Alive);
    assert_eq!(world.remote_ready()["eu-west/a"], 2);
    assert_eq!(world.staleness(), Some(Staleness::Stale1));
}

#[test]
fn only_imported_services_of_declared_peers_appear() {
    let mut world = World::new();
    let other = ServiceName::new("bank", "payments");
    world.peer_says(1, snapshot(1, 0, &[(other.clone(), exported(&[("a", 1, 1)]))]));
    assert!(world.catalogue.view(&other, world.now).is_none(), "no peer attracts traffic by exporting a name");
    world.catalogue.peer_fact(
        &meta("mars"),
        "gw-9",
        1,
        snapshot(1, 0, &[(payments(), exported(&[("a", 1, 1)]))]),
        world.now,
    );
    assert!(world.remote_ready().is_empty());

    let mut resources = resources();
    resources.peers.insert("eu-west".to_owned(), peer(&["*"]));
    world.catalogue.set_resources(resources, world.now);
    assert!(world.catalogue.view(&other, world.now).is_some(), "imports apply at once");
    world.catalogue.set_resources(Resources::default(), world.now);
    assert!(world.catalogue.view(&other, world.now).is_none() && world.catalogue.mesh().peers.is_empty());
}

#[test]
fn a_restarted_peer_that_forgot_half_of_a_service_is_not_believed_for_30_seconds() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 4, 4)]))]));
    let before = world.view();
    world.peer_says(2, snapshot(2, 0, &[]));
    assert_eq!(world.view(), before);
    world.pass(20 * SECOND, no_probe);
    assert_eq!(world.view(), before);
    world.peer_says(2, Fact::Change(Version::new(2, 1), payments(), Some(exported(&[("a", 3, 3)]))));
    world.pass(SECOND, no_probe);
    assert_eq!(world.remote_ready()["eu-west/a"], 3, "it remembers: believed at once");

    world.peer_says(3, snapshot(3, 0, &[]));
    world.pass(31 * SECOND, no_probe);
    assert!(world.remote_ready().is_empty());
}

#[test]
fn the_data_plane_can_confirm_what_is_held() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 4, 4)]))]));
    world.peer_says(2, snapshot(2, 0, &[]));
    world.catalogue.confirm_gone(&payments(), &ZoneId::new("eu-west", "a"), world.now);
    assert!(world.remote_ready().is_empty());
}

#[test]
fn within_one_life_a_peer_is_believed_at_once() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 4, 4)]))]));
    world.peer_says(1, Fact::Change(Version::new(1, 1), payments(), None));
    assert!(world.remote_ready().is_empty());
}

#[test]
fn the_gateways_of_a_cluster_are_summed_and_a_lost_one_is_not_counted_twice() {
    let mut world = World::new();
    let says = |world: &mut World, gateway: &str, fact: Fact| {
        world.catalogue.peer_fact(&meta("eu-west"), gateway, 1, fact, world.now);
    };
    says(&mut world, "gw-8", snapshot(1, 0, &[(payments(), exported(&[("a", 2, 1), ("b", 1, 1)]))]));
    says(&mut world, "gw-9", snapshot(1, 0, &[(payments(), exported(&[("a", 3, 3)]))]));
    assert_eq!(world.remote_ready(), BTreeMap::from([("eu-west/a".into(), 4), ("eu-west/b".into(), 1)]));
    for _ in 0..40 {
        world.pass(SECOND, no_probe);
        says(&mut world, "gw-9", Fact::Alive);
    }
    says(&mut world, "gw-9", Fact::Change(Version::new(1, 1), payments(), Some(exported(&[("a", 5, 5)]))));
    // What only the lost one said of b is old.
    assert_eq!(world.remote_ready(), BTreeMap::from([("eu-west/a".into(), 5), ("eu-west/b".into(), 0)]));
    let degraded = world.view().expect("a view").remote.iter().map(|zone| zone.summary.degraded).collect::<Vec<_>>();
    assert_eq!(degraded, [0, 1]);
    assert_eq!(world.staleness(), Some(Staleness::Fresh));
}

#[test]
fn a_rebuilt_cluster_replaces_its_namesake_and_the_old_ones_last_words_are_dropped() {
    let mut world = World::new();
    world.peer_says(9, snapshot(9, 0, &[(payments(), exported(&[("a", 4, 4)]))]));
    let rebuilt = ClusterMeta { uid: "another".to_owned(), ..meta("eu-west") };
    let fact = snapshot(1, 0, &[(payments(), exported(&[("b", 4, 4)]))]);
    world.catalogue.peer_fact(&rebuilt, "gw-9", 1, fact, world.now);
    assert_eq!(world.remote_ready(), BTreeMap::from([("eu-west/b".into(), 4)]));
    world.peer_says(9, snapshot(9, 5, &[]));
    world.peer_says(9, Fact::Change(Version::new(9, 6), payments(), None));
    assert_eq!(world.remote_ready(), BTreeMap::from([("eu-west/b".into(), 4)]));
}

#[test]
fn a_stored_mirror_is_visible_at_once_as_stale_and_the_gateway_itself_outranks_it() {
    let mut world = World::new();
    world.peer_says(3, snapshot(3, 7, &[(payments(), exported(&[("a", 4, 4)]))]));
    let stored = world.catalogue.mirrors("eu-west");
    let text = serde_json::to_string(&stored).expect("JSON");
    let stored: Vec<crate::StoredMirror> = serde_json::from_str(&text).expect("read back");

    let mut cold = World::new();
    for mirror in stored.clone() {
        cold.catalogue.load_mirror(mirror, cold.now);
    }
    assert_eq!(cold.remote_ready()["eu-west/a"], 4);
    assert_eq!(cold.staleness(), Some(Staleness::Stale2));
    cold.peer_says(4, snapshot(4, 0, &[(payments(), exported(&[("a", 3, 3)]))]));
    assert_eq!((cold.staleness(), cold.remote_ready()["eu-west/a"]), (Some(Staleness::Fresh), 3));
    for mirror in stored {
        cold.catalogue.load_mirror(mirror, cold.now);
    }
    assert_eq!(cold.remote_ready()["eu-west/a"], 3);
}

#[test]
fn exports_are_opt_in_and_versions_grow_with_each_statement() {
    let mut world = World::new();
    world.register("p1", "a", 1);
    let first = world.catalogue.exports_for("eu-west")[&payments()].clone();
    assert_eq!(
        (first.exported.zones[&Arc::from("a")].summary.ready, first.seq),
        (1, world.catalogue.export_version().seq)
    );
    let stream = world.register("p2", "a", 1);
    let second = world.catalogue.exports_for("eu-west")[&payments()].clone();
    assert!(second.seq > first.seq && world.catalogue.take_changes().exports);

    let load = LoadReport { active_requests: 1, utilisation: Some(0.5), error_rate: 0.0 };
    world.catalogue.report_load(stream, load, world.now);
    assert_eq!(world.catalogue.export_version().seq, second.seq, "loads wait for the next second");
    world.catalogue.refresh_statements(world.now);
    assert!(world.catalogue.export_version().seq > second.seq);

    let mut resources = resources();
    resources.services.get_mut(&payments()).expect("declared").export = vec!["mars".to_owned()];
    world.catalogue.set_resources(resources, world.now);
    assert!(world.catalogue.exports_for("eu-west").is_empty() && !world.catalogue.exports_for("mars").is_empty());
}

#[test]
fn paths_are_told_when_they_change_state_or_their_length_noticeably() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[]));
    world.catalogue.take_changes();
    let mut path = |state, micros: u64| {
        let facts = PathFacts { state, min_rtt: Some(Duration::from_micros(micros)), ..Default::default() };
        world.catalogue.set_path("eu-west", "192.0.2.1:15443", facts);
        world.catalogue.take_changes().mesh
    };
    use eastway_core::view::PathState::{Down, Up};
    assert!(path(Up, 80_000));
    assert!(!path(Up, 80_500), "half a millisecond of 80 is no news");
    assert!(path(Up, 120_000));
    assert!(path(Down, 120_000));
    assert_eq!(world.catalogue.mesh().peers[0].path, Down);
}

/// What sidecars are told of the distance to eu-west, after a path to it was said to be so.
fn told(world: &mut World, host: u8, state: PathState, millis: Option<u64>) -> Option<Duration> {
    let facts = PathFacts { state, min_rtt: millis.map(Duration::from_millis), ..Default::default() };
    world.catalogue.set_path("eu-west", &format!("192.0.2.{host}:15443"), facts);
    world.catalogue.mesh().peers[0].min_rtt
}

#[test]
fn a_distance_outlasts_the_outage_of_every_path() {
    use PathState::{Down, Unknown, Up};
    let ms = |millis| Some(Duration::from_millis(millis));
    let mut world = World::new();
    assert_eq!(told(&mut world, 1, Unknown, None), None);
    assert_eq!(told(&mut world, 1, Up, Some(40)), ms(40));
    assert_eq!(told(&mut world, 1, Down, Some(40)), ms(40));
    world.catalogue.take_changes();
    assert_eq!(told(&mut world, 1, Unknown, Some(40)), ms(40), "another connection");
    assert!(world.catalogue.take_changes().mesh, "its state is news");
    assert_eq!(told(&mut world, 1, Up, Some(90)), ms(90), "measured anew, and farther");
}

#[test]
fn a_gateway_that_takes_the_place_of_another_is_as_far_away_until_it_is_measured() {
    use PathState::{Down, Unknown, Up};
    let ms = |millis| Some(Duration::from_millis(millis));
    let mut world = World::new();
    told(&mut world, 1, Up, Some(40));
    world.catalogue.remove_path("eu-west", "192.0.2.1:15443");
    assert_eq!(told(&mut world, 2, Unknown, None), ms(40));
    assert_eq!(told(&mut world, 2, Up, Some(60)), ms(60));
    // Of several that work, the nearest; of those that do not, none.
    assert_eq!(told(&mut world, 3, Up, Some(30)), ms(30));
    assert_eq!(told(&mut world, 3, Down, Some(30)), ms(60));
    assert_eq!(told(&mut world, 2, Down, Some(60)), ms(60));
    assert_eq!(told(&mut world, 3, Up, Some(30)), ms(30));
    world.catalogue.remove_path("eu-west", "192.0.2.3:15443");
    assert_eq!(told(&mut world, 2, Up, Some(60)), ms(60));
    // A peer that is no longer declared is forgotten.
    world.catalogue.set_resources(Resources { peers: BTreeMap::new(), ..resources() }, world.now);
    world.catalogue.set_resources(resources(), world.now);
    assert_eq!(told(&mut world, 2, Unknown, None), None);
}

#[test]
fn zones_that_only_a_gone_gateway_reported_are_second_choice_and_vanish_after_15_minutes_if_others_speak() {
    let mut world = World::new();
    world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 2, 2)]))]));
    let other = snapshot(1, 0, &[(payments(), exported(&[("b", 3, 3)]))]);
    world.catalogue.peer_fact(&meta("eu-west"), "gw-8", 1, other, world.now);
    world.catalogue.take_changes();
    for second in 1..900 {
        world.now = world.now + Duration::from_secs(1);
        world.peer_says(1, Fact::Alive);
        world.catalogue.tick(world.now);
        // As all of a peer is that has not been heard for 30 s.
        let ready = if second < 30 { 3 } else { 0 };
        assert_eq!(world.remote_ready().into_values().collect::<Vec<_>>(), [2, ready], "{second} s");
    }
    world.now = world.now + Duration::from_secs(1);
    world.peer_says(1, Fact::Alive);
    world.catalogue.tick(world.now);
    assert_eq!(world.remote_ready().into_iter().collect::<Vec<_>>(), [("eu-west/a".to_owned(), 2)]);
    assert!(world.catalogue.take_changes().mirrors.contains("eu-west"), "its mirror goes too");
    assert_eq!(world.catalogue.mirrors("eu-west").len(), 1);
    // All of them silent: nothing is taken away.
    world.pass(Duration::from_secs(2_000), |_| ProbeOutcome::Answered);
    assert_eq!(world.remote_ready().len(), 1);
}

#[test]
fn what_a_gateway_has_that_is_not_heard_is_known_by_the_word_of_its_siblings() {
    let mut world = World::new();
    let beside = |zones: &[(&str, u32, u32)]| {
        let zones = exported(zones).zones.into_iter().map(|(zone, facts)| (zone, facts.summary)).collect();
        Beside::told([(Arc::from("gw-8"), zones)].into_iter().collect())
    };
    let says = |beside: Beside| Exported { beside, ..exported(&[("a", 2, 2)]) };
    let ready = |world: &World| world.remote_ready().into_values().collect::<Vec<_>>();
    world.peer_says(1, snapshot(1, 0, &[(payments(), says(beside(&[("b", 3, 2)])))]));
    let other = snapshot(1, 0, &[(payments(), exported(&[("b", 3, 3)]))]);
    world.catalogue.peer_fact(&meta("eu-west"), "gw-8", 1, other, world.now);
    assert_eq!(ready(&world), [2, 3], "by its own word, and once");
    for second in 1..=40 {
        world.now = world.now + Duration::from_secs(1);
        world.peer_says(1, Fact::Alive);
        world.catalogue.tick(world.now);
        assert_eq!(ready(&world), [2, if second < 3 { 3 } else { 2 }], "{second} s");
    }
    // One moved there from the gateway that speaks, and one began there.
    let moved = Exported { zones: LiteMap::new(), ..says(beside(&[("a", 2, 2), ("b", 3, 3), ("c", 1, 1)])) };
    world.peer_says(1, Fact::Change(Version::new(1, 1), payments(), Some(moved)));
    assert_eq!(ready(&world), [2, 3, 1]);
    world.peer_says(1, Fact::Change(Version::new(1, 2), payments(), Some(says(Beside::told(LiteMap::new())))));
    assert_eq!(ready(&world), [2], "it has lost all of them");
    world.catalogue.peer_fact(&meta("eu-west"), "gw-8", 1, Fact::Alive, world.now);
    world.catalogue.tick(world.now);
    assert_eq!(ready(&world), [2, 3], "it is heard again");
}

/// Found by the simulation: for a moment after an outage, what a gateway had said before it counted beside what another says now.
#[test]
fn after_an_outage_the_word_of_the_first_that_is_heard_counts_for_the_others_at_once() {
    let mut world = World::new();
    let says =
        |world: &mut World, gateway: &str, seq, own: &[(&str, u32, u32)], other: &str, beside: &[(&str, u32, u32)]| {
            let sums: Zones = exported(beside).zones.into_iter().map(|(zone, facts)| (zone, facts.summary)).collect();
            let beside = Beside::told([(Arc::from(other), sums)].into_iter().collect());
            let word = snapshot(1, seq, &[(payments(), Exported { beside, ..exported(own) })]);
            world.catalogue.peer_fact(&meta("eu-west"), gateway, 1, word, world.now);
            world.catalogue.take_changes();
            world.remote_ready().into_values().collect::<Vec<_>>()
        };
    says(&mut world, "gw-1", 1, &[], "gw-2", &[("a", 1, 1)]);
    assert_eq!(says(&mut world, "gw-2", 1, &[("a", 1, 1)], "gw-1", &[]), [1]);
    // Both are silent for long; meanwhile the endpoint moves from the second to the first.
    world.now = world.now + 20 * SECOND;
    assert_eq!(says(&mut world, "gw-2", 2, &[], "gw-1", &[("a", 1, 1)]), [1], "what the first said is too old");
}

#[test]
fn a_gateway_tells_peers_what_its_siblings_have_once_a_second() {
    let mut world = World::new();
    world.catalogue.register(StreamId(1), registration("p1", "a", 1), Health::Ready, world.now).expect("registered");
    world.catalogue.take_changes();
    let version = Version::new(7, 0);
    let state = EndpointState {
        incarnation: 1,
        session: 1,
        reported: Some(Health::Ready),
        down: false,
        load: None,
        attached: true,
        deregistered: false,
    };
    let slice = Slice { endpoints: vec![registration("p2", "b", 1)] };
    world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice), world.now);
    let key = (payments(), EndpointId::new("p2"));
    let facts = [Fact::Snapshot(version, [(key, state)].into())];
    world.catalogue.sibling_facts(StreamId(2), "gw-2", 7, facts, world.now);
    let beside = |world: &World| world.catalogue.exports_for("eu-west")[&payments()].exported.beside.clone();
    let before = world.catalogue.export_version();
    world.catalogue.refresh_statements(world.now);
    assert!(world.catalogue.export_version() > before, "it is stated");
    let told = beside(&world);
    let holders: Vec<_> = told.holders().collect();
    assert_eq!((holders.len(), &**holders[0].0, holders[0].1[&Arc::from("b")].ready), (1, "gw-2", 1));
    let stated = world.catalogue.export_version();
    world.catalogue.refresh_statements(world.now);
    assert_eq!(world.catalogue.export_version(), stated, "nothing is new");
}

#[test]
fn a_peer_that_cannot_be_heard_is_known_by_its_declared_bundle_and_serves_nothing() {
    let world = World::new();
    let mesh = world.catalogue.mesh();
    let peer = mesh.peers.first().expect("declared");
    assert_eq!((&*peer.cluster.name, &*peer.cluster.trust_domain), ("eu-west", "eu-west.mesh.internal"));
    assert_eq!((peer.trust_bundle.as_slice(), peer.staleness), ([vec![1, 2, 3]].as_slice(), Staleness::Stale3));
    assert!(!peer.cluster.uid.is_empty(), "sidecars refuse a cluster without one");
    assert_eq!(world.staleness(), None);
}

#[test]
fn callers_learn_whether_their_own_cluster_offers_what_a_peer_does() {
    let mut world = World::new();
    let cart = ServiceName::new("shop", "cart");
    world.peer_says(1, snapshot(1, 0, &[(cart.clone(), exported(&[("a", 1, 1)]))]));
    let offered = |world: &World| world.catalogue.view(&cart, world.now).map(|view| view.spec.export.is_some());
    assert_eq!(offered(&world), Some(false), "only the peer has it");
    let mut one = registration("c1", "a", 1);
    (one.service, one.account) = (cart.clone(), "cart".to_owned());
    world.catalogue.register(StreamId(95), one, Health::Ready, world.now).expect("registered");
    assert_eq!(offered(&world), Some(true), "served");
    world.catalogue.deregister(StreamId(95), world.now);
    assert_eq!(offered(&world), Some(false));
    let declared = BTreeMap::from([(cart.clone(), Service::default())]);
    world.catalogue.set_resources(Resources { services: declared, ..resources() }, world.now);
    assert_eq!(offered(&world), Some(true), "declared");
}

#[test]
fn a_peer_has_no_more_gateways_than_are_kept_and_what_is_cut_is_told() {
    let mut world = World::new();
    for gateway in 0..40 {
        let said = snapshot(1, 0, &[(payments(), exported(&[("a", 1, 1)]))]);
        world.catalogue.peer_fact(&meta("eu-west"), &format!("gw-{gateway}"), 1, said, world.now);
    }
    assert_eq!(world.catalogue.mirrors("eu-west").len(), 16);
    assert_eq!(world.catalogue.cut("eu-west").iter().collect::<Vec<_>>(), [("gateways", 24)]);
}

#[test]
fn all_that_a_peer_says_together_is_bounded_and_what_is_known_may_still_change() {
    let mut world = World::new();
    let peer = crate::options::PeerBounds { entries: 10, ..Default::default() };
    let options = Options { peer, ..Options::default() };
    world.catalogue = Catalogue::new(meta("us-east"), "gw-1", 1, options);
    world.catalogue.set_resources(resources(), world.now);
    let name = |n: u32| ServiceName::new("shop", format!("s{n}"));
    let services: Vec<_> = (0..9).map(|n| (name(n), exported(&[("a", 1, 1)]))).collect();
    world.peer_says(1, snapshot(1, 0, &services));
    let count = |world: &World| world.catalogue.mirrors("eu-west")[0].services.len();
    assert_eq!(count(&world), 5, "a service and its zone are two entries");
    world.peer_says(1, Fact::Change(Version::new(1, 1), name(20), Some(exported(&[("a", 1, 1)]))));
    assert_eq!(count(&world), 5);
    world.peer_says(1, Fact::Change(Version::new(1, 2), name(0), None));
    world.peer_says(1, Fact::Change(Version::new(1, 3), name(20), Some(exported(&[("a", 1, 1)]))));
    assert_eq!(count(&world), 5, "where one went, another has room");
    assert_eq!(world.catalogue.cut("eu-west").iter().collect::<Vec<_>>(), [("services", 2)]);
}

#[test]
fn a_peer_that_claims_this_clusters_region_and_an_endless_capacity_gets_neither() {
    let mut world = World::new();
    let mut said = exported(&[("a", 2, 2)]);
    said.zones.iter_mut().for_each(|(_, zone)| zone.summary.capacity = 1e300);
    let claims = ClusterMeta { region: meta("us-east").region, ..meta("eu-west") };
    world.catalogue.peer_fact(&claims, "gw-9", 1, snapshot(1, 0, &[(payments(), said)]), world.now);
    assert_eq!(world.catalogue.mesh().peers[0].cluster.region, "eu-west");
    let view = world.view().expect("known");
    assert!(view.remote[0].summary.capacity <= 20_000.0, "{:?}", view.remote[0].summary);
}
