//! Who is let in, as whom, and who is not.

use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions};
use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches, service, trust_domain};
use eastway_tests::{check, client, eventually};

use crate::http_within::{STOREFRONT, connect};
use crate::opaque::TCP;
use crate::{curl, tls};

/// The identity of an account in the namespace shop of us-east.
fn account(name: &str) -> SpiffeId {
    SpiffeId::workload(&trust_domain("us-east"), "shop", name)
}

/// Calls the inbound listener of `node` directly, as whoever holds the certificate `name` of us-east.
fn call(lab: &Lab, node: &LabNode, name: &str, more: &[&str]) -> Result<curl::Got, String> {
    let url = format!("https://{}/headers", node.inbound());
    let host = ["--header", "Host: payments.shop.mesh.internal"];
    curl::with_certificate(&lab.identities("us-east"), name, &url, &[&host, more].concat())
}

#[test]
fn a_called_sidecar_answers_only_workloads_that_its_own_ca_vouches_for() {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    let day = IssueOptions::default();
    let own = call(&lab, &payments, &storefront.name, &[]).expect("the mesh's own callers get in");
    assert_eq!(own.status, 200, "{own:?}");

    let foreign = Ca::create(&trust_domain("us-east"), Duration::from_secs(3_600)).expect("a CA");
    lab.certify_with("us-east", "foreign-ca", &foreign, &account("storefront"), &day);
    lab.plan("ap-south", StoreKind::Embedded, "");
    let stranger = SpiffeId::workload(&trust_domain("ap-south"), "shop", "storefront");
    lab.certify("us-east", "foreign-domain", "ap-south", &stranger);
    lab.certify("us-east", "posing", "us-east", &SpiffeId::gateway(&trust_domain("us-east"), "gateway-1"));
    let expired = IssueOptions { not_before: Some(two_hours_ago()), validity: Duration::from_secs(3_600), ..day };
    lab.certify_with("us-east", "expired", lab.authority("us-east"), &account("storefront"), &expired);
    for name in ["foreign-ca", "foreign-domain", "posing", "expired"] {
        let refused = call(&lab, &payments, name, &[]);
        assert!(refused.is_err(), "{name} was let in: {refused:?}");
    }
    let nobody = curl::curl(["--insecure", &format!("https://{}/", payments.inbound())]);
    assert!(nobody.is_err(), "somebody without a certificate was let in: {nobody:?}");
    // What was refused harmed nobody, and the log says why.
    reaches(storefront.proxy(), "us-east/a");
    let log = lab.process(&payments.name).log();
    assert!(log.contains("refus"), "{log}");
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn two_hours_ago() -> std::time::SystemTime {
    std::time::SystemTime::now() - Duration::from_secs(7_200)
}

#[test]
fn a_gateway_answers_only_workloads_of_its_cluster() {
    let (mut lab, _, storefront) = Lab::one_cluster();
    let gateway = lab.gateway("us-east");
    lab.plan("ap-south", StoreKind::Embedded, "");
    let stranger = SpiffeId::workload(&trust_domain("ap-south"), "shop", "storefront");
    lab.certify("us-east", "foreign-domain", "ap-south", &stranger);
    let knock = |name: &str, port: u16| {
        let url = format!("https://{}/", gateway.at(port));
        curl::with_certificate(&lab.identities("us-east"), name, &url, &[])
    };
    for port in [15443, 15010] {
        // What it answers to a plain GET is its affair: that it answers shows that the handshake was accepted.
        let own = knock(&storefront.name, port);
        assert!(own.is_ok(), "the cluster's own workload was refused at {port}: {own:?}");
        let refused = knock("foreign-domain", port);
        assert!(refused.is_err(), "a foreign workload was let in at {port}: {refused:?}");
    }
}

#[test]
fn an_endpoint_with_another_services_certificate_is_never_called() {
    impostor(|lab, name| drop(lab.certify("us-east", name, "us-east", &account("orders"))));
}

#[test]
fn an_endpoint_with_a_foreign_cas_certificate_is_never_called() {
    impostor(|lab, name| {
        let foreign = Ca::create(&trust_domain("us-east"), Duration::from_secs(3_600)).expect("a CA");
        lab.certify_with("us-east", name, &foreign, &account("payments"), &IssueOptions::default());
    });
}

#[test]
fn an_endpoint_with_a_gateways_certificate_is_never_called() {
    let gateway = SpiffeId::gateway(&trust_domain("us-east"), "gateway-1");
    impostor(|lab, name| drop(lab.certify("us-east", name, "us-east", &gateway)));
}

/// Somebody with a certificate that `forge` makes takes the address of the endpoint in zone a over, and would answer
/// anybody: callers go to zone b without losing a request, and hand the impostor none.
fn impostor(forge: impl FnOnce(&Lab, &str)) {
    let (mut lab, payments, storefront) = Lab::one_cluster();
    lab.payments("us-east", "b", "payments-2");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    forge(&lab, "impostor");
    lab.kill(&payments.name);
    let impostor = tls::answering(payments.inbound(), &lab.identities("us-east"), "impostor");
    eventually("the impostor is tried", || check(impostor.seen().contains(&"knock".to_owned()), String::new));
    caller.answers(100);
    let seen = impostor.seen();
    assert!(seen.iter().all(|note| note == "knock"), "the impostor was handed a request: {seen:?}");
    caller.finish_without_failure();
}

/// What a caller could say to pass for another: also in spellings that CGI, WSGI and PHP fold onto the mesh's own.
const FORGED: [&str; 5] = [
    "eastway-source: spiffe://us-east.mesh.internal/ns/shop/sa/admin",
    "Eastway-Source: spiffe://evil/ns/a/sa/b",
    "eastway_source: spiffe://evil/ns/a/sa/b",
    "EASTWAY.Source: spiffe://evil/ns/a/sa/b",
    "eastway-load: active=0",
];

/// That the application was told who calls, and nothing that the caller said under the mesh's prefix.
fn knows_the_caller(way: &str, answer: &serde_json::Value) {
    let headers = answer["headers"].as_object().unwrap_or_else(|| panic!("{way}: {answer}"));
    assert_eq!(headers["eastway-source"], serde_json::json!([STOREFRONT]), "{way}: {headers:?}");
    let ours = headers.keys().filter(|name| name.to_lowercase().starts_with("eastway"));
    assert_eq!(ours.count(), 1, "{way}: {headers:?}");
}

#[test]
fn what_a_caller_says_of_itself_is_not_believed() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    let payments = lab.payments("us-east", "a", "payments-1");
    reaches(storefront.proxy(), "us-east/a");
    let more: Vec<&str> = FORGED.iter().flat_map(|forged| ["--header", forged]).collect();
    let direct = call(&lab, &payments, &storefront.name, &more).expect("an answer");
    knows_the_caller("direct", &serde_json::from_str(&direct.body).expect("the headers"));
    for host in ["payments.shop.us-east.mesh.internal", "payments.shop.eu-west.mesh.internal"] {
        let url = format!("http://{host}/headers");
        let plain = client::send(storefront.proxy(), "GET", &url, &FORGED, b"").expect("an answer");
        knows_the_caller(&url, &plain.json());
        // A port for HTTP carries HTTP, also where CONNECT asks for a stream of bytes, and where another protocol is asked
        // for.
        for upgrade in ["connection: close", "upgrade: chat\r\nconnection: close, upgrade"] {
            let mut wire = connect(storefront.proxy(), &format!("{host}:80")).expect("a stream");
            let forged = FORGED.join("\r\n");
            wire.send(format!("GET /headers HTTP/1.1\r\nhost: {host}\r\n{upgrade}\r\n{forged}\r\n\r\n"));
            let answer = client::parse(&wire.rest().0).expect("an answer");
            knows_the_caller(&format!("CONNECT {host} {upgrade}"), &answer.json());
        }
    }
}

