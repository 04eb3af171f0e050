//! A gateway on a real etcd: what lives there outlives the gateway, and nothing that serves waits for it.

use std::net::SocketAddr;

use eastway_tests::caller::Caller;
use eastway_tests::client;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches};
use eastway_tests::relay::Relay;
use eastway_tests::{check, eventually};

#[test]
fn etcd_is_killed_and_restarted_during_traffic_and_no_request_fails() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Etcd);
    lab.payments("us-east", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    lab.kill("us-east-etcd");
    caller.answers(150);
    // Who comes while etcd is away is served from memory, and who is called for the first time as well.
    let newcomer = lab.storefront("us-east", "b");
    reaches(newcomer.proxy(), "us-east/a");
    lab.start_etcd("us-east");
    caller.answers(50);
    let payments = lab.payments("us-east", "b", "payments-2");
    eventually("a workload that registered afterwards is called", || {
        let answer = client::get(newcomer.proxy(), PAYMENTS)?;
        check(answer.json()["name"] == payments.name.as_str(), || format!("{answer:?}"))
    });
    caller.finish_without_failure();
}

#[test]
fn membership_in_etcd_outlives_the_gateway_and_the_workload() {
    remembers(StoreKind::Etcd);
}

#[test]
fn membership_in_the_embedded_store_outlives_the_gateway_and_the_workload() {
    remembers(StoreKind::Embedded);
}

/// A workload dies together with the gateway. The gateway that starts again still knows it, and that it is gone: the
/// service has an endpoint that is not ready, and is not unknown.
fn remembers(store: StoreKind) {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], store);
    let ip = lab.host();
    // No resource declares it: only its registration says that it exists.
    let ledger = lab.workload("us-east", "a", "ledger-1", "ledger", ip);
    let storefront = lab.storefront("us-east", "a");
    let call = |caller: &LabNode| client::get(caller.proxy(), "http://ledger.shop.mesh.internal/");
    eventually("the ledger answers", || check(call(&storefront)?.status == 200, || "not yet".to_owned()));
    // Serving does not wait for the store. What the gateway has acknowledged, it has also stored.
    eventually("the registration is acknowledged", || {
        let status = client::get(ledger.at(15000), "/status")?.json();
        check(status["registration"]["gateway"].is_string(), || status.to_string())
    });
    lab.kill_workload(&ledger);
    lab.kill("us-east-gateway");
    lab.start_gateway("us-east");
    let newcomer = lab.storefront("us-east", "b");
    let answer = eventually("the newcomer gets an answer", || {
        let answer = call(&newcomer)?;
        check(answer.reason() != Some("discovery_timeout"), || format!("{answer:?}")).map(|()| answer)
    });
    assert!([502, 503, 504].contains(&answer.status), "the ledger is forgotten: {answer:?}");
    lab.restart_workload("us-east", "a", &ledger);
    eventually("the ledger answers again", || {
        let answer = call(&newcomer)?;
        check(answer.status == 200, || format!("{answer:?}"))
    });
}

#[test]
fn two_clusters_on_etcd_reach_one_another() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Etcd);
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
    // What the peer exports is mirrored: a gateway that starts while the peer is away still knows the service.
    for name in ["us-east-gateway", "eu-west-gateway"] {
        lab.kill(name);
        lab.start_gateway(name.trim_end_matches("-gateway"));
        reaches(storefront.proxy(), "eu-west/a");
    }
}

