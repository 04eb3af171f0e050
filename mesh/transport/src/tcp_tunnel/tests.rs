//! Who gets a tunnel over TCP, where it is driven, and how it ends. What holds for every tunnel is tested with `tunnel`.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::view::Transport;
use eastway_core::{Reason, SpiffeId};
use eastway_identity::{Expected, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::*;
use crate::tls;
use crate::tunnel::{Carrier, ConnectError, Tunnel};

#[tokio::test]
async fn both_gateways_know_each_other() {
    let (us, eu) = gateways();
    let (out, back) = tcp_tunnel(&us, &eu, &TcpOptions::default()).await;
    let (out, back) = (out.expect("connected"), back.expect("accepted"));
    assert_eq!(**out.peer(), SpiffeId::gateway(EU, "gw-1"));
    assert_eq!(**back.peer(), SpiffeId::gateway(US, "gw-1"));
    assert_eq!((out.kind(), back.kind(), out.transport()), (Kind::Data, Kind::Data, Transport::Tcp));
    assert_eq!(back.peer_chain().len(), 1);
    soon(out.confirmed()).await.expect("accepted by the peer");
    soon(back.confirmed()).await.expect("accepted by the peer");
    assert!(!out.is_closed() && out.is_usable() && !back.is_closed());
}

#[tokio::test]
async fn only_the_side_that_connected_opens_streams() {
    let (us, eu) = gateways();
    let (out, back) = tcp_tunnel(&us, &eu, &TcpOptions::default()).await;
    let (_out, back) = (out.expect("connected"), back.expect("accepted"));
    assert!(soon(back.open_raw()).await.is_err());
    assert!(!back.is_closed());
}

#[tokio::test]
async fn a_gateway_of_a_foreign_ca_is_refused() {
    let (us, _) = gateways();
    let impostor = identity(&ca(EU), &SpiffeId::gateway(EU, "gw-1"));
    let (_theirs, address) = tcp_port(&impostor, &TcpOptions::default());
    let ours = TcpCarrier::new(&TcpOptions::default());
    let error = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Identity(Refusal::ForeignCa)), "{error:?}");
    assert_eq!(error.reason(), Reason::WrongIdentity);
}

#[tokio::test]
async fn a_workload_that_poses_as_a_gateway_is_refused_and_told() {
    let (us_ca, eu_ca) = (ca(US), ca(EU));
    let workload = identity(&us_ca, &caller());
    let gateway = identity(&eu_ca, &SpiffeId::gateway(EU, "gw-1"));
    trust(&workload, &eu_ca);
    trust(&gateway, &us_ca);
    let (theirs, address) = tcp_port(&gateway, &TcpOptions::default());
    let ours = TcpCarrier::new(&TcpOptions::default());
    let told = match soon(ours.connect(address, client(&workload, EU), Kind::Data)).await {
        Ok(tunnel) => soon(tunnel.confirmed()).await.expect_err("told"),
        Err(error) => error,
    };
    assert_eq!(told.reason(), Reason::IdentityRefused, "{told:?}");
    assert_eq!(theirs.tunnels(), 0);
}

