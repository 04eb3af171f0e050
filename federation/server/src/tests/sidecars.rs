//! Registration: who is seen, and when no longer.

use std::sync::Arc;
use std::time::Duration;

use eastway_client::{DiscoveryOptions, Sink};
use eastway_core::{EndpointId, Health, LoadReport};
use eastway_registry::ProbeOutcome;
use tokio::time::{Instant, sleep};

use crate::testing::{Gateway, Notes, eventually, payments};

#[tokio::test(start_paused = true)]
async fn a_registered_workload_is_seen_by_callers_with_its_health_and_load() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    let view = discovery.resolve(&payments()).await.expect("known");
    assert_eq!(view.endpoints.len(), 1);
    assert_eq!((view.endpoints[0].health, view.endpoints[0].address), (Health::Ready, sidecar.address));
    assert_eq!(discovery.mesh().expect("a mesh").cluster.name, "us-east");

    sidecar.registrar.set_health(Health::Unready, "the probe fails");
    eventually("unready", || (notes.health("p1") == Some(Health::Unready)).then_some(())).await;

    let load = LoadReport { active_requests: 4, utilisation: Some(0.5), error_rate: 0.0 };
    sidecar.registrar.set_load(load);
    let id = EndpointId::new("p1");
    eventually("a load", || (notes.loads.lock().get(&id) == Some(&load)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_steady_load_is_told_again_before_callers_forget_it() {
    let gateway = Gateway::start("us-east").await;
    let own = Arc::new(Notes::default());
    gateway.running().follow(Arc::clone(&own) as Arc<dyn Sink>).want(&payments());
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    discovery.resolve(&payments()).await.expect("known");
    let load = LoadReport { active_requests: 4, utilisation: Some(0.5), error_rate: 0.0 };
    let id = EndpointId::new("p1");
    sidecar.registrar.set_load(load);
    let told = |notes: &Notes| (notes.loads.lock().remove(&id) == Some(load)).then_some(());
    for _ in 0..3 {
        let before = Instant::now();
        eventually("a caller is told", || told(&notes)).await;
        eventually("the gateway itself is told", || told(&own)).await;
        assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
        sidecar.registrar.set_load(load);
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_sidecar_is_down_at_once_and_back_with_its_next_life() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    gateway.fates.set(sidecar.address, ProbeOutcome::Refused);
    let killed = Instant::now();
    sidecar.kill();
    eventually("down", || (gateway.health("p1") == Some(Health::Down)).then_some(())).await;
    assert!(killed.elapsed() < Duration::from_millis(300), "{:?}", killed.elapsed());

    let next = gateway.sidecar("p1", "a", 2);
    next.registrar.registered().await;
    eventually("ready", || (gateway.health("p1") == Some(Health::Ready)).then_some(())).await;
    let returned = gateway.running().view(&payments()).expect("known").returned.clone();
    assert!(returned.contains_key("a"), "callers must ramp");
}

#[tokio::test(start_paused = true)]
async fn a_vanished_host_is_down_after_two_probes_and_not_before() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    gateway.fates.set(sidecar.address, ProbeOutcome::Silent);
    let vanished = Instant::now();
    sidecar.wire.open.send_replace(false);
    eventually("down", || (gateway.health("p1") == Some(Health::Down)).then_some(())).await;
    let took = vanished.elapsed();
    assert!(took > Duration::from_millis(2900) && took < Duration::from_secs(6), "{took:?}");
    sidecar.wire.open.send_replace(true);
    eventually("ready", || (gateway.health("p1") == Some(Health::Ready)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_of_a_living_host_changes_nothing() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    sidecar.kill();
    for _ in 0..30 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(gateway.health("p1"), Some(Health::Ready));
    }
}

#[tokio::test(start_paused = true)]
async fn deregistering_removes_the_endpoint_at_once() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    sidecar.registrar.deregister(Duration::from_secs(1)).await;
    assert_eq!(gateway.health("p1"), None);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_not_listed_is_rejected_and_taken_once_it_is() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar_as("p1", "a", 1, "cart");
    let why = eventually("rejected", || sidecar.registrar.status().rejected).await;
    assert!(why.contains("cart") && why.contains("shop/payments"), "{why}");
    assert_eq!(gateway.health("p1"), None);

    let mut resources = gateway.resources.lock().clone();
    resources.services.get_mut(&payments()).expect("declared").accounts = vec!["cart".to_owned()];
    gateway.running().set_resources(resources);
    sidecar.registrar.registered().await;
    assert_eq!(gateway.health("p1"), Some(Health::Ready));

    gateway.running().set_resources(gateway.resources.lock().clone());
    eventually("revoked", || gateway.health("p1").is_none().then_some(())).await;
    eventually("told", || sidecar.registrar.status().rejected).await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_the_cluster_does_not_have_is_rejected_with_those_it_has() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "z", 1);
    let why = eventually("rejected", || sidecar.registrar.status().rejected).await;
    assert!(why.contains("a, b"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_keep_a_new_life_out() {
    let gateway = Gateway::start("us-east").await;
    let first = gateway.sidecar("p1", "a", 1_000);
    first.registrar.registered().await;
    first.registrar.deregister(Duration::from_secs(1)).await;
    let second = gateway.sidecar("p1", "a", 10);
    second.registrar.registered().await;
    let view = gateway.running().view(&payments()).expect("known");
    assert_eq!(view.endpoints[0].incarnation, 1_001);
}

#[tokio::test(start_paused = true)]
async fn of_two_lives_under_one_name_the_later_stays() {
    let gateway = Gateway::start("us-east").await;
    let old = gateway.sidecar("p1", "a", 1);
    old.registrar.registered().await;
    let new = gateway.sidecar("p1", "b", 2);
    new.registrar.registered().await;
    let why = eventually("the old one is told", || old.registrar.status().rejected).await;
    assert!(why.contains("p1"), "{why}");
    sleep(Duration::from_secs(30)).await;
    let view = gateway.running().view(&payments()).expect("known");
    assert_eq!((view.endpoints[0].incarnation, &*view.endpoints[0].zone), (2, "b"));
    assert!(new.registrar.status().gateway.is_some(), "the two do not take turns");
}
