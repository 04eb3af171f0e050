//! How tunnels end when a gateway goes: with a word, without one, and in the middle of everything.

use std::sync::mpsc;
use std::time::Duration;

use eastway_core::Reason;
use tokio::io::AsyncWriteExt;

use crate::quic::{self, Endpoint, QuicOptions};
use crate::testing::*;
use crate::tunnel::Carrier as _;
use crate::tunnel::{Kind, Tunnel};

/// No timeout can end a connection within these tests.
fn patient() -> QuicOptions {
    QuicOptions { idle_timeout: Duration::from_secs(600), ..QuicOptions::default() }
}

#[tokio::test]
async fn a_runtime_that_ends_after_a_shutdown_has_told_its_peers() {
    let (us, eu) = gateways();
    let ours = endpoints(&us, 0, &patient()).remove(0);
    let (worker, theirs) = elsewhere(&eu, &patient());
    let address = theirs.local_addr().expect("bound");
    let life = worker.spawn(async move {
        let back = theirs.accept().await.expect("open").establish().await.expect("accepted");
        back.accept_raw().await.expect("a stream");
        theirs.shutdown(Reason::Draining, Duration::from_secs(10)).await;
    });
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    out.open_raw().await.expect("opened").write_all(b"!").await.expect("written");
    soon(life).await.expect("ran");
    end(worker).await;
    assert_eq!(soon(out.closed()).await, Reason::Draining);
}

#[tokio::test]
async fn a_tunnel_that_is_closed_in_the_middle_of_a_transfer_says_so() {
    close_with_a_full_window(|_, tunnel| tunnel.close(Reason::Draining)).await;
}

#[tokio::test]
async fn an_endpoint_that_is_closed_in_the_middle_of_a_transfer_says_so() {
    close_with_a_full_window(|endpoint, _| endpoint.close(Reason::Draining)).await;
}

/// Closes while more is unacknowledged than the congestion window allows to add to.
async fn close_with_a_full_window(close: impl Fn(&Endpoint, &dyn Tunnel)) {
    let (us, eu) = gateways();
    let ours = endpoints(&us, 0, &patient()).remove(0);
    let (worker, theirs) = elsewhere(&eu, &patient());
    let address = theirs.local_addr().expect("bound");
    let accepting = worker.spawn(async move { theirs.accept().await.expect("open").establish().await });
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    soon(out.confirmed()).await.expect("confirmed");
    let back = soon(accepting).await.expect("ran").expect("accepted");

    // The peer's only thread stops, so that nothing is acknowledged.
    let ((stopped, is_stopped), (go_on, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    worker.spawn(async move {
        stopped.send(()).expect("told");
        let _ = wait.recv();
    });
    tokio::task::spawn_blocking(move || is_stopped.recv()).await.expect("ran").expect("stopped");
    let mut stream = out.open_raw().await.expect("opened");
    let writing = tokio::spawn(async move {
        drop(stream.write_all(&vec![0; 8 << 20]).await);
        stream
    });
    let mut sent = 0;
    soon(async {
        // Done when nothing more was sent for a while: probes for what is missing come later and later.
        while std::mem::replace(&mut sent, out.stats().packets_sent) != out.stats().packets_sent {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    close(&ours, &*out);
    tokio::task::yield_now().await;
    drop(go_on);
    assert_eq!(soon(back.closed()).await, Reason::Draining);
    writing.abort();
    end(worker).await;
}

#[tokio::test]
async fn a_gateway_that_was_restarted_ends_the_connections_of_its_earlier_life_at_once() {
    let options = QuicOptions { reset_secret: Some([42; 32]), ..patient() };
    let (us, eu) = gateways();
    let ours = endpoints(&us, 0, &options).remove(0);
    let (first_life, theirs) = elsewhere(&eu, &options);
    let address = theirs.local_addr().expect("bound");
    let accepting = first_life.spawn(async move { theirs.accept().await.expect("open").establish().await });
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    soon(out.confirmed()).await.expect("confirmed");
    let back = soon(accepting).await.expect("ran").expect("accepted");
    // It dies without a word, with everything that it knows.
    end(first_life).await;
    drop(back);

    let socket = soon(async {
        loop {
            match quic::bind(address, 0, &options) {
                Ok(mut sockets) => break sockets.remove(0),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let _second_life = Endpoint::new(socket.await, 0, server(&eu), &options).expect("an endpoint");
    let mut stream = out.open_raw().await.expect("opened");
    stream.write_all(&[0; 1000]).await.expect("written");
    assert_eq!(soon(out.closed()).await, Reason::TunnelLost);
}
