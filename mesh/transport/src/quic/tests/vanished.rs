//! A peer that vanishes without a word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Reason;

use crate::quic::{QuicOptions, QuicTunnel};
use crate::testing::*;
use crate::tunnel::{Kind, OpenError, StreamOpen, Tunnel};

#[tokio::test]
async fn a_vanished_peer_is_noticed_by_the_idle_timeout() {
    let options = QuicOptions {
        idle_timeout: Duration::from_millis(500),
        keepalive: Duration::from_millis(100),
        ..QuicOptions::default()
    };
    let (out, _peer) = peer_that_vanishes(&options).await;
    assert_eq!(soon(out.closed()).await, Reason::TunnelLost);
    assert!(!out.is_usable());
}

#[tokio::test]
async fn a_tunnel_whose_peer_is_silent_gets_no_new_streams() {
    let options = QuicOptions { open_timeout: Duration::from_millis(100), ..QuicOptions::default() };
    let (out, _peer) = peer_that_vanishes(&options).await;
    assert!(out.is_usable());
    // Packets that were on their way when the peer vanished may make it look alive once.
    soon(async {
        while out.is_usable() {
            let error = out
                .open(&StreamOpen::new("payments.shop.mesh.internal:80", caller()), Bytes::new())
                .await
                .expect_err("nobody answers");
            assert!(matches!(error, OpenError::Timeout));
        }
    })
    .await;
    assert!(!out.is_closed());
}

/// A tunnel to a gateway that has stopped: nobody answers any more, and nobody has said goodbye.
async fn peer_that_vanishes(options: &QuicOptions) -> (Arc<QuicTunnel>, Arc<QuicTunnel>) {
    let (us, eu) = gateways();
    let (peer, theirs) = elsewhere(&eu, options);
    let address = theirs.local_addr().expect("bound");
    let accepting = peer.spawn(async move { theirs.accept().await.expect("open").establish().await });
    let ours = endpoints(&us, 0, options).remove(0);
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    soon(out.confirmed()).await.expect("confirmed");
    let back = soon(accepting).await.expect("ran").expect("accepted");
    end(peer).await;
    (out, back)
}
