use std::collections::BTreeMap;

use eastway_core::resource::{Idle, OnFailback, Protocol, ServicePort};
use eastway_core::view::{PeerView, RemoteZone, ServiceSpec, ServiceView, ZoneSummary};
use eastway_core::{Timestamp, Version, ZoneId};
use eastway_proto::federation::v1 as federation;
use eastway_registry::facts::ServiceFacts;
use eastway_registry::peers::{Beside, Exported, ZoneFacts};
use eastway_registry::reader::Statement;
use proptest::prelude::*;
use prost::Message;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(5_000_000);

fn meta(name: &str) -> ClusterMeta {
    let zones = BTreeMap::from([
        ("a".to_owned(), Some(Coordinates { latitude: 38.13, longitude: -78.45 })),
        ("b".to_owned(), None),
    ]);
    ClusterMeta {
        name: name.to_owned(),
        uid: "f00".to_owned(),
        region: "us-east-1".to_owned(),
        trust_domain: format!("{name}.mesh.internal"),
        zones,
    }
}

fn registration() -> wire::Registration {
    wire::Registration {
        endpoint: "payments-1".to_owned(),
        namespace: "shop".to_owned(),
        service: "payments".to_owned(),
        zone: "a".to_owned(),
        address: "127.0.0.1:15008".to_owned(),
        weight: 1.0,
        labels: [("version".to_owned(), "2".to_owned())].into(),
        incarnation: 7,
        capacity: 10,
        session: 3,
        health: wire::Health::Ready.into(),
    }
}

fn view() -> ServiceView {
    let endpoint = |id: &str, health| EndpointView {
        id: EndpointId::new(id),
        zone: "a".into(),
        address: ([127, 0, 0, 1], 15008).into(),
        weight: 2.5,
        health,
        incarnation: 9,
        capacity: 4,
        labels: Arc::new([("version".to_owned(), "2".to_owned())].into_iter().collect()),
        load: None,
    };
    let summary = ZoneSummary {
        total: 5,
        ready: 3,
        degraded: 1,
        draining: 1,
        capacity: 12.0,
        utilisation: Some(0.5),
        error_rate: 0.25,
        returned_ago: Some(Duration::from_secs(4)),
    };
    ServiceView {
        name: ServiceName::new("shop", "payments"),
        spec: ServiceSpec {
            policy: Default::default(),
            ports: vec![
                ServicePort::new(80, Protocol::Http),
                ServicePort::new(9090, Protocol::Grpc),
                ServicePort {
                    idle: Some(Idle::OFF),
                    on_failback: OnFailback::Drain,
                    ..ServicePort::new(5432, Protocol::Tcp)
                },
            ],
            accounts: ["payments".to_owned()].into(),
            locality_weights: BTreeMap::from([("eu-west/a".to_owned(), 0.5)]),
            failover: vec!["eu-west".to_owned()],
            export: Some(vec!["eu-west".to_owned()]),
        },
        endpoints: vec![Arc::new(endpoint("p1", Health::Ready)), Arc::new(endpoint("p2", Health::Down))],
        remote: vec![RemoteZone {
            zone: ZoneId::new("eu-west", "a"),
            accounts: ["payments".to_owned()].into(),
            summary,
        }],
        returned: BTreeMap::from([("b".into(), Duration::from_secs(9))]),
    }
}

#[test]
fn a_registration_round_trips_and_its_account_comes_from_the_certificate() {
    let (registration, health) = registration_from_wire(registration(), "payments").expect("valid");
    assert_eq!((registration.account.as_str(), health), ("payments", Health::Ready));
    assert_eq!(registration_to_wire(&registration, health), self::registration());
}

