//! Each end is passed on as what it was.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_identity::{Expected, Identity, client_config, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::error::StreamError;
use crate::io::Io;
use crate::quic::{QuicOptions, QuicTunnel};
use crate::relay::*;
use crate::testing::*;
use crate::tls;
use crate::tunnel::Tunnel;

/// A raw stream of a tunnel: both ends.
pub(super) async fn quic_pair(tunnel: &(Arc<QuicTunnel>, Arc<QuicTunnel>)) -> (Io, Io) {
    let mut near = soon(tunnel.0.open_raw()).await.expect("opened");
    near.write_all(b"!").await.expect("written");
    let mut far = soon(tunnel.1.accept_raw()).await.expect("accepted");
    far.read_u8().await.expect("read");
    (near, far)
}

async fn tls_pair() -> (Io, Io) {
    let (us, eu) = gateways();
    tls_between(&us, &eu).await
}

async fn tls_between(us: &Arc<Identity>, eu: &Arc<Identity>) -> (Io, Io) {
    let (near, far) = tcp_pair().await;
    let connecting = tls::connect(near, client_config(us, Expected::Any, &[b"x"]));
    let accepting = tls::accept(far, server_config(eu, Expected::Any, &[b"x"]));
    let (near, far) = tokio::join!(connecting, accepting);
    (near.expect("connected"), far.expect("accepted"))
}

/// Relays between the inner ends of two streams: the outer ends are given back.
fn relay((caller, a): (Io, Io), (b, called): (Io, Io)) -> (Io, Io, JoinHandle<Relayed>) {
    (caller, called, tokio::spawn(splice(a, b, SpliceOptions::default())))
}

/// Both directions, each ended by itself; then the relay must have ended regularly.
async fn converse((mut caller, mut called, relay): (Io, Io, JoinHandle<Relayed>)) {
    send_all(&mut caller, b"request").await;
    assert_eq!(read_all(&mut called).await, b"request");
    send_all(&mut called, b"the response").await;
    assert_eq!(read_all(&mut caller).await, b"the response");
    let relayed = soon(relay).await.expect("relayed");
    assert_eq!(relayed, Relayed { forward: 7, backward: 12, end: End::Finished });
}

#[tokio::test]
async fn regular_ends_pass_between_all_kinds_each_direction_by_itself() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    converse(relay(tcp_pair().await, tcp_pair().await)).await;
    converse(relay(tcp_pair().await, tls_pair().await)).await;
    converse(relay(tls_pair().await, tcp_pair().await)).await;
    converse(relay(tls_pair().await, quic_pair(&tunnel).await)).await;
    converse(relay(quic_pair(&tunnel).await, tls_pair().await)).await;
    converse(relay(quic_pair(&tunnel).await, quic_pair(&tunnel).await)).await;
    converse(relay(Io::pair(8), Io::pair(16))).await;
}

#[tokio::test]
async fn the_called_side_may_end_first() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    for pair in [tcp_pair().await, tls_pair().await] {
        let (mut caller, mut called, relay) = relay(pair, quic_pair(&tunnel).await);
        send_all(&mut called, b"greeting").await;
        assert_eq!(read_all(&mut caller).await, b"greeting");
        send_all(&mut caller, b"farewell").await;
        assert_eq!(read_all(&mut called).await, b"farewell");
        assert_eq!(soon(relay).await.expect("relayed").end, End::Finished);
    }
}

#[tokio::test]
async fn a_caller_that_resets_is_a_reset_behind_the_tunnel_too() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    // As through two gateways: TCP, tunnel, TCP.
    let ((caller, a), (b, mut called)) = (tcp_pair().await, tcp_pair().await);
    let (near, far) = quic_pair(&tunnel).await;
    let first = tokio::spawn(splice(a, near, SpliceOptions::default()));
    let second = tokio::spawn(splice(far, b, SpliceOptions::default()));
    caller.abort(Reason::CallerGone);
    assert_eq!(read_error(&mut called).await.kind(), io::ErrorKind::ConnectionReset);
    for relay in [first, second] {
        let end = soon(relay).await.expect("relayed").end;
        assert_eq!(end, End::Failed { side: Side::A, reason: Reason::CallerGone });
    }
}

#[tokio::test]
async fn a_called_side_that_resets_is_named_to_the_caller() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, called, relay) = relay(quic_pair(&tunnel).await, tcp_pair().await);
    called.abort(Reason::Internal);
    let error = read_error(&mut caller).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::UpstreamReset)));
    let end = soon(relay).await.expect("relayed").end;
    assert_eq!(end, End::Failed { side: Side::B, reason: Reason::UpstreamReset });
}

