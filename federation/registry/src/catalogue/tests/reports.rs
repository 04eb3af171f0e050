//! What operators are told of peers and of endpoints.

use super::*;
use crate::peers::{GatewayReport, PeerReport};
use crate::registration::EndpointState;

const SECOND: Duration = Duration::from_secs(1);

fn answered(_: &Probe) -> ProbeOutcome {
    ProbeOutcome::Answered
}

fn reports(world: &World) -> Vec<EndpointReport> {
    world.catalogue.endpoints(&payments(), world.now)
}

#[test]
fn a_peer_that_was_never_heard_has_a_report_without_a_word_and_a_stranger_has_none() {
    let world = World::new();
    assert_eq!(world.catalogue.peer_report("eu-west", world.now), Some(PeerReport::default()));
    assert_eq!(world.catalogue.peer_report("mars", world.now), None);
}

#[test]
fn the_report_of_a_peer_tells_versions_ages_and_what_the_rules_take() {
    let mut world = World::new();
    let ledger = ServiceName::new("bank", "ledger");
    let services = [payments(), ledger].map(|name| (name, exported(&[("a", 1, 1)])));
    world.peer_says(3, snapshot(3, 7, &services));
    let mut resources = resources();
    resources.peers.insert("eu-west".to_owned(), peer(&["shop/*", "shop/paiments"]));
    world.catalogue.set_resources(resources, world.now);
    world.pass(4 * SECOND, answered);
    let report = world.catalogue.peer_report("eu-west", world.now).expect("declared");
    assert_eq!((report.offered, report.imported, report.staleness), (2, 1, Some(Staleness::Stale1)));
    assert_eq!(report.unmatched, ["shop/paiments"]);
    let gateway = GatewayReport { version: Version::new(3, 7), age: 4 * SECOND, offered: 2, silent: false };
    assert_eq!((report.gateways, report.age), (BTreeMap::from([("gw-9".to_owned(), gateway)]), Some(4 * SECOND)));
    assert_eq!(report.uid.as_deref(), Some("eu-west-uid"));
}

#[test]
fn an_own_endpoint_is_told_with_its_sidecars_last_word_or_the_probes_that_replace_it() {
    let mut world = World::new();
    let stream = world.register("p1", "a", 1);
    world.now = world.now + SECOND;
    let told = &reports(&world)[0];
    assert_eq!((&*told.gateway, told.own, told.session), ("gw-1", true, 1));
    assert_eq!((told.speaker, told.reported), (Speaker::Sidecar { age: SECOND }, Some(Health::Ready)));
    world.catalogue.report_health(stream, Health::Unready, "no answer\x1b[2J within 1s", world.now);
    assert_eq!(&*reports(&world)[0].words, "no answer[2J within 1s", "a terminal obeys control characters");
    world.catalogue.report_health(stream, Health::Ready, &"x".repeat(1_000), world.now);
    assert_eq!(reports(&world)[0].words.len(), 160);
    world.catalogue.lost(stream, world.now);
    assert_eq!(reports(&world)[0].speaker, Speaker::Probes { probed: false, failures: 0, down_for: None });
    world.pass(SECOND, |_| ProbeOutcome::Refused);
    let Speaker::Probes { probed: true, failures: 2.., down_for: Some(down_for) } = reports(&world)[0].speaker else {
        panic!("{:?}", reports(&world));
    };
    assert!(down_for <= SECOND, "{down_for:?}");
    assert_eq!(reports(&world)[0].view.health, Health::Down);
}

#[test]
fn an_endpoint_of_a_sibling_is_told_with_the_gateway_that_has_it() {
    let mut world = World::new();
    let slice = Slice { endpoints: vec![registration("p1", "a", 1)] };
    world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice), world.now);
    let told = &reports(&world)[0];
    assert_eq!((&*told.gateway, told.own, told.reported), ("gw-2", false, None));
    let state = EndpointState {
        incarnation: 1,
        session: 1,
        reported: Some(Health::Degraded),
        down: false,
        load: None,
        attached: true,
        deregistered: false,
    };
    let whole = Fact::Snapshot(Version::new(1, 1), [((payments(), EndpointId::new("p1")), state)].into());
    world.catalogue.sibling_facts(StreamId(1_000), "gw-2", 1, [whole], world.now);
    assert_eq!(reports(&world)[0].speaker, Speaker::Gateway { attached: true, down: false });
    // It vanishes from the slices without a word, and is still told as the sibling's.
    world.catalogue.load_slice(
        "gw-2",
        &payments(),
        0,
        Some(Slice { endpoints: vec![registration("p2", "a", 1)] }),
        world.now,
    );
    let told = reports(&world);
    assert!(told.iter().all(|report| &*report.gateway == "gw-2"), "{told:?}");
}
