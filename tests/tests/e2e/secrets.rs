//! Private keys stay in their files: nothing that a node writes or answers holds a piece of one.

use std::fs;
use std::path::Path;

use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, StoreKind, reaches};

/// Every file in a folder whose name ends so.
fn files(folder: &Path, ending: &str) -> Vec<String> {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let named = paths.filter(|path| path.to_string_lossy().ends_with(ending));
    named.map(|path| fs::read_to_string(path).expect("text")).collect()
}

/// What a node tells: to its operator, and to whoever scrapes it.
fn told(node: &LabNode, pages: &[&str]) -> String {
    let page = |(port, page): (u16, &str)| {
        let answer = client::get(node.at(port), page).expect("an answer");
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    pages.iter().map(|name| page((15000, name))).chain([page((15020, "/metrics"))]).collect()
}

#[test]
fn no_key_is_logged_or_shown() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "telemetry: { log: { level: debug } }\n");
    lab.resources("us-east", &[]);
    let gateway = lab.start_gateway("us-east");
    let payments = lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront_with("us-east", "a", "telemetry: { log: { level: debug } }\n");
    reaches(storefront.proxy(), "us-east/a");

    let mut shown = files(lab.folder(), ".log").concat();
    shown += &told(&gateway, &["/status", "/services", "/explain/shop/payments"]);
    shown += &told(&storefront, &["/status"]);
    shown += &told(&payments, &["/status"]);
    assert!(shown.len() > 10_000 && shown.contains("\"debug\"") | shown.contains("DEBUG"), "{shown}");
    let keys = [files(&lab.identities("us-east"), ".key"), files(&lab.path("us-east-ca"), ".key")].concat();
    assert!(keys.len() >= 4, "the CA's and three nodes'");
    for line in keys.iter().flat_map(|key| key.lines()).filter(|line| line.len() >= 20) {
        assert!(!line.contains("PRIVATE KEY") || !shown.contains(line), "a key is shown");
        // Wherever a piece of it begins in what is shown.
        assert!(line.starts_with("-----") || !shown.contains(&line[4..20]), "a piece of a key is shown");
    }
}
