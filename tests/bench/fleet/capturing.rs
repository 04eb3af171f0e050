//! What a call costs the caller's sidecar when the host captures it, beside the same call by the proxy. Needs root.

use std::net::SocketAddr;
use std::process::Command;

use eastway_tests::lab::{Lab, LabNode, StoreKind, reaches};
use eastway_tests::process::{eastway, required};
use eastway_tests::wire::Wire;
use eastway_tests::{apart, eventually};

use super::naming::{address, busy};
use super::report::Report;

/// Pairs of rounds, and calls of each.
const ROUNDS: usize = 20;
const CALLS: usize = 5_000;
/// What a captured call may cost, in that by the proxy.
const GOAL: f64 = 1.05;

/// Measures it; `whole`, or only to see that it runs. On a network of its own, for which it takes a thread of its own.
pub(super) fn measure(report: &mut Report, whole: bool) {
    let (rounds, calls) = if whole { (ROUNDS, CALLS) } else { (1, 10) };
    let ratio = std::thread::scope(|scope| scope.spawn(|| compare(rounds, calls)).join().expect("it ends"));
    report.at_most("a captured call beside one by the proxy: processor time of the sidecar", ratio, "x", GOAL);
}

fn compare(rounds: usize, calls: usize) -> f64 {
    apart::network();
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    lab.payments("us-east", "a", "payments-1");
    let ip = lab.host();
    let node = LabNode { name: "us-east-captured".to_owned(), ip };
    let more = format!("dns: {{ listen: '{ip}:15053', addresses: captured }}\ncapture: {{}}\n");
    let config = lab.configure("us-east", "a", &node, "storefront", &more);
    lab.start_role("sidecar", &node.name);
    lab.wait_ready(&node);
    reaches(node.proxy(), "us-east/a");
    required("nft", "nftables");
    let installed = Command::new(eastway()).args(["sidecar", "capture", "install", "--config"]).arg(config).status();
    assert!(installed.is_ok_and(|status| status.success()), "capturing needs root");
    let captured = eventually("the name has an address", || address(node.at(15_053)));
    let mut ways = [
        (Wire::to(node.proxy()), "http://payments.shop.mesh.internal/"),
        (Wire::to(SocketAddr::from((captured, 80))), "/"),
    ];
    let process = lab.process(&node.name).pid();
    let mut took = [0.0; 2];
    for round in 0..rounds {
        // Neither is always the first.
        for way in [round % 2, 1 - round % 2] {
            let (wire, target) = &mut ways[way];
            let before = busy(process);
            (0..calls).for_each(|_| call(wire, target));
            took[way] += busy(process) - before;
        }
    }
    // A run that is too short for the kernel's clock says nothing.
    if took[0] > 0.0 { took[1] / took[0] } else { 0.0 }
}

fn call(wire: &mut Wire, target: &str) {
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n"));
    let head = wire.until("\r\n\r\n").expect("a head").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    wire.exactly(length.expect("a length")).expect("a body");
}
