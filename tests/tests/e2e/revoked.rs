//! Connections that stand when what let them in is withdrawn.

use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions, Overwrite};
use eastway_tests::apps::App;
use eastway_tests::eventually;
use eastway_tests::lab::{Lab, StoreKind, service, trust_domain};

use crate::across;
use crate::http_within::connect;
use crate::opaque::TCP;

const PORTS: &str = "ports: [{ port: 80 }, { port: 9000, protocol: tcp }]";

#[test]
fn streams_of_a_peer_end_when_its_export_its_ca_or_its_declaration_is_withdrawn() {
    let (mut lab, _app, storefront) = across::with_app(App::echoing);
    let another = Ca::create(&trust_domain("us-east"), Duration::from_secs(3_600)).expect("a CA");
    another.save(&lab.path("another-ca"), Overwrite::Never).expect("the lab's folder is writable");

    let exported = service("payments", &format!("export: ['*'], {PORTS}"));
    let peer = lab.peer("us-east", "imports: ['shop/*']");
    for withdrawn in [
        vec![service("payments", PORTS), peer.clone()],
        vec![exported.clone(), peer.replace("us-east-ca/", "another-ca/")],
        vec![exported.clone()],
    ] {
        let mut open = eventually("a stream to eu-west", || connect(storefront.proxy(), TCP));
        open.send("before");
        assert_eq!(open.exactly(6).expect("an echo"), b"before");
        lab.declare("eu-west", &withdrawn);
        lab.process("eu-west-gateway").signal("HUP");
        let (late, _) = open.rest();
        assert!(late.is_empty(), "{late:?}");
        assert!(connect(storefront.proxy(), TCP).is_err(), "a new stream was let in");
        lab.declare("eu-west", &[exported.clone(), peer.clone()]);
        lab.process("eu-west-gateway").signal("HUP");
    }
}

#[test]
fn a_connection_ends_when_the_certificate_that_it_showed_expires() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let ip = lab.host();
    let _app = App::echoing((ip, 8080).into());
    lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    lab.kill(&storefront.name);
    let id = SpiffeId::workload(&trust_domain("us-east"), "shop", "storefront");
    let brief = IssueOptions { validity: Duration::from_secs(8), ..IssueOptions::default() };
    lab.certify_with("us-east", &storefront.name, lab.authority("us-east"), &id, &brief);
    lab.start_role("sidecar", &storefront.name);
    lab.wait_ready(&storefront);
    let mut open = eventually("a stream", || connect(storefront.proxy(), TCP));
    open.send("before");
    assert_eq!(open.exactly(6).expect("an echo"), b"before");
    let (late, _) = open.rest();
    assert!(late.is_empty(), "{late:?}");
    // With a new certificate it is let in again.
    lab.certify("us-east", &storefront.name, "us-east", &id);
    eventually("a stream again", || connect(storefront.proxy(), TCP).map(drop));
}
