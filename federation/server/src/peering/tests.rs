//! Two clusters and their control connections, in memory on paused time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_client::DiscoveryOptions;
use eastway_core::resource::Peer;
use eastway_core::view::{PathState, RemoteZone, Staleness, Transport};
use eastway_core::{Health, SpiffeId};
use eastway_registry::{PeerPolicy, ProbeOutcome, Resources};
use eastway_transport::{Kind, Tunnel};
use tokio::time::{Instant, sleep};

use super::*;
use crate::dialer::DialError;
use crate::store::{Store, keys};
use crate::testing::{Gateway, Wan, eventually, exporting_payments, payments};

mod addresses;
mod demand;
mod epochs;
mod quic;
mod returns;
mod siblings;
mod told;
mod transports;

fn policy(cluster: &str, imports: &[&str]) -> PeerPolicy {
    PeerPolicy {
        peer: Peer {
            gateways: vec![format!("gw-1.{cluster}:15443")],
            imports: imports.iter().map(|&rule| rule.to_owned()).collect(),
            ..Peer::default()
        },
        trust_domain: format!("{cluster}.mesh.internal"),
        trust_bundle: vec![vec![1]],
    }
}

/// `us-east` and `eu-west`, which are peers; both run.
async fn two_clusters() -> (Arc<Wan>, Gateway, Gateway) {
    let wan = Arc::new(Wan::default());
    let us = cluster(&wan, "us-east", "eu-west").await;
    let eu = cluster(&wan, "eu-west", "us-east").await;
    us.run().await;
    eu.run().await;
    (wan, us, eu)
}

async fn cluster(wan: &Arc<Wan>, name: &'static str, peer: &str) -> Gateway {
    cluster_over(&[Transport::Quic], wan, name, peer).await
}

async fn cluster_over(transports: &'static [Transport], wan: &Arc<Wan>, name: &'static str, peer: &str) -> Gateway {
    let mut resources = exporting_payments();
    resources.peers.insert(peer.to_owned(), policy(peer, &["shop/*"]));
    wan.gateway_over(transports, name, resources).await
}

/// The zones of other clusters that `gateway` sees.
fn remote(gateway: &Gateway) -> Vec<RemoteZone> {
    gateway.running().view(&payments()).map(|view| view.remote.clone()).unwrap_or_default()
}

fn ready(gateway: &Gateway) -> Option<u32> {
    remote(gateway).first().map(|zone| zone.summary.ready)
}

fn staleness(gateway: &Gateway) -> Option<Staleness> {
    gateway.running().peers()[0].staleness
}

fn path(gateway: &Gateway) -> Option<PeerPath> {
    gateway.running().peers()[0].paths.first().cloned()
}

#[tokio::test(start_paused = true)]
async fn what_one_cluster_exports_the_other_sees_in_sum_and_so_do_its_callers() {
    let (_wan, us, eu) = two_clusters().await;
    let one = eu.sidecar("p1", "a", 1);
    let two = eu.sidecar("p2", "a", 1);
    one.registrar.registered().await;
    two.registrar.registered().await;
    eventually("both", || (ready(&us) == Some(2)).then_some(())).await;
    let zones = remote(&us);
    assert_eq!((zones.len(), zones[0].zone.to_string()), (1, "eu-west/a".to_owned()));
    assert_eq!(*zones[0].accounts, ["payments"]);

    let (discovery, notes, _task) = us.caller(DiscoveryOptions::new("us-east"));
    let view = discovery.resolve(&payments()).await.expect("known");
    assert_eq!((view.endpoints.len(), view.remote[0].summary.ready), (0, 2));
    two.registrar.set_health(Health::Unready, "");
    let seen = || Some(notes.services.lock().get(&payments())?.remote[0].summary.clone());
    eventually("a flip crosses both clusters", || seen().filter(|s| (s.total, s.ready) == (2, 1))).await;
    assert!(remote(&eu).is_empty(), "us-east has none");
}

#[tokio::test(start_paused = true)]
async fn a_path_is_up_with_its_first_answer_and_measured_after_twenty() {
    let (_wan, us, _eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let measured = eventually("measured", || path(&us).filter(|path| path.min_rtt_ms.is_some())).await;
    assert_eq!(measured.gateway.as_deref(), Some("gw-1"));
    assert_eq!(us.running().best_path("eu-west").map(|path| path.address), Some("gw-1.eu-west:15443".to_owned()));
    let mesh = us.running().mesh();
    assert_eq!((mesh.peers[0].path, mesh.peers[0].staleness), (PathState::Up, Staleness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_was_down_is_as_long_as_before() {
    let (wan, us, _eu) = two_clusters().await;
    let measured = eventually("measured", || path(&us).filter(|path| path.min_rtt_ms.is_some())).await.min_rtt_ms;
    let told = us.running().mesh().peers[0].min_rtt;
    assert!(told.is_some());
    for outage in [12, 300] {
        wan.open.send_replace(false);
        eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
        sleep(Duration::from_secs(outage)).await;
        assert_eq!(path(&us).expect("declared").min_rtt_ms, measured);
        wan.open.send_replace(true);
        let up = eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
        assert_eq!(up.min_rtt_ms, measured, "by another connection");
        assert_eq!(us.running().mesh().peers[0].min_rtt, told);
        sleep(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_line_takes_the_path_down_at_once_and_ages_the_statements_without_losing_them() {
    let (wan, us, eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sleep(Duration::from_secs(10)).await;

    wan.open.send_replace(false);
    let cut = Instant::now();
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
    assert_eq!(us.running().best_path("eu-west"), None);
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Fresh), Some(1)), "path and peer are separate facts");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(staleness(&us), Some(Staleness::Stale1));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Stale2), Some(1)));
    sleep(Duration::from_secs(900)).await;
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Stale3), Some(1)));

    wan.open.send_replace(true);
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    eventually("fresh", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_on_a_path_hears_at_once_that_it_ends() {
    const ADDRESS: &str = "gw-1.eu-west:15443";
    let (wan, us, eu) = two_clusters().await;
    let server = us.running();
    let wait = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.path_ends("eu-west", ADDRESS).await })
    };
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let ends = wait();
    sleep(Duration::from_secs(10)).await;
    assert!(!ends.is_finished());
    wan.open.send_replace(false);
    let cut = Instant::now();
    ends.await.expect("no panic");
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
    // Who asks later need not wait, nor who asks for a way that is none.
    server.path_ends("eu-west", ADDRESS).await;
    server.path_ends("eu-west", "nobody:15443").await;
    server.path_ends("mars", ADDRESS).await;
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());

    wan.open.send_replace(true);
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let ends = wait();
    sleep(Duration::from_secs(10)).await;
    assert!(!ends.is_finished());
    eu.running().drain();
    ends.await.expect("no panic");
    assert_eq!(path(&us).map(|path| path.state), Some(PathState::Up), "it still answers");
}

