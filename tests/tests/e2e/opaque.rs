//! Bytes that are no HTTP, by CONNECT: whatever an end of a stream says, the other end hears.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use eastway_tests::apps::App;
use eastway_tests::client;
use eastway_tests::eventually;
use eastway_tests::lab::{Lab, StoreKind, service};
use eastway_tests::process::eastway;
use eastway_tests::wire::Wire;

use crate::http_within::{connect, with_app};

/// The port that the lab's payments declares for TCP.
pub(crate) const TCP: &str = "payments.shop.mesh.internal:9000";

#[test]
fn half_a_connection_may_end_before_the_other() {
    let (_lab, _app, _, storefront) = with_app(App::counting);
    let mut wire = connect(storefront.proxy(), TCP).expect("a stream");
    wire.send("hello");
    wire.finish();
    let (answer, end) = wire.rest();
    assert_eq!((String::from_utf8_lossy(&answer).as_ref(), end), ("5 bytes: hello", None));
}

#[test]
fn bytes_pass_both_ways_while_the_stream_is_open() {
    let (_lab, _app, _, storefront) = with_app(App::echoing);
    let mut wire = connect(storefront.proxy(), TCP).expect("a stream");
    for size in [1, 1_000, 100_000, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let (mut writer, sent) = (wire.writer(), bytes.clone());
        let sender = std::thread::spawn(move || writer.send(sent));
        assert!(wire.exactly(size).is_ok_and(|came| came == bytes), "{size} bytes differ");
        sender.join().expect("the sender ends");
    }
}

#[test]
fn a_reset_by_the_application_reaches_the_caller_as_a_reset() {
    let (_lab, _app, _, storefront) = with_app(|address| {
        App::start(address, |mut connection| {
            if connection.wire.until("now").is_ok() {
                connection.wire.reset();
            }
        })
    });
    let mut wire = connect(storefront.proxy(), TCP).expect("a stream");
    wire.send("now");
    let (_, end) = wire.rest();
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
}

#[test]
fn an_opaque_stream_to_nobody_is_refused_with_the_reason() {
    let (_lab, _, storefront) = Lab::one_cluster();
    let open = |authority: &str| {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        client::raw(storefront.proxy(), head.as_bytes())
    };
    for (authority, status, reason) in [
        ("nothing.shop.mesh.internal:80", 404, "unknown_service"),
        ("payments.shop.mesh.internal:81", 404, "unknown_port"),
        ("payments.shop.mesh.internal:443", 404, "plain_http_only"),
        ("example.com:443", 404, "foreign_host"),
    ] {
        let answer = open(authority).expect("an answer");
        assert_eq!((answer.status, answer.reason()), (status, Some(reason)), "{authority}: {answer:?}");
    }
    let hint = open("payments.shop.mesh.internal:443").expect("an answer");
    assert!(String::from_utf8_lossy(&hint.body).contains("plain http://"), "{hint:?}");
}

/// A stream on which nobody says anything ends, unless its port is declared so that it may be silent for ever, as databases want it.
#[test]
fn silence_ends_a_stream_unless_its_port_is_declared_to_live_with_it() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let spec = "export: ['*'], ports: [{ port: 80 }, { port: 9000, protocol: tcp, idle: 'off' }, { port: 9001, protocol: tcp }]";
    for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        lab.declare(cluster, &[service("payments", spec), lab.peer(peer, "imports: ['shop/*']")]);
        let gateway = lab.gateway(cluster);
        lab.process(&gateway.name).signal("HUP");
    }
    let brief = "timeouts: { idle: 1s }\n";
    let mut apps = Vec::new();
    for cluster in ["us-east", "eu-west"] {
        let ip = lab.host();
        apps.push(App::echoing((ip, 8080).into()));
        lab.beside(cluster, "a", ip, brief);
    }
    let storefront = lab.storefront_with("us-east", "a", brief);
    for cluster in ["us-east", "eu-west"] {
        let authority = |port: u16| format!("payments.shop.{cluster}.mesh.internal:{port}");
        let open = |port: u16| {
            eventually(&format!("{cluster} takes a stream"), || {
                let mut wire = connect(storefront.proxy(), &authority(port)).map_err(|answer| format!("{answer:?}"))?;
                wire.send("a");
                wire.exactly(1).map(|_| wire).map_err(|came| format!("only {came:?}"))
            })
        };
        // Once the port is there that was declared with it, so is what is said of the other.
        drop(open(9001));
        let (mut lasting, mut brief) = (open(9000), open(9001));
        assert_eq!(brief.rest().1, Some(ErrorKind::ConnectionReset), "{cluster}");
        // As long again, and no longer than that would have taken.
        assert!(!lasting.is_readable_within(Duration::from_secs(2)), "{cluster}");
        lasting.send("b");
        assert_eq!(lasting.exactly(1).as_deref(), Ok(b"b".as_slice()), "{cluster}");
    }
}

