//! Operators who come from elsewhere: by mutual TLS, with an operator's certificate of the cluster, and nobody else.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use eastway_core::SpiffeId;
use eastway_tests::lab::{Lab, StoreKind, service, trust_domain};
use eastway_tests::process::eastway_command;

/// A cluster whose gateway takes operators, and the address where it does.
fn cluster(lab: &mut Lab) -> String {
    lab.plan("us-east", StoreKind::Embedded, "").declare("us-east", &[]);
    let file = lab.configure_gateway("us-east");
    let address = lab.gateway("us-east").at(15_001).to_string();
    let text = std::fs::read_to_string(&file).expect("just written");
    std::fs::write(&file, format!("{text}operators: {{ listen: '{address}' }}\n")).expect("writable");
    lab.start_gateway("us-east");
    address
}

/// The file of contexts of somebody who has the certificate `id` of `authority`, and thinks that `gateways` are those of us-east.
fn contexts(lab: &Lab, authority: &str, id: &SpiffeId, gateways: &str) -> PathBuf {
    let identity = lab.certify(authority, "caller", authority, id);
    let text = format!("contexts:\n  us-east:\n    gateways: [{gateways}]\n    {identity}\n");
    lab.write("contexts.yaml", &text)
}

fn eastway(words: &[&str], contexts: &PathBuf) -> Output {
    let mut command = eastway_command();
    command.args(words).args(["--context", "us-east", "--contexts"]).arg(contexts);
    command.stdin(Stdio::null()).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_operator_asks_and_changes_a_cluster_from_elsewhere_by_a_context() {
    let mut lab = Lab::new();
    let address = cluster(&mut lab);
    let ann = SpiffeId::operator_of(&trust_domain("us-east"), "ann");
    // The first gateway of the list does not answer.
    let contexts = contexts(&lab, "us-east", &ann, &format!("'{}', '{address}'", lab.gateway("us-east").at(9)));
    let payments = lab.write("payments.yaml", &service("payments", "ports: [{ port: 81 }]"));
    let applied = eastway(&["apply", "-f", &payments.to_string_lossy()], &contexts);
    assert_eq!(text(&applied.stdout), "Service shop/payments created\ngeneration 1\n", "{}", text(&applied.stderr));

    let got = eastway(&["get", "services"], &contexts);
    assert!(text(&got.stdout).contains("Service shop/payments"), "{}", text(&got.stderr));
    let services = eastway(&["services"], &contexts);
    assert!(text(&services.stdout).contains("shop/payments"), "{}", text(&services.stderr));
    let history = eastway(&["rollback", "--list"], &contexts);
    assert!(
        text(&history.stdout).contains("operator ann ("),
        "the certificate says who it was: {}",
        text(&history.stdout)
    );
    let status = eastway(&["status", "-o", "json"], &contexts);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert!(status.to_string().contains("gateway-1"), "{status}");
}

#[test]
fn nobody_but_an_operator_of_the_cluster_is_taken() {
    let mut lab = Lab::new();
    lab.plan("eu-west", StoreKind::Embedded, "");
    let address = cluster(&mut lab);
    let gateways = format!("'{address}'");
    // Its own certificate of another cluster, which trusts that cluster's gateways only.
    let stranger = SpiffeId::operator_of(&trust_domain("eu-west"), "eve");
    let told = eastway(&["get"], &contexts(&lab, "eu-west", &stranger, &gateways));
    assert!(!told.status.success() && text(&told.stderr).contains("no gateway of the context `us-east`"), "{told:?}");

    // A workload's certificate is told apart before anything is sent.
    let workload = SpiffeId::workload(&trust_domain("us-east"), "shop", "payments");
    let file = contexts(&lab, "us-east", &workload, &gateways);
    let told = eastway(&["get"], &file);
    assert!(text(&told.stderr).contains("which is no operator"), "{told:?}");

    // And is refused by the gateway, too, whatever its program checks.
    let node = lab.identities("us-east");
    let curl = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "10"])
        .arg("--cert")
        .arg(node.join("caller.crt"))
        .arg("--key")
        .arg(node.join("caller.key"))
        .arg(format!("https://{address}/resources"))
        .output()
        .expect("curl is a package that tests need");
    assert!(!curl.status.success() && curl.stdout.is_empty(), "{curl:?}");

    let missing = eastway(&["get"], &PathBuf::from("/nonexistent/contexts.yaml"));
    assert!(!missing.status.success() && text(&missing.stderr).contains("/nonexistent/contexts.yaml"), "{missing:?}");
    let named =
        lab.write("others.yaml", &std::fs::read_to_string(&file).expect("there").replace("us-east:\n", "ap-south:\n"));
    let told = eastway(&["get"], &named);
    assert!(text(&told.stderr).contains("has no context `us-east`; it has: ap-south"), "{told:?}");
}