#[test]
fn a_connect_within_a_connect_and_one_to_an_undeclared_port_are_refused() {
    let (lab, payments, storefront) = Lab::one_cluster();
    let mut wire = connect(storefront.proxy(), "payments.shop.mesh.internal:80").expect("a stream");
    wire.send("CONNECT payments.shop.mesh.internal:9000 HTTP/1.1\r\nhost: payments.shop.mesh.internal:9000\r\n\r\n");
    let head = wire.head();
    assert!(head.starts_with("HTTP/1.1 400") && head.contains("malformed_request"), "{head}");
    // Whoever calls the sidecar directly finds no sidecar of its own in the way that knows the ports.
    for (port, status) in [(22, "404"), (80, "200")] {
        let own = tls::identity(&lab.identities("us-east"), &storefront.name);
        let head = tls::connect_through(payments.inbound(), &own, &format!("payments.shop.mesh.internal:{port}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{port}: {head}");
    }
}

#[test]
fn only_an_account_of_the_service_can_register_for_it() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let node = LabNode { name: "us-east-impostor".to_owned(), ip: lab.host() };
    let serving = format!("  service: payments\ninbound: {{ listen: '{}', app: '{}' }}\n", node.inbound(), node.app());
    lab.configure("us-east", "a", &node, "storefront", &serving);
    lab.start_app("us-east", "a", &node);
    lab.start_role("sidecar", &node.name);
    eventually("the refusal is in the log", || {
        let log = lab.process(&node.name).log();
        check(log.contains("reject") || log.contains("refuse"), || log.clone())
    });
    let storefront = lab.storefront("us-east", "a");
    let answer = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((answer.status, answer.reason()), (503, Some("no_ready_endpoint")), "{answer:?}");

    // The same workload is welcome once the service names its account.
    lab.declare("us-east", &[service("payments", "accounts: [payments, storefront]")]);
    lab.process("us-east-gateway").signal("HUP");
    reaches(storefront.proxy(), "us-east/a");
}

