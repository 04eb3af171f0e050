//! Where peers are connected to on demand: a call finds its way, and when nobody calls any more, nothing stays connected.

use eastway_tests::lab::{Lab, PAYMENTS_SPEC, StoreKind, reaches, service};
use eastway_tests::{check, eventually};
use serde_json::Value;

use crate::applied::eastway;

#[test]
fn a_peer_is_connected_to_while_somebody_calls_and_idle_before_and_after() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "peering: { idle: 1s }\n").plan("eu-west", StoreKind::Embedded, "");
    lab.declare("us-east", &[lab.peer("eu-west", "imports: ['shop/*']")]);
    lab.declare("eu-west", &[service("payments", PAYMENTS_SPEC), lab.peer("us-east", "")]);
    lab.start_gateway("eu-west");
    let gateway = lab.start_gateway("us-east");
    lab.payments("eu-west", "a", "payments-1");

    let becomes = |idle: bool, connections: f64| {
        eventually(&format!("idle: {idle}"), || {
            let told = eastway(&["peer", "list", "-o", "json"], &gateway, "");
            let peers: Value = serde_json::from_str(&told.out).map_err(|error| format!("{error}: {told:?}"))?;
            let open = gateway.metric("eastway_tunnel_connections", &["protocol=\"quic\""]).unwrap_or_default();
            check(peers[0]["idle"] == idle && open == connections, || format!("{open} connections, {peers}"))
        });
    };
    becomes(true, 0.0);
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
    becomes(false, 1.0);
    lab.kill(&storefront.name);
    becomes(true, 0.0);
    let told = eastway(&["status"], &gateway, "");
    assert!(told.code == Some(0) && told.out.contains("idle"), "{told:?}");
}
