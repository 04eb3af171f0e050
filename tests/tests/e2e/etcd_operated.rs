//! What operators do with etcd: replace a member, restore a snapshot.

use std::time::Instant;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches, service};
use eastway_tests::process::eastway_command;
use eastway_tests::{check, eventually};

/// What `eastway WORDS` prints, asking a gateway.
fn eastway(words: &[&str], gateway: &LabNode) -> Result<String, String> {
    let mut command = eastway_command();
    let output = command.args(words).args(["--admin", &gateway.at(15_000).to_string()]).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Waits until `gateway` knows the endpoints of payments by these names.
fn knows(gateway: &LabNode, names: &[&str]) {
    eventually(&format!("{} knows {names:?}", gateway.name), || {
        let told = eastway(&["endpoints", "shop/payments"], gateway)?;
        check(names.iter().all(|name| told.contains(name)), || told)
    });
}

#[test]
fn a_member_of_etcd_is_replaced_during_traffic_and_no_request_fails() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "").enlarge("us-east", 3).declare("us-east", &[]);
    lab.start_gateways("us-east");
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    lab.kill("us-east-etcd-3");
    caller.answers(20);
    lab.replace_member("us-east", 3);
    // Without the new member there is no quorum now.
    lab.kill("us-east-etcd");
    caller.answers(50);
    let second = lab.payments("us-east", "b", "payments-2");
    for gateway in lab.gateways("us-east") {
        knows(&gateway, &["payments-1", &second.name]);
    }
    caller.finish_without_failure();
}

#[test]
fn a_restored_snapshot_loses_no_registration_and_takes_back_what_was_applied_since() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "state: us-east-gateway-kept\n").resources("us-east", &[]);
    let gateway = lab.start_gateway("us-east");
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let apply = |lab: &Lab, name: &str| {
        let file = lab.write(&format!("{name}.yaml"), &service(name, ""));
        eastway(&["apply", "-f", &file.to_string_lossy()], &gateway)
    };
    apply(&lab, "before").expect("applied");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);

    let snapshot = lab.snapshot("us-east");
    let second = lab.payments("us-east", "b", "payments-2");
    apply(&lab, "after").expect("applied");
    caller.answers(20);
    lab.kill("us-east-etcd");
    caller.answers(50);
    lab.restore("us-east", &snapshot);
    let answered = Instant::now();
    eventually("what was applied since the snapshot is taken back, and only that", || {
        let told = eastway(&["get", "services"], &gateway)?;
        check(told.contains("shop/before") && !told.contains("shop/after"), || told)
    });
    eventually("it can be applied again", || apply(&lab, "after"));
    println!("changes are taken again {:?} after etcd answers", answered.elapsed());

    // What the store holds now is what a gateway knows that has nothing else: not even what it kept.
    lab.kill(&gateway.name);
    std::fs::remove_dir_all(lab.path("us-east-gateway-kept")).expect("something was kept");
    lab.start_gateway("us-east");
    knows(&gateway, &["payments-1", &second.name]);
    reaches(storefront.proxy(), "us-east/a");
    caller.finish_without_failure();
}