/// Two streams go to another region because there is nobody nearer; then there is.
#[test]
fn streams_to_farther_endpoints_end_once_nearer_ones_serve_if_that_is_wanted_and_operators_see_them() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let ports =
        "[{ port: 80 }, { port: 9000, protocol: tcp, onFailback: drain }, { port: 9001, protocol: tcp, idle: 1h }]";
    let spec = format!("export: ['*'], balancing: {{ ramp: 1s, slowStart: 1s }}, ports: {ports}");
    for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        lab.declare(cluster, &[service("payments", &spec), lab.peer(peer, "imports: ['shop/*']")]);
        let gateway = lab.gateway(cluster);
        lab.process(&gateway.name).signal("HUP");
    }
    let (far, near) = (lab.host(), lab.host());
    let _apps = [far, near].map(|ip| App::echoing((ip, 8080).into()));
    lab.beside("eu-west", "a", far, "");
    let storefront = lab.storefront_with("us-east", "a", "timeouts: { failback: 1s }\n");
    let open = |port: u16| {
        eventually("eu-west takes a stream", || {
            let authority = format!("payments.shop.mesh.internal:{port}");
            let mut wire = connect(storefront.proxy(), &authority).map_err(|answer| format!("{answer:?}"))?;
            wire.send("a");
            wire.exactly(1).map(|_| wire).map_err(|came| format!("only {came:?}"))
        })
    };
    drop(open(9001));
    let (mut drained, mut kept) = (open(9000), open(9001));
    let listed = || {
        let admin = storefront.at(15000).to_string();
        let output =
            Command::new(eastway()).args(["connections", "payments.shop", "-o", "json", "--admin", &admin]).output();
        let listed: serde_json::Value = serde_json::from_slice(&output.expect("it starts").stdout).expect("JSON");
        let of = |port: u16| listed.as_array().expect("a list").iter().find(|stream| stream["port"] == port).cloned();
        [9000, 9001].map(of)
    };
    let all = eventually("both are listed, with what passed", || match listed() {
        [Some(one), Some(other)] if one["received_bytes"] == 1 && other["sent_bytes"] == 1 => Ok([one, other]),
        listed => Err(format!("{listed:?}")),
    });
    for (stream, idle) in all.into_iter().zip([300, 3_600]) {
        assert_eq!((&stream["zone"], &stream["direction"]), (&"eu-west/a".into(), &"outbound".into()), "{stream}");
        assert_eq!((&stream["level"], &stream["idle_seconds"]), (&2.into(), &idle.into()), "{stream}");
        assert!(stream["endpoint"].as_str().is_some_and(|endpoint| endpoint.contains("payments")), "{stream}");
    }
    lab.beside("us-east", "a", near, "");
    eventually("one stream is ended", || match listed() {
        [None, Some(_)] => Ok(()),
        listed => Err(format!("{listed:?}")),
    });
    assert_eq!(drained.rest().1, Some(ErrorKind::ConnectionReset));
    kept.send("b");
    assert_eq!(kept.exactly(1).as_deref(), Ok(b"b".as_slice()));
}

/// The port of the caller's sidecar that leads to payments' port for TCP.
const LISTENER: u16 = 19_000;

#[test]
fn a_client_that_knows_nothing_of_proxies_connects_as_if_to_the_service() {
    let (_lab, _app, _, storefront) = with_app(|address| {
        App::start(address, |mut connection| {
            // As a database does, the server speaks first.
            connection.wire.send("ready\n");
            if let Ok(asked) = connection.wire.until("\n") {
                connection.wire.send(format!("you said {asked}"));
            }
            connection.wire.finish();
        })
    });
    let mut wire = Wire::to(storefront.at(LISTENER));
    assert_eq!(wire.until("\n").as_deref(), Ok("ready\n"));
    wire.send("hello\n");
    let (answer, end) = wire.rest();
    assert_eq!((String::from_utf8_lossy(&answer).as_ref(), end), ("you said hello\n", None));
}

#[test]
fn a_listener_passes_half_an_end_and_resets_what_leads_nowhere() {
    let (mut lab, _app, payments, storefront) = with_app(App::counting);
    let mut wire = Wire::to(storefront.at(LISTENER));
    wire.send("hello");
    wire.finish();
    let (answer, end) = wire.rest();
    assert_eq!((String::from_utf8_lossy(&answer).as_ref(), end), ("5 bytes: hello", None));
    lab.kill(&payments.name);
    eventually("there is nobody left", || {
        let (answer, end) = match Wire::try_to(storefront.at(LISTENER)) {
            Ok(mut wire) => wire.rest(),
            Err(error) => (Vec::new(), Some(error.kind())),
        };
        if answer.is_empty() && end == Some(ErrorKind::ConnectionReset) { Ok(()) } else { Err(format!("{end:?}")) }
    });
}
