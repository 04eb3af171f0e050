//! From one cluster to the other: sidecar, gateway, tunnel, gateway, sidecar.

use eastway_tests::apps::App;
use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches};
use eastway_tests::wire::Wire;
use eastway_tests::{check, eventually};

use crate::http_within::{STOREFRONT, connect, known, switch, upgrade};
use crate::opaque::TCP;
use crate::{curl, h2, tls};

/// Two clusters in which eu-west's payments is an application of the test itself; answers the caller in us-east.
pub(crate) fn with_app(app: impl FnOnce(std::net::SocketAddr) -> App) -> (Lab, App, LabNode) {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let ip = lab.host();
    let app = app((ip, 8080).into());
    lab.beside("eu-west", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    known(storefront.proxy(), "payments.shop.mesh.internal");
    (lab, app, storefront)
}

#[test]
fn an_application_in_another_region_answers_and_knows_who_calls() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    for url in [PAYMENTS, "http://payments.shop.eu-west.mesh.internal/"] {
        let answer = client::get(storefront.proxy(), url).expect("an answer");
        assert_eq!((answer.status, answer.json()["zone"].as_str()), (200, Some("eu-west/a")), "{url}: {answer:?}");
        assert_eq!(answer.json()["caller"].as_str(), Some(STOREFRONT), "{url}");
    }
    let own = client::get(storefront.proxy(), "http://payments.shop.us-east.mesh.internal/").expect("an answer");
    assert_eq!((own.status, own.reason()), (503, Some("no_ready_endpoint")), "declared, but it has none: {own:?}");
    let nowhere = client::get(storefront.proxy(), "http://payments.shop.ap-south.mesh.internal/").expect("an answer");
    assert_eq!((nowhere.status, nowhere.reason()), (404, Some("not_offered")), "there is no such cluster: {nowhere:?}");
    lab.declare("us-east", &[lab.peer("eu-west", "imports: ['shop/*']")]);
    lab.process("us-east-gateway").signal("HUP");
    eventually("us-east neither declares nor serves it", || {
        let own = client::get(storefront.proxy(), "http://payments.shop.us-east.mesh.internal/")?;
        check((own.status, own.reason()) == (404, Some("not_offered")), || format!("{own:?}"))
    });
}

#[test]
fn http2_trailers_and_the_other_name_of_a_service_pass() {
    let (_lab, _, storefront) = Lab::two_clusters();
    let proxy = format!("payments.shop.mesh.internal:80:{}", storefront.proxy());
    let got = curl::curl(["--http2-prior-knowledge", "--connect-to", &proxy, PAYMENTS]).expect("an answer");
    assert_eq!((got.status, got.version.as_str()), (200, "2"), "{got:?}");

    let url = format!("{PAYMENTS}echo");
    let request = h2::request("POST", &url).header("te", "trailers").body(()).expect("a request");
    let answer = h2::send(storefront.proxy(), request, vec![h2::data(b"far"), h2::trailers("x-sum", "3")]);
    let answer = answer.expect("an answer");
    assert_eq!(&answer.body[..], b"far");
    assert!(answer.trailers.is_some_and(|trailers| trailers.contains_key("x-sum")));

    let alias = client::get(storefront.proxy(), "http://payments.shop.svc.clusterset.local/").expect("an answer");
    assert_eq!(alias.status, 200, "{alias:?}");
}

#[test]
fn large_bodies_stream_through_the_tunnel_without_being_kept() {
    const SIZE: usize = 32 << 20;
    let (mut lab, _app, storefront) = with_app(App::echoing);
    let nodes = [storefront.name.clone(), lab.gateway("us-east").name, lab.gateway("eu-west").name];
    let before = nodes.clone().map(|node| lab.process(&node).peak_memory());
    let mut wire = connect(storefront.proxy(), TCP).expect("a stream");
    let mut writer = wire.writer();
    let sender = std::thread::spawn(move || (0..SIZE >> 20).for_each(|_| writer.send(vec![7; 1 << 20])));
    let mut received = 0;
    while received < SIZE {
        let bytes = wire.chunk().expect("the stream lives");
        assert!(!bytes.is_empty(), "the stream ended after {received} bytes");
        received += bytes.len();
    }
    sender.join().expect("the sender ends");
    for (node, before) in nodes.iter().zip(before) {
        let grown = lab.process(node).peak_memory().saturating_sub(before);
        assert!(grown < 48 << 20, "{node} grew by {grown} bytes for {SIZE}");
    }
}

#[test]
fn half_a_stream_may_end_before_the_other() {
    let (_lab, _app, storefront) = with_app(App::counting);
    let mut wire = connect(storefront.proxy(), TCP).expect("a stream");
    wire.send("hello");
    wire.finish();
    let (answer, end) = wire.rest();
    assert_eq!((String::from_utf8_lossy(&answer).as_ref(), end), ("5 bytes: hello", None));
}

#[test]
fn a_connection_that_changes_its_protocol_carries_bytes_both_ways() {
    let (_lab, _app, storefront) = with_app(App::switching);
    upgrade(storefront.proxy());
}

