//! Much at once: many streams, and large packets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::quic::QuicOptions;
use crate::testing::*;
use crate::tunnel::{OpenError, Tunnel};

#[tokio::test]
async fn large_packets_do_not_collapse_the_path() {
    const BLOCKS: usize = 64;
    let (out, back) = tunnel(&QuicOptions::default()).await;
    let mut near = out.open_raw().await.expect("opened");
    let block = noise(1 << 20, 5);
    let sending = async {
        for _ in 0..BLOCKS {
            near.write_all(&block).await.expect("written");
        }
        near.shutdown().await.expect("ended");
    };
    let receiving = async {
        let mut far = soon(back.accept_raw()).await.expect("accepted");
        let mut received = vec![0; 1 << 20];
        for _ in 0..BLOCKS {
            far.read_exact(&mut received).await.expect("read");
            assert!(received == block);
        }
        assert_eq!(far.read(&mut received).await.expect("ended"), 0);
    };
    soon(async { tokio::join!(sending, receiving) }).await;
    let stats = out.stats();
    assert_eq!((stats.mtu, stats.black_holes), (8952, 0), "{stats:?}");
}

#[tokio::test]
async fn many_streams_run_at_once() {
    const STREAMS: u32 = 1000;
    let (out, back) = tunnel(&QuicOptions::default()).await;
    let mut near = Vec::new();
    for number in 0..STREAMS {
        let mut stream = soon(out.open_raw()).await.expect("opened");
        stream.write_u32(number).await.expect("written");
        near.push(stream);
    }
    let mut far = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = soon(back.accept_raw()).await.expect("accepted");
        let number = soon(stream.read_u32()).await.expect("read");
        stream.write_u32(number).await.expect("written");
        far.push(stream);
    }
    assert_eq!(out.stats().streams, u64::from(STREAMS));
    for (number, stream) in (0..).zip(&mut near) {
        assert_eq!(soon(stream.read_u32()).await.expect("answered"), number);
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_wait_for_room_and_then_time_out() {
    let options = QuicOptions { max_streams: 2, open_timeout: Duration::from_millis(50), ..QuicOptions::default() };
    let (out, back) = tunnel(&options).await;
    let mut first = out.open_raw().await.expect("opened");
    let _second = out.open_raw().await.expect("opened");
    assert!(matches!(out.open_raw().await, Err(OpenError::Timeout)));
    // The end of one makes room.
    send_all(&mut first, b"x").await;
    let mut far = soon(back.accept_raw()).await.expect("accepted");
    assert_eq!(read_all(&mut far).await, b"x");
    send_all(&mut far, b"").await;
    assert_eq!(read_all(&mut first).await, b"");
    soon(async { while out.open_raw().await.is_err() {} }).await;
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_stop_the_others() {
    let (out, back) = tunnel(&QuicOptions::default()).await;
    let mut stalled = out.open_raw().await.expect("opened");
    stalled.write_all(&[1]).await.expect("written");
    let filling = tokio::spawn(async move { stalled.write_all(&vec![1; 8 << 20]).await });
    let _unread = soon(back.accept_raw()).await.expect("accepted");
    let mut near = out.open_raw().await.expect("opened");
    let bytes = noise(4 << 20, 6);
    let receiving = async {
        let mut far = soon(back.accept_raw()).await.expect("accepted");
        read_all(&mut far).await
    };
    let (received, ()) = tokio::join!(receiving, send_all(&mut near, &bytes));
    assert!(received == bytes);
    assert!(!filling.is_finished());
    filling.abort();
}
