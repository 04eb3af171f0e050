//! Gateways of a peer that are added, move, and go: followed where the `Peer` says so.

use super::*;

/// `us-east` follows `eu-west`, of which it knows the first gateway.
async fn followed() -> (Arc<Wan>, Gateway, Gateway) {
    let (wan, us, eu) = two_clusters().await;
    us.resources.lock().peers.get_mut("eu-west").expect("declared").peer.follow = true;
    us.running().set_resources(us.resources.lock().clone());
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    (wan, us, eu)
}

/// The addresses of `eu-west` that `us` is connected to, and that answer.
fn up(us: &Gateway) -> Vec<String> {
    let paths = us.running().paths("eu-west").into_iter().filter(|path| path.state == PathState::Up);
    let mut up: Vec<String> = paths.map(|path| path.address).collect();
    up.sort_unstable();
    up
}

fn known(us: &Gateway) -> Vec<String> {
    let mut known: Vec<String> = us.running().paths("eu-west").into_iter().map(|path| path.address).collect();
    known.sort_unstable();
    known
}

const FIRST: &str = "gw-1.eu-west:15443";
const SECOND: &str = "gw-2.eu-west:15443";

#[tokio::test(start_paused = true)]
async fn a_gateway_that_a_peer_adds_is_connected_to_and_one_that_went_is_left_after_a_while() {
    let (wan, us, eu) = followed().await;
    let second = wan.sibling(&eu, "gw-2");
    second.run().await;
    let began = Instant::now();
    eventually("both", || (up(&us) == [FIRST, SECOND]).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    second.running().shutdown(Duration::from_secs(1)).await.expect("ended");
    drop(second.server.lock().take());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(known(&us), [FIRST, SECOND], "it may come back");
    sleep(Duration::from_secs(90)).await;
    assert_eq!(known(&us), [FIRST]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_moves_as_a_whole_is_found_again_because_it_connects() {
    let (wan, us, mut eu) = followed().await;
    eu.kill().await;
    let moved = "elsewhere.eu-west:15443";
    eu.address = Some(moved.to_owned());
    wan.silence(FIRST);
    wan.listen(moved, SpiffeId::gateway("eu-west.mesh.internal", "gw-1"), &eu);
    eu.run().await;
    eventually("the new address", || (up(&us) == [moved]).then_some(())).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(known(&us), [moved], "neither the declared address nor the former one answers");
}

#[tokio::test(start_paused = true)]
async fn what_was_stated_is_known_after_a_cold_start() {
    let (wan, us, mut eu) = followed().await;
    eu.kill().await;
    let moved = "elsewhere.eu-west:15443";
    eu.address = Some(moved.to_owned());
    wan.silence(FIRST);
    wan.listen(moved, SpiffeId::gateway("eu-west.mesh.internal", "gw-1"), &eu);
    eu.run().await;
    eventually("the new address", || (up(&us) == [moved]).then_some(())).await;
    // The mirror is written with it.
    sleep(Duration::from_secs(25)).await;
    us.kill().await;
    // It cannot say where it is: nobody but the store can.
    eu.kill().await;
    us.run().await;
    eventually("it is tried", || known(&us).contains(&moved.to_owned()).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_states_is_passed_over_unless_it_is_followed() {
    let (wan, us, eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let second = wan.sibling(&eu, "gw-2");
    second.run().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(known(&us), [FIRST]);
}

#[tokio::test(start_paused = true)]
async fn an_address_at_which_somebody_else_answers_leads_nowhere() {
    let (wan, us, eu) = followed().await;
    // What answers there is a gateway of another trust domain.
    let mars = cluster(&wan, "mars", "us-east").await;
    mars.run().await;
    wan.listen(SECOND, SpiffeId::gateway("mars.mesh.internal", "gw-2"), &mars);
    eu.running().hub().siblings.send_modify(|siblings| {
        siblings.insert("gw-2".to_owned(), SECOND.to_owned());
    });
    eventually("it is tried", || (known(&us) == [FIRST, SECOND]).then_some(())).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(up(&us), [FIRST]);
}
