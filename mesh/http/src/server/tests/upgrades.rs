//! CONNECT and upgrades: raw bytes afterwards, those read ahead included.

use eastway_core::Reason;
use eastway_core::head::{Fields as _, HttpVersion};
use eastway_transport::Io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::body::Body;
use crate::client::{ClientOptions, Connected, connect};
use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::refuse;
use crate::testing::{Raw, Upstream, dial, h1, h2, listen, local, ok};

/// Grants every CONNECT and says back what comes, in capitals.
async fn shout(request: Request) -> Response {
    let Some(upgrading) = request.upgrading else {
        return refuse::response(Reason::MalformedRequest, "t", false);
    };
    tokio::task::spawn_local(async move {
        let Ok(mut io) = upgrading.io().await else { return };
        let mut chunk = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut chunk).await {
            let said = chunk[..read].to_ascii_uppercase();
            if io.write_all(&said).await.is_err() {
                return;
            }
        }
        let _ = io.shutdown().await;
    });
    let mut response = ok(Body::empty());
    response.head.fields.append("eastway-endpoint", b"p-1");
    response
}

#[test]
fn connect_gives_raw_bytes_and_what_was_read_ahead() {
    local(async {
        let server = listen(shout).await;
        let mut raw = Raw::dial(server).await;
        raw.send("CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\nearly bytes,").await;
        let head = raw.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("content-length"), "{head}");
        assert_eq!(raw.until("EARLY BYTES,").await, "EARLY BYTES,");
        raw.send("then more.").await;
        assert_eq!(raw.until("THEN MORE.").await, "THEN MORE.");
        raw.0.shutdown().await.expect("open");
        assert_eq!(raw.rest().await, "", "half-close passes");
    });
}

#[test]
fn the_servers_io_is_the_stream_that_it_was_given() {
    local(async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let sender = std::rc::Rc::new(std::cell::Cell::new(Some(sender)));
        let server = listen(move |request: Request| {
            let upgrading = request.upgrading.expect("CONNECT");
            let sender = sender.take().expect("one request");
            tokio::task::spawn_local(async move { drop(sender.send(upgrading.io().await)) });
            async { ok(Body::empty()) }
        })
        .await;
        let mut raw = Raw::dial(server).await;
        raw.send("CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n").await;
        let io = receiver.await.expect("sent").expect("upgraded");
        assert!(matches!(io, Io::Plain(_)), "{io:?}");
    });
}

#[test]
fn a_tunnel_is_opened_and_its_first_answer_is_not_lost() {
    local(async {
        let server = listen(shout).await;
        let request = || RequestHead::new(HttpVersion::Http11, "CONNECT", "", "a.b:443");
        let opened = connect(dial(server).await, request(), &ClientOptions::default()).await.expect("an outcome");
        let Connected::Open(head, mut io) = opened else { panic!("{opened:?}") };
        assert_eq!(head.fields.text("eastway-endpoint"), Some("p-1"));
        io.write_all(b"hello").await.expect("open");
        let mut said = [0; 5];
        io.read_exact(&mut said).await.expect("open");
        assert_eq!(&said, b"HELLO");

        // The first bytes come in the same segment as the head.
        let eager = crate::testing::Recorder::new(b"HTTP/1.1 200 OK\r\n\r\nbanner").await;
        let opened =
            connect(dial(eager.address).await, request(), &ClientOptions::default()).await.expect("an outcome");
        let Connected::Open(_, mut io) = opened else { panic!("{opened:?}") };
        let mut banner = [0; 6];
        io.read_exact(&mut banner).await.expect("open");
        assert_eq!(&banner, b"banner");
    });
}

#[test]
fn a_refused_tunnel_says_why() {
    local(async {
        let server = listen(|_: Request| async { refuse::response(Reason::UnknownService, "gw", false) }).await;
        let request = RequestHead::new(HttpVersion::Http11, "CONNECT", "", "a.b:443");
        let refused = connect(dial(server).await, request, &ClientOptions::default()).await.expect("an outcome");
        let Connected::Refused(response) = refused else { panic!("{refused:?}") };
        assert_eq!(response.head.status, 404);
        let status = response.head.fields.text("proxy-status").expect("text");
        assert_eq!(Reason::from_proxy_status(status), Some(Reason::UnknownService));
    });
}

#[test]
fn connect_works_over_http2_as_a_stream() {
    local(async {
        let server = listen(shout).await;
        let client = h2(server).await;
        let request = crate::testing::request("CONNECT", "", "a.b:443", Body::empty());
        let response = client.send(request).await.expect("an answer");
        let mut io = response.upgrading.expect("granted").io().await.expect("open");
        io.write_all(b"hello").await.expect("open");
        let mut said = [0; 5];
        io.read_exact(&mut said).await.expect("open");
        assert_eq!(&said, b"HELLO");
        io.shutdown().await.expect("open");
        assert_eq!(io.read(&mut said).await.expect("a clean end"), 0);
    });
}

/// Agrees to speak websocket, then says back what comes.
async fn socket(request: Request) -> Response {
    let Some(protocol) = request.head.upgrade() else {
        return ok(Body::full("plain"));
    };
    let head = ResponseHead::with_room(101, Some(protocol), 0);
    let upgrading = request.upgrading.expect("asked for");
    tokio::task::spawn_local(async move {
        let (mut reader, mut writer) = tokio::io::split(upgrading.io().await.expect("agreed"));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    Response::new(head, Body::empty())
}

/// Forwards upgrades as well as requests.
async fn relay(upstream: std::net::SocketAddr, mut request: Request) -> Response {
    let caller = request.upgrading.take();
    let mut response = h1(upstream).await.send(request).await.expect("an answer");
    if let (101, Some(caller), Some(called)) = (response.head.status, caller, response.upgrading.take()) {
        tokio::task::spawn_local(async move {
            let mut called = called.io().await.expect("agreed");
            let mut caller = caller.io().await.expect("agreed");
            let _ = tokio::io::copy_bidirectional(&mut caller, &mut called).await;
        });
    }
    response
}

#[test]
fn an_upgrade_passes_through_a_proxy() {
    local(async {
        let last = listen(socket).await;
        let server = listen(move |request| relay(last, request)).await;
        let mut raw = Raw::dial(server).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let head = raw.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        raw.send("frames").await;
        assert_eq!(raw.until("frames").await, "frames");

        let mut raw = Raw::dial(server).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n").await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("plain"), "not nominated: {answer}");
    });
}

#[test]
fn an_upgrade_over_http2_is_not_an_upgrade() {
    local(async {
        let last = listen(socket).await;
        let server = listen(crate::testing::proxy(Upstream::H2(last))).await;
        let mut raw = Raw::dial(server).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n").await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("plain"), "{answer}");
    });
}
