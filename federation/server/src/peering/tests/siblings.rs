//! The gateways of one cluster: what one knows of an endpoint, all know.

use eastway_core::{EndpointId, LoadReport};

use super::*;

/// What a change may take until every gateway knows of it.
const SOON: Duration = Duration::from_millis(100);

/// Another gateway of the cluster of `first`, on the same network.
async fn sibling(wan: &Arc<Wan>, first: &Gateway, id: &'static str) -> Gateway {
    let sibling = wan.sibling(first, id);
    sibling.run().await;
    sibling
}

/// Two gateways of one cluster that know of one another, and an endpoint of the first.
async fn two_gateways() -> (Arc<Wan>, Gateway, Gateway, crate::testing::Sidecar) {
    let wan = Arc::new(Wan::default());
    let first = cluster(&wan, "us-east", "eu-west").await;
    first.run().await;
    let second = sibling(&wan, &first, "gw-2").await;
    let sidecar = first.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    sidecar.registrar.set_health(Health::Unready, "");
    eventually("the first gateway's word", || (second.health("p1") == Some(Health::Unready)).then_some(())).await;
    let status = second.running().status().siblings;
    assert!(status["gw-1"].registered && status["gw-1"].speaks, "{status:?}");
    (wan, first, second, sidecar)
}

#[tokio::test(start_paused = true)]
async fn how_an_endpoint_does_is_known_to_the_callers_of_every_gateway_at_once() {
    let (_wan, _first, second, sidecar) = two_gateways().await;
    let (discovery, notes, _task) = second.caller(DiscoveryOptions::new("us-east"));
    discovery.resolve(&payments()).await.expect("known");
    for health in [Health::Ready, Health::Degraded, Health::Draining, Health::Unready, Health::Warming] {
        let said = Instant::now();
        sidecar.registrar.set_health(health, "");
        eventually("heard", || (notes.health("p1") == Some(health)).then_some(())).await;
        assert!(said.elapsed() <= SOON, "{health:?} took {:?}", said.elapsed());
    }
    let load = LoadReport { active_requests: 9, utilisation: Some(0.5), error_rate: 0.0 };
    sidecar.registrar.set_load(load);
    eventually("its load", || (notes.loads.lock().get(&EndpointId::new("p1")) == Some(&load)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn only_its_own_gateway_probes_an_endpoint_and_the_others_do_when_that_is_gone() {
    let (_wan, first, second, sidecar) = two_gateways().await;
    sidecar.registrar.set_health(Health::Ready, "");
    // Whoever probes will find it down. Nobody does: its sidecar speaks.
    first.fates.set(sidecar.address, ProbeOutcome::Refused);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((first.health("p1"), second.health("p1")), (Some(Health::Ready), Some(Health::Ready)));
    sidecar.kill();
    eventually("found by its gateway", || (second.health("p1") == Some(Health::Down)).then_some(())).await;
    first.fates.set(sidecar.address, ProbeOutcome::Answered);
    eventually("found again", || (second.health("p1") == Some(Health::Ready)).then_some(())).await;
    first.kill().await;
    first.fates.set(sidecar.address, ProbeOutcome::Refused);
    eventually("found by the other gateway", || (second.health("p1") == Some(Health::Down)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_sibling_that_cannot_be_reached_is_not_taken_at_its_word_until_it_speaks_again() {
    let (wan, first, second, sidecar) = two_gateways().await;
    wan.open.send_replace(false);
    first.fates.set(sidecar.address, ProbeOutcome::Refused);
    eventually("probed from here", || (second.health("p1") == Some(Health::Down)).then_some(())).await;
    assert_eq!(first.health("p1"), Some(Health::Unready), "its sidecar speaks to it");
    wan.open.send_replace(true);
    eventually("heard again", || (second.health("p1") == Some(Health::Unready)).then_some(())).await;
    sidecar.registrar.set_health(Health::Ready, "");
    eventually("heard again", || (second.health("p1") == Some(Health::Ready)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_a_sibling_reaches_is_reached() {
    let wan = Arc::new(Wan::default());
    let (first, eu) = (cluster(&wan, "us-east", "eu-west").await, cluster(&wan, "eu-west", "us-east").await);
    let far = "gw-1.eu-west:15443";
    wan.part(&first, "gw-1", far, true);
    first.run().await;
    eu.run().await;
    let (discovery, notes, _task) = first.caller(DiscoveryOptions::new("us-east"));
    discovery.resolve(&payments()).await.expect("known");
    let told = || notes.mesh.lock().as_ref().map(|mesh| mesh.peers[0].path);
    let becomes = async |state| eventually("told", || (told() == Some(state)).then_some(())).await;
    becomes(PathState::Down).await;
    let second = sibling(&wan, &first, "gw-2").await;
    becomes(PathState::Suspect).await;
    assert_eq!(path(&first).map(|path| path.state), Some(PathState::Down), "its own is down, and operators see that");

    // The sibling says so when it is cut off itself, and its word ends with it.
    wan.part(&first, "gw-2", far, true);
    wan.silence(far);
    eu.kill().await;
    becomes(PathState::Down).await;
    wan.part(&first, "gw-2", far, false);
    wan.listen(far, SpiffeId::gateway(&eu.trust_domain(), "gw-1"), &eu);
    eu.run().await;
    becomes(PathState::Suspect).await;
    second.kill().await;
    becomes(PathState::Down).await;
    wan.part(&first, "gw-1", far, false);
    becomes(PathState::Up).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_deregisters_at_one_gateway_leaves_the_others_without_a_hold() {
    let (_wan, _first, second, sidecar) = two_gateways().await;
    let said = Instant::now();
    sidecar.registrar.deregister(Duration::from_secs(2)).await;
    eventually("gone", || second.health("p1").is_none().then_some(())).await;
    assert!(said.elapsed() < Duration::from_secs(5), "held for {:?}", said.elapsed());
}
