//! Large packets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::quic::QuicOptions;
use crate::testing::*;
use crate::tunnel::Tunnel;

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
