//! Much data, through everything that a request between clusters passes.

use eastway_identity::{Expected, client_config, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::ends::quic_pair;
use crate::io::Io;
use crate::quic::QuicOptions;
use crate::relay::*;
use crate::testing::*;
use crate::tls;

const MANY: usize = 10 << 20;

async fn send(mut writer: WriteHalf<Io>, bytes: &[u8]) -> WriteHalf<Io> {
    writer.write_all(bytes).await.expect("written");
    writer.shutdown().await.expect("ended");
    writer
}

async fn receive(mut reader: ReadHalf<Io>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.expect("a regular end");
    bytes
}

/// Sends 10 MiB each way at once, and compares what arrives.
async fn exchange(caller: Io, called: Io) {
    let (there, back) = (noise(MANY, 1), noise(MANY, 2));
    let ((caller_reader, caller_writer), (called_reader, called_writer)) = (split(caller), split(called));
    let (at_caller, at_called, ..) = soon(async {
        tokio::join!(
            receive(caller_reader),
            receive(called_reader),
            send(caller_writer, &there),
            send(called_writer, &back)
        )
    })
    .await;
    assert!(at_called == there, "{} bytes arrived at the called side", at_called.len());
    assert!(at_caller == back, "{} bytes arrived at the caller", at_caller.len());
}

#[tokio::test]
async fn ten_mebibytes_each_way_through_two_relays_and_a_tunnel() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let ((caller, a), (b, called)) = (tcp_pair().await, tcp_pair().await);
    let (near, far) = quic_pair(&tunnel).await;
    let first = tokio::spawn(splice(a, near, SpliceOptions::default()));
    let second = tokio::spawn(splice(far, b, SpliceOptions::default()));
    exchange(caller, called).await;
    for relay in [first, second] {
        let relayed = soon(relay).await.expect("relayed");
        assert_eq!(relayed, Relayed { forward: MANY as u64, backward: MANY as u64, end: End::Finished });
    }
}

#[tokio::test]
async fn ten_mebibytes_each_way_in_a_session_inside_sessions_to_the_gateways() {
    let (us, eu) = gateways();
    let tunnel = tunnel(&QuicOptions::default()).await;
    let session = async |near: Io, far: Io| {
        let connecting = tls::connect(near, client_config(&us, Expected::Any, &[b"x"]));
        let accepting = tls::accept(far, server_config(&eu, Expected::Any, &[b"x"]));
        let (near, far) = soon(async { tokio::join!(connecting, accepting) }).await;
        (near.expect("connected"), far.expect("accepted"))
    };
    // Sidecar to gateway by mTLS over TCP, gateway to gateway by the tunnel, gateway to sidecar by TCP; inside, end to end.
    let (caller, a) = tcp_pair().await;
    let (caller, a) = session(caller, a).await;
    let (near, far) = quic_pair(&tunnel).await;
    let (b, called) = tcp_pair().await;
    let first = tokio::spawn(splice(a, near, SpliceOptions::default()));
    let second = tokio::spawn(splice(far, b, SpliceOptions::default()));
    let (caller, called) = session(caller, called).await;
    assert_eq!(called.peer_id(), Some(us.id()));
    exchange(caller, called).await;
    for relay in [first, second] {
        let relayed = soon(relay).await.expect("relayed");
        assert_eq!(relayed.end, End::Finished);
        assert!(relayed.forward > MANY as u64 && relayed.backward > MANY as u64);
    }
}

#[tokio::test]
async fn small_messages_on_many_relays_at_once() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let ((caller, a), (b, called)) = (tcp_pair().await, quic_pair(&tunnel).await);
        streams.push((caller, called, tokio::spawn(splice(a, b, SpliceOptions::default()))));
    }
    for round in 0..20_u8 {
        for (caller, called, _) in &mut streams {
            caller.write_all(&[round; 500]).await.expect("written");
            let mut received = [0; 500];
            soon(called.read_exact(&mut received)).await.expect("read");
            assert_eq!(received, [round; 500]);
        }
    }
    for (mut caller, mut called, relay) in streams {
        send_all(&mut caller, b"").await;
        send_all(&mut called, b"").await;
        assert_eq!(soon(relay).await.expect("relayed").forward, 10_000);
    }
}
