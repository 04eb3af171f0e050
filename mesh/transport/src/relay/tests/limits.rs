//! What a relay does when nothing moves, and what it counts and records.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::quic_pair;
use crate::io::Io;
use crate::quic::QuicOptions;
use crate::relay::*;
use crate::testing::*;
use crate::tunnel::Tunnel;

fn idle_after(seconds: u64) -> SpliceOptions {
    SpliceOptions { idle: Duration::from_secs(seconds), ..SpliceOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_ends_after_its_idle_time() {
    let ((_caller, a), (b, _called)) = (Io::pair(64), Io::pair(64));
    let start = Instant::now();
    let relayed = splice(a, b, idle_after(60)).await;
    assert_eq!(relayed.end, End::Idle);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(60) && waited <= Duration::from_secs(76), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_keeps_a_relay_alive() {
    let ((mut caller, a), (b, mut called)) = (Io::pair(64), Io::pair(64));
    let relay = tokio::spawn(splice(a, b, idle_after(60)));
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(40)).await;
        called.write_all(b".").await.expect("written");
        caller.read_u8().await.expect("read");
    }
    assert!(!relay.is_finished());
    drop((caller, called));
    assert_eq!(relay.await.expect("relayed").backward, 20);
}

#[tokio::test]
async fn an_idle_relay_tells_the_tunnel_why_it_ends() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let ((mut caller, a), (_called, b)) = (quic_pair(&tunnel).await, tcp_pair().await);
    let options = SpliceOptions { idle: Duration::from_millis(40), ..SpliceOptions::default() };
    assert_eq!(soon(splice(a, b, options)).await.end, End::Idle);
    let error = read_error(&mut caller).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::IdleTimeout)));
}

#[tokio::test]
async fn a_relay_whose_permission_is_withdrawn_ends_and_tells_the_tunnel_why() {
    let tunnel = tunnel(&QuicOptions::default()).await;
    let ((mut caller, a), (_called, b)) = (quic_pair(&tunnel).await, tcp_pair().await);
    let withdrawn = std::future::ready(Reason::NotExported);
    let relayed = soon(splice_until(a, b, SpliceOptions::default(), withdrawn)).await;
    assert_eq!(relayed.end, End::Withdrawn(Reason::NotExported));
    let error = read_error(&mut caller).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::NotExported)));
}

#[tokio::test]
async fn bytes_are_counted_while_they_move() {
    let ((mut caller, a), (b, mut called)) = (Io::pair(64), Io::pair(64));
    let (forward, backward) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let options = SpliceOptions {
        forward: Some(Arc::clone(&forward)),
        backward: Some(Arc::clone(&backward)),
        ..SpliceOptions::default()
    };
    let relay = tokio::spawn(splice(a, b, options));
    caller.write_all(b"12345").await.expect("written");
    called.read_exact(&mut [0; 5]).await.expect("read");
    assert_eq!((forward.load(Ordering::Relaxed), backward.load(Ordering::Relaxed)), (5, 0));
    send_all(&mut called, b"123").await;
    assert_eq!(read_all(&mut caller).await, b"123");
    assert_eq!((forward.load(Ordering::Relaxed), backward.load(Ordering::Relaxed)), (5, 3));
    drop(caller);
    soon(relay).await.expect("relayed");
}

#[tokio::test]
async fn bytes_that_were_read_already_go_first_and_count() {
    let ((mut caller, a), (b, mut called)) = (Io::pair(64), Io::pair(64));
    let relay = tokio::spawn(splice(a.rewound("hello ".into()), b, SpliceOptions::default()));
    send_all(&mut caller, b"world").await;
    assert_eq!(read_all(&mut called).await, b"hello world");
    send_all(&mut called, b"").await;
    assert_eq!(soon(relay).await.expect("relayed").forward, 11);
}

#[tokio::test]
async fn a_recorder_writes_down_each_direction_of_each_relay() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = Arc::new(Recorder::new(folder.path().join("relays")).expect("a recorder"));
    let tunnel = tunnel(&QuicOptions::default()).await;
    let bodies: Vec<_> = (0..3).map(|seed| (noise(200_000, seed), noise(100_000, seed + 10))).collect();
    for (request, response) in &bodies {
        let ((mut caller, a), (b, mut called)) = (tcp_pair().await, quic_pair(&tunnel).await);
        let options = SpliceOptions { recorder: Some(Arc::clone(&recorder)), ..SpliceOptions::default() };
        let relay = tokio::spawn(splice(a.rewound("first ".into()), b, options));
        let (received, ()) = tokio::join!(read_all(&mut called), send_all(&mut caller, request));
        assert_eq!(received.len(), request.len() + 6);
        let ((), received) = tokio::join!(send_all(&mut called, response), read_all(&mut caller));
        assert!(received == *response);
        soon(relay).await.expect("relayed");
    }
    for (number, (request, response)) in (1..).zip(&bodies) {
        let recorded =
            |direction| fs::read(folder.path().join(format!("relays/{number:06}-{direction}.bin"))).expect("recorded");
        assert!(recorded("forward") == [&b"first "[..], request].concat());
        assert!(recorded("backward") == *response);
    }
}

#[tokio::test]
async fn streams_that_stall_are_reset_once_they_starve_the_others() {
    let options = QuicOptions { stream_window: 32 << 10, ..QuicOptions::default() };
    let tunnel = tunnel(&options).await;
    let stall = SpliceOptions { stall: Duration::from_millis(200), ..SpliceOptions::default() };
    // Each takes a whole stream window and reads nothing; 64 of them take the connection's.
    for _ in 0..66 {
        let mut sender = soon(tunnel.0.open_raw()).await.expect("opened");
        tokio::spawn(async move { sender.write_all(&[0; 128 << 10]).await });
    }
    let mut relays = tokio::task::JoinSet::new();
    let mut unread = Vec::new();
    for _ in 0..64 {
        let a = soon(tunnel.1.accept_raw()).await.expect("accepted");
        let (b, reader) = Io::pair(16);
        relays.spawn(splice(a, b, stall.clone()));
        unread.push(reader);
    }
    let relayed = soon(relays.join_next()).await.expect("a relay").expect("relayed");
    assert_eq!(relayed.end, End::Failed { side: Side::B, reason: Reason::Overloaded });
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_alone_may_take_its_time() {
    let ((mut caller, a), (b, mut called)) = (Io::pair(64), Io::pair(64));
    let relay = tokio::spawn(splice(a, b, idle_after(300)));
    let writing = tokio::spawn(async move {
        caller.write_all(&[5; 1000]).await.expect("written");
        caller.shutdown().await.expect("ended");
        caller
    });
    tokio::time::advance(Duration::from_secs(200)).await;
    let mut received = Vec::new();
    called.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, [5; 1000]);
    drop((writing.await.expect("written"), called));
    assert_eq!(relay.await.expect("relayed").forward, 1000);
}
