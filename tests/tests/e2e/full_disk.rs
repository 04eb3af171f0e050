//! A gateway whose disk is full: it serves on, says so, and goes on once there is room again.

use eastway_tests::lab::{Lab, Node, StoreKind, reaches};
use eastway_tests::machine::SmallDisk;
use eastway_tests::{check, client, eventually};

/// Starts another payments application with its sidecar. Its labels need more room than is left anywhere in the store's file.
fn another(lab: &mut Lab) -> Node {
    let ip = lab.host();
    let node = Node { name: "us-east-payments-2".to_owned(), ip };
    let labels: Vec<String> = (0..60).map(|i| format!("label-{i}: {}", "x".repeat(250))).collect();
    let more = format!(
        "  service: payments\n  labels: {{ {} }}\ninbound: {{ listen: '{}', app: '{}' }}\nhealth: {{ tcp: {{}}, interval: 200ms }}\n",
        labels.join(", "),
        node.inbound(),
        node.app()
    );
    lab.configure("us-east", "a", &node, "payments", &more);
    lab.start_app("us-east", "a", &node);
    lab.start_role("sidecar", &node.name);
    node
}

/// Waits until the gateway's `/status` and `/ready` say the same of its store.
fn store_is(gateway: &Node, healthy: bool) {
    eventually(&format!("the store is said to be healthy: {healthy}"), || {
        let status = client::get(gateway.at(15000), "/status")?.json();
        let ready = client::get(gateway.at(15020), "/ready")?;
        let said = String::from_utf8_lossy(&ready.body).contains("the store fails");
        let store = &status["federation"]["store"];
        check(store["healthy"] == healthy && said != healthy && ready.status == 200, || format!("{store} {ready:?}"))
    });
}

#[test]
fn a_gateway_whose_disk_is_full_serves_on_and_stores_again_once_there_is_room() {
    let mut lab = Lab::new();
    let disk = SmallDisk::at(&lab.path("us-east-gateway-state"), 8);
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let gateway = lab.gateway("us-east");
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");

    disk.fill();
    let second = another(&mut lab);
    store_is(&gateway, false);
    reaches(storefront.proxy(), "us-east/a");

    disk.free();
    store_is(&gateway, true);
    eventually("the second registration is acknowledged", || {
        let log = lab.process(&second.name).log();
        check(log.contains("\"message\":\"registered\""), || log)
    });

    // What was acknowledged outlives the gateway, though nobody else says it again.
    lab.kill(&second.name);
    lab.kill("us-east-payments-1");
    lab.kill("us-east-gateway");
    lab.start_gateway("us-east");
    let explained = eventually("both endpoints are known", || {
        let answer = client::get(gateway.at(15000), "/explain/shop/payments")?;
        check(answer.status == 200, || format!("{answer:?}"))
            .map(|()| String::from_utf8_lossy(&answer.body).into_owned())
    });
    assert!(explained.contains("payments-1") && explained.contains("payments-2"), "{explained}");
    drop(disk);
}
