//! Do resources that operators apply act everywhere, as a whole or not at all, and can they be taken back?

use std::io::Write as _;
use std::process::Stdio;

use eastway_tests::lab::{Lab, LabNode, StoreKind, service};
use eastway_tests::process::eastway_command;
use eastway_tests::{check, client, eventually};
use serde_json::Value;

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// Runs `eastway WORDS` at a gateway, with `input` on its standard input.
pub(crate) fn eastway(words: &[&str], gateway: &LabNode, input: &str) -> Told {
    let admin = gateway.at(15000).to_string();
    let mut command = eastway_command();
    command.args(words).args(["--admin", &admin]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Who reads nothing of it ends before.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: output.status.code(), out: text(&output.stdout), errors: text(&output.stderr) }
}

/// The answer's status to a request for payments by its port.
fn status(storefront: &LabNode, port: u16) -> Result<u16, String> {
    let url = format!("http://payments.shop.mesh.internal:{port}/");
    Ok(client::get(storefront.proxy(), &url)?.status)
}

/// Waits until payments is served on the one port and not on the other.
fn serves(storefront: &LabNode, port: u16, other: u16) {
    eventually(&format!("payments is served on {port} and not on {other}"), || {
        let both = (status(storefront, port)?, status(storefront, other)?);
        check(both == (200, 404), || format!("{both:?}"))
    });
}

#[test]
fn what_is_applied_at_one_gateway_acts_at_the_sidecars_of_another_and_can_be_rolled_back() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "").declare("us-east", &[]);
    lab.start_gateway("us-east");
    let one = lab.gateway("us-east");
    let two = lab.start_sibling("us-east");
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    serves(&storefront, 80, 81);

    let told = eastway(&["apply", "-f", "-"], &one, &service("payments", "ports: [{ port: 81 }]"));
    assert_eq!((told.code, told.out.as_str()), (Some(0), "Service shop/payments created\ngeneration 1\n"), "{told:?}");
    serves(&storefront, 81, 80);

    // Nothing differs, then something does: told by lines, and by the exit code.
    let told = eastway(&["diff", "-f", "-"], &two, &service("payments", "ports: [{ port: 81 }]"));
    assert_eq!((told.code, told.out.as_str()), (Some(0), ""), "{told:?}");
    let both = format!("{}---\n{}", service("payments", "ports: [{ port: 82 }]"), service("cart", ""));
    let told = eastway(&["diff", "-f", "-"], &two, &both);
    assert!(told.code == Some(2) && told.out.contains("-    - port: 81\n+    - port: 82\n"), "{told:?}");
    assert!(told.out.contains("+++ Service shop/cart as given"), "{told:?}");

    let told = eastway(&["apply", "-f", "-", "-o", "json"], &two, &both);
    let outcome: Value = serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    assert_eq!((&outcome["generation"], &outcome["applied"]), (&Value::from(2), &Value::from(true)), "{outcome}");
    serves(&storefront, 82, 81);
    let told = eastway(&["rollback", "--list"], &one, "");
    assert!(told.out.contains("Service shop/cart created, Service shop/payments changed"), "{told:?}");
    let told = eastway(&["rollback"], &one, "");
    assert!(told.code == Some(0) && told.out.ends_with("generation 3\n"), "{told:?}");
    serves(&storefront, 81, 82);

    // What is got can be applied again.
    let told = eastway(&["get", "service", "shop/payments", "-o", "yaml"], &two, "");
    let again = eastway(&["diff", "-f", "-"], &two, &told.out);
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""), "{told:?}\n{again:?}");
    let told = eastway(&["delete", "services", "payments", "-n", "shop"], &one, "");
    assert!(told.code == Some(0) && told.out.starts_with("Service shop/payments deleted\n"), "{told:?}");
    serves(&storefront, 80, 81);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_nothing_is_taken() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").declare("us-east", &[service("payments", "")]);
    lab.start_gateway("us-east");
    let gateway = lab.gateway("us-east");
    let two = format!("{}---\n{}", service("cart", ""), service("pay", "exprot: ['*']"));
    let file = lab.write("two.yaml", &two);
    let told = eastway(&["apply", "-f", &file.to_string_lossy()], &gateway, "");
    let line = format!("{}:9: spec.exprot: unknown key `exprot`; did you mean `export`?", file.display());
    assert!(told.code == Some(3) && told.errors.starts_with(&line), "{told:?}");
    // A file of the gateway keeps what it declares, and the owner is told.
    let told = eastway(&["apply", "-f", "-"], &gateway, &service("payments", "ports: [{ port: 81 }]"));
    assert!(told.code == Some(3) && told.errors.contains("Service shop/payments belongs to"), "{told:?}");
    let told = eastway(&["get"], &gateway, "");
    let owned = told
        .out
        .lines()
        .any(|line| line.contains("Service shop/payments") && line.contains("us-east-resources.yaml:1"));
    assert!(told.code == Some(0) && owned && !told.out.contains("cart"), "{told:?}");
    // A bundle beside a file is sent along; one that is none is told.
    lab.write("eu.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    let peer = |bundle: &str| {
        format!(
            "apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: eu-west }}\nspec:\n  gateways: ['127.0.0.1:1']\n  trustBundle: {bundle}\n  imports: ['shop/*']\n"
        )
    };
    let file = lab.write("peer.yaml", &peer("none.pem"));
    let told = eastway(&["apply", "-f", &file.to_string_lossy(), "--dry-run"], &gateway, "");
    assert!(
        told.code == Some(3) && told.errors.contains(":6: spec.trustBundle: `none.pem` cannot be read"),
        "{told:?}"
    );
    let file = lab.write("peer.yaml", &peer("eu.pem"));
    let told = eastway(&["apply", "-f", &file.to_string_lossy(), "--dry-run"], &gateway, "");
    assert!(told.code == Some(0) && told.out.starts_with("Peer eu-west would be created\n"), "{told:?}");
    // A page in a browser cannot have it changed.
    for (host, content_type, status) in [("127.0.0.1", "text/plain", 415), ("evil.example", "application/json", 403)] {
        let request = format!(
            "POST /resources HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let answer = client::raw(gateway.at(15000), request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
    }
}
