//! Bodies and trailers on their way through, and what happens when an end breaks off.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::body::{Body, BodyError, End, Observer};
use crate::message::{Request, Response};
use crate::testing::{
    OK, Raw, Recorder, Upstream, answered, ask, channel, data, dial, frame, h2, listen, local, mirror, ok, post, proxy,
    request, until,
};

#[test]
fn pipelined_requests_are_answered_in_order() {
    local(async {
        let server = listen(mirror).await;
        let answer = ask(
            server,
            "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             POST /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\
             GET /three HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
        assert!(at("POST /one") < at("abc") && at("abc") < at("POST /two"));
        assert!(at("POST /two") < at("def") && at("def") < at("GET /three"));
        assert!(answer.contains("connection: close\r\n"));
    });
}

#[test]
fn http10_is_spoken_to_those_who_speak_it() {
    local(async {
        let server = listen(mirror).await;
        let answer = ask(server, "GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("transfer-encoding"), "{answer}");
    });
}

#[test]
fn the_body_is_asked_for_only_when_it_is_wanted() {
    local(async {
        let server = listen(mirror).await;
        let mut raw = Raw::dial(server).await;
        raw.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(raw.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        raw.send("hi").await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hi"), "{answer}");
        assert!(!answer.contains("expect"), "{answer}");

        let refusing = listen(|_: Request| async { answered(403, Body::empty()) }).await;
        let answer =
            ask(refusing, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    });
}

/// Answers with the request's body and trailers, as they come.
async fn echo(request: Request) -> Response {
    ok(request.body)
}

#[test]
fn trailers_pass_from_http1_over_http2_to_http1_and_back() {
    local(async {
        let last = listen(echo).await;
        let middle = listen(proxy(Upstream::H1(last))).await;
        let first = listen(proxy(Upstream::H2(middle))).await;
        let answer = ask(
            first,
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\nEastway-Zone: z\r\n\r\n",
        )
        .await;
        assert!(answer.contains("5\r\nhello\r\n"), "{answer}");
        assert!(answer.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    });
}

#[test]
fn trailers_pass_over_http2_without_being_announced() {
    local(async {
        let last = listen(echo).await;
        let first = listen(proxy(Upstream::H2(last))).await;
        let (sender, body) = channel();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("valid"));
        sender.send(data(b"x")).await.expect("open");
        sender.send(Ok(Frame::trailers(trailers.clone()))).await.expect("open");
        drop(sender);
        let response = h2(first).await.send(post("a", body)).await.expect("an answer");
        assert_eq!(response.body.collect(9).await.expect("whole"), (Bytes::from("x"), Some(trailers)));
    });
}

#[test]
fn bodies_stream_in_both_directions_at_once() {
    local(async {
        let last = listen(echo).await;
        for upstream in [Upstream::H1(last), Upstream::H2(last)] {
            let first = listen(proxy(upstream)).await;
            let (sender, body) = channel();
            let mut response = h2(first).await.send(post("a", body)).await.expect("an answer before the body ends");
            for round in [&b"one"[..], b"two", b"three"] {
                sender.send(data(round)).await.expect("open");
                let echoed = frame(&mut response.body).await.expect("open").expect("well").into_data();
                assert_eq!(echoed.expect("data"), round);
            }
            drop(sender);
            assert!(frame(&mut response.body).await.is_none());
        }
    });
}

#[test]
fn a_reader_that_stalls_holds_its_own_stream_back_and_no_other() {
    const WINDOW: usize = 1024 * 1024;
    local(async {
        let produced = Rc::new(RefCell::new(0_usize));
        let counter = Rc::clone(&produced);
        let server = listen(move |request: Request| {
            let counter = Rc::clone(&counter);
            async move {
                if request.head.target() == "/small" {
                    return ok(Body::full("small"));
                }
                let (sender, body) = channel();
                tokio::task::spawn_local(async move {
                    for _ in 0..512 {
                        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                        if sender.send(Ok(Frame::data(chunk))).await.is_err() {
                            return;
                        }
                        *counter.borrow_mut() += 64 * 1024;
                    }
                });
                ok(body)
            }
        })
        .await;
        let client = h2(server).await;
        let big = client.send(post("a", Body::empty())).await.expect("an answer");
        until(|| *produced.borrow() >= WINDOW).await;
        for _ in 0..50 {
            let small = request("GET", "/small", "a", Body::empty());
            let small = client.send(small).await.expect("an answer");
            assert_eq!(small.body.collect(9).await.expect("whole").0, "small");
        }
        let ahead = *produced.borrow();
        assert!(ahead < 4 * WINDOW, "{ahead} bytes were produced for a reader that reads nothing");
        let (all, _) = big.body.collect(1 << 26).await.expect("whole");
        assert_eq!(all.len(), 512 * 64 * 1024);
    });
}

/// Notes how request bodies ended.
#[derive(Clone, Default)]
struct Ends(Rc<RefCell<Vec<&'static str>>>);

impl Observer for Ends {
    fn end(&mut self, end: &End<'_>) {
        self.0.borrow_mut().push(match end {
            End::Complete => "complete",
            End::Failed(BodyError::Truncated) => "truncated",
            End::Failed(_) => "failed",
            End::Dropped => "dropped",
        });
    }
}

/// A server that reads bodies to their end and notes how that was.
async fn noting() -> (std::net::SocketAddr, Ends) {
    let ends = Ends::default();
    let noted = ends.clone();
    let address = listen(move |request: Request| {
        let body = request.body.observe(noted.clone());
        async move {
            match body.collect(1 << 20).await {
                Ok(_) => ok(Body::full("whole")),
                Err(_) => ok(Body::full("broken")),
            }
        }
    })
    .await;
    (address, ends)
}

#[test]
fn a_caller_that_goes_away_in_its_body_never_looks_finished_upstream() {
    for head in ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        local(async {
            let upstream = Recorder::new(b"").await;
            let server = listen(proxy(Upstream::H1(upstream.address))).await;
            let mut raw = Raw::dial(server).await;
            raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
            until(|| upstream.text().contains("abc")).await;
            drop(raw);
            upstream.closed().await;
            let seen = upstream.text();
            assert!(seen.ends_with("abc") || seen.ends_with("abc\r\n"), "{seen}");

            let (last, ends) = noting().await;
            let server = listen(proxy(Upstream::H2(last))).await;
            let mut raw = Raw::dial(server).await;
            raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
            until_streaming(&raw).await;
            drop(raw);
            until(|| !ends.0.borrow().is_empty()).await;
            assert_ne!(*ends.0.borrow(), ["complete"]);
        });
    }
}

/// Gives what was sent time to travel: a few turns of the only thread there is.
async fn until_streaming(raw: &Raw) {
    raw.0.writable().await.expect("open");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn an_http2_reset_in_a_body_is_no_end_whatever_its_code() {
    for code in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        local(async {
            let upstream = Recorder::new(b"").await;
            let server = listen(proxy(Upstream::H1(upstream.address))).await;
            let (mut client, connection) = h2::client::handshake(dial(server).await).await.expect("HTTP/2");
            tokio::task::spawn_local(connection);
            let request = http::Request::post("http://a/").body(()).expect("valid");
            let (_response, mut stream) = client.send_request(request, false).expect("open");
            stream.send_data(Bytes::from_static(b"abc"), false).expect("open");
            until(|| upstream.text().contains("abc")).await;
            stream.send_reset(code);
            upstream.closed().await;
            assert!(!upstream.text().contains("0\r\n\r\n"), "{code:?}: {}", upstream.text());
        });
    }
}

#[test]
fn a_reset_request_is_no_whole_one_even_to_a_reader_that_outlives_its_handler() {
    for (code, whole) in [(Some(h2::Reason::NO_ERROR), false), (Some(h2::Reason::CANCEL), false), (None, true)] {
        local(async {
            let results: Rc<RefCell<Vec<bool>>> = Rc::default();
            let reader = Rc::clone(&results);
            let server = listen(move |request: Request| {
                let reader = Rc::clone(&reader);
                tokio::task::spawn_local(async move {
                    let read = request.body.collect(99).await;
                    reader.borrow_mut().push(read.is_ok());
                });
                std::future::pending()
            })
            .await;
            let (mut client, connection) = h2::client::handshake(dial(server).await).await.expect("HTTP/2");
            tokio::task::spawn_local(connection);
            let request = http::Request::post("http://a/").body(()).expect("valid");
            let (_response, mut stream) = client.send_request(request, false).expect("open");
            stream.send_data(Bytes::from_static(b"abc"), code.is_none()).expect("open");
            if let Some(code) = code {
                stream.send_reset(code);
            }
            until(|| !results.borrow().is_empty()).await;
            assert_eq!(*results.borrow(), [whole], "{code:?}");
        });
    }
}

#[test]
fn an_upstream_that_breaks_off_never_looks_finished_to_the_caller() {
    local(async {
        let seen = Rc::new(tokio::sync::Notify::new());
        let gate = Rc::clone(&seen);
        let breaking = listen(move |_: Request| {
            let gate = Rc::clone(&gate);
            async move {
                let (sender, body) = channel();
                tokio::task::spawn_local(async move {
                    sender.send(data(b"abc")).await.expect("room");
                    gate.notified().await;
                    sender.send(Err(BodyError::Truncated)).await.expect("room");
                });
                ok(body)
            }
        })
        .await;
        for upstream in [Upstream::H1(breaking), Upstream::H2(breaking)] {
            let server = listen(proxy(upstream)).await;
            let mut raw = Raw::dial(server).await;
            raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            raw.until("3\r\nabc\r\n").await;
            seen.notify_one();
            assert_eq!(raw.rest().await, "", "no last chunk");

            let mut old = Raw::dial(server).await;
            old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
            old.until("abc").await;
            seen.notify_one();
            let mut read = Vec::new();
            let end = tokio::io::AsyncReadExt::read_to_end(&mut old.0, &mut read).await;
            assert!(end.is_err(), "HTTP/1.0 can be told by a reset only: {:?}", String::from_utf8_lossy(&read));

            let response = h2(server).await.send(post("a", Body::empty())).await.expect("a head");
            seen.notify_one();
            assert!(response.body.collect(100).await.is_err());
        }
    });
}

#[test]
fn what_came_of_an_answer_before_it_broke_off_reaches_the_caller() {
    local(async {
        let server = listen(|_: Request| async {
            let (sender, body) = channel();
            sender.send(data(b"abc")).await.expect("room");
            sender.send(Err(BodyError::Truncated)).await.expect("room");
            ok(body)
        })
        .await;
        for _ in 0..100 {
            let answer = ask(server, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n3\r\nabc\r\n"),
                "{answer:?}"
            );
            let mut old = Raw::dial(server).await;
            old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
            let mut read = Vec::new();
            let end = tokio::io::AsyncReadExt::read_to_end(&mut old.0, &mut read).await;
            assert!(end.is_err(), "HTTP/1.0 can be told by a reset only: {:?}", String::from_utf8_lossy(&read));
        }
    });
}

#[test]
fn the_handler_is_dropped_when_the_caller_goes_away() {
    struct Gone(Rc<RefCell<usize>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }
    local(async {
        let (begun, gone): (Rc<RefCell<usize>>, Rc<RefCell<usize>>) = Default::default();
        let (counted, dropped) = (Rc::clone(&begun), Rc::clone(&gone));
        let server = listen(move |_: Request| {
            *counted.borrow_mut() += 1;
            let guard = Gone(Rc::clone(&dropped));
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .await;
        let mut raw = Raw::dial(server).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until(|| *begun.borrow() == 1).await;
        drop(raw);
        until(|| *gone.borrow() == 1).await;

        let client = h2(server).await;
        let sent = tokio::task::spawn_local(async move { client.send(post("a", Body::empty())).await.is_ok() });
        until(|| *begun.borrow() == 2).await;
        sent.abort();
        until(|| *gone.borrow() == 2).await;
    });
}

#[test]
fn a_head_only_answer_keeps_its_length() {
    local(async {
        let upstream = Recorder::new(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let answer = ask(server, "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("content-length: 1234\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_request_without_a_body_is_forwarded_without_one() {
    local(async {
        let upstream = Recorder::new(OK).await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let response = h2(server).await.send(crate::testing::get("a")).await.expect("an answer");
        assert_eq!(response.body.collect(9).await.expect("whole").0, "ok");
        let seen = upstream.text();
        assert!(!seen.contains("transfer-encoding") && !seen.contains("content-length"), "{seen}");
    });
}
