//! Limits of time, and stopping.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use eastway_transport::Io;
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use crate::body::{Body, BodyError};
use crate::message::{Request, Response};
use crate::server::{Ended, Protocol, ServerOptions, serve};
use crate::sweeper::Sweeper;
use crate::testing::{ok, options, paused};

async fn quick(_: Request) -> Response {
    ok(Body::full("ok"))
}

async fn slow(_: Request) -> Response {
    tokio::time::sleep(Duration::from_secs(100)).await;
    ok(Body::full("ok"))
}

/// A server at the other end of a stream in memory, and the signal that stops it.
fn server<H, F>(options: ServerOptions, handler: H) -> (DuplexStream, tokio::task::JoinHandle<Ended>, impl FnOnce())
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let (near, far) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::task::spawn_local(async move {
        let sweeper = Sweeper::new();
        let stop = async {
            if stopped.await.is_err() {
                std::future::pending().await
            }
        };
        serve(Io::other(far), &options, &sweeper, stop, handler).await
    });
    (near, served, move || stop.send(()).expect("it serves"))
}

async fn rest(mut near: DuplexStream) -> String {
    let mut text = String::new();
    near.read_to_string(&mut text).await.expect("text");
    text
}

#[test]
fn a_head_that_does_not_come_in_time_ends_the_connection() {
    for (protocol, sent) in [
        (Protocol::Detect, &b""[..]),
        (Protocol::Detect, b"PRI * HTTP"),
        (Protocol::Detect, b"GET / HTTP/1.1\r\nHo"),
        (Protocol::Http1, b""),
        (Protocol::Http1, b"GET / HTTP/1.1\r\nHo"),
    ] {
        paused(async {
            let (mut near, served, _stop) = server(ServerOptions { protocol, ..options() }, quick);
            near.write_all(sent).await.expect("open");
            let start = Instant::now();
            assert!(matches!(served.await.expect("no panic"), Ended::Idle));
            let took = start.elapsed();
            assert!(took >= Duration::from_secs(10) && took <= Duration::from_secs(21), "{took:?}");
        });
    }
}

#[test]
fn a_second_head_that_trickles_in_ends_the_connection() {
    paused(async {
        let (mut near, served, _stop) = server(options(), quick);
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaa".chunks(1) {
            if near.write_all(byte).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
        assert!(start.elapsed() <= Duration::from_secs(41));
        assert_eq!(rest(near).await.matches("HTTP/1.1 200 OK").count(), 1);
    });
}

#[test]
fn an_idle_connection_ends_after_its_limit_and_a_busy_one_does_not() {
    paused(async {
        let (mut near, served, _stop) = server(options(), slow);
        let start = Instant::now();
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(400) && took <= Duration::from_secs(430), "{took:?}");
        assert!(rest(near).await.ends_with("ok"));
    });
}

/// A body without an end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
    }
}

#[test]
fn a_caller_that_does_not_read_its_response_is_given_up() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        paused(async {
            let endless = |_: Request| async { ok(Body::boxed(Endless)) };
            let (near, served, _stop) = server(ServerOptions { protocol, ..options() }, endless);
            let start = Instant::now();
            let mut near = near;
            if protocol == Protocol::Http2 {
                // The preface, SETTINGS with large windows, a large connection window, and GET / on stream 1.
                near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("open");
                near.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]).await.expect("open");
                near.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]).await.expect("open");
                near.write_all(&[0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 1, b'a']).await.expect("open");
            } else {
                near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
            }
            let ended = tokio::time::timeout(Duration::from_secs(3600), served).await.expect("it ends");
            assert!(matches!(ended.expect("no panic"), Ended::Idle));
            let took = start.elapsed();
            assert!(took >= Duration::from_secs(300) && took <= Duration::from_secs(330), "{took:?}");
        });
    }
}

#[test]
fn stopping_ends_an_idle_connection_at_once() {
    for first in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        paused(async {
            let (mut near, served, stop) = server(ServerOptions { protocol: Protocol::Http1, ..options() }, quick);
            near.write_all(first.as_bytes()).await.expect("open");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let start = Instant::now();
            stop();
            assert!(matches!(served.await.expect("no panic"), Ended::Done));
            assert!(start.elapsed() < Duration::from_secs(1));
        });
    }
}

#[test]
fn stopping_lets_the_request_under_way_finish() {
    paused(async {
        let (mut near, served, stop) = server(options(), slow);
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop();
        let answer = rest(near).await;
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("ok"), "{answer}");
        assert!(matches!(served.await.expect("no panic"), Ended::Done));
    });
}

#[test]
fn stopping_http2_sends_goaway_and_finishes_its_streams() {
    paused(async {
        let (near, served, stop) = server(options(), slow);
        let (mut client, connection) = h2::client::handshake(near).await.expect("HTTP/2");
        let connection = tokio::task::spawn_local(connection);
        let request = || http::Request::get("http://a/").body(()).expect("valid");
        let (response, _) = client.send_request(request(), true).expect("open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = client.ready().await;
        assert!(second.is_err(), "GOAWAY was received");
        assert_eq!(response.await.expect("it finishes").status(), 200);
        assert!(matches!(served.await.expect("no panic"), Ended::Done));
        let _ = connection.await;
    });
}
