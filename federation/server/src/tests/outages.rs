//! The store goes away and comes back: nobody notices, and what changed meanwhile is written afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eastway_client::DiscoveryOptions;
use eastway_core::Health;
use eastway_registry::{ProbeOutcome, Slice};
use tokio::time::{Instant, sleep};

use crate::options::ServerConfig;
use crate::resources::Files;
use crate::server::Server;
use crate::store::{
    Commit, EmbeddedStore, LeaseId, Listing, Revision, Store, StoreEntry, StoreError, StoreHealth, Txn, Watch, keys,
};
use crate::testing::{Gateway, eventually, payments};

/// A store that can be away.
#[derive(Debug)]
pub(super) struct Fickle {
    store: EmbeddedStore,
    away: AtomicBool,
}

impl Fickle {
    pub(super) const fn new(store: EmbeddedStore) -> Self {
        Self { store, away: AtomicBool::new(false) }
    }

    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    fn reach(&self) -> Result<&EmbeddedStore, StoreError> {
        let away = || StoreError::Unavailable { attempts: 1, reason: "away".to_owned() };
        if self.away.load(Ordering::Relaxed) { Err(away()) } else { Ok(&self.store) }
    }
}

#[async_trait]
impl Store for Fickle {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        self.reach()?.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.reach()?.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.reach()?.txn(txn).await
    }

    async fn put(&self, key: &str, value: bytes::Bytes) -> Result<Revision, StoreError> {
        self.reach()?.put(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        self.reach()?.delete(key).await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64, StoreError> {
        self.reach()?.delete_prefix(prefix).await
    }

    fn watch(&self, prefix: &str, after: Option<Revision>) -> Watch {
        self.store.watch(prefix, after)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.reach()?.grant(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.reach()?.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach()?.revoke(lease).await
    }

    async fn cluster_id(&self) -> Result<u64, StoreError> {
        self.reach()?.cluster_id().await
    }

    fn health(&self) -> StoreHealth {
        self.store.health()
    }
}

/// The endpoints in the stored slice.
async fn stored(gateway: &Gateway) -> usize {
    let entry = gateway.store.get(&keys::slice(&payments(), gateway.id, 0)).await.expect("the store answers");
    entry.map_or(0, |entry| serde_json::from_slice::<Slice>(&entry.value).expect("JSON").endpoints.len())
}

async fn stored_becomes(gateway: &Gateway, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while stored(gateway).await != count {
        assert!(Instant::now() < deadline, "never {count} endpoints in the store");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn registrations_and_callers_do_not_wait_for_the_store() {
    let gateway =
        Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    let (resources, prober) = (gateway.resources.lock().clone(), Arc::clone(&gateway.fates));
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let server = Server::start_with(gateway.config(), shared, resources, prober).await.expect("started");
    *gateway.server.lock() = Some(server);
    gateway.sidecar("p1", "a", 1).registrar.registered().await;
    assert_eq!(stored(&gateway).await, 1, "what is acknowledged is in the store");

    store.set_away(true);
    let second = gateway.sidecar("p2", "a", 1);
    second.registrar.registered().await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    assert_eq!(discovery.resolve(&payments()).await.expect("known").endpoints.len(), 2);
    // Long enough that the next try would come ten seconds after the last.
    sleep(Duration::from_secs(121)).await;
    second.registrar.set_health(Health::Unready, "");
    eventually("news", || (notes.health("p2") == Some(Health::Unready)).then_some(())).await;
    assert_eq!(stored(&gateway).await, 1);

    store.set_away(false);
    let back = Instant::now();
    stored_becomes(&gateway, 2).await;
    let took = back.elapsed();
    assert!(
        took < Duration::from_millis(2_600),
        "a lease is had within a quarter of its life, and it is written then: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_starts_without_its_store_waits_for_it() {
    let gateway =
        Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    store.set_away(true);
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let (config, resources) = (gateway.config(), gateway.resources.lock().clone());
    let starting = tokio::spawn(Server::start(config, shared, resources.into()));
    sleep(Duration::from_secs(30)).await;
    assert!(!starting.is_finished());
    store.set_away(false);
    let server = starting.await.expect("no panic").expect("started");
    assert!(server.epoch() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_knows_what_its_store_held_starts_without_it_and_takes_part_again_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway =
        Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    let start = async || {
        let config = ServerConfig { state: Some(folder.path().to_owned()), ..gateway.config() };
        let (shared, prober) = (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&gateway.fates));
        let resources = gateway.resources.lock().clone();
        let server = Server::start_with(config, shared, resources, prober).await;
        *gateway.server.lock() = server.as_ref().ok().cloned();
        server
    };
    let before = start().await.expect("started").epoch();
    gateway.sidecar("p1", "a", 1).registrar.registered().await;
    let kept =
        || std::fs::read_to_string(folder.path().join("store.json")).ok().filter(|kept| kept.contains("\\\"p1\\\""));
    eventually("the endpoint is kept", kept).await;
    gateway.kill().await;

    store.set_away(true);
    let server = start().await.expect("started without its store");
    assert!(server.epoch() > before);
    assert!(server.status().state_age_seconds.is_some());
    let (discovery, _, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    assert_eq!(discovery.resolve(&payments()).await.expect("known").endpoints.len(), 1);
    gateway.sidecar("p2", "a", 1).registrar.registered().await;
    assert_eq!(discovery.resolve(&payments()).await.expect("known").endpoints.len(), 2);

    store.set_away(false);
    stored_becomes(&gateway, 2).await;
    assert_eq!(server.status().state_age_seconds, None);
}

/// Found by the simulation: nobody could tell the second of these lives from the first.
#[tokio::test(start_paused = true)]
async fn each_life_that_begins_without_the_store_is_later_than_the_one_before_whatever_the_clock_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start("us-east").await;
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    let start = async |wall_clock: fn() -> u64| {
        let mut config =
            ServerConfig { state: Some(folder.path().to_owned()), gateway: "gw-9".into(), ..gateway.config() };
        config.options.wall_clock = wall_clock;
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        Server::start(config, shared, Files::default()).await.expect("started")
    };
    let first = start(|| 1_800_000_000_000).await;
    eventually("the store is kept", || folder.path().join("store.json").exists().then_some(())).await;
    first.kill().await;
    store.set_away(true);
    let mut before = first.epoch();
    for _ in 0..2 {
        let life = start(|| 1_799_999_000_000).await;
        assert!(life.epoch() > before, "{} after {before}", life.epoch());
        before = life.epoch();
        life.kill().await;
    }
    store.set_away(false);
    let life = start(|| 1_799_999_000_000).await;
    assert!(life.epoch() > before, "the store knows of none of them");
    life.kill().await;
}

#[tokio::test(start_paused = true)]
async fn another_store_behind_the_address_is_refused_by_a_gateway_that_had_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (Gateway::start("us-east").await, Gateway::start("us-east").await);
    let start = |gateway: &Gateway| {
        let config = ServerConfig { state: Some(folder.path().to_owned()), gateway: "gw-9".into(), ..gateway.config() };
        Server::start(config, Arc::new(gateway.store.clone()), Files::default())
    };
    let server = start(&one).await.expect("started");
    eventually("the store is kept", || folder.path().join("store.json").exists().then_some(())).await;
    server.kill().await;
    let error = start(&two).await.expect_err("another store").to_string();
    assert!(error.contains("another one") && error.contains("`state`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_went_while_a_gateway_was_not_there_is_gone_once_the_store_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway =
        Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let sibling = gateway.sibling("gw-2");
    sibling.run().await;
    sibling.sidecar("p2", "a", 1).registrar.registered().await;
    let store = Arc::new(Fickle::new(gateway.store.clone()));
    let start = async || {
        let config = ServerConfig { state: Some(folder.path().to_owned()), ..gateway.config() };
        let (shared, prober) = (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&gateway.fates));
        let resources = gateway.resources.lock().clone();
        Server::start_with(config, shared, resources, prober).await.expect("started")
    };
    let server = start().await;
    let kept = || std::fs::read_to_string(folder.path().join("store.json")).ok().filter(|kept| kept.contains("gw-2-0"));
    eventually("the sibling and its slice are kept", kept).await;
    server.kill().await;
    sibling.kill().await;
    gateway.store.delete(&keys::slice(&payments(), "gw-2", 0)).await.expect("deleted");
    gateway.store.delete(&keys::gateway("gw-2")).await.expect("deleted");

    store.set_away(true);
    let server = start().await;
    // Who answers is kept whatever a list says; this one does not.
    let address = server.view(&payments()).expect("kept").endpoints[0].address;
    gateway.fates.set(address, ProbeOutcome::Refused);
    let listed = || server.view(&payments()).is_some_and(|view| !view.endpoints.is_empty());
    assert!(listed(), "it begins with what was kept");
    eventually("the sibling is gone", || server.status().siblings.is_empty().then_some(())).await;
    eventually("its endpoint is gone", || (!listed()).then_some(())).await;
}
