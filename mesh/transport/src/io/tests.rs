//! Tests of streams made of streams.

use eastway_identity::{Expected, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::error::StreamError;
use crate::quic::QuicOptions;
use crate::testing::*;
use crate::tls;
use crate::tunnel::Tunnel;

/// A TLS session over the two ends of a stream: the client's and the server's side.
async fn session(ends: (Io, Io), client: &Arc<Identity>, server: &Arc<Identity>, alpn: &[u8]) -> (Io, Io) {
    let connecting = tls::connect(ends.0, eastway_identity::client_config(client, Expected::Any, &[alpn]));
    let accepting = tls::accept(ends.1, eastway_identity::server_config(server, Expected::Any, &[alpn]));
    let (client, server) = soon(async { tokio::join!(connecting, accepting) }).await;
    (client.expect("client session"), server.expect("server session"))
}

#[tokio::test]
async fn what_was_put_back_is_read_first() {
    let (mut far, io) = Io::pair(64);
    send_all(&mut far, b" world").await;
    let mut io = io.rewound("lo".into()).rewound("hel".into());
    let mut first = [0; 2];
    io.read_exact(&mut first).await.expect("read");
    assert_eq!((&first, &read_all(&mut io).await[..]), (b"he", &b"llo world"[..]));
}

#[tokio::test]
async fn what_was_put_back_is_taken_off_again_whole() {
    let (_far, io) = Io::pair(64);
    let (prefix, io) = io.rewound("c".into()).rewound("b".into()).rewound("a".into()).unwind();
    assert_eq!(prefix, "abc");
    assert!(matches!(io, Io::Other(_)));
    assert!(matches!(io.rewound(Bytes::new()), Io::Other(_)));
}

#[tokio::test]
async fn an_aborted_tcp_connection_does_not_end_regularly() {
    let (ours, mut theirs) = tcp_pair().await;
    ours.abort(Reason::CallerGone);
    let error = read_error(&mut theirs).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(StreamError::of(&error), None);
}

#[tokio::test]
async fn tls_runs_over_tls_over_tcp_and_shows_the_inner_peer() {
    let (us, eu) = gateways();
    let ca = ca("td");
    let (caller, called) = (SpiffeId::workload("td", "shop", "web"), SpiffeId::workload("td", "shop", "payments"));
    let outer = session(tcp_pair().await, &us, &eu, b"outer").await;
    assert_eq!(*outer.0.peer_id().expect("a peer"), SpiffeId::gateway(EU, "gw-1"));
    let (mut near, mut far) = session(outer, &identity(&ca, &caller), &identity(&ca, &called), b"inner").await;
    assert_eq!((near.alpn(), far.alpn()), (Some(&b"inner"[..]), Some(&b"inner"[..])));
    assert_eq!(*near.peer_id().expect("a peer"), called);
    assert_eq!(*far.peer_id().expect("a peer"), caller);
    assert_eq!(near.peer_addr(), far.local_addr());

    let (there, back) = (noise(300_000, 1), noise(200_000, 2));
    tokio::join!(send_all(&mut near, &there), async { assert!(read_all(&mut far).await == there) });
    // The other direction is still open.
    tokio::join!(send_all(&mut far, &back), async { assert!(read_all(&mut near).await == back) });
}

#[tokio::test]
async fn a_session_that_is_dropped_or_aborted_does_not_end_regularly() {
    let (us, eu) = gateways();
    let (mut near, far) = session(tcp_pair().await, &us, &eu, b"x").await;
    drop(far);
    assert_eq!(read_error(&mut near).await.kind(), io::ErrorKind::UnexpectedEof);

    let (mut near, far) = session(tcp_pair().await, &us, &eu, b"x").await;
    far.abort(Reason::CallerGone);
    assert_eq!(read_error(&mut near).await.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_reason_of_a_tunnel_shows_through_the_session_inside() {
    let (us, eu) = gateways();
    let (out, back) = tunnel(&QuicOptions::default()).await;
    let mut near = out.open_raw().await.expect("opened");
    near.write_all(b"!").await.expect("written");
    let mut far = soon(back.accept_raw()).await.expect("accepted");
    far.read_u8().await.expect("read");
    let (mut near, far) = session((near, far), &us, &eu, b"x").await;
    far.abort(Reason::Draining);
    assert_eq!(StreamError::of(&read_error(&mut near).await), Some(&StreamError::Reset(Reason::Draining)));
}

#[tokio::test]
async fn several_slices_are_written_at_once_and_in_order() {
    let (out, back) = tunnel(&QuicOptions::default()).await;
    let mut near = out.open_raw().await.expect("opened");
    assert!(near.is_write_vectored());
    let slices = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"two"), IoSlice::new(b"three")];
    let written = near.write_vectored(&slices).await.expect("written");
    near.shutdown().await.expect("ended");
    assert_eq!(written, 11);
    let mut far = soon(back.accept_raw()).await.expect("accepted");
    assert_eq!(read_all(&mut far).await, b"onetwothree");
}
