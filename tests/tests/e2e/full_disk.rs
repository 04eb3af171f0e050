//! A gateway whose disk is full: it serves on, says so, and goes on once there is room again.

use eastway_tests::lab::{Lab, LabNode, StoreKind, reaches};
use eastway_tests::machine::SmallDisk;
use eastway_tests::{check, client, eventually};

/// How many further workloads register. Together their labels need more room than is left anywhere in the store's file.
const FURTHER: usize = 6;

/// Starts the sidecar of another payments application, with as many labels as one may have.
fn another(lab: &mut Lab, number: usize) -> LabNode {
    let ip = lab.host();
    let node = LabNode { name: format!("us-east-payments-{number}"), ip };
    let labels: Vec<String> = (0..15).map(|i| format!("label-{i}: {}", "x".repeat(250))).collect();
    let more = format!(
        "  service: payments\n  labels: {{ {} }}\ninbound: {{ listen: '{}', app: '{}' }}\nhealth: {{ tcp: {{}}, interval: 200ms }}\n",
        labels.join(", "),
        node.inbound(),
        node.app()
    );
    lab.configure("us-east", "a", &node, "payments", &more);
    lab.start_role("sidecar", &node.name);
    node
}

/// Waits until the gateway's `/status` and `/ready` say the same of its store.
fn store_is(gateway: &LabNode, healthy: bool) {
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
    let further: Vec<LabNode> = (2..2 + FURTHER).map(|number| another(&mut lab, number)).collect();
    store_is(&gateway, false);
    reaches(storefront.proxy(), "us-east/a");

    disk.free();
    store_is(&gateway, true);
    for node in &further {
        eventually(&format!("the registration of {} is acknowledged", node.name), || {
            let log = lab.process(&node.name).log();
            check(log.contains("\"message\":\"registered\""), || log)
        });
    }

    // What was acknowledged outlives the gateway, though nobody else says it again.
    further.iter().for_each(|node| lab.kill(&node.name));
    lab.kill("us-east-payments-1");
    lab.kill("us-east-gateway");
    lab.start_gateway("us-east");
    let explained = eventually("the service is known", || {
        let answer = client::get(gateway.at(15000), "/explain/shop/payments")?;
        check(answer.status == 200, || format!("{answer:?}"))
            .map(|()| String::from_utf8_lossy(&answer.body).into_owned())
    });
    for number in 1..2 + FURTHER {
        assert!(explained.contains(&format!("payments-{number}")), "{number}: {explained}");
    }
    drop(disk);
}
