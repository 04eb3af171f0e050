//! Tests of the accepting loop.

use std::cell::Cell;
use std::rc::Rc;

use eastway_core::Reason;
use eastway_identity::{Expected, client_config, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::testing::*;

#[tokio::test]
async fn connections_are_served_while_there_is_room_and_until_the_loop_is_stopped() {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let room = Rc::new(Cell::new(1));
    let admit = {
        let room = Rc::clone(&room);
        move || {
            let left: u32 = room.get();
            room.set(left.checked_sub(1)?);
            Some(Place(Rc::clone(&room)))
        }
    };
    let serve = async |mut io: Io| {
        let byte = io.read_u8().await.expect("read");
        io.write_all(&[byte + 1]).await.expect("written");
    };
    let accepting = each(listener, "test", async { drop(stopped.await) }, admit, serve);
    let calling = async {
        let mut first = TcpStream::connect(address).await.expect("connected");
        // The only place is taken: the next connection ends at once.
        let mut second = TcpStream::connect(address).await.expect("connected");
        assert!(!matches!(soon(second.read(&mut [0])).await, Ok(1..)));
        first.write_all(&[7]).await.expect("written");
        assert_eq!(soon(first.read_u8()).await.expect("served"), 8);
        assert_eq!(soon(first.read(&mut [0])).await.expect("ended"), 0);
        soon(async {
            while room.get() == 0 {
                tokio::task::yield_now().await
            }
        })
        .await;
        let mut third = TcpStream::connect(address).await.expect("connected");
        third.write_all(&[9]).await.expect("written");
        assert_eq!(soon(third.read_u8()).await.expect("served"), 10);
        drop(stop);
    };
    LocalSet::new().run_until(async { soon(async { tokio::join!(accepting, calling) }).await }).await;
    assert!(TcpStream::connect(address).await.is_err());
}

/// Gives its place back.
struct Place(Rc<Cell<u32>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[tokio::test]
async fn a_handshake_gives_the_peer_or_nothing() {
    let (us, eu) = gateways();
    let config = || server_config(&eu, Expected::AnyGateway, &[b"h2"]);
    let limits = |timeout| HandshakeLimits { places: 2, per_address: 2, timeout };
    let handshakes = Handshakes::new("test", &limits(Duration::from_secs(5)));

    let (near, far) = Io::pair(64 << 10);
    let connecting = tls::connect(near, client_config(&us, Expected::AnyGateway, &[b"h2"]));
    let (served, client) = tokio::join!(handshakes.shake(far, config()), connecting);
    let (_io, id) = served.expect("a peer");
    assert_eq!(id, us.id());
    drop(client.expect("a session"));

    let (near, far) = Io::pair(64);
    near.abort(Reason::CallerGone);
    assert!(handshakes.shake(far, config()).await.is_none());

    let (_silent, far) = Io::pair(64);
    let hurried = Handshakes::new("test", &limits(Duration::from_millis(20)));
    assert!(hurried.shake(far, config()).await.is_none());
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_handshake_out() {
    let (us, eu) = gateways();
    let config = || server_config(&eu, Expected::AnyGateway, &[b"h2"]);
    let limits = HandshakeLimits { places: 8, per_address: 4, timeout: Duration::from_secs(3_600) };
    let handshakes = Handshakes::new("test", &limits);
    let (mut silent, mut waiting) = (Vec::new(), tokio::task::JoinSet::new());
    for _ in 0..20 {
        let (near, far) = tcp_pair().await;
        silent.push(near);
        let (handshakes, config) = (Arc::clone(&handshakes), config());
        waiting.spawn(async move { handshakes.shake(far, config).await });
    }
    let (near, far) = tcp_pair().await;
    let connecting = tls::connect(near, client_config(&us, Expected::AnyGateway, &[b"h2"]));
    let (served, _client) = soon(async { tokio::join!(handshakes.shake(far, config()), connecting) }).await;
    assert!(served.is_some());
    // Those that were in the way have ended; the others still wait.
    for _ in 0..17 {
        assert!(soon(waiting.join_next()).await.expect("one").expect("ended").is_none());
    }
    assert_eq!(handshakes.places.taken(), waiting.len());
}
