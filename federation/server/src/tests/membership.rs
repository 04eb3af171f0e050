//! What the store says of members is as the gateways mean it, whatever happens to the store and to their way to it.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::Health;
use eastway_registry::{ProbeOutcome, Slice};
use tokio::time::{Instant, sleep};

use super::outages::Fickle;
use crate::Server;
use crate::probing::Prober;
use crate::store::{Store, keys};
use crate::testing::{Gateway, payments};

/// The endpoints in the slice that `gateway` has of payments.
async fn stored(gateway: &Gateway) -> Vec<String> {
    let entry = gateway.store.get(&keys::slice(&payments(), gateway.id, 0)).await.expect("the store answers");
    let slice = entry.and_then(|entry| serde_json::from_slice::<Slice>(&entry.value).ok()).unwrap_or_default();
    slice.endpoints.into_iter().map(|registration| registration.endpoint.to_string()).collect()
}

async fn stored_becomes(gateway: &Gateway, expected: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while stored(gateway).await != expected {
        assert!(Instant::now() < deadline, "never {expected:?} in the store, but {:?}", stored(gateway).await);
        sleep(Duration::from_millis(50)).await;
    }
}

async fn exists(gateway: &Gateway, key: &str) -> bool {
    gateway.store.get(key).await.expect("the store answers").is_some()
}

/// Starts `gateway` on a store that can be away.
async fn run_on_fickle(gateway: &Gateway) -> Arc<Fickle> {
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    let prober = Arc::clone(&gateway.fates) as Arc<dyn Prober>;
    let resources = gateway.resources.lock().clone();
    let server = Server::start_with(gateway.config(), Arc::clone(&store) as Arc<dyn Store>, resources, prober);
    *gateway.server.lock() = Some(server.await.expect("started"));
    store
}

#[tokio::test(start_paused = true)]
async fn slices_that_were_deleted_edited_or_invented_are_made_good() {
    let gateway = Gateway::start("us-east").await;
    gateway.sidecar("p1", "a", 1).registrar.registered().await;
    let key = keys::slice(&payments(), gateway.id, 0);
    let written = gateway.store.get(&key).await.expect("an answer").expect("acknowledged").value;
    gateway.store.delete(&key).await.expect("deleted");
    stored_becomes(&gateway, &["p1"]).await;
    gateway.store.put(&key, "{}".into()).await.expect("edited");
    stored_becomes(&gateway, &["p1"]).await;
    let invented = keys::slice(&payments(), gateway.id, 7);
    gateway.store.put(&invented, written).await.expect("invented");
    let deadline = Instant::now() + Duration::from_secs(60);
    while exists(&gateway, &invented).await {
        assert!(Instant::now() < deadline, "a slice that its gateway does not have stays");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_is_filled_again() {
    let gateway = Gateway::start("us-east").await;
    let sibling = gateway.sibling("gw-2");
    sibling.run().await;
    gateway.sidecar("p1", "a", 1).registrar.registered().await;
    sibling.sidecar("p2", "a", 1).registrar.registered().await;
    gateway.store.delete_prefix(keys::ROOT).await.expect("wiped");
    stored_becomes(&gateway, &["p1"]).await;
    stored_becomes(&sibling, &["p2"]).await;
    for key in [keys::META.to_owned(), keys::gateway("gw-1"), keys::gateway("gw-2"), keys::epoch("gw-1")] {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !exists(&gateway, &key).await {
            assert!(Instant::now() < deadline, "never again: {key}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_replaced_under_its_id_writes_nothing_over_its_successor_and_ends() {
    let former = Gateway::start("us-east").await;
    let server = former.running();
    let successor = former.sibling("gw-1");
    successor.run().await;
    successor.sidecar("p1", "a", 1).registrar.registered().await;
    former.sidecar("p2", "a", 1).registrar.registered().await;
    assert_eq!(server.replaced().await, successor.running().epoch());
    assert_eq!(server.status().replaced_by, Some(successor.running().epoch()));
    server.shutdown(Duration::from_secs(5)).await.expect("every task ends");
    assert_eq!(stored(&successor).await, ["p1"]);
    // What the former kept in the store ends with it, and the successor's stays.
    let deadline = Instant::now() + Duration::from_secs(60);
    let own = serde_json::json!({ "address": "gw-1.us-east:15443", "epoch": successor.running().epoch() });
    loop {
        let entry = former.store.get(&keys::gateway("gw-1")).await.expect("the store answers");
        let found = entry.map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.value).expect("JSON"));
        if found.as_ref() == Some(&own) {
            break;
        }
        assert!(Instant::now() < deadline, "the successor's key is {found:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_answers_outlives_its_gateways_absence_from_the_store_and_what_is_dead_does_not() {
    let cut = Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let fickle = run_on_fickle(&cut).await;
    let sibling = cut.sibling("gw-2");
    sibling.run().await;
    let (alive, dead) = (cut.sidecar("p1", "a", 1), cut.sidecar("p2", "a", 1));
    alive.registrar.registered().await;
    dead.registrar.registered().await;
    fickle.set_away(true);
    // The leases of this store are those of its process: what would end with them is ended here.
    for key in [keys::gateway("gw-1"), keys::LEADER.to_owned()] {
        cut.store.delete(&key).await.expect("ended");
    }
    cut.fates.set(dead.address, ProbeOutcome::Refused);
    stored_becomes(&cut, &["p1"]).await;
    let end = Instant::now() + Duration::from_secs(200);
    while Instant::now() < end {
        assert_eq!(sibling.health("p1"), Some(Health::Ready));
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!((stored(&cut).await, sibling.health("p2")), (vec!["p1".to_owned()], None));
    // Its sidecar has spoken to it all the time: back in the store, the gateway says what it knows.
    fickle.set_away(false);
    stored_becomes(&cut, &["p1", "p2"]).await;
    assert_eq!(sibling.health("p1"), Some(Health::Ready));
}
