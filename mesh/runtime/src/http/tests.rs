use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::drain::Drain;

const LIMIT: Duration = Duration::from_secs(10);

async fn start(handler: Handler, options: ServeOptions) -> SocketAddr {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, handler, options));
    address
}

/// Sends `request` and reads until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A reset after the answer is as good as its end.
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
}

fn echo() -> Handler {
    Arc::new(|request| Box::pin(async move { content(StatusCode::OK, "text/plain", request.into_body()) }))
}

#[tokio::test]
async fn metrics_live_and_ready() {
    let drain = Drain::new(Duration::ZERO);
    let readiness = Readiness::new(drain.draining());
    let requirement = readiness.require("discovery");
    let handler = observability(readiness, |accept| {
        ("text/x-metrics", format!("# for {}\neastway_up 1\n", accept.unwrap_or("anybody")))
    });
    let address = start(handler, ServeOptions::default()).await;

    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/x-metrics"), "{metrics}");
    assert!(metrics.ends_with("# for anybody\neastway_up 1\n"), "{metrics}");
    let choosy = "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\naccept: x/y\r\naccept: z/*\r\n\r\n";
    assert!(exchange(address, choosy).await.contains("# for x/y,z/*\n"), "what it accepts is one list");
    assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
    let waiting = get(address, "/ready").await;
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("not ready: discovery\n"), "{waiting}");
    drop(requirement);
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
    drain.start();
    assert!(get(address, "/ready").await.ends_with("not ready: draining\n"));
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
    let post = exchange(address, "POST /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    assert!(post.await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn bodies_are_handed_over_whole_and_bounded() {
    let address = start(echo(), ServeOptions { body: 8, ..ServeOptions::default() }).await;
    let post = |body: &'static str| async move {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        exchange(address, &(head + body)).await
    };
    assert!(post("12345678").await.ends_with("\r\n\r\n12345678"));
    assert!(post("123456789").await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_slow_head_and_a_slow_handler_are_ended() {
    let brief = Duration::from_millis(20);
    let options = ServeOptions { head_timeout: brief, timeout: brief, ..ServeOptions::default() };
    let never: Handler = Arc::new(|_| Box::pin(std::future::pending()));
    let address = start(never, options).await;
    assert!(get(address, "/").await.starts_with("HTTP/1.1 408"));
    // The server closes although the head never ends.
    exchange(address, "GET / HTTP/1.1\r\nhos").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_slot() {
    let address = start(echo(), ServeOptions { connections: 1, ..ServeOptions::default() }).await;
    let mut first = TcpStream::connect(address).await.expect("connected");
    first.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").await.expect("sent");
    let mut answer = [0; 12];
    timeout(LIMIT, first.read_exact(&mut answer)).await.expect("in time").expect("answered");
    let second = tokio::spawn(async move { get(address, "/").await });
    drop(first);
    assert!(timeout(LIMIT, second).await.expect("in time").expect("answered").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = bind(([127, 0, 0, 1], 0).into()).await.expect("bound");
    let address = taken.local_addr().expect("bound");
    let error = bind(address).await.expect_err("in use");
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
}

#[tokio::test]
async fn connections_that_do_nothing_keep_nobody_out() {
    let address = start(echo(), ServeOptions { connections: 4, ..ServeOptions::default() }).await;
    let mut active = TcpStream::connect(address).await.expect("connected");
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(address).await.expect("connected"));
        // Whoever is active keeps its place.
        active.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let mut answer = [0; 512];
        let read = timeout(LIMIT, active.read(&mut answer)).await.expect("in time").expect("answered");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    }
    assert!(get(address, "/").await.starts_with("HTTP/1.1 200"));
    // The oldest has ended, the newest has not.
    assert_eq!(timeout(LIMIT, idle[0].read(&mut [0])).await.expect("in time").unwrap_or(0), 0);
    assert!(timeout(Duration::from_millis(50), idle[19].read(&mut [0])).await.is_err());
}
