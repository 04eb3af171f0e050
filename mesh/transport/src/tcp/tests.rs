//! Tests of dialling and listening.

use tokio::net::TcpListener;

use super::*;
use crate::testing::*;

#[tokio::test]
async fn connections_have_the_settings_of_the_data_path() {
    let listener = TcpListener::from_std(bind(LOOPBACK).expect("bound")).expect("registered");
    let options = DialOptions { connect_timeout: Duration::from_secs(5), ..DialOptions::default() };
    let stream = dial(listener.local_addr().expect("bound"), &options).await.expect("connected");
    assert!(stream.nodelay().expect("asked"));
    let socket = SockRef::from(&stream);
    assert_eq!(socket.tcp_user_timeout().expect("asked"), options.user_timeout);
    assert!(socket.keepalive().expect("asked"));
    assert_eq!(socket.tcp_keepalive_time().expect("asked"), Duration::from_secs(30));
    let options = DialOptions { keepalive: Some(Keepalive::every(Duration::from_secs(1))), ..options };
    tune(&stream, &options).expect("tuned");
    let socket = SockRef::from(&stream);
    let times = [socket.tcp_keepalive_time(), socket.tcp_keepalive_interval()].map(|time| time.expect("asked"));
    assert_eq!(times, [Duration::from_secs(1); 2]);
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let free = bind(LOOPBACK).expect("bound").local_addr().expect("bound");
    let error = dial(free, &DialOptions::default()).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_host_that_does_not_answer_costs_the_time_limit() {
    // The kernel lets connections beyond the backlog wait without an answer, as a vanished host would.
    let socket = unbound(LOOPBACK).expect("a socket");
    socket.bind(&LOOPBACK.into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = crate::io_address(&socket).expect("bound");
    let options = DialOptions { connect_timeout: Duration::from_millis(100), ..DialOptions::default() };
    let mut held = Vec::new();
    let error = loop {
        match soon(dial(address, &options)).await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn listeners_share_a_port_that_was_free_to_choose() {
    let listeners = bind_reuseport(LOOPBACK, 3).expect("bound");
    let address = listeners[0].local_addr().expect("bound");
    assert!(address.port() != 0 && listeners.iter().all(|l| l.local_addr().expect("bound") == address));
    let listeners: Vec<_> = listeners.into_iter().map(|l| TcpListener::from_std(l).expect("registered")).collect();
    let [first, second, third] = &listeners[..] else { panic!("three listeners") };
    for _ in 0..20 {
        let dialled = soon(dial(address, &DialOptions::default())).await.expect("connected");
        let accepted = soon(async {
            tokio::select! { it = first.accept() => it, it = second.accept() => it, it = third.accept() => it }
        });
        assert_eq!(accepted.await.expect("accepted").1, dialled.local_addr().expect("bound"));
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_is_not_shared_with_him() {
    let listeners = bind_reuseport(LOOPBACK, 2).expect("bound");
    let address = listeners[0].local_addr().expect("bound");
    assert_eq!(bind_reuseport(address, 2).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
    assert_eq!(bind(address).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_connection_that_is_closed_in_order_is_no_reset_although_the_peer_spoke_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(&[7; 10_000]).await.expect("a greeting");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(|_| rest.len())
    });
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.readable().await.expect("the greeting is there");
    close(stream, Duration::from_secs(10)).await;
    assert_eq!(serving.await.expect("no panic").expect("no reset"), 0);
}

#[tokio::test]
async fn what_closes_in_order_reads_what_the_other_side_has_said_and_resets_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (mut far, _)) = (near.expect("connected"), far.expect("accepted"));
    far.write_all(b"a greeting that nobody waited for").await.expect("written");
    near.readable().await.expect("it has arrived");
    let closing = tokio::spawn(close(near, Duration::from_secs(20)));
    assert_eq!(far.read(&mut [0]).await.expect("the regular end"), 0);
    // After an end, only what is written shows a reset.
    far.write_all(b"and the last words").await.expect("no reset");
    drop(far);
    closing.await.expect("closed");
}
