//! Peers that are connected to only while something of them is wanted.

use eastway_client::{Discovery, DiscoveryOptions};

use super::*;
use crate::testing::Notes;

const IDLE: Duration = Duration::from_secs(60);

/// `us-east`, which connects to its peers when they are wanted, and `eu-west`, which has an endpoint of payments.
async fn one_on_demand() -> (Arc<Wan>, Gateway, Gateway) {
    let wan = Arc::new(Wan::default());
    let mut us = cluster(&wan, "us-east", "eu-west").await;
    us.options.peering.idle = Some(IDLE);
    let eu = cluster(&wan, "eu-west", "us-east").await;
    us.run().await;
    eu.run().await;
    (wan, us, eu)
}

fn is_idle(gateway: &Gateway) -> bool {
    let peer = gateway.running().peers().remove(0);
    assert_eq!(peer.idle, peer.paths.is_empty(), "{peer:?}");
    peer.idle
}

fn caller(gateway: &Gateway) -> (Arc<Discovery>, Arc<Notes>, tokio::task::JoinHandle<()>) {
    gateway.caller(DiscoveryOptions::new("us-east"))
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_connected_to_by_the_first_call_which_does_not_fail_and_let_go_long_after_the_last() {
    let (_wan, us, eu) = one_on_demand().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    sleep(2 * IDLE).await;
    assert!(is_idle(&us));
    let (discovery, _notes, task) = caller(&us);
    let view = discovery.resolve(&payments()).await.expect("the first call knows where to go");
    assert_eq!(view.remote[0].summary.ready, 1);
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sleep(2 * IDLE).await;
    assert!(!is_idle(&us), "it is followed still");
    task.abort();
    sleep(2 * IDLE).await;
    assert!(is_idle(&us));

    let (again, _notes, _task) = caller(&us);
    assert_eq!(again.resolve(&payments()).await.expect("known").remote[0].summary.ready, 1);
    assert_eq!(staleness(&us), Some(Staleness::Fresh), "it was heard anew");
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_a_peer_connected_and_waits_for_a_way_to_it() {
    let (_wan, us, _eu) = one_on_demand().await;
    assert!(is_idle(&us));
    let server = us.running();
    let hold = server.hold_peer("eu-west").await;
    assert!(!server.paths("eu-west").is_empty());
    sleep(2 * IDLE).await;
    assert!(!is_idle(&us));
    drop(hold);
    sleep(2 * IDLE).await;
    assert!(is_idle(&us));
    let began = Instant::now();
    drop(server.hold_peer("nowhere").await);
    assert_eq!(began.elapsed(), Duration::ZERO, "that is no peer");
    assert!(!server.hub().demand.wants("nowhere"), "nor is it remembered");
}

#[tokio::test(start_paused = true)]
async fn what_others_call_here_makes_no_peer_wanted() {
    let (_wan, us, _eu) = one_on_demand().await;
    us.sidecar("p1", "a", 1).registrar.registered().await;
    let follower = us.running().follow(Arc::<Notes>::default());
    follower.want(&payments());
    sleep(IDLE).await;
    assert!(is_idle(&us));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_holds_nobody_up_who_has_the_service_at_home() {
    let (wan, us, _eu) = one_on_demand().await;
    wan.open.send_replace(false);
    let (discovery, _notes, _task) = caller(&us);
    let began = Instant::now();
    assert!(discovery.resolve(&payments()).await.expect("declared here").endpoints.is_empty());
    assert!(began.elapsed() >= us.options.peering.patience, "it was waited for");
    us.sidecar("p1", "a", 1).registrar.registered().await;
    let (discovery, _notes, _task) = caller(&us);
    let began = Instant::now();
    assert_eq!(discovery.resolve(&payments()).await.expect("known").endpoints.len(), 1);
    assert!(began.elapsed() < us.options.peering.patience);
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_peers_those_alone_are_connected_to_that_may_offer_what_is_followed() {
    let wan = Arc::new(Wan::default());
    let mut us = cluster(&wan, "us-east", "eu-west").await;
    for number in 0..99 {
        let other = format!("other-{number}");
        us.resources.lock().peers.insert(other.clone(), policy(&other, &["team/*"]));
    }
    us.options.peering.idle = Some(IDLE);
    let eu = cluster(&wan, "eu-west", "us-east").await;
    us.run().await;
    eu.run().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    let (discovery, _notes, _task) = caller(&us);
    discovery.resolve(&payments()).await.expect("known");
    let connected: Vec<String> =
        us.running().peers().into_iter().filter(|peer| !peer.idle).map(|peer| peer.cluster).collect();
    assert_eq!(connected, ["eu-west"]);
}
