//! Resources that operators apply: judged, stored and in effect as one set.

use std::sync::Arc;

use eastway_core::resource::Service;
use eastway_registry::Resources;

use crate::resources::{Became, Change, Files, NotApplied, Outcome};
use crate::server::Server;
use crate::testing::{Gateway, NoDialer, eventually, payments};

fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ {spec} }}\n"
    )
}

fn texts(texts: &[String], prune: bool) -> Change {
    let file = |(at, text): (usize, &String)| serde_json::json!({ "file": format!("{at}.yaml"), "text": text });
    let texts: Vec<_> = texts.iter().enumerate().map(file).collect();
    serde_json::from_value(serde_json::json!({ "change": "apply", "texts": texts, "prune": prune })).expect("a change")
}

async fn apply(server: &Server, change: &Change) -> Outcome {
    server.apply(change, "ann@desk", false).await.expect("applied")
}

fn told(outcome: &Outcome) -> Vec<(String, Became)> {
    outcome.changes.iter().map(|one| (one.change.id.to_string(), one.change.became)).collect()
}

fn attempts(server: &Server) -> Option<u32> {
    server.hub().read(|catalogue, _| catalogue.resources().spec(&payments()).policy.retries.attempts)
}

/// As if a file of a gateway said so.
fn declare(text: String) -> Files {
    let text = eastway_admission::Text { file: "/etc/eastway/shop.yaml".into(), text };
    let none = |_: &_, _: &str| Err(std::io::Error::other("no files"));
    Files::new(eastway_admission::read(&[text], &none).expect("valid")).expect("usable")
}

