//! Facts and what is told of them, as a table.

use std::collections::BTreeMap;

use eastway_core::view::{PathState, Staleness, Transport};
use eastway_node::listing::{ClusterListing, Counts};
use eastway_node::problem::Severity::{self, Error, Warning};
use eastway_server::store::{MemberHealth, StoreHealth};
use eastway_server::{BundleStatus, PeerPath, PeerStatus, SiblingStatus};

use super::*;

/// What a gateway of us-east with a sibling and one peer with two gateways finds when all is well.
#[derive(Clone)]
struct World {
    admin: SocketAddr,
    draining: bool,
    certificate: Certificate,
    server: ServerStatus,
    services: Vec<ServiceListing>,
}

fn path(number: u8) -> PeerPath {
    PeerPath {
        address: format!("192.0.2.{number}:15443"),
        gateway: Some(format!("gateway-{number}")),
        state: PathState::Up,
        min_rtt_ms: Some(80.0),
        draining: false,
        refuses: false,
        rtt_ms: Some(82.0),
        loss: Some(0.0),
        transport: Some(Transport::Quic),
        transport_cause: None,
        transport_changes: 0,
        epoch: Some(1),
        seq: Some(2),
        age_seconds: Some(0.5),
        offered: Some(1),
    }
}

fn listing(clusters: &[(&str, u32, u32)]) -> ServiceListing {
    let counts = |total, ready| Counts { total, ready, ..Counts::default() };
    let cluster = |&(name, total, ready): &(&str, u32, u32)| ClusterListing {
        cluster: name.to_owned(),
        own: name == "us-east",
        counts: counts(total, ready),
        accounts: vec!["payments".to_owned()],
        zones: Vec::new(),
    };
    let own = clusters.iter().find(|(name, ..)| *name == "us-east");
    ServiceListing {
        name: "shop/payments".to_owned(),
        ports: Vec::new(),
        declared: Some(true),
        accounts: vec!["payments".to_owned()],
        exported_to: vec!["*".to_owned(), "eu-west".to_owned()],
        endpoints: own.map(|(_, total, ready)| counts(*total, *ready)).unwrap_or_default(),
        clusters: clusters.iter().map(cluster).collect(),
    }
}

impl World {
    fn well() -> Self {
        let peer = PeerStatus {
            cluster: "eu-west".to_owned(),
            trust_domain: "eu-west.mesh.internal".to_owned(),
            staleness: Some(Staleness::Fresh),
            idle: false,
            paths: vec![path(1), path(2)],
            cut: BTreeMap::new(),
            uid: Some("u".to_owned()),
            region: Some("eu".to_owned()),
            age_seconds: Some(0.5),
            bundle: BundleStatus { certificates: 1, days_left: Some(3000.0), days: Some(3650.0) },
            exported: 1,
            offered: 1,
            imported: 1,
            unmatched_imports: Vec::new(),
        };
        let member = |address: &str| MemberHealth { address: address.to_owned(), failures: 0, last_error: None };
        let store = StoreHealth {
            kind: "etcd",
            healthy: true,
            member: Some("http://10.0.0.1:2379".to_owned()),
            age_seconds: Some(0.1),
            last_error: None,
            members: ["http://10.0.0.1:2379", "http://10.0.0.2:2379"].map(member).into(),
        };
        let sibling = SiblingStatus { registered: true, speaks: true, epoch: Some(6) };
        Self {
            admin: ADMIN,
            draining: false,
            certificate: Certificate { days_left: 60.0, days: 90.0 },
            server: ServerStatus {
                gateway: "gateway-1".to_owned(),
                epoch: 7,
                replaced_by: None,
                fenced_by: BTreeMap::new(),
                cluster_uid: "c".to_owned(),
                services: 1,
                endpoints: BTreeMap::new(),
                siblings: BTreeMap::from([("gateway-2".to_owned(), sibling)]),
                peers: vec![peer],
                store,
                state_age_seconds: None,
            },
            services: vec![listing(&[("us-east", 2, 2), ("eu-west", 3, 3)])],
        }
    }

    fn judged(&self) -> Vec<Problem> {
        judge(&Facts {
            cluster: "us-east",
            gateway: "gateway-1",
            identity: "spiffe://us-east.mesh.internal/eastway/gateway/gateway-1",
            admin: self.admin,
            draining: self.draining,
            certificate: self.certificate,
            server: &self.server,
            services: &self.services,
        })
    }

    fn peer(&mut self) -> &mut PeerStatus {
        &mut self.server.peers[0]
    }

