//! One subscription through streams, holes and reconnects. (Discovery as a whole is tested with real gateways in
//! `federation/server`.)

use eastway_core::view::{EndpointView, RemoteZone, ServiceSpec, ZoneSummary};
use eastway_core::{EndpointId, Health, ServiceName, Timestamp, ZoneId};
use eastway_registry::facts::{Delta, RemoteFacts, ServiceFacts};

use super::*;

const HOLD: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn endpoint(id: &str, health: Health) -> Arc<EndpointView> {
    Arc::new(EndpointView {
        id: EndpointId::new(id),
        zone: "a".into(),
        address: ([127, 0, 0, 1], 1).into(),
        weight: 1.0,
        health,
        incarnation: 1,
        capacity: 0,
        labels: Default::default(),
        load: None,
    })
}

fn facts(endpoints: &[&str], zones: &[&str]) -> ServiceFacts {
    let remote = |zone: &&str| RemoteFacts {
        zone: RemoteZone {
            zone: ZoneId::new("eu-west", *zone),
            accounts: Default::default(),
            summary: ZoneSummary { total: 1, ready: 1, ..ZoneSummary::default() },
        },
        returned: None,
    };
    ServiceFacts {
        name: ServiceName::new("shop", "payments"),
        spec: ServiceSpec::default(),
        endpoints: endpoints.iter().map(|id| endpoint(id, Health::Ready)).collect(),
        remote: zones.iter().map(remote).collect(),
        returned: BTreeMap::new(),
    }
}

/// The names of endpoints and remote zones that callers see.
fn seen(subscription: &Subscription, now: Timestamp) -> Option<(Vec<String>, Vec<String>)> {
    let view = subscription.view(now)?;
    let endpoints = view.endpoints.iter().map(|endpoint| endpoint.id.to_string()).collect();
    Some((endpoints, view.remote.iter().map(|zone| zone.zone.zone.to_string()).collect()))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A subscription whose stream stated `facts`.
fn following(facts: ServiceFacts) -> Subscription {
    let mut subscription = Subscription::new(at(0));
    subscription.snapshot(facts, at(0), HOLD);
    subscription
}

#[test]
fn within_a_stream_the_gateway_is_believed() {
    let mut subscription = following(facts(&["p1", "p2"], &["a"]));
    let delta = Delta { remove: vec![EndpointId::new("p1"), EndpointId::new("p2")], ..Delta::default() };
    subscription.delta(delta);
    assert_eq!(seen(&subscription, at(1)), Some((vec![], names(&["a"]))));
    subscription.snapshot(facts(&[], &[]), at(2), HOLD);
    assert_eq!(seen(&subscription, at(2)), Some((vec![], vec![])));
    subscription.unknown(at(3), HOLD);
    assert!(subscription.is_unknown());
}

#[test]
fn after_a_reconnect_half_of_a_service_that_misses_is_held() {
    let mut subscription = following(facts(&["p1", "p2", "p3", "p4"], &["a", "b"]));
    subscription.disconnected();
    assert_eq!(seen(&subscription, at(500)).expect("kept").0.len(), 4, "silence removes nothing");
    subscription.snapshot(facts(&["p1", "p2"], &[]), at(500), HOLD);
    assert_eq!(seen(&subscription, at(500)), Some((names(&["p1", "p2", "p3", "p4"]), names(&["a", "b"]))));
    assert!(!subscription.tick(at(529)));
    assert!(subscription.tick(at(530)));
    assert_eq!(seen(&subscription, at(530)), Some((names(&["p1", "p2"]), vec![])));
}

#[test]
fn less_than_half_is_believed_at_once() {
    let mut subscription = following(facts(&["p1", "p2", "p3"], &["a"]));
    subscription.disconnected();
    subscription.snapshot(facts(&["p1", "p2"], &["a"]), at(1), HOLD);
    assert_eq!(seen(&subscription, at(1)), Some((names(&["p1", "p2"]), names(&["a"]))));
}

#[test]
fn what_comes_back_during_the_hold_is_as_the_gateway_says() {
    let mut subscription = following(facts(&["p1"], &[]));
    subscription.disconnected();
    subscription.snapshot(facts(&[], &[]), at(1), HOLD);
    let back = Delta { upsert: vec![endpoint("p1", Health::Unready)], ..Delta::default() };
    subscription.delta(back);
    assert_eq!(subscription.view(at(2)).expect("known").endpoints[0].health, Health::Unready);
    assert!(subscription.tick(at(31)));
    assert_eq!(subscription.view(at(31)).expect("known").endpoints[0].health, Health::Unready);
}

#[test]
fn a_gateway_that_knows_nothing_yet_does_not_make_a_service_unknown() {
    let mut subscription = following(facts(&["p1"], &["a"]));
    subscription.disconnected();
    subscription.unknown(at(10), HOLD);
    assert_eq!(seen(&subscription, at(10)), Some((names(&["p1"]), names(&["a"]))));
    assert!(!subscription.is_unknown());
    assert!(subscription.tick(at(40)));
    assert!(subscription.is_unknown() && subscription.view(at(40)).is_none());
}

#[test]
fn a_second_reconnect_keeps_what_the_first_one_held() {
    let mut subscription = following(facts(&["p1", "p2"], &[]));
    subscription.disconnected();
    subscription.snapshot(facts(&[], &[]), at(1), HOLD);
    subscription.disconnected();
    subscription.snapshot(facts(&["p1"], &[]), at(2), HOLD);
    assert_eq!(seen(&subscription, at(2)), Some((names(&["p1", "p2"]), vec![])));
}

#[test]
fn unused_and_unknown_services_are_over() {
    let (unused, negative) = (Duration::from_secs(600), Duration::from_secs(5));
    let mut subscription = following(facts(&["p1"], &[]));
    assert!(!subscription.is_over(at(599), unused, negative));
    assert!(subscription.is_over(at(600), unused, negative));
    subscription.used(at(600));
    assert!(!subscription.is_over(at(600), unused, negative));
    subscription.unknown(at(601), HOLD);
    assert!(!subscription.is_over(at(605), unused, negative));
    assert!(subscription.is_over(at(606), unused, negative));
}
