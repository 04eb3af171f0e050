//! Paths over QUIC and TCP at once, on a network that lets one of them through, or neither.

use super::*;

const BOTH: &[Transport] = &[Transport::Quic, Transport::Tcp];

/// `us-east`, which dials over both transports, and `eu-west`, which does over `theirs`.
async fn clusters(wan: &Arc<Wan>, theirs: &'static [Transport]) -> (Gateway, Gateway) {
    let us = cluster_over(BOTH, wan, "us-east", "eu-west").await;
    let eu = cluster_over(theirs, wan, "eu-west", "us-east").await;
    us.run().await;
    eu.run().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    (us, eu)
}

/// What is told of the path once it is up over `transport`.
async fn up_over(gateway: &Gateway, transport: Transport) -> PeerPath {
    let up = |path: &PeerPath| path.state == PathState::Up && path.transport == Some(transport);
    eventually("up", || path(gateway).filter(up)).await
}

#[tokio::test(start_paused = true)]
async fn a_path_is_over_quic_where_both_work() {
    let wan = Arc::new(Wan::default());
    let (us, _eu) = clusters(&wan, BOTH).await;
    let told = up_over(&us, Transport::Quic).await;
    sleep(Duration::from_secs(60)).await;
    let later = path(&us).expect("declared");
    assert_eq!((told.transport_cause, later.transport, later.transport_changes), (None, Some(Transport::Quic), 0));
}

#[tokio::test(start_paused = true)]
async fn a_path_begins_over_tcp_where_udp_is_blocked() {
    let wan = Arc::new(Wan::default());
    wan.open.send_replace(false);
    let (us, _eu) = clusters(&wan, BOTH).await;
    let begun = Instant::now();
    let told = up_over(&us, Transport::Tcp).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(told.transport_cause, Some("blocked"));
    eventually("its word arrives over TCP", || (ready(&us) == Some(1)).then_some(())).await;
    eventually("measured", || path(&us).filter(|path| path.min_rtt_ms.is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_on_which_udp_stops_is_never_down_and_comes_back_to_quic() {
    let wan = Arc::new(Wan::default());
    let (us, eu) = clusters(&wan, BOTH).await;
    up_over(&us, Transport::Quic).await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(10)).await;
    let server = us.running();
    let down = tokio::spawn(async move { server.path_ends("eu-west", "gw-1.eu-west:15443").await });
    let server = us.running();
    let leaves =
        tokio::spawn(async move { server.path_leaves("eu-west", "gw-1.eu-west:15443", Transport::Quic).await });
    sleep(Duration::from_secs(1)).await;
    assert!(!leaves.is_finished());

    wan.open.send_replace(false);
    let cut = Instant::now();
    let told = up_over(&us, Transport::Tcp).await;
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
    assert_eq!((told.transport_cause, told.transport_changes), (Some("blocked"), 1));
    leaves.await.expect("no panic");
    assert_eq!(staleness(&us), Some(Staleness::Fresh));
    eu.sidecar("p2", "a", 1).registrar.registered().await;
    eventually("news over TCP", || (ready(&us) == Some(2)).then_some(())).await;

    sleep(Duration::from_secs(60)).await;
    wan.open.send_replace(true);
    let told = up_over(&us, Transport::Quic).await;
    assert_eq!((told.transport_cause, told.transport_changes), (None, 2));
    assert!(!down.is_finished(), "one of them always worked");
    eu.sidecar("p3", "a", 1).registrar.registered().await;
    eventually("news over QUIC", || (ready(&us) == Some(3)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_is_down_as_soon_as_with_one_transport_if_neither_works() {
    let wan = Arc::new(Wan::default());
    let (us, _eu) = clusters(&wan, BOTH).await;
    up_over(&us, Transport::Quic).await;
    sleep(Duration::from_secs(10)).await;
    for (first, second) in [(&wan.open, &wan.tcp), (&wan.tcp, &wan.open)] {
        first.send_replace(false);
        second.send_replace(false);
        let cut = Instant::now();
        eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
        assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
        assert_eq!(us.running().best_path("eu-west"), None);
        first.send_replace(true);
        second.send_replace(true);
        eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
        sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_was_down_returns_over_whichever_works_first() {
    let wan = Arc::new(Wan::default());
    let (us, _eu) = clusters(&wan, BOTH).await;
    up_over(&us, Transport::Quic).await;
    sleep(Duration::from_secs(10)).await;
    wan.open.send_replace(false);
    wan.tcp.send_replace(false);
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    sleep(Duration::from_secs(10)).await;
    wan.tcp.send_replace(true);
    let healed = Instant::now();
    up_over(&us, Transport::Tcp).await;
    assert!(healed.elapsed() < Duration::from_secs(5), "{:?}", healed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_may_not_use_quic_uses_tcp_and_hears_the_others() {
    let wan = Arc::new(Wan::default());
    let (us, eu) = clusters(&wan, &[Transport::Tcp]).await;
    up_over(&us, Transport::Quic).await;
    let told = up_over(&eu, Transport::Tcp).await;
    assert_eq!((told.transport_cause, told.transport_changes), (None, 0));
    eventually("heard", || (staleness(&eu) == Some(Staleness::Fresh)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refused_over_both_is_no_longer_said_to_once_it_answers_over_both() {
    let wan = Arc::new(Wan::default());
    let us = cluster_over(BOTH, &wan, "us-east", "eu-west").await;
    let eu = cluster_over(BOTH, &wan, "eu-west", "us-east").await;
    let declared = eu.resources.lock().clone();
    eu.resources.lock().peers.clear();
    us.run().await;
    eu.run().await;
    eventually("refused", || path(&us).filter(|path| path.refuses)).await;
    eu.running().set_resources(declared);
    let told = eventually("taken", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let taken = Instant::now();
    eventually("no longer refused", || path(&us).filter(|path| !path.refuses)).await;
    assert!(taken.elapsed() < Duration::from_secs(1), "{:?}, {told:?}", taken.elapsed());
}