    fn sibling(&mut self) -> &mut SiblingStatus {
        self.server.siblings.get_mut("gateway-2").expect("the sibling")
    }
}

/// What happened, the kinds of problems that are told with their severities, and words that have to be in them.
type Row = (&'static str, fn(&mut World), &'static [(Severity, &'static str)], &'static [&'static str]);

const ROWS: &[Row] = &[
    ("all is well", |_| {}, &[], &[]),
    (
        "a path is down",
        |world| world.peer().paths[1].state = PathState::Down,
        &[(Warning, "path_down")],
        &["gateway-2 of eu-west (192.0.2.2:15443)", "eastway status"],
    ),
    (
        "the peer refuses this cluster",
        |world| {
            world.peer().paths.iter_mut().for_each(|path| path.state = PathState::Down);
            world.peer().paths[0].refuses = true;
        },
        &[(Error, "peer_refuses")],
        &[
            "eu-west answers (at 192.0.2.1:15443), and refuses us-east",
            "`eastway peer remove eu-west`",
            "`eastway peer token`",
        ],
    ),
    (
        "a path answers no pings right now",
        |world| world.peer().paths[0].state = PathState::Suspect,
        &[(Warning, "path_suspect")],
        &["gateway-1 of eu-west", "eastway peers"],
    ),
    (
        "a path has just been made",
        |world| {
            world.peer().paths[0].state = PathState::Unknown;
            world.peer().paths[0].gateway = None;
        },
        &[(Warning, "path_unknown")],
        &["the gateway of eu-west at 192.0.2.1:15443"],
    ),
    (
        "a path loses pings",
        |world| world.peer().paths[0].loss = Some(0.12),
        &[(Warning, "path_loss")],
        &["12 %", "mtr --udp 192.0.2.1"],
    ),
    (
        "UDP to a gateway is blocked",
        |world| {
            let path = &mut world.peer().paths[0];
            (path.transport, path.transport_cause) = (Some(Transport::Tcp), Some("blocked"));
        },
        &[(Warning, "udp_blocked")],
        &["goes over TCP, because it does not answer over QUIC", "drops UDP to 192.0.2.1", "`tunnel.transports`"],
    ),
    (
        "a gateway was started again, and QUIC is not used again yet",
        |world| {
            let path = &mut world.peer().paths[0];
            (path.transport, path.transport_cause) = (Some(Transport::Tcp), Some("recovering"));
        },
        &[],
        &[],
    ),
    (
        "UDP to a gateway is policed",
        |world| {
            let path = &mut world.peer().paths[0];
            (path.transport, path.transport_cause) = (Some(Transport::Tcp), Some("lossy"));
        },
        &[(Warning, "udp_lossy")],
        &["QUIC leaves far more pings unanswered", "limits UDP"],
    ),
    (
        "TCP is preferred, and does not get through",
        |world| {
            let path = &mut world.peer().paths[0];
            (path.transport, path.transport_cause) = (Some(Transport::Quic), Some("blocked"));
        },
        &[(Warning, "tcp_blocked")],
        &["goes over QUIC, because it does not answer over TCP"],
    ),
    ("a path lost a ping", |world| world.peer().paths[0].loss = Some(1.0 / 240.0), &[], &[]),
    (
        "one gateway of the peer is silent",
        |world| world.peer().paths[1].age_seconds = Some(5.0),
        &[(Warning, "path_silent")],
        &["gateway-2 of eu-west", "others of eu-west do"],
    ),
    (
        "one gateway of the peer was never heard",
        |world| (world.peer().paths[1].epoch, world.peer().paths[1].age_seconds) = (None, None),
        &[(Warning, "path_silent")],
        &["does not take us-east for its peer"],
    ),
    (
        "a gateway of the peer drains",
        |world| world.peer().paths[0].draining = true,
        &[(Warning, "path_draining")],
        &["gateway-1 of eu-west"],
    ),
    (
        "all paths are down",
        |world| {
            world.peer().paths.iter_mut().for_each(|path| path.state = PathState::Down);
            world.peer().staleness = Some(Staleness::Stale1);
            world.peer().age_seconds = Some(12.3);
        },
        &[(Error, "peer_unreachable")],
        &["no gateway of eu-west", "192.0.2.1:15443, 192.0.2.2:15443", "12 s old (stale-1)", "eastway peers"],
    ),
    (
        "the peer never came up",
        |world| {
            world.peer().paths.truncate(1);
            world.peer().paths[0].state = PathState::Down;
            (world.peer().staleness, world.peer().age_seconds) = (None, None);
        },
        &[(Error, "peer_unreachable")],
        &["it was never heard", "do not run yet"],
    ),
    (
        "the peer has no gateways",
        |world| world.peer().paths.clear(),
        &[(Error, "peer_unreachable")],
        &["eu-west", "no address"],
    ),
    (
        "the peer answers but was never heard",
        |world| (world.peer().staleness, world.peer().age_seconds) = (None, None),
        &[(Error, "peer_unheard")],
        &["eu-west does not declare us-east as its peer"],
    ),
    (
        "stale for seconds",
        |world| (world.peer().staleness, world.peer().age_seconds) = (Some(Staleness::Stale1), Some(4.0)),
        &[(Warning, "peer_stale")],
        &["4 s old (stale-1)", "frozen"],
    ),
    (
        "stale for a minute",
        |world| (world.peer().staleness, world.peer().age_seconds) = (Some(Staleness::Stale2), Some(60.0)),
        &[(Error, "peer_stale")],
        &["60 s old (stale-2)", "second choice"],
    ),
    (
        "stale for an hour",
        |world| (world.peer().staleness, world.peer().age_seconds) = (Some(Staleness::Stale3), Some(3600.0)),
        &[(Error, "peer_stale")],
        &["3600 s old (stale-3)", "last resort"],
    ),
    (
        "the pinned CA expires",
        |world| world.peer().bundle.days_left = Some(6.5),
        &[(Warning, "bundle_expiring")],
        &["the pinned CA of eu-west expires in 6 days", "trustBundle"],
    ),
    (
        "the pinned CA has expired",
        |world| world.peer().bundle.days_left = Some(-1.0),
        &[(Error, "bundle_expired")],
        &["24 h ago", "kill -HUP"],
    ),
    (
        "what a peer says exceeds bounds",
        |world| world.peer().cut = BTreeMap::from([("capacity", 1), ("region", 2), ("zones", 3)]),
        &[(Warning, "cut"), (Warning, "cut"), (Warning, "cut")],
        &["`zones` exceeded a bound 3 times", "endpointCapacity", "set `region` in `Peer` eu-west", "`peering`"],
    ),
    (
        "an import rule matches nothing",
        |world| world.peer().unmatched_imports = vec!["shop/paiments".to_owned()],
        &[(Warning, "import_unmatched")],
        &["`shop/paiments` of `Peer` eu-west", "eastway services"],
    ),
    (
        "the store fails",
        |world| {
            world.server.store.healthy = false;
            world.server.store.last_error = Some("connection refused".to_owned());
            world.server.store.members[0].failures = 3;
        },
        &[(Error, "store_unhealthy")],
        &["connection refused", "etcdctl endpoint status --endpoints http://10.0.0.1:2379,http://10.0.0.2:2379"],
    ),
    (
        "it started without the store",
        |world| world.server.state_age_seconds = Some(90),
        &[(Warning, "started_without_store")],
        &["from what that held 90 s ago"],
    ),
    (
        "the disk is full",
        |world| {
            (world.server.store.kind, world.server.store.healthy) = ("embedded", false);
            world.server.store.members.truncate(1);
            world.server.store.members[0].address = "/var/lib/eastway".to_owned();
        },
        &[(Error, "store_unhealthy")],
        &["df -h /var/lib/eastway"],
    ),
    (
        "a member of the store fails",
        |world| world.server.store.members[1].failures = 2,
        &[(Warning, "store_member_failing")],
        &["http://10.0.0.2:2379", "2 times"],
    ),
    (
        "a sibling is silent",
        |world| world.sibling().speaks = false,
        &[(Warning, "sibling_silent")],
        &["gateway-2 of us-east"],
    ),
    (
        "a sibling is not registered",
        |world| world.sibling().registered = false,
        &[(Warning, "sibling_unregistered")],
        &["gateway-2 of us-east", "cannot reach the store"],
    ),
    (
        "a sibling is gone",
        |world| (world.sibling().registered, world.sibling().speaks) = (false, false),
        &[(Warning, "sibling_gone")],
        &["endpoints are left", "eastway endpoints"],
    ),
    (
        "the certificate expires",
        |world| world.certificate.days_left = 3.0,
        &[(Warning, "certificate_expiring")],
        &["gateway/gateway-1 expires in 3 days", "eastway ca issue"],
    ),
    (
        "a short-lived certificate expires",
        |world| world.certificate = Certificate { days_left: 0.3, days: 1.0 },
        &[(Warning, "certificate_expiring")],
        &["in 7 h"],
    ),
    (
        "a short-lived certificate lasts",
        |world| world.certificate = Certificate { days_left: 0.6, days: 1.0 },
        &[],
        &[],
    ),
    (
        "the certificate has expired",
        |world| world.certificate.days_left = -2.0,
        &[(Error, "certificate_expired")],
        &["2 days ago"],
    ),
    (
        "another process took the id over",
        |world| world.server.replaced_by = Some(9),
        &[(Error, "replaced")],
        &["gateway-1 in epoch 9", "epoch 7"],
    ),
    (
        "a peer knows a later life",
        |world| {
            world.server.fenced_by.insert("spiffe://eu-west.mesh.internal/eastway/gateway/gateway-1".to_owned(), 8);
        },
        &[(Error, "fenced")],
        &["spiffe://eu-west.mesh.internal", "epoch 8; this is 7", "timedatectl"],
    ),
    ("it drains", |world| world.draining = true, &[(Warning, "draining")], &["gateway-1 is draining"]),
    (
        "nobody serves a service",
        |world| world.services = vec![listing(&[("us-east", 0, 0)])],
        &[(Warning, "service_unserved")],
        &["nobody serves shop/payments"],
    ),
    (
        "no endpoint of a service is ready",
        |world| world.services = vec![listing(&[("us-east", 2, 0), ("eu-west", 1, 0)])],
        &[(Error, "service_down")],
        &["shop/payments", "3 are known", "`eastway endpoints shop/payments`"],
    ),
    (
        "other clusters serve it",
        |world| world.services = vec![listing(&[("us-east", 2, 0), ("eu-west", 1, 1)])],
        &[(Warning, "service_down_here")],
        &["in us-east is ready", "other clusters serve it"],
    ),
    (
        "it has no endpoints here and is served elsewhere",
        |world| world.services = vec![listing(&[("us-east", 0, 0), ("eu-west", 1, 1)])],
        &[],
        &[],
    ),
    (
        "an exported service has no accounts",
        |world| world.services[0].clusters[0].accounts.clear(),
        &[(Error, "service_without_accounts")],
        &["exported service shop/payments of us-east"],
    ),
    (
        "a peer offers a service without accounts",
        |world| world.services[0].clusters[1].accounts.clear(),
        &[(Error, "service_without_accounts")],
        &["shop/payments of eu-west", "kill -HUP"],
    ),
    (
        "a service is exported to a stranger",
        |world| world.services[0].exported_to = vec!["eu-wset".to_owned()],
        &[(Warning, "export_unmatched")],
        &["exported to eu-wset, which is no peer of us-east"],
    ),
    (
        "the worst comes first",
        |world| {
            world.draining = true;
            world.services = vec![listing(&[("us-east", 2, 0)])];
        },
        &[(Error, "service_down"), (Warning, "draining")],
        &[],
    ),
];

#[test]
fn each_fact_has_its_problem_with_a_cause_and_a_next_step() {
    for (name, happens, expected, words) in ROWS {
        let mut world = World::well();
        happens(&mut world);
        let judged = world.judged();
        let kinds: Vec<_> = judged.iter().map(|problem| (problem.severity, problem.kind)).collect();
        assert_eq!(kinds, *expected, "{name}: {judged:?}");
        for Problem { what, cause, next, .. } in &judged {
            assert!([what, cause, next].iter().all(|text| !text.is_empty()), "{name}: {what}");
        }
        let told: String = judged.iter().map(|p| format!("{}\n{}\n{}\n", p.what, p.cause, p.next)).collect();
        for word in *words {
            assert!(told.contains(word), "{name}: `{word}` is not told: {told}");
        }
    }
}

#[test]
fn commands_name_the_gateway_that_was_asked_unless_it_listens_where_all_do() {
    let mut world = World::well();
    world.services = vec![listing(&[("us-east", 2, 0)])];
    let next = |world: &World| world.judged().remove(0).next;
    assert_eq!(next(&world), "`eastway endpoints shop/payments`");
    world.admin = ([127, 1, 0, 1], 15_000).into();
    assert_eq!(next(&world), "`eastway endpoints shop/payments --admin 127.1.0.1:15000`");
    world.admin.set_port(0);
    assert_eq!(next(&world), "`eastway endpoints shop/payments`");
}

#[test]
fn a_thousand_broken_services_are_told_in_a_screenful() {
    let mut world = World::well();
    world.services = vec![listing(&[("us-east", 2, 0)]); 1000];
    let judged = world.judged();
    assert_eq!(judged.len(), 21);
    assert!(judged[20].what.starts_with("980 more services"), "{:?}", judged[20]);
}
