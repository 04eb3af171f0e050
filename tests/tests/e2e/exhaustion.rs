//! Floods and idle connections, and who is served meanwhile: everybody else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::{check, client, eventually};

use crate::forger::Forger;

/// More than any listener has places for idle connections of one address.
const IDLE: usize = 200;

#[test]
fn forged_first_packets_keep_no_peer_out() {
    let (mut lab, _, storefront) = Lab::two_clusters();
    lab.kill("us-east-gateway");
    let flood = Forger::flood(lab.gateway("eu-west").at(15443));
    eventually("the flood is under way", || check(flood.sent() > 3_000, || flood.sent().to_string()));
    let before = lab.process("eu-west-gateway").log().lines().count();
    lab.start_gateway("us-east");
    reaches(storefront.proxy(), "eu-west/a");
    let sent = flood.sent();
    eventually("the flood goes on", || check(flood.sent() > sent + 3_000, || flood.sent().to_string()));
    reaches(storefront.proxy(), "eu-west/a");
    let flooded = lab.process("eu-west-gateway");
    let lines = flooded.log().lines().count() - before;
    assert!(lines < 200, "{lines} lines of log:\n{}", flooded.log());
    assert!(flooded.peak_memory() < 256 << 20, "{} bytes", flooded.peak_memory());
}

#[test]
fn idle_connections_on_every_listener_keep_nobody_out() {
    // The idle ends are this process's.
    eastway_runtime::descriptors::raise().expect("raised");
    let (mut lab, payments, storefront) = Lab::two_clusters();
    let gateways = ["us-east", "eu-west"].map(|name| lab.gateway(name));
    let mut listeners: Vec<SocketAddr> = [15008, 15080, 15000, 15020].map(|port| payments.at(port)).to_vec();
    listeners.extend([15080, 15000, 15020].map(|port| storefront.at(port)));
    for gateway in &gateways {
        listeners.extend([15443, 15010, 15000, 15020].map(|port| gateway.at(port)));
    }
    let _idle: Vec<TcpStream> = listeners.iter().flat_map(|listener| (0..IDLE).map(|_| idle(*listener))).collect();
    for node in [&payments, &storefront].into_iter().chain(&gateways) {
        for (port, path) in [(15020, "/live"), (15020, "/ready"), (15020, "/metrics"), (15000, "/status")] {
            let answer = probe(node.at(port), path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path} of {}: {answer}", node.name);
        }
    }
    reaches(storefront.proxy(), "eu-west/a");
    // Whoever is new needs handshakes on all of them.
    let newcomer = lab.storefront("us-east", "b");
    reaches(newcomer.proxy(), "eu-west/a");
    lab.payments("us-east", "b", "payments-2");
    reaches(newcomer.proxy(), "us-east/b");
}

/// What a probe gets that has the patience of an orchestrator.
fn probe(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(error) => format!("{error} after {} bytes", answer.len()),
    }
}

fn idle(listener: SocketAddr) -> TcpStream {
    TcpStream::connect(listener).expect("connected")
}

#[test]
fn a_node_that_runs_out_of_descriptors_is_administered_meanwhile_and_recovers() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    lab.descriptors(Some(64));
    let payments = lab.payments("us-east", "a", "payments-1");
    lab.descriptors(None);
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let before = lab.process(&payments.name).log().lines().count();
    let held: Vec<TcpStream> = (0..IDLE).flat_map(|_| [15008, 15080].map(|port| idle(payments.at(port)))).collect();
    for _ in 0..20 {
        for (port, path) in [(15020, "/live"), (15000, "/status")] {
            let answer = probe(payments.at(port), path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
    let log = lab.process(&payments.name).log();
    assert!(log.contains("may need more open files"), "{log}");
    assert!(log.lines().count() - before < 100, "{log}");
    drop(held);
    eventually("calls pass again", || {
        let answer = client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.status == 200, || format!("{answer:?}"))
    });
}