#[test]
fn streams_and_changed_protocols_share_the_sessions_of_the_requests() {
    let (lab, _app, storefront) = with_app(App::switching);
    let switched = [(); 8].map(|()| switch(storefront.proxy()).expect("a stream"));
    let opened = [(); 8].map(|()| connect(storefront.proxy(), TCP).expect("a stream"));
    let tunnels = lab.gateway("us-east").metric("eastway_tunnel_streams_active", &[r#"peer_cluster="eu-west""#]);
    // Two of sessions, one of which may just be opened, and one that waits for a drain notice.
    assert!(tunnels.as_ref().is_ok_and(|count| (1.0..=4.0).contains(count)), "{tunnels:?}");
    drop((switched, opened));
}

#[test]
fn the_limit_of_requests_to_one_endpoint_holds_for_one_of_another_cluster() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let ip = lab.host();
    let app = App::start((ip, 8080).into(), |mut connection| {
        if connection.request().is_some() {
            // Until the caller goes away.
            let _ = connection.wire.rest();
        }
    });
    lab.beside("eu-west", "a", ip, "");
    let storefront = lab.storefront_with("us-east", "a", "limits: { endpointRequests: 1 }\n");
    known(storefront.proxy(), "payments.shop.mesh.internal");
    let mut held = Vec::new();
    eventually("a request is at the application", || {
        let mut wire = Wire::to(storefront.proxy());
        wire.send(format!("GET {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n"));
        held.push(wire);
        check(!app.seen().is_empty(), || "none came".to_owned())
    });
    let refused = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((refused.status, refused.reason()), (503, Some("request_limit")), "{refused:?}");
    assert!(app.seen().len() == 1, "{:?}", app.seen());
}

#[test]
fn a_gateway_relays_the_request_but_cannot_read_it() {
    const MARKER: &[u8] = b"the-secret-of-shop-payments";
    const COPIES: usize = 4_096;
    let mut lab = Lab::new();
    let folders = ["us-east", "eu-west"].map(|name| lab.plan(name, StoreKind::Embedded, "").record(name));
    for (name, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        lab.resources(name, &[peer]);
        lab.start_gateway(name);
    }
    let ip = lab.host();
    // What the application sees is what the caller sent: there the marker must be found by the same search.
    let app = App::start((ip, 8080).into(), |mut connection| {
        let (Some(_), Ok(body)) = (connection.request(), connection.wire.exactly(MARKER.len() * COPIES)) else {
            return;
        };
        connection.note(&format!("plain: {}", count(&body, MARKER)));
        connection.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    lab.beside("eu-west", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    known(storefront.proxy(), "payments.shop.mesh.internal");
    let body = MARKER.repeat(COPIES);
    let answer = client::send(storefront.proxy(), "POST", PAYMENTS, &["x-marker: the-secret-of-shop-payments"], &body);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}; the application saw {:?}", app.seen());
    assert!(
        app.seen().contains(&format!("plain: {COPIES}")),
        "the application saw something else: {:?}",
        app.seen().last()
    );
    for folder in folders {
        let relayed = eventually("the gateway has relayed the body", || {
            let relayed = recorded(&folder);
            let bytes: usize = relayed.iter().map(Vec::len).sum();
            check(bytes >= body.len(), || format!("{bytes} bytes in {}", folder.display())).map(|()| relayed)
        });
        let found: usize = relayed.iter().map(|bytes| count(bytes, MARKER)).sum();
        assert_eq!(found, 0, "{} has the marker in the clear", folder.display());
    }
}

/// How often `needle` is in `bytes`.
fn count(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).filter(|window| *window == needle).count()
}

/// What a recorder wrote into `folder`, a file each.
fn recorded(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read(file.path()).ok()).collect()
}

#[test]
fn a_gateway_whose_tunnel_fails_is_passed_over_and_the_one_that_works_is_kept() {
    for (status, reason) in [(504, "stream_open_timeout"), (502, "tunnel_lost")] {
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        lab.payments("eu-west", "a", "payments-1");
        // It shows the identity of a gateway.
        let refusing = LabNode { name: "refusing".to_owned(), ip: lab.host() };
        let answer = format!(
            "HTTP/1.1 {status} No\r\nproxy-status: refusing; details=\"{reason}\"\r\ncontent-length: 0\r\n\r\n"
        );
        let gateway = lab.gateway("us-east").name;
        let refusing_app = tls::saying(refusing.at(15443), &lab.identities("us-east"), &gateway, answer);
        let storefront = LabNode { name: "us-east-a-storefront".to_owned(), ip: lab.host() };
        let file = lab.configure("us-east", "a", &storefront, "storefront", "");
        let text = std::fs::read_to_string(&file).expect("just written");
        let first = format!("gateways: [{{ discovery: '{}', tunnel: '{}' }}, ", refusing.at(15010), refusing.at(15443));
        std::fs::write(&file, text.replace("gateways: [", &first)).expect("the lab's folder is writable");
        let asked = || refusing_app.seen().iter().filter(|said| said.starts_with("CONNECT")).count();
        // Each life of a sidecar begins with another one.
        eventually("it is asked first", || {
            lab.start_role("sidecar", &storefront.name);
            lab.wait_ready(&storefront);
            reaches(storefront.proxy(), "eu-west/a");
            let first = asked() > 0;
            if !first {
                lab.kill(&storefront.name);
            }
            check(first, || "not yet".to_owned())
        });
        let before = asked();
        for _ in 0..3 {
            connect(storefront.proxy(), TCP).expect("a stream");
        }
        assert_eq!(asked(), before, "{reason}: it is asked again and again");
    }
}

#[test]
fn the_nearest_copy_is_preferred_and_another_region_can_be_named() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    lab.payments("us-east", "a", "payments-1");
    reaches(storefront.proxy(), "us-east/a");
    let far = client::get(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/").expect("an answer");
    assert_eq!(far.json()["zone"].as_str(), Some("eu-west/a"), "{far:?}");
}