#[tokio::test(start_paused = true)]
async fn a_killed_peer_is_down_and_its_next_life_is_believed_from_its_first_snapshot() {
    let (_wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(5)).await;
    eu.kill().await;
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    assert_eq!(ready(&us), Some(1));
    eu.run().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sidecar.registrar.set_health(Health::Degraded, "");
    let degraded = || remote(&us).first().map(|zone| zone.summary.degraded);
    eventually("news of the next life", || (degraded() == Some(1)).then_some(())).await;
    assert_eq!(staleness(&us), Some(Staleness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn the_return_of_a_zone_reaches_the_other_clusters_callers_with_its_age() {
    let (_wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    eu.fates.set(sidecar.address, ProbeOutcome::Refused);
    sidecar.kill();
    eventually("down", || (ready(&us) == Some(0)).then_some(())).await;
    assert_eq!(remote(&us)[0].summary.total, 1, "down stays in the denominator");
    eu.sidecar("p1", "a", 2).registrar.registered().await;
    eventually("back", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(10)).await;
    let age = remote(&us)[0].summary.returned_ago.expect("published");
    assert!(age >= Duration::from_secs(10) && age < Duration::from_secs(12), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn exports_imports_and_peers_apply_while_running() {
    let (_wan, us, eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;

    let imports = us.resources.lock().clone();
    let mut closed = imports.clone();
    closed.peers.insert("eu-west".to_owned(), policy("eu-west", &[]));
    us.running().set_resources(closed);
    assert!(remote(&us).is_empty(), "nothing is imported unless said");
    us.running().set_resources(imports.clone());
    assert_eq!(ready(&us), Some(1));

    assert!(eu.running().exports(&payments(), "us-east"));
    let exports = eu.resources.lock().clone();
    let mut silent = exports.clone();
    silent.services.clear();
    eu.running().set_resources(silent);
    assert!(!eu.running().exports(&payments(), "us-east"));
    eventually("no longer exported", || remote(&us).is_empty().then_some(())).await;
    eu.running().set_resources(exports.clone());
    eventually("exported", || (ready(&us) == Some(1)).then_some(())).await;

    us.running().set_resources(Resources { peers: BTreeMap::new(), ..imports });
    assert!(remote(&us).is_empty() && us.running().mesh().peers.is_empty());
    assert!(us.running().peers().is_empty() && us.running().paths("eu-west").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_says_so_before_it_goes() {
    let (_wan, us, eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    eventually("listening", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
    eu.running().drain();
    let draining = eventually("draining", || path(&us).filter(|path| path.draining)).await;
    assert_eq!(draining.state, PathState::Up, "it still answers");
}

#[tokio::test(start_paused = true)]
async fn nobodys_peer_and_no_other_gateway_is_listened_to() {
    let wan = Arc::new(Wan::default());
    let us = cluster(&wan, "us-east", "eu-west").await;
    // It declares us-east as its peer, but us-east has never heard of it.
    let mars = cluster(&wan, "mars", "us-east").await;
    us.run().await;
    mars.run().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(mars.running().peers()[0].staleness, None, "no statements for strangers");

    // A gateway that shows one certificate and says to be another.
    let eu = cluster(&wan, "eu-west", "us-east").await;
    wan.listen("gw-1.eu-west:15443", SpiffeId::gateway("eu-west.mesh.internal", "gw-7"), &eu);
    eu.run().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    sleep(Duration::from_secs(20)).await;
    assert!(remote(&us).is_empty() && us.running().peers().iter().all(|peer| peer.staleness.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_cold_gateway_starts_from_the_stored_mirror_as_stale() {
    let (wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(25)).await;
    let stored = us.store.list(&keys::peer_prefix("eu-west")).await.expect("the store answers");
    let stored: Vec<_> =
        stored.entries.iter().map(|entry| entry.key.rsplit_once("eu-west/").expect("a peer's").1).collect();
    assert_eq!(stored, ["gw-1/meta", "gw-1/svc/shop/payments"]);

    wan.open.send_replace(false);
    us.kill().await;
    us.run().await;
    assert_eq!((ready(&us), staleness(&us)), (Some(1), Some(Staleness::Stale2)));
    wan.open.send_replace(true);
    eventually("fresh", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
    assert_eq!(ready(&us), Some(1));
}
