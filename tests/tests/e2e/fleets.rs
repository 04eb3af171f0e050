//! Three gateways per cluster on an etcd of three members: any of them may go, in whatever way, and nobody notices.

use std::collections::BTreeSet;
use std::time::Instant;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, PAYMENTS_SPEC, StoreKind, reaches, service};
use eastway_tests::{check, client, eventually};

/// A service that eu-west alone offers.
const LEDGER: &str = "http://ledger.shop.mesh.internal/";
/// Gateways of each cluster, and members of its etcd.
const SIZE: usize = 3;
/// Answers to each caller while a gateway is away, and after it is back.
const BETWEEN: u64 = 25;

/// Two clusters with workloads in both, and a caller of each kind in us-east.
struct Fleets {
    lab: Lab,
    storefront: LabNode,
}

impl Fleets {
    /// The ledger's endpoints are in the zones given.
    fn start(ledgers: [&str; 2]) -> Self {
        let mut lab = Lab::new();
        for cluster in ["us-east", "eu-west"] {
            lab.plan(cluster, StoreKind::Etcd, "").enlarge(cluster, SIZE);
        }
        let offers = "export: ['*'], ports: [{ port: 80 }]";
        for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
            let mut resources = vec![service("payments", offers), lab.peer(peer, "imports: ['shop/*']")];
            resources.extend((cluster == "eu-west").then(|| service("ledger", offers)));
            lab.declare(cluster, &resources);
            lab.start_gateways(cluster);
        }
        for (zone, number) in ledgers.into_iter().zip(1..) {
            lab.payments("us-east", "a", &format!("payments-{number}"));
            let ip = lab.host();
            lab.workload("eu-west", zone, &format!("ledger-{number}"), "ledger", ip);
        }
        let storefront = lab.storefront("us-east", "a");
        reaches(storefront.proxy(), "us-east/a");
        eventually("the ledger answers", || {
            let answer = client::get(storefront.proxy(), LEDGER)?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
        Self { lab, storefront }
    }

    /// Every gateway, those of us-east first.
    fn gateways(&self) -> Vec<LabNode> {
        ["us-east", "eu-west"].into_iter().flat_map(|cluster| self.lab.gateways(cluster)).collect()
    }

    /// Calls without a pause while each gateway in turn `goes` and `returns`. Not one request may fail, and no registration may
    /// be lost.
    fn survive(mut self, turns: &[usize], goes: impl Fn(&mut Lab, &LabNode), returns: impl Fn(&mut Lab, &LabNode)) {
        let callers = [PAYMENTS, LEDGER].map(|url| Caller::start(self.storefront.proxy(), url));
        go_on(&callers);
        let (gateways, begin) = (self.gateways(), Instant::now());
        let mut away = Vec::new();
        for turn in turns {
            let gateway = &gateways[*turn];
            let gone = begin.elapsed();
            goes(&mut self.lab, gateway);
            go_on(&callers);
            returns(&mut self.lab, gateway);
            away.push(format!("{} {:.2?}", gateway.name, gone..begin.elapsed()));
            self.lab.wait_ready(gateway);
            go_on(&callers);
        }
        let tallies = callers.map(Caller::finish);
        let failures: Vec<&String> = tallies.iter().flat_map(|tally| &tally.failures).collect();
        let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
        let failed = failures.len();
        assert!(failures.is_empty(), "{failed} of {answered} requests failed: {failures:#?}; away were {away:#?}");
        for gateway in &gateways {
            eventually(&format!("{} knows every endpoint", gateway.name), || {
                let status = client::get(gateway.at(15000), "/status")?.json();
                let endpoints = &status["federation"]["endpoints"];
                check(*endpoints == serde_json::json!({ "ready": 2 }), || endpoints.to_string())
            });
        }
    }
}

fn start(lab: &mut Lab, gateway: &LabNode) {
    lab.start_role("gateway", &gateway.name);
}

fn go_on(callers: &[Caller]) {
    for caller in callers {
        caller.answers(BETWEEN);
    }
}

#[test]
fn every_gateway_of_both_clusters_is_killed_in_turn_and_no_request_or_registration_is_lost() {
    // One cluster after the other, then alternating and in reverse.
    let turns = [0, 1, 2, 3, 4, 5, 5, 2, 4, 1, 3, 0];
    Fleets::start(["a", "a"]).survive(&turns, |lab, gateway| lab.kill(&gateway.name), start);
}

#[test]
fn every_gateway_of_both_clusters_is_restarted_in_order_and_no_request_is_lost() {
    let terminate = |lab: &mut Lab, gateway: &LabNode| {
        let ended = lab.take(&gateway.name).terminate();
        assert_eq!(ended.code(), Some(0), "{}", gateway.name);
    };
    Fleets::start(["a", "a"]).survive(&[0, 3, 1, 4, 2, 5], terminate, start);
}

#[test]
fn every_gateway_of_both_clusters_stands_still_in_turn_and_costs_no_request_where_zones_have_one_endpoint() {
    // Its kernel acknowledges what it gets, so that only silence tells: each request that went by it is repeated once. The
    // repetition must not go by it again on the way to the other zone.
    let signal = |name| move |lab: &mut Lab, gateway: &LabNode| lab.process(&gateway.name).signal(name);
    Fleets::start(["a", "b"]).survive(&[3, 0, 4, 1, 5, 2, 3, 0, 4, 1, 5, 2], signal("STOP"), signal("CONT"));
}

/// Sessions do not stay with a gateway that is known to be gone until a request finds that out: one that cannot be repeated would be lost.
#[test]
fn sessions_move_from_a_gateway_that_stands_still_before_a_request_goes_by_it() {
    let Fleets { mut lab, storefront } = Fleets::start(["a", "a"]);
    let leads_there = |gateway: &LabNode| {
        let open = gateway.metric("eastway_tunnel_streams_active", &["peer_cluster=\"us-east\""]);
        open.is_ok_and(|open| open > 0.0)
    };
    let gone = eventually("a session", || {
        lab.gateways("eu-west").into_iter().find(leads_there).ok_or_else(|| "by no gateway".to_owned())
    });
    let moves = |lab: &mut Lab| lab.process(&storefront.name).log().matches("its sessions move").count();
    let before = moves(&mut lab);
    lab.process(&gone.name).signal("STOP");
    eventually("they move", || check(moves(&mut lab) > before, || "none did".to_owned()));
    for number in 0..30 {
        let answer = client::send(storefront.proxy(), "POST", LEDGER, &[], b"once").expect("an answer");
        assert_eq!(answer.status, 200, "POST {number} after {} was gone: {answer:?}", gone.name);
    }
}

/// A gateway that has no room takes what it can, and everybody else goes by another.
#[test]
fn sidecars_go_by_another_gateway_where_one_is_full() {
    let mut lab = Lab::new();
    for cluster in ["us-east", "eu-west"] {
        lab.plan(cluster, StoreKind::Etcd, "");
    }
    lab.enlarge("us-east", 2);
    for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        let offers = (cluster == "eu-west").then(|| service("ledger", "export: ['*'], ports: [{ port: 80 }]"));
        let peer = lab.peer(peer, "imports: ['shop/*']");
        lab.declare(cluster, &offers.into_iter().chain([peer]).collect::<Vec<_>>());
    }
    let file = lab.configure_gateway("us-east");
    let text = std::fs::read_to_string(&file).expect("just written");
    std::fs::write(&file, format!("{text}limits: {{ workloadStreams: 1 }}\n")).expect("writable");
    lab.start_gateways("us-east");
    lab.start_gateway("eu-west");
    let ip = lab.host();
    lab.workload("eu-west", "a", "ledger-1", "ledger", ip);
    // All of them run under one account.
    let storefronts: Vec<LabNode> = (0..4).map(|_| lab.storefront("us-east", "a")).collect();
    for storefront in &storefronts {
        eventually("the ledger answers", || {
            let answer = client::get(storefront.proxy(), LEDGER)?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
    }
    let callers: Vec<Caller> = storefronts.iter().map(|node| Caller::start(node.proxy(), LEDGER)).collect();
    callers.iter().for_each(|caller| caller.answers(100));
    for caller in callers {
        caller.finish_without_failure();
    }
    let opened = |node: &LabNode| node.metric("eastway_tunnel_streams_total", &["side=\"opened\""]).expect("metrics");
    let [full, other] = lab.gateways("us-east").try_into().expect("two gateways");
    assert!(
        opened(&other) >= 3.0,
        "{} streams by the one with room, {} by the full one",
        opened(&other),
        opened(&full)
    );
}

/// Every gateway tells peers what all of them have: a peer that reaches one knows every endpoint, once.
#[test]
fn a_peer_that_reaches_one_gateway_knows_what_all_of_them_have() {
    let mut lab = Lab::new();
    for cluster in ["us-east", "eu-west"] {
        lab.plan(cluster, StoreKind::Etcd, "");
    }
    lab.enlarge("us-east", 2);
    let reached = lab.gateways("us-east")[1].at(15443);
    lab.declare("us-east", &[service("payments", PAYMENTS_SPEC), lab.peer("eu-west", "")]);
    lab.declare("eu-west", &[lab.peer_at("us-east", &[reached], "imports: ['shop/*']")]);
    lab.start_gateways("us-east");
    let far = lab.start_gateway("eu-west");
    let names: BTreeSet<String> = (1..=6).map(|number| format!("payments-{number}")).collect();
    for name in &names {
        // Each takes one of the two for its own.
        lab.payments("us-east", "a", name);
    }
    eventually("eu-west knows all of them", || {
        let services = client::get(far.at(15000), "/view/services")?.json();
        let remote = &services[0]["clusters"][0];
        check(remote["ready"] == 6 && remote["total"] == 6, || services.to_string())
    });
    let storefront = lab.storefront("eu-west", "a");
    eventually("they answer", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.status == 200, || format!("{answer:?}"))
    });
}