#[tokio::test]
async fn a_silent_peer_costs_the_handshake_timeout() {
    let (us, _) = gateways();
    let silent = TcpListener::bind(LOOPBACK).await.expect("bound");
    let options = TcpOptions { handshake_timeout: Duration::from_millis(100), ..TcpOptions::default() };
    let address = silent.local_addr().expect("bound");
    let connecting = TcpCarrier::new(&options);
    let error = soon(connecting.connect(address, client(&us, EU), Kind::Data)).await.expect_err("no answer");
    assert!(matches!(error, ConnectError::Timeout), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_has_as_many_tunnels_as_it_may_is_told_that_there_is_no_room() {
    let (us, eu) = gateways();
    let limited = TcpOptions { max_domain_connections: 1, ..TcpOptions::default() };
    let (theirs, address) = tcp_port(&eu, &limited);
    let ours = TcpCarrier::new(&TcpOptions::default());
    let connect = async || {
        let accepting = async { soon(theirs.accept()).await.expect("open").establish().await };
        let (out, back) = tokio::join!(soon(ours.connect(address, client(&us, EU), Kind::Data)), accepting);
        (out.expect("connected"), back)
    };
    let (first, back) = connect().await;
    let (second, refused) = connect().await;
    assert!(matches!(refused, Err(ConnectError::Overloaded)), "{refused:?}");
    assert_eq!(soon(second.closed()).await, Reason::Overloaded);
    // A tunnel that has ended gives its place back.
    first.close(Reason::Draining);
    let back = back.expect("accepted");
    assert_eq!(soon(back.closed()).await, Reason::Draining);
    drop(back);
    let (_third, accepted) = connect().await;
    assert!(accepted.is_ok());
}

#[tokio::test]
async fn a_tunnel_ends_when_its_peer_is_trusted_no_longer() {
    for ours_distrusts in [false, true] {
        let (us, eu) = gateways();
        let (out, back) = tcp_tunnel(&us, &eu, &TcpOptions::default()).await;
        let (out, back) = (out.expect("connected"), back.expect("accepted"));
        soon(out.confirmed()).await.expect("confirmed");
        let (distrusting, own, other) = if ours_distrusts { (&us, out, back) } else { (&eu, back, out) };
        distrusting.set_peer_bundles(BTreeMap::new()).expect("nobody is trusted");
        assert_eq!(distrusting.review(), 1);
        assert_eq!(soon(own.closed()).await, Reason::IdentityRefused);
        // The session says nothing to such a peer any more.
        assert_eq!(soon(other.closed()).await, Reason::TunnelLost);
    }
}

#[tokio::test]
async fn a_runtime_that_ends_after_a_shutdown_has_told_its_peers() {
    let (us, eu) = gateways();
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (theirs, address) = {
        let _inside = worker.enter();
        tcp_port(&eu, &TcpOptions::default())
    };
    let life = worker.spawn(async move {
        let back = theirs.accept().await.expect("open").establish().await.expect("accepted");
        back.accept_raw().await.expect("a stream");
        theirs.shutdown(Reason::Draining, Duration::from_secs(10)).await;
        assert_eq!(theirs.tunnels(), 0);
        assert!(theirs.accept().await.is_none());
    });
    let ours = TcpCarrier::new(&TcpOptions::default());
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    let mut stream = out.open_raw().await.expect("opened");
    stream.write_all(b"!").await.expect("written");
    soon(life).await.expect("ran");
    end(worker).await;
    assert_eq!(soon(out.closed()).await, Reason::Draining);
}

/// What arrives on one runtime and is established on another goes on after the first has ended.
#[tokio::test]
async fn a_tunnel_is_driven_by_the_runtime_that_establishes_it() {
    let (us, eu) = gateways();
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (theirs, address) = {
        let _inside = worker.enter();
        tcp_port(&eu, &TcpOptions::default())
    };
    let ours = TcpCarrier::new(&TcpOptions::default());
    let out = soon(ours.connect(address, client(&us, EU), Kind::Control)).await.expect("connected");
    let back = soon(theirs.accept()).await.expect("open").establish().await.expect("accepted");
    assert_eq!(back.kind(), Kind::Control);
    end(worker).await;
    let mut near = out.open_raw().await.expect("opened");
    near.write_all(b"ping").await.expect("written");
    let mut far = soon(back.accept_raw()).await.expect("a stream");
    let mut read = [0; 4];
    soon(far.read_exact(&mut read)).await.expect("read");
    far.write_all(b"pong").await.expect("written");
    soon(near.read_exact(&mut read)).await.expect("answered");
    assert_eq!(&read, b"pong");
}

#[tokio::test]
async fn a_vanished_peer_is_noticed_by_the_idle_timeout() {
    let (us, eu) = gateways();
    let options = TcpOptions {
        idle_timeout: Duration::from_millis(500),
        keepalive: Duration::from_millis(100),
        open_timeout: Duration::from_millis(100),
        ..TcpOptions::default()
    };
    let (out, _tcp) = connected_to_a_peer_that_reads_nothing(&us, &eu, &options).await;
    assert!(out.open_raw().await.is_ok(), "nothing is known yet");
    assert_eq!(soon(out.closed()).await, Reason::TunnelLost);
    assert!(!out.is_usable());
}

/// A tunnel to a gateway that shook hands and does nothing more, whose kernel goes on acknowledging.
async fn connected_to_a_peer_that_reads_nothing(
    us: &std::sync::Arc<eastway_identity::Identity>,
    eu: &std::sync::Arc<eastway_identity::Identity>,
    options: &TcpOptions,
) -> (std::sync::Arc<dyn Tunnel>, crate::Io) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let tls = eastway_identity::server_config(eu, Expected::AnyGateway, ALPN);
    let ours = TcpCarrier::new(options);
    let (out, far) = tokio::join!(soon(ours.connect(address, client(us, EU), Kind::Data)), async {
        let (tcp, _) = listener.accept().await.expect("a connection");
        tls::accept(tcp.into(), tls).await.expect("a session")
    });
    (out.expect("connected"), far)
}

#[tokio::test]
async fn what_is_no_tunnel_ends_the_connection_and_nothing_else() {
    let (us, eu) = gateways();
    let (theirs, address) = tcp_port(&eu, &TcpOptions::default());
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let tcp = TcpStream::connect(address).await.expect("connected");
        let garbage: Vec<u8> = (0..rng.usize(1..300)).map(|_| rng.u8(..)).collect();
        let mut io = tls::connect(tcp.into(), client(&us, EU).speaking(&[DATA])).await.expect("a session");
        let back = soon(theirs.accept()).await.expect("open").establish().await.expect("accepted");
        io.write_all(&garbage).await.expect("written");
        io.shutdown().await.expect("ended");
        assert_eq!(soon(back.closed()).await, Reason::TunnelLost);
        assert!(soon(back.accept_raw()).await.is_none());
    }
    // And a proper one is served.
    let ours = TcpCarrier::new(&TcpOptions::default());
    let out = soon(ours.connect(address, client(&us, EU), Kind::Data)).await.expect("connected");
    let back = soon(theirs.accept()).await.expect("open").establish().await.expect("accepted");
    let mut near = out.open_raw().await.expect("opened");
    send_all(&mut near, b"hello").await;
    let mut far = soon(back.accept_raw()).await.expect("a stream");
    assert_eq!(read_all(&mut far).await, b"hello");
}

#[tokio::test]
async fn a_tunnel_ends_with_the_last_that_uses_it() {
    let (us, eu) = gateways();
    let (out, back) = tcp_tunnel(&us, &eu, &TcpOptions::default()).await;
    let (out, back) = (out.expect("connected"), back.expect("accepted"));
    let mut near = out.open_raw().await.expect("opened");
    near.write_all(b"!").await.expect("written");
    let mut far = soon(back.accept_raw()).await.expect("a stream");
    drop(out);
    near.write_all(b"?").await.expect("written");
    let mut read = [0; 2];
    soon(far.read_exact(&mut read)).await.expect("the stream outlives the tunnel's handle");
    drop(near);
    assert_eq!(soon(back.closed()).await, Reason::Draining);
}

#[test]
fn each_kind_has_its_application_protocol() {
    for kind in [Kind::Data, Kind::Control] {
        assert_eq!(kind_of(alpn_of(kind)), Some(kind));
        assert!(ALPN.contains(&alpn_of(kind)));
    }
    for other in [crate::ALPN, b"h2", b"http/1.1", eastway_link::ALPN] {
        assert_eq!(kind_of(other), None);
    }
}