#[test]
fn a_workload_is_not_registered_at_an_address_that_is_not_its_own() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let gateway = lab.gateway("us-east");
    let addresses = [
        (gateway.at(15000).to_string(), "is a listener of the gateway itself"),
        (gateway.at(15443).to_string(), "is a listener of the gateway itself"),
        ("169.254.169.254:80".to_owned(), "cannot be the address of a workload"),
        ("192.0.2.1:15008".to_owned(), "registration.networks"),
    ];
    for (address, why) in addresses {
        let ip = lab.host();
        let node = LabNode { name: format!("us-east-posing-{}", ip.octets()[3]), ip };
        let inbound = format!("inbound: {{ listen: '{}', app: '{}' }}", node.inbound(), node.app());
        let serving = format!("  service: payments\n  address: '{address}'\n{inbound}\n");
        lab.configure("us-east", "a", &node, "payments", &serving);
        lab.start_role("sidecar", &node.name);
        eventually("both sides say why", || {
            let logs = [lab.process(&node.name).log(), lab.process(&gateway.name).log()];
            check(logs.iter().all(|log| log.contains(why)), || format!("{address}: {logs:?}"))
        });
    }
    let storefront = lab.storefront("us-east", "a");
    let answer = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((answer.status, answer.reason()), (503, Some("no_ready_endpoint")), "{answer:?}");
}

#[test]
fn a_role_does_not_start_with_the_other_roles_identity() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").resources("us-east", &[]);
    let gateway = lab.gateway("us-east");
    lab.configure_gateway("us-east");
    lab.certify("us-east", &gateway.name, "us-east", &account("storefront"));
    let sidecar = LabNode { name: "us-east-posing".to_owned(), ip: lab.host() };
    lab.configure("us-east", "a", &sidecar, "storefront", "");
    lab.certify("us-east", &sidecar.name, "us-east", &SpiffeId::gateway(&trust_domain("us-east"), "gateway-1"));
    for (role, node) in [("gateway", &gateway), ("sidecar", &sidecar)] {
        lab.start_role(role, &node.name);
        let process = lab.take(&node.name);
        assert_ne!(process.wait().code(), Some(0), "{}", node.name);
        let log = std::fs::read_to_string(lab.path(&format!("{}.log", node.name))).unwrap_or_default();
        assert!(log.contains("spiffe://"), "the log does not name the identity: {log}");
    }
}

#[test]
fn a_workload_that_poses_as_a_gateway_is_talked_to_by_nobody() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    lab.kill("us-east-gateway");
    lab.certify("us-east", "posing", "us-east", &account("storefront"));
    let gateway = lab.gateway("us-east");
    let impostors = [15443, 15010].map(|port| tls::answering(gateway.at(port), &lab.identities("us-east"), "posing"));
    eventually("the impostor's discovery is tried", || {
        check(impostors[1].seen().contains(&"knock".to_owned()), || format!("{:?}", impostors[1].seen()))
    });
    // A new session with eu-west would go through the gateway.
    eventually("the impostor's tunnel is tried", || {
        let _ = connect(storefront.proxy(), TCP);
        check(impostors[0].seen().contains(&"knock".to_owned()), || format!("{:?}", impostors[0].seen()))
    });
    for impostor in &impostors {
        let seen = impostor.seen();
        assert!(seen.iter().all(|note| note == "knock"), "the impostor was told something: {seen:?}");
    }
}

#[test]
fn a_renewed_certificate_is_taken_without_a_restart() {
    let (lab, payments, storefront) = Lab::one_cluster();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    let own = tls::identity(&lab.identities("us-east"), &storefront.name);
    let before = tls::certificate(payments.inbound(), &own).expect("a certificate");
    for (node, name) in [(&payments, "payments"), (&storefront, "storefront")] {
        lab.certify("us-east", &node.name, "us-east", &account(name));
    }
    eventually("the new certificate is shown", || {
        let now = tls::certificate(payments.inbound(), &own)?;
        check(now != before, || "still the old one".to_owned())
    });
    caller.answers(50);
    caller.finish_without_failure();
}
