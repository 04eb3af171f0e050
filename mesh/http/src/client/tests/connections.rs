//! HTTP/1.1 and HTTP/2 connections in good order.

use std::time::Duration;

use bytes::Bytes;
use eastway_transport::Io;
use http_body::Body as _;
use tokio::io::AsyncWriteExt as _;

use crate::body::Body;
use crate::client::{ClientOptions, H1, H2, H2Options};
use crate::message::Request;
use crate::server::serve;
use crate::sweeper::Sweeper;
use crate::testing::{
    OK, Recorder, channel, data, get, h1, h2, listen, local, mirror, ok, options, paused, post, request, until,
};

#[test]
fn one_http1_connection_carries_many_requests() {
    local(async {
        let mut client = h1(listen(mirror).await).await;
        for round in 0..5 {
            assert_eq!(client.is_reused(), round > 0);
            let response = client.send(post("a", Body::full("hi"))).await.expect("an answer");
            assert!(response.body.collect(999).await.expect("whole").0.ends_with(b"hi"));
        }
        assert!(client.ready().await && !client.is_closed());
    });
}

#[test]
fn http1_is_written_in_origin_form_with_one_length() {
    local(async {
        let upstream = Recorder::new(OK).await;
        let mut client = h1(upstream.address).await;
        let request = request("POST", "/x?y", "a.b:81", Body::full("hello"));
        client.send(request).await.expect("an answer");
        assert_eq!(upstream.text(), "POST /x?y HTTP/1.1\r\nhost: a.b:81\r\ncontent-length: 5\r\n\r\nhello");
    });
}

#[test]
fn a_large_body_comes_whole_whatever_pieces_it_was_sent_in() {
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let known = [b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n".to_vec(), bytes.clone()].concat();
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n493e0\r\n";
    let chunked = [&head[..], &bytes, b"\r\n5\r\nsmall\r\n0\r\nx: y\r\n\r\n"].concat();
    for (answer, rest) in [(known, &b""[..]), (chunked, b"small")] {
        for (size, cut) in [(7_919, 0), (64 * 1024, 0), (1_000_000, 0), (7_919, 100_000)] {
            let sent = answer[..answer.len() - cut].to_vec();
            let (came, ok) = local(async {
                let (near, mut far) = Io::pair(100_000);
                tokio::task::spawn_local(async move {
                    for piece in sent.chunks(size) {
                        far.write_all(piece).await.expect("somebody reads");
                        tokio::task::yield_now().await;
                    }
                });
                let mut body = H1::new(near, &ClientOptions::default()).send(get("a")).await.expect("answered").body;
                let mut came = Vec::new();
                loop {
                    match std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
                        Some(Ok(frame)) => came.extend_from_slice(&frame.into_data().unwrap_or_default()),
                        ended => return (came, ended.is_none()),
                    }
                }
            });
            assert_eq!(ok, cut == 0, "{size} {cut}");
            let all = [&bytes[..], rest].concat();
            let whole = if cut == 0 { came == all } else { all.starts_with(&came) && came.len() > 150_000 };
            assert!(whole, "{} of {} bytes in pieces of {size}, cut by {cut}", came.len(), all.len());
        }
    }
}

#[test]
fn many_requests_share_an_http2_connection() {
    local(async {
        let client = h2(listen(mirror).await).await;
        let requests = (0..100).map(|_| {
            let client = client.clone();
            async move {
                let response = client.send(get("a.b:81")).await.expect("an answer");
                response.body.collect(999).await.expect("whole").0
            }
        });
        for answer in futures_util::future::join_all(requests).await {
            assert_eq!(answer, "GET / for a.b:81\n\n\n");
        }
        assert_eq!(client.active(), 0);
        assert!(client.is_reused() && !client.is_closed());
    });
}

