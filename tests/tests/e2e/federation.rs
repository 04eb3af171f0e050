//! What clusters show one another: what is exported and imported, and nothing else.

use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, StoreKind, service};
use eastway_tests::{check, eventually};

use crate::curl;

const PAYMENTS: &str = "http://payments.shop.mesh.internal/";
const ORDERS: &str = "http://orders.shop.mesh.internal/";

/// us-east calls, with the peer resource `imports`; eu-west serves payments and orders, and declares `services`.
fn lab(imports: &str, services: &[String]) -> (Lab, LabNode) {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").plan("eu-west", StoreKind::Embedded, "");
    lab.declare("us-east", &[lab.peer("eu-west", imports)]);
    lab.declare("eu-west", &[&[lab.peer("us-east", "imports: []")], services].concat());
    lab.start_gateway("us-east");
    lab.start_gateway("eu-west");
    for name in ["payments", "orders"] {
        let ip = lab.host();
        lab.workload("eu-west", "a", name, name, ip);
    }
    let storefront = lab.storefront("us-east", "a");
    (lab, storefront)
}

/// Calls `url` until it answers with `status`, and answers the reason.
fn settles(caller: &LabNode, url: &str, status: u16) -> Option<String> {
    eventually(&format!("{url} answers with {status}"), || {
        let answer = client::get(caller.proxy(), url)?;
        check(answer.status == status, || format!("{answer:?}")).map(|()| answer.reason().map(str::to_owned))
    })
}

/// That orders can be called and payments cannot: its clusters know one another, and agree on less.
fn only_orders(caller: &LabNode) {
    settles(caller, ORDERS, 200);
    let answer = client::get(caller.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((answer.status, answer.reason()), (404, Some("unknown_service")), "{answer:?}");
    let named = client::get(caller.proxy(), &PAYMENTS.replace(".mesh.", ".eu-west.mesh.")).expect("an answer");
    assert!([403, 404].contains(&named.status), "{named:?}");
    assert!(matches!(named.reason(), Some("unknown_service" | "not_exported")), "{named:?}");
}

#[test]
fn what_is_not_exported_is_unknown_to_peers() {
    let services = [service("payments", "export: []"), service("orders", "export: ['*']")];
    let (_lab, storefront) = lab("imports: ['*']", &services);
    only_orders(&storefront);
}

#[test]
fn what_is_exported_to_others_is_unknown_here() {
    let services = [service("payments", "export: [ap-south]"), service("orders", "export: [us-east]")];
    let (_lab, storefront) = lab("imports: ['*']", &services);
    only_orders(&storefront);
}

#[test]
fn what_is_not_imported_is_unknown() {
    let services = [service("payments", "export: ['*']"), service("orders", "export: ['*']")];
    let (_lab, storefront) = lab("imports: ['shop/orders']", &services);
    only_orders(&storefront);
}

#[test]
fn a_service_without_a_resource_stays_at_home() {
    let services = [service("orders", "export: ['*']")];
    let (mut lab, storefront) = lab("imports: ['*']", &services);
    only_orders(&storefront);
    let neighbour = lab.storefront("eu-west", "a");
    settles(&neighbour, PAYMENTS, 200);
}

#[test]
fn a_peers_workload_that_reaches_a_sidecar_directly_gets_what_is_exported_and_nothing_else() {
    let services = [service("payments", "export: [ap-south]"), service("orders", "export: [us-east]")];
    let (mut lab, storefront) = lab("imports: ['*']", &services);
    settles(&storefront, ORDERS, 200);
    for (name, status, reason) in [("orders", 200, None), ("payments", 403, Some("not_exported"))] {
        let ip = lab.host();
        let node = lab.workload("eu-west", "a", &format!("{name}-direct"), name, ip);
        let (url, host) = (format!("https://{}/", node.inbound()), format!("Host: {name}.shop.mesh.internal"));
        let direct = ["--header", &host, "--include"];
        let got = eventually("the sidecar knows the peer", || {
            curl::with_certificate(&lab.identities("us-east"), &storefront.name, &url, &direct)
        });
        assert_eq!(got.status, status, "{name}: {got:?}");
        assert!(reason.is_none_or(|reason| got.body.contains(reason)), "{name}: {got:?}");
    }
}

#[test]
fn a_peer_may_come_later_in_any_order() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").plan("eu-west", StoreKind::Embedded, "");
    lab.resources("us-east", &["eu-west"]);
    lab.resources("eu-west", &["us-east"]);
    // The caller is there first, then its gateway; the other cluster's application before its gateway.
    let storefront = LabNode { name: "us-east-early".to_owned(), ip: lab.host() };
    lab.configure("us-east", "a", &storefront, "storefront", "");
    lab.start_role("sidecar", &storefront.name);
    settles(&storefront, PAYMENTS, 503);
    lab.start_gateway("us-east");
    settles(&storefront, PAYMENTS, 503);
    let ip = lab.host();
    let app = eastway_tests::apps::App::answering((ip, 8080).into(), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let payments = LabNode { name: "eu-west-early".to_owned(), ip };
    let serving =
        format!("  service: payments\ninbound: {{ listen: '{}', app: '{}' }}\n", payments.inbound(), app.address());
    lab.configure("eu-west", "a", &payments, "payments", &serving);
    lab.start_role("sidecar", &payments.name);
    lab.start_gateway("eu-west");
    settles(&storefront, PAYMENTS, 200);
}

#[test]
fn a_peer_that_another_ca_vouches_for_is_not_believed() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").plan("eu-west", StoreKind::Embedded, "");
    // us-east has pinned a CA for eu-west that is not eu-west's.
    lab.plan("other", StoreKind::Embedded, "");
    let pinned = lab.peer("eu-west", "imports: ['*']").replace("eu-west-ca/", "other-ca/");
    lab.declare("us-east", &[pinned.replace("spec: {", "spec: { trustDomain: other.mesh.internal,")]);
    lab.resources("eu-west", &["us-east"]);
    let gateway = lab.start_gateway("us-east");
    lab.start_gateway("eu-west");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    eventually("the refusal is in the log", || {
        let log = lab.process(&gateway.name).log();
        check(log.contains("foreign_ca") || log.contains("wrong_identity") || log.contains("trust domain"), || {
            log.clone()
        })
    });
    let answer = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((answer.status, answer.reason()), (404, Some("unknown_service")), "{answer:?}");
}