#[test]
fn every_malformed_field_of_a_registration_is_refused_by_name() {
    type Break = fn(&mut wire::Registration);
    let cases: [(&str, Break); 14] = [
        ("endpoint", |r| r.endpoint.clear()),
        ("endpoint", |r| r.endpoint = "a b".to_owned()),
        ("endpoint", |r| r.endpoint = "x".repeat(254)),
        ("namespace", |r| r.namespace = "Shop".to_owned()),
        ("service", |r| r.service = "a/b".to_owned()),
        ("zone", |r| r.zone.clear()),
        ("address", |r| r.address = "localhost:80".to_owned()),
        ("weight", |r| r.weight = -1.0),
        ("weight", |r| r.weight = f64::NAN),
        ("labels", |r| r.labels = (0..65).map(|i| (i.to_string(), String::new())).collect()),
        ("labels", |r| drop(r.labels.insert("k".to_owned(), "v".repeat(257)))),
        ("labels", |r| r.labels = (0..17).map(|i| (i.to_string(), "v".repeat(240))).collect()),
        ("labels", |r| drop(r.labels.insert("k".to_owned(), "a\u{1}b".to_owned()))),
        ("health", |r| r.health = 99),
    ];
    for (field, broken) in cases {
        let mut message = registration();
        broken(&mut message);
        let error = registration_from_wire(message, "payments").expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn the_mesh_round_trips() {
    let peer = PeerView {
        cluster: meta("eu-west"),
        trust_bundle: vec![vec![1, 2, 3]],
        path: PathState::Suspect,
        min_rtt: Some(Duration::from_micros(81_250)),
        staleness: Staleness::Stale2,
    };
    let mesh = MeshView { cluster: meta("us-east"), peers: vec![peer] };
    assert_eq!(mesh_from_wire(mesh_to_wire(&mesh)), Ok(mesh));
}

#[test]
fn clusters_without_a_uid_or_with_impossible_places_are_refused() {
    let break_it = |change: fn(&mut wire::Cluster)| {
        let mut cluster = cluster_to_wire(&meta("us-east"));
        change(&mut cluster);
        cluster_from_wire(cluster)
    };
    assert!(break_it(|_| {}).is_ok());
    assert!(break_it(|c| c.uid.clear()).is_err());
    assert!(break_it(|c| c.name = "Us".to_owned()).is_err());
    assert!(break_it(|c| c.zones[0].latitude = Some(91.0)).is_err());
    assert!(break_it(|c| c.zones[0].longitude = None).is_err());
    assert!(break_it(|c| c.zones[0].latitude = Some(f64::NAN)).is_err());
}

#[test]
fn a_view_round_trips_with_its_ages() {
    let facts = ServiceFacts::from_view(view(), NOW);
    let received = facts_from_wire(facts.name.clone(), facts_to_wire(&facts, NOW), NOW).expect("valid");
    assert_eq!(received, facts);
    let minute = Duration::from_secs(60);
    assert_eq!(received.at(NOW, minute), view());
    // What was sent later is older by then.
    let later = NOW + Duration::from_secs(5);
    let received = facts_from_wire(facts.name.clone(), facts_to_wire(&facts, later), later).expect("valid");
    assert_eq!(received.at(later, minute).returned["b"], Duration::from_secs(14));
}

#[test]
fn a_difference_round_trips() {
    let old = ServiceFacts::from_view(view(), NOW);
    let mut changed = view();
    changed.endpoints.remove(0);
    changed.remote[0].summary.ready = 0;
    changed.returned.clear();
    changed.spec.failover.clear();
    let new = ServiceFacts::from_view(changed, NOW);
    let delta = old.delta_to(&new).expect("differs");
    let received = delta_from_wire(delta_to_wire(&delta, NOW), NOW).expect("valid");
    let mut state = old;
    state.apply(received);
    assert_eq!(state, new);
}

#[test]
fn summaries_that_contradict_themselves_are_refused() {
    type Break = fn(&mut wire::ZoneSummary);
    let cases: [Break; 6] = [
        |s| s.ready = 6,
        |s| (s.ready, s.degraded) = (u32::MAX, 1),
        |s| s.capacity = f64::INFINITY,
        |s| s.error_rate = -0.1,
        |s| s.utilisation = Some(f32::NAN),
        |s| s.zone.clear(),
    ];
    for broken in cases {
        let mut message = facts_to_wire(&ServiceFacts::from_view(view(), NOW), NOW);
        broken(message.remote[0].summary.as_mut().expect("there is one"));
        assert!(facts_from_wire(view().name, message, NOW).is_err());
    }
}

#[test]
fn statements_round_trip_with_their_versions() {
    let facts = ZoneFacts {
        summary: ZoneSummary { total: 2, ready: 1, ..ZoneSummary::default() },
        returned: Some(NOW.before(Duration::from_secs(3))),
    };
    let ServiceSpec { ports, accounts, .. } = view().spec;
    let zones = [("a".into(), facts)].into_iter().collect();
    let has = [("a".into(), ZoneSummary { total: 1, ready: 1, ..ZoneSummary::default() })].into_iter().collect();
    let beside = Beside::told([("gw-2".into(), has)].into_iter().collect());
    let exported = Exported { ports: ports.into(), accounts, zones, beside };
    let untold = Exported { beside: Beside::default(), ..exported.clone() };
    let alone = Exported { beside: Beside::told(Default::default()), ..exported.clone() };
    let name = ServiceName::new("shop", "payments");
    let version = Version::new(4, 17);
    for statement in [
        Statement::Service(name.clone(), exported),
        Statement::Service(name.clone(), untold),
        Statement::Service(name.clone(), alone),
        Statement::Removed(name),
        Statement::SnapshotEnd(3),
        Statement::Heartbeat,
        Statement::GoAway,
    ] {
        let received = statement_from_wire(statement_to_wire(version, &statement, NOW), NOW);
        assert_eq!(received, Ok((version, statement)));
    }
    let empty = federation::SyncResponse::default();
    assert!(statement_from_wire(empty, NOW).is_err());
}

proptest! {
    /// Whatever bytes a peer sends, reading them ends in a value or an error.
    #[test]
    fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = wire::Registration::decode(&*bytes) {
            let _ = registration_from_wire(message, "x");
        }
        if let Ok(message) = wire::MeshView::decode(&*bytes) {
            let _ = mesh_from_wire(message);
        }
        if let Ok(message) = wire::ServiceView::decode(&*bytes) {
            let _ = facts_from_wire(view().name, message, NOW);
        }
        if let Ok(message) = wire::ServiceDelta::decode(&*bytes) {
            let _ = delta_from_wire(message, NOW);
        }
        if let Ok(message) = wire::LoadBatch::decode(&*bytes) {
            let _ = loads_from_wire(message);
        }
        if let Ok(message) = federation::SyncResponse::decode(&*bytes) {
            let _ = statement_from_wire(message, NOW);
        }
    }

    #[test]
    fn loads_round_trip(active_requests in any::<u32>(), utilisation in prop::option::of(0.0f32..4.0), error_rate in 0.0f32..=1.0) {
        let load = LoadReport { active_requests, utilisation, error_rate };
        prop_assert_eq!(load_from_wire(load_to_wire(load)), Ok(load));
    }
}