async fn bare(cluster: &'static str) -> Gateway {
    let gateway = Gateway::new(cluster, Arc::new(NoDialer), Resources::default()).await;
    gateway.run().await;
    gateway
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_acts_at_once_at_every_gateway_and_after_a_restart() {
    let one = bare("us-east").await;
    let two = one.sibling("gw-2");
    two.run().await;
    let outcome = apply(&one.running(), &texts(&[service("payments", "retries: { attempts: 4 }")], false)).await;
    assert_eq!((outcome.generation, outcome.applied), (1, true));
    assert_eq!(told(&outcome), [("Service shop/payments".to_owned(), Became::Created)]);
    assert_eq!(attempts(&one.running()), Some(4));
    eventually("the sibling acts on it", || (attempts(&two.running()) == Some(4)).then_some(())).await;
    two.running().kill().await;
    let three = one.sibling("gw-3");
    three.run().await;
    assert_eq!(attempts(&three.running()), Some(4));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_set_is_taken_if_a_part_of_it_is_wrong() {
    let gateway = bare("us-east").await;
    let server = gateway.running();
    let wrong = texts(&[service("payments", ""), service("cart", "exprot: ['*']")], false);
    let Err(NotApplied::Problems(problems)) = server.apply(&wrong, "ann", false).await else { panic!("refused") };
    assert!(problems.to_string().starts_with("1.yaml:4: spec.exprot: unknown key `exprot`"), "{problems}");
    // What no document says by itself: with what is there already.
    apply(&server, &texts(&[service("payments", "")], false)).await;
    let own = texts(&[service("cart", "failover: [us-east]")], false);
    let Err(NotApplied::Problems(problems)) = server.apply(&own, "ann", false).await else { panic!("refused") };
    assert!(problems.to_string().contains("`us-east` is this cluster, which always comes first"), "{problems}");
    assert_eq!(server.generations().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_all_and_writes_nothing_and_what_is_as_it_should_be_is_left_alone() {
    let gateway = bare("us-east").await;
    let server = gateway.running();
    let change = texts(&[service("payments", "")], false);
    let outcome = server.apply(&change, "ann", true).await.expect("told");
    assert_eq!((outcome.generation, outcome.applied, outcome.changes.len()), (0, false, 1));
    assert!(server.resources().is_empty());
    apply(&server, &change).await;
    let again = apply(&server, &change).await;
    assert_eq!((again.generation, again.applied, again.changes.len()), (1, false, 0));
}

#[tokio::test(start_paused = true)]
async fn sets_are_pruned_deleted_from_and_rolled_back() {
    let gateway = bare("us-east").await;
    let server = gateway.running();
    apply(&server, &texts(&[service("payments", "retries: { attempts: 4 }"), service("cart", "")], false)).await;
    let pruned = apply(&server, &texts(&[service("payments", "retries: { attempts: 5 }")], true)).await;
    let expected =
        [("Service shop/cart".to_owned(), Became::Deleted), ("Service shop/payments".to_owned(), Became::Changed)];
    assert_eq!(told(&pruned), expected);
    let error = server.apply(&texts(&[], true), "ann", false).await.expect_err("all would go").to_string();
    assert!(error.contains("delete --all"), "{error}");
    let back = apply(&server, &Change::Rollback { generation: None }).await;
    assert_eq!((back.generation, attempts(&server)), (3, Some(4)));
    let named = server.resources().iter().map(|one| (one.id.name.clone(), one.owner.clone())).collect::<Vec<_>>();
    let applied = |name: &str| (name.to_owned(), "applied".to_owned());
    assert_eq!(named, [applied("cart"), applied("payments")]);
    let cart = crate::resources::DocumentId::find("services", "shop", "cart").expect("a kind");
    let deletion = Change::Delete { resources: vec![cart] };
    apply(&server, &deletion).await;
    let error = server.apply(&deletion, "ann", false).await.expect_err("gone").to_string();
    assert!(error.contains("Service shop/cart was not applied"), "{error}");
    let error = server.apply(&Change::Rollback { generation: Some(40) }, "ann", false).await.expect_err("none");
    assert!(error.to_string().contains("generation 40 is not kept"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_file_keeps_what_it_declares() {
    let gateway = bare("us-east").await;
    let server = gateway.running();
    server.set_files(declare(service("payments", "retries: { attempts: 2 }"))).expect("taken");
    assert_eq!(attempts(&server), Some(2));
    let change = texts(&[service("payments", "retries: { attempts: 4 }")], false);
    let Err(NotApplied::Problems(problems)) = server.apply(&change, "ann", false).await else { panic!("refused") };
    assert!(problems.to_string().contains("belongs to /etc/eastway/shop.yaml:1"), "{problems}");
    assert_eq!(server.resources()[0].owner, "/etc/eastway/shop.yaml:1");
    // The other way round.
    apply(&server, &texts(&[service("cart", "")], false)).await;
    let contested = server.set_files(declare(service("cart", ""))).expect_err("contested");
    assert_eq!(contested[0].id.to_string(), "Service shop/cart");
    assert_eq!(attempts(&server), Some(2), "what counted before stays");
    let services = std::collections::BTreeMap::from([(payments(), Service::default())]);
    server.set_resources(Resources { services, ..Resources::default() });
    assert_eq!(attempts(&server), None);
}

#[tokio::test(start_paused = true)]
async fn where_a_set_that_was_applied_elsewhere_meets_a_file_the_file_counts() {
    let one = bare("us-east").await;
    let two = one.sibling("gw-2");
    two.run().await;
    one.running().set_files(declare(service("payments", "retries: { attempts: 2 }"))).expect("taken");
    let both = [service("payments", "retries: { attempts: 4 }"), service("cart", "")];
    apply(&two.running(), &texts(&both, false)).await;
    assert_eq!(attempts(&two.running()), Some(4));
    let told = || one.running().resources().iter().any(|one| one.id.name == "cart").then_some(());
    eventually("the set has come", told).await;
    assert_eq!(attempts(&one.running()), Some(2));
    let owners: Vec<_> = one.running().resources().into_iter().map(|one| (one.id.name, one.owner)).collect();
    let (file, applied) = ("/etc/eastway/shop.yaml:1".to_owned(), "applied".to_owned());
    assert_eq!(owners, [("payments".to_owned(), file), ("cart".to_owned(), applied)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_live_is_asked_once_it_had_the_time_to_speak() {
    let gateway = bare("us-east").await;
    let peer = "apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: { name: eu-west }\nspec: { gateways: ['127.0.0.1:1'], trustBundle: eu.pem, imports: ['bank/*'] }\n";
    let mut change = texts(&[peer.to_owned(), service("payments", "export: [eu-west]")], false);
    if let Change::Apply { beside, .. } = &mut change {
        beside.insert("eu.pem".to_owned(), gateway.ca.bundle_pem().to_owned());
    }
    let warned = async || {
        let outcome = gateway.running().apply(&change, "ann", true).await.expect("sound");
        outcome.warnings.to_string().contains("nothing is offered: the service has no endpoint")
    };
    assert!(!warned().await, "nobody has had the time to register");
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert!(warned().await);
    gateway.sidecar("p1", "a", 1).registrar.registered().await;
    assert!(!warned().await);
}