#[test]
fn one_of_two_gateways_dies_and_the_other_serves_the_whole_cluster() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Etcd);
    let second = lab.start_sibling("us-east");
    let near = lab.payments("us-east", "a", "payments-1");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let far = "http://payments.shop.eu-west.mesh.internal/";
    eventually("eu-west answers", || {
        check(client::get(storefront.proxy(), far)?.status == 200, || "not yet".to_owned())
    });
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    lab.kill("us-east-gateway");
    caller.answers(100);
    eventually("eu-west answers through the second gateway", || {
        check(client::get(storefront.proxy(), far)?.status == 200, || "not yet".to_owned())
    });
    // A newcomer that only the second gateway knows of is called, and so is who had registered with the first.
    lab.payments("us-east", "a", "payments-2");
    for name in ["us-east-payments-2", near.name.as_str()] {
        eventually(&format!("{name} is called"), || {
            let answer = client::get(storefront.proxy(), PAYMENTS)?;
            check(answer.json()["name"] == name, || format!("{answer:?}"))
        });
    }
    let streams = second.metric("eastway_tunnel_streams_total", &[r#"peer_cluster="eu-west""#]).expect("metrics");
    assert!(streams >= 1.0, "the second gateway carried nothing");
    caller.finish_without_failure();
}

/// What the gateway says of the endpoints of its cluster, by health.
fn census(gateway: &LabNode) -> Result<serde_json::Value, String> {
    Ok(client::get(gateway.at(15000), "/status")?.json()["federation"]["endpoints"].clone())
}

fn becomes(gateway: &LabNode, what: &str, expected: &serde_json::Value) {
    eventually(what, || {
        let found = census(gateway)?;
        check(found == *expected, || format!("{found}, not {expected}"))
    });
}

#[test]
fn a_gateway_that_is_cut_off_from_etcd_for_long_loses_nobody_at_its_sibling_and_repairs_its_slices() {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Etcd, "timeouts: { session: 2s, collect: 1s }\n").resources("us-east", &[]);
    lab.start_etcd("us-east");
    let relay = Relay::start(lab.etcd("us-east").ip(), lab.etcd("us-east"));
    let text = std::fs::read_to_string(lab.configure_gateway("us-east")).expect("written");
    let etcd = lab.etcd("us-east").to_string();
    lab.write("us-east-gateway.yaml", &text.replace(&etcd, &relay.address().to_string()));
    lab.start_gateway("us-east");
    // They know of no other gateway than the one that will be cut off.
    let first = lab.payments("us-east", "a", "payments-1");
    let second = lab.payments("us-east", "a", "payments-2");
    let sibling = lab.start_sibling("us-east");
    becomes(&sibling, "the sibling knows both", &serde_json::json!({ "ready": 2 }));
    // What is unready at one gateway is so at the other, whose probes it would answer.
    for (told, expected) in
        [("fail", serde_json::json!({ "ready": 1, "unready": 1 })), ("pass", serde_json::json!({ "ready": 2 }))]
    {
        let request =
            format!("POST /health/{told} HTTP/1.1\r\nhost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        client::raw(first.app(), request.as_bytes()).expect("an answer");
        becomes(&sibling, "it hears how the endpoint does", &expected);
    }

    relay.cut();
    lab.kill_workload(&second);
    becomes(&sibling, "the dead one is noticed", &serde_json::json!({ "ready": 1, "down": 1 }));
    // Its gateway cannot write, and still says how it does: so it is shown, but what is stored of it is collected.
    let stored = || stored_memberships(lab.etcd("us-east"));
    let both = stored().expect("etcd answers");
    eventually("what is dead is collected", || {
        let now = stored()?;
        check(now < both, || format!("{now} bytes of {both}"))
    });
    becomes(&sibling, "the dead one is still stated", &serde_json::json!({ "ready": 1, "down": 1 }));
    // This caller's first choice may be either gateway; both must say the same.
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    relay.heal();
    // The gateway that returns has not given the dead one up yet, and says so in its slices.
    eventually("the slices are as their gateway has them", || {
        let now = stored_memberships(lab.etcd("us-east"))?;
        check(now >= both, || format!("{now} bytes of {both}"))
    });
    caller.answers(50);
    caller.finish_without_failure();
}

/// How many bytes etcd holds of memberships, as it tells them: by its JSON interface, in base64.
fn stored_memberships(etcd: SocketAddr) -> Result<usize, String> {
    // All keys that begin with /eastway/v1/self/svc/.
    let range = r#"{"key":"L2Vhc3R3YXkvdjEvc2VsZi9zdmMv","range_end":"L2Vhc3R3YXkvdjEvc2VsZi9zdmMw"}"#;
    let length = range.len();
    let request = format!(
        "POST /v3/kv/range HTTP/1.1\r\nhost: etcd\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{range}"
    );
    let answer = client::raw(etcd, request.as_bytes())?.json();
    let entries = answer["kvs"].as_array().ok_or_else(|| answer.to_string())?;
    Ok(entries.iter().filter_map(|entry| entry["value"].as_str()).map(str::len).sum())
}

#[test]
fn gateways_start_from_what_their_etcd_held_last_serve_both_clusters_and_take_part_again_later() {
    let clusters = ["us-east", "eu-west"];
    let mut lab = Lab::new();
    for name in clusters {
        lab.plan(name, StoreKind::Etcd, &format!("state: {name}-gateway-kept\n"));
    }
    for (name, peer) in clusters.iter().zip(clusters.iter().rev()) {
        lab.resources(name, &[peer]);
        lab.start_gateway(name);
    }
    let payments = lab.payments("us-east", "a", "payments-1");
    lab.payments("eu-west", "a", "payments-2");
    reaches(lab.storefront("us-east", "a").proxy(), "us-east/a");
    for name in clusters {
        let kept = lab.path(&format!("{name}-gateway-kept/store.json"));
        eventually(&format!("{} is kept", kept.display()), || {
            let text = std::fs::read_to_string(&kept).map_err(|error| error.to_string())?;
            check(text.contains("/self/svc/shop/payments/") && text.contains("/peer/"), || "not yet".to_owned())
        });
    }
    for name in clusters {
        lab.kill(&format!("{name}-etcd"));
        lab.kill(&format!("{name}-gateway"));
    }
    // Neither etcd nor the peer is there: the own cluster's endpoints are, and how old that is.
    let gateway = lab.gateway("us-east");
    lab.start_role("gateway", &gateway.name);
    lab.wait_ready(&gateway);
    let newcomer = lab.storefront("us-east", "b");
    reaches(newcomer.proxy(), "us-east/a");
    let status = client::get(gateway.at(15000), "/status").expect("an answer").json();
    assert!(status["federation"]["state_age_seconds"].is_u64(), "{status}");
    let kinds: Vec<_> =
        status["problems"].as_array().expect("problems").iter().map(|one| one["kind"].clone()).collect();
    assert!(kinds.contains(&"started_without_store".into()), "{kinds:?}");
    // The peer starts in the same way, and is reached when nobody here is left.
    let peer = lab.gateway("eu-west");
    lab.start_role("gateway", &peer.name);
    lab.wait_ready(&peer);
    lab.kill_workload(&payments);
    reaches(newcomer.proxy(), "eu-west/a");
    // Etcd comes back: what registers is stored, and nothing is said of an age.
    lab.start_etcd("us-east");
    lab.payments("us-east", "a", "payments-3");
    reaches(newcomer.proxy(), "us-east/a");
    eventually("the gateway takes part again", || {
        let status = client::get(gateway.at(15000), "/status")?.json();
        check(status["federation"]["state_age_seconds"].is_null(), || status["federation"]["store"].to_string())
    });
}