#[test]
fn an_http2_request_is_active_until_its_response_was_read() {
    local(async {
        let client = h2(listen(mirror).await).await;
        let response = client.send(get("a")).await.expect("an answer");
        assert_eq!(client.active(), 1);
        let free = client.available();
        response.body.collect(999).await.expect("whole");
        assert_eq!((client.active(), client.available()), (0, free + 1));
        let dropped = client.send(get("a")).await.expect("an answer");
        drop(dropped);
        assert_eq!(client.active(), 0);
    });
}

#[test]
fn an_upstream_sees_the_end_when_nobody_waits_any_more() {
    local(async {
        let upstream = Recorder::new(b"").await;
        let address = upstream.address;
        let waiting = tokio::task::spawn_local(async move { h1(address).await.send(get("a")).await.is_ok() });
        until(|| upstream.text().ends_with("\r\n\r\n")).await;
        waiting.abort();
        upstream.closed().await;
    });
}

#[test]
fn an_answer_may_come_before_the_request_is_complete() {
    local(async {
        let upstream = Recorder::new(OK).await;
        let mut client = h1(upstream.address).await;
        let (sender, body) = channel();
        sender.send(data(b"abc")).await.expect("room");
        let response = client.send(post("a", body)).await.expect("an answer");
        assert_eq!(response.body.collect(9).await.expect("whole").0, "ok");
        assert!(!client.is_ready(), "it still sends");
        drop(sender);
        assert!(client.ready().await);
        until(|| upstream.text().ends_with("3\r\nabc\r\n0\r\n\r\n")).await;
    });
}

#[test]
fn a_large_response_head_passes_up_to_the_limit() {
    local(async {
        let server = listen(|request: Request| async move {
            let size: usize = request.head.target()[1..].parse().expect("a number");
            let mut response = ok(Body::full("ok"));
            response.head.fields.append("x-filler", "x".repeat(size).as_bytes());
            response
        })
        .await;
        let ask = |size: usize| request("GET", &format!("/{size}"), "a", Body::empty());
        for size in [10_000, 60_000] {
            assert!(h1(server).await.send(ask(size)).await.is_ok(), "{size}");
            assert!(h2(server).await.send(ask(size)).await.is_ok(), "{size}");
        }
        assert!(h1(server).await.send(ask(200_000)).await.is_err());
        assert!(h2(server).await.send(ask(200_000)).await.is_err());
    });
}

#[test]
fn a_response_until_the_end_of_the_connection_is_read_whole() {
    local(async {
        let (near, mut far) = Io::pair(1024);
        tokio::task::spawn_local(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut head = [0; 512];
            let _ = far.read(&mut head).await;
            let _ = far.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await;
            let _ = far.shutdown().await;
        });
        let mut client = H1::new(near, &ClientOptions::default());
        let response = client.send(get("a")).await.expect("an answer");
        assert_eq!(response.body.collect(99).await.expect("whole").0, Bytes::from("all of it"));
    });
}

#[test]
fn a_connection_whose_window_the_unread_take_up_is_not_offered() {
    paused(async {
        let (near, far) = Io::pair(1 << 16);
        tokio::task::spawn_local(async move {
            let handler = |_: Request| async { ok(Body::full(vec![7; 1 << 20])) };
            serve(far, &options(), &Sweeper::new(), std::future::pending(), handler).await
        });
        let h2 = H2Options { stream_window: 65_535, connection_window: 4 * 65_535, ..H2Options::default() };
        let windows = ClientOptions { h2, ..ClientOptions::default() };
        let client = H2::new(near, http::uri::Scheme::HTTP, &windows).await.expect("no answer is waited for");
        let sweeper = Sweeper::new();
        let mut unread = Vec::new();
        for _ in 0..2 {
            let response = client.send(get("a")).await.expect("an answer");
            let counter = response.unread();
            unread.push(response.body.read_limit(&sweeper, Duration::from_secs(3600), counter));
        }
        assert!(client.available() > 0, "they may be read at any time");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(client.available(), 0);
        unread.pop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(client.available() > 0);
    });
}
