//! Gateways that end, come back, and stand in for one another.

use std::sync::Arc;
use std::time::Duration;

use eastway_client::{Discovery, DiscoveryOptions, Sink};
use eastway_core::{EndpointId, Health, LoadReport};
use eastway_registry::ProbeOutcome;
use tokio::time::{Instant, sleep};

use crate::store::{Store, keys};
use crate::testing::{Gateway, Notes, Sidecar, eventually, payments};

#[tokio::test(start_paused = true)]
async fn a_restarted_gateway_starts_from_the_store_in_its_next_epoch() {
    let gateway = Gateway::start("us-east").await;
    let (epoch, uid) = (gateway.running().epoch(), gateway.running().cluster().uid);
    for (endpoint, zone) in [("p1", "a"), ("p2", "b")] {
        let sidecar = gateway.sidecar(endpoint, zone, 1);
        sidecar.registrar.registered().await;
        sidecar.kill();
        if endpoint == "p2" {
            gateway.fates.set(sidecar.address, ProbeOutcome::Refused);
        }
    }
    stored(&gateway, 2).await;
    gateway.kill().await;
    let server = gateway.run().await;
    assert!(server.epoch() > epoch);
    assert_eq!(server.cluster().uid, uid);
    assert_eq!(server.view(&payments()).expect("known").endpoints.len(), 2, "never an empty view");
    server.settled().await;
    assert_eq!((gateway.health("p1"), gateway.health("p2")), (Some(Health::Ready), Some(Health::Down)));
}

