//! What operators are told of a peer.

use super::*;

fn peer(gateway: &Gateway) -> PeerStatus {
    gateway.running().peers().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_with_the_age_and_the_version_of_its_word() {
    let (wan, us, eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    let told = eventually("heard", || Some(peer(&us)).filter(|peer| peer.imported == 1)).await;
    assert_eq!((told.exported, told.offered, told.unmatched_imports), (1, 1, Vec::new()));
    assert_eq!((told.uid, told.region), (Some(eu.running().cluster().uid), Some(eu.running().cluster().region)));
    let path = &told.paths[0];
    assert_eq!(
        (path.epoch, path.offered, path.transport),
        (Some(eu.running().epoch()), Some(1), Some(Transport::Quic))
    );
    assert!(path.age_seconds.is_some_and(|age| age < 3.0), "{path:?}");
    eventually("pings", || {
        Some(peer(&us)).filter(|peer| peer.paths[0].rtt_ms.is_some() && peer.paths[0].loss == Some(0.0))
    })
    .await;
    let seq = path.seq;
    eu.sidecar("p2", "b", 1).registrar.registered().await;
    eventually("a later statement", || Some(peer(&us)).filter(|peer| peer.paths[0].seq > seq)).await;

    // Silence makes the word old, and the path down; it is told as it was last.
    wan.open.send_replace(false);
    let stale = || Some(peer(&us)).filter(|peer| peer.staleness == Some(Staleness::Stale1));
    let told = eventually("silence", stale).await;
    assert_eq!(told.imported, 1);
    assert!(told.age_seconds.is_some_and(|age| age >= 3.0), "{told:?}");
    let down = eventually("down", || Some(peer(&us)).filter(|peer| peer.paths[0].state == PathState::Down)).await;
    assert_eq!(down.paths[0].epoch, Some(eu.running().epoch()));
    let lost = eventually("given up", || Some(peer(&us)).filter(|peer| peer.paths[0].transport.is_none())).await;
    assert_eq!((lost.paths[0].loss, lost.paths[0].state), (None, PathState::Down), "there is no connection to lose on");
}

#[tokio::test(start_paused = true)]
async fn the_pinned_cas_of_a_peer_are_told_with_the_days_that_the_last_one_has_left() {
    let (_wan, us, eu) = two_clusters().await;
    let told = |bundle: Vec<Vec<u8>>| {
        let mut resources = us.resources.lock().clone();
        resources.peers.get_mut("eu-west").expect("declared").trust_bundle = bundle;
        us.running().set_resources(resources);
        peer(&us).bundle
    };
    let day = |bundle: BundleStatus| bundle.days_left.map(f64::round);
    let ca = |days: u64| {
        let ca = eastway_identity::Ca::create(&eu.trust_domain(), Duration::from_secs(days * 86_400)).expect("a CA");
        ca.certificate().to_vec()
    };
    let one = told(vec![ca(10)]);
    assert_eq!(
        (one.certificates, day(one), one.days.map(f64::round)),
        (1, Some(10.0), Some(11.0)),
        "it began a day ago"
    );
    assert_eq!(day(told(vec![ca(10), ca(30)])), Some(30.0));
    assert_eq!(day(told(vec![b"no certificate".to_vec()])), None);
}
