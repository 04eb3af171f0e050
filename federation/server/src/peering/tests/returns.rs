//! A gateway that was started again is dialled anew as soon as it is heard of.

use super::super::outgoing::returns;
use super::super::path::Path;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_gateway_that_connects_anew_while_the_path_to_it_is_down_is_dialled_at_once() {
    let us = cluster(&Arc::new(Wan::default()), "us-east", "eu-west").await;
    let server = us.run().await;
    let hub = server.hub();
    let peer = SpiffeId::gateway("eu-west.mesh.internal", "gw-2");
    let other = SpiffeId::gateway("eu-west.mesh.internal", "gw-3");
    let path =
        Arc::new(Path::new(Arc::clone(hub), "eu-west".to_owned(), "gw-2.eu-west:15443".to_owned(), &[Transport::Quic]));
    let becomes = |state| path.note_way(Transport::Quic, |way| way.becomes(state));
    let waiting = {
        let (path, peer) = (Arc::clone(&path), peer.clone());
        tokio::spawn(async move { returns(&path, Transport::Quic, &peer).await })
    };
    let pending = async || {
        sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
    };
    let first = hub.calls(&peer, Transport::Quic);
    becomes(PathState::Down);
    pending().await;
    let _over_tcp = hub.calls(&peer, Transport::Tcp);
    pending().await;
    becomes(PathState::Up);
    let _other = hub.calls(&other, Transport::Quic);
    let again = hub.calls(&peer, Transport::Quic);
    drop(first);
    pending().await;
    becomes(PathState::Down);
    waiting.await.expect("no panic");
    drop(again);
    assert!(!hub.callers().borrow().contains_key(&(peer.to_string(), Transport::Quic)));
}