/// Waits until the slice of `payments` has `count` endpoints.
async fn stored(gateway: &Gateway, count: usize) {
    let key = keys::slice(&payments(), gateway.id, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let entry = gateway.store.get(&key).await.expect("the store answers");
        let slice = entry.map(|entry| serde_json::from_slice::<eastway_registry::Slice>(&entry.value).expect("JSON"));
        if slice.map_or(0, |slice| slice.endpoints.len()) == count {
            return;
        }
        assert!(Instant::now() < deadline, "never {count} endpoints in the store");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn callers_and_workloads_live_through_a_restart_without_noticing() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    discovery.resolve(&payments()).await.expect("known");
    stored(&gateway, 1).await;
    gateway.kill().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(discovery.resolve(&payments()).await.expect("still known").endpoints[0].health, Health::Ready);
    gateway.run().await;
    eventually("registered again", || (sidecar.registrar.status().accepted == 2).then_some(())).await;
    eventually("followed again", || discovery.status().gateway).await;
    sidecar.registrar.set_health(Health::Degraded, "");
    eventually("news", || (notes.health("p1") == Some(Health::Degraded)).then_some(())).await;
    assert!(notes.unknown.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_lost_its_store_does_not_empty_its_callers_views() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    discovery.resolve(&payments()).await.expect("known");
    gateway.kill().await;
    sidecar.kill();
    gateway.store.delete_prefix(keys::ROOT).await.expect("wiped");
    *gateway.resources.lock() = Default::default();
    gateway.run().await;
    eventually("followed again", || discovery.status().gateway).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(discovery.view(&payments()).expect("held").endpoints.len(), 1);
    sleep(Duration::from_secs(15)).await;
    assert!(discovery.view(&payments()).is_none(), "after the hold, it is believed");
    assert_eq!(*notes.unknown.lock(), [payments()]);
}

#[tokio::test(start_paused = true)]
async fn siblings_see_one_anothers_endpoints_and_take_over_from_one_that_dies() {
    let first = Gateway::start("us-east").await;
    let second = first.sibling("gw-2");
    second.run().await;
    let (link, wire) = first.link("payments", &[&second]);
    let sidecar = Sidecar::start(link, wire, "p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen by the sibling", || (second.health("p1") == Some(Health::Ready)).then_some(())).await;

    let (link, _) = first.link("storefront", &[&second]);
    let notes = Arc::new(Notes::default());
    let (discovery, run) = Discovery::new(link, DiscoveryOptions::new("us-east"), Arc::clone(&notes) as Arc<dyn Sink>);
    let _task = tokio::spawn(run);
    discovery.resolve(&payments()).await.expect("known");
    first.kill().await;
    eventually("moved", || (sidecar.registrar.status().gateway.as_deref() == Some("gw-2")).then_some(())).await;
    eventually("moved", || (discovery.status().gateway.as_deref() == Some("gw-2")).then_some(())).await;
    assert_eq!(second.health("p1"), Some(Health::Ready));
    assert!(notes.unknown.lock().is_empty());

    // The one left becomes the leader and collects what the dead one wrote.
    let key = keys::slice(&payments(), "gw-1", 0);
    let deadline = Instant::now() + Duration::from_secs(300);
    while first.store.get(&key).await.expect("the store answers").is_some() {
        assert!(Instant::now() < deadline, "never collected");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(second.health("p1"), Some(Health::Ready));
}

#[tokio::test(start_paused = true)]
async fn an_own_sink_hears_of_every_service_and_its_loads() {
    let gateway = Gateway::start("us-east").await;
    let notes = Arc::new(Notes::default());
    gateway.running().follow(Arc::clone(&notes) as Arc<dyn Sink>).want(&payments());
    let sidecar = gateway.sidecar("p1", "a", 1);
    eventually("a view", || (notes.health("p1") == Some(Health::Ready)).then_some(())).await;
    let load = LoadReport { active_requests: 9, utilisation: None, error_rate: 0.5 };
    sidecar.registrar.set_load(load);
    eventually("a load", || (notes.loads.lock().get(&EndpointId::new("p1")) == Some(&load)).then_some(())).await;
    assert!(notes.mesh.lock().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_drained_gateway_sends_its_sidecars_away_and_every_task_ends() {
    let first = Gateway::start("us-east").await;
    let second = first.sibling("gw-2");
    second.run().await;
    let (link, wire) = first.link("payments", &[&second]);
    let sidecar = Sidecar::start(link, wire, "p1", "a", 1);
    sidecar.registrar.registered().await;
    let server = first.server.lock().take().expect("running");
    server.drain();
    eventually("moved", || (sidecar.registrar.status().gateway.as_deref() == Some("gw-2")).then_some(())).await;
    server.shutdown(Duration::from_secs(5)).await.expect("every task ends");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_returns_to_the_gateway_that_it_prefers_once_that_answers_again() {
    let first = Gateway::start("us-east").await;
    let second = first.sibling("gw-2");
    second.run().await;
    let (link, wire) = first.link("payments", &[&second]);
    let returning = tokio::spawn(link.clone().keep_returning());
    let sidecar = Sidecar::start(link.clone(), wire, "p1", "a", 1);
    let notes = Arc::new(Notes::default());
    let options = DiscoveryOptions::new("us-east");
    let (discovery, run) = Discovery::new(link.clone(), options, Arc::clone(&notes) as Arc<dyn Sink>);
    let _following = tokio::spawn(run);
    discovery.resolve(&payments()).await.expect("known");
    let both = |gateway: &str| {
        let gateways = [link.gateway(), sidecar.registrar.status().gateway, discovery.status().gateway];
        gateways.iter().all(|known| known.as_deref() == Some(gateway)).then_some(())
    };
    eventually("the first", || both("gw-1")).await;
    first.kill().await;
    eventually("the second", || both("gw-2")).await;
    sleep(Duration::from_secs(300)).await;
    assert!(both("gw-2").is_some(), "it stays for as long as the first does not answer");
    first.run().await;
    sleep(Duration::from_secs(150)).await;
    assert!(both("gw-1").is_some(), "{:?}", link.gateway());
    assert_eq!(notes.health("p1"), Some(Health::Ready));
    assert!(notes.unknown.lock().is_empty());
    returning.abort();
}

#[tokio::test(start_paused = true)]
async fn another_clusters_store_is_refused() {
    let gateway = Gateway::start("us-east").await;
    gateway.kill().await;
    let mut config = gateway.config();
    config.cluster = "eu-west".to_owned();
    let store = Arc::new(gateway.store.clone());
    let error = crate::Server::start(config, store, Default::default()).await.expect_err("refused");
    assert!(error.to_string().contains("us-east"), "{error}");
}