#[tokio::test]
async fn a_tls_session_that_is_cut_off_is_no_regular_end() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, mut called, relay) = relay(tls_pair().await, quic_pair(&tunnel).await);
    caller.write_all(b"half a request").await.expect("written");
    soon(called.read_exact(&mut [0; 14])).await.expect("read");
    // FIN without close_notify.
    drop(caller);
    let error = read_error(&mut called).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::CallerGone)));
    assert!(matches!(soon(relay).await.expect("relayed").end, End::Failed { side: Side::A, .. }));
}

#[tokio::test]
async fn between_tunnels_a_reset_half_leaves_the_other_half_alone() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, mut called, relay) = relay(quic_pair(&tunnel).await, quic_pair(&tunnel).await);
    let Io::Quic(half) = &mut caller else { panic!("a tunnel's stream") };
    half.reset(Reason::BodyTimeout);
    let error = read_error(&mut called).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::BodyTimeout)));
    send_all(&mut called, b"the answer still comes").await;
    assert_eq!(read_all(&mut caller).await, b"the answer still comes");
    let end = soon(relay).await.expect("relayed").end;
    assert_eq!(end, End::Failed { side: Side::A, reason: Reason::BodyTimeout });
}

#[tokio::test]
async fn between_tunnels_a_stopped_half_leaves_the_other_half_alone() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, mut called, relay) = relay(quic_pair(&tunnel).await, quic_pair(&tunnel).await);
    let Io::Quic(half) = &mut called else { panic!("a tunnel's stream") };
    half.stop(Reason::Overloaded);
    let error = write_error(&mut caller).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Stopped(Reason::Overloaded)));
    send_all(&mut called, b"enough").await;
    assert_eq!(read_all(&mut caller).await, b"enough");
    let end = soon(relay).await.expect("relayed").end;
    assert_eq!(end, End::Failed { side: Side::B, reason: Reason::Overloaded });
}

#[tokio::test]
async fn a_caller_over_tcp_gets_the_answer_although_nobody_reads_its_request() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, mut called, relay) = relay(tcp_pair().await, quic_pair(&tunnel).await);
    let Io::Quic(half) = &mut called else { panic!("a tunnel's stream") };
    half.stop(Reason::Overloaded);
    caller.write_all(&[0; 100]).await.expect("written");
    send_all(&mut called, b"413 too much").await;
    let mut answer = [0; 12];
    soon(caller.read_exact(&mut answer)).await.expect("read");
    assert_eq!(&answer, b"413 too much");
    drop(caller);
    soon(relay).await.expect("relayed");
}

#[tokio::test]
async fn a_tunnel_that_breaks_resets_the_caller() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, _called, relay) = relay(tcp_pair().await, quic_pair(&tunnel).await);
    tunnel.1.close(Reason::Draining);
    assert_eq!(read_error(&mut caller).await.kind(), io::ErrorKind::ConnectionReset);
    let end = soon(relay).await.expect("relayed").end;
    assert_eq!(end, End::Failed { side: Side::B, reason: Reason::Draining });
}

#[tokio::test]
async fn a_relay_that_is_dropped_looks_like_no_regular_end_to_either_side() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let (mut caller, mut called, relay) = relay(tcp_pair().await, quic_pair(&tunnel).await);
    caller.write_all(b"x").await.expect("written");
    soon(called.read_u8()).await.expect("read");
    relay.abort();
    assert_eq!(read_error(&mut caller).await.kind(), io::ErrorKind::ConnectionReset);
    let error = read_error(&mut called).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::TunnelLost)));
}

#[tokio::test]
async fn a_relay_whose_reader_takes_nothing_ends_when_its_source_is_trusted_no_longer() {
    let (us, eu) = gateways();
    let (mut caller, mut called, relay) = relay(tls_between(&us, &eu).await, Io::pair(1));
    soon(caller.write_all(&noise(64 * 1024, 1))).await.expect("the relay has taken it");
    soon(called.read_u8()).await.expect("it has begun to pass it on");
    eu.set_peer_bundles(BTreeMap::new()).expect("nobody is trusted");
    assert_eq!(eu.review(), 1);
    let relayed = soon(relay).await.expect("relayed");
    assert_eq!(relayed.end, End::Failed { side: Side::A, reason: Reason::IdentityRefused });
}
