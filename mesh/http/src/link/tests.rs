//! Requests and streams over a link, from a client to a handler, in memory.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use eastway_link::{Event, LinkOptions, Side};
use eastway_transport::link::Shared;
use eastway_transport::{Io, StreamError};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::body::Incoming;
use super::heads;
use crate::body::{Body, BodyError, held};
use crate::client::{Link, SendFailure, Unopened};
use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::refuse;
use crate::server::{Ended, Handler, Protocol, ServerOptions, serve};
use crate::sweeper::Sweeper;
use crate::testing::{PATIENCE, answered, local, ok, until};

mod peers;

/// A link to `handler`; the server stops when the sender is used, and says how it ended.
fn linked(handler: impl Handler) -> (Link, oneshot::Sender<()>, tokio::task::JoinHandle<Ended>) {
    linked_with(Duration::from_millis(200), handler)
}

fn linked_with(
    continue_after: Duration,
    handler: impl Handler,
) -> (Link, oneshot::Sender<()>, tokio::task::JoinHandle<Ended>) {
    let (near, far) = Io::pair(64 * 1024);
    let (stop, stopped) = oneshot::channel();
    let mut server = ServerOptions::new("test");
    server.protocol = Protocol::Link;
    let served = tokio::task::spawn_local(async move {
        let stop = async {
            // A test that does not stop the server lets the sender go with everything else.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        serve(far, &server, &Sweeper::new(), stop, handler).await
    });
    (Link::new(near, &LinkOptions::default(), continue_after), stop, served)
}

fn get(target: &str) -> Request {
    request("GET", target, Body::empty())
}

fn request(method: &str, target: &str, body: Body) -> Request {
    crate::testing::request(method, target, "payments.shop.mesh.internal", body)
}

async fn text(response: Response) -> String {
    let (bytes, _) = response.body.collect(64 << 20).await.expect("whole");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Answers with what it was asked.
async fn mirror(request: Request) -> Response {
    let Request { head, body, .. } = request;
    let version = head.version.as_str();
    let asked = format!("{} {} HTTP/{version} for {}", head.method(), head.target(), head.authority());
    match body.collect(64 << 20).await {
        Ok((body, trailers)) => {
            let trailers = trailers.map(|trailers| format!(" and {trailers:?}")).unwrap_or_default();
            ok(Body::full(format!("{asked}: {} bytes{trailers}", body.len())))
        }
        Err(error) => refuse::response(error.request_reason(), "mirror", false),
    }
}

#[test]
fn requests_go_there_and_answers_come_back() {
    local(async {
        let (link, _stop, _) = linked(mirror);
        let mut old = get("/a?b=c");
        old.head.version = HttpVersion::Http10;
        let (first, second) = tokio::join!(link.send(old), link.send(request("POST", "/", Body::full("hello"))));
        let first = first.expect("answered");
        assert_eq!(first.head.status, 200);
        assert_eq!(text(first).await, "GET /a?b=c HTTP/1.0 for payments.shop.mesh.internal: 0 bytes");
        let second = second.expect("answered");
        assert_eq!(text(second).await, "POST / HTTP/1.1 for payments.shop.mesh.internal: 5 bytes");
        assert!(!link.is_closed() && link.has_room());
    });
}

#[test]
fn large_bodies_go_both_ways_within_their_windows() {
    local(async {
        let echo = |request: Request| async move { ok(request.body) };
        let (link, _stop, _) = linked(echo);
        let large = Bytes::from((0..8 << 20).map(|i: u32| (i % 251) as u8).collect::<Vec<u8>>());
        let sent: Vec<_> = (0..4).map(|_| link.send(request("POST", "/", Body::full(large.clone())))).collect();
        for answered in futures_util::future::join_all(sent).await {
            let (back, _) = answered.expect("answered").body.collect(64 << 20).await.expect("whole");
            assert!(back == large);
        }
    });
}

#[test]
fn a_response_that_nobody_reads_stops_no_other() {
    local(async {
        let large = |_: Request| async { ok(Body::full(vec![7; 4 << 20])) };
        let (link, _stop, _) = linked(large);
        let unread = link.send(get("/")).await.expect("answered");
        for _ in 0..8 {
            let read = link.send(get("/")).await.expect("answered");
            assert_eq!(read.body.collect(64 << 20).await.expect("whole").0.len(), 4 << 20);
        }
        drop(unread);
    });
}

#[test]
fn trailers_pass_and_nothing_in_them_speaks_for_the_mesh() {
    local(async {
        let with_trailers = |_: Request| async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("eastway-source", HeaderValue::from_static("forged"));
            ok(Body::held(Bytes::from_static(b"data"), Some(trailers)))
        };
        let (link, _stop, _) = linked(with_trailers);
        let response = link.send(get("/")).await.expect("answered");
        let (data, trailers) = response.body.collect(100).await.expect("whole");
        assert_eq!(data, "data");
        let trailers = trailers.expect("they pass");
        assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &HeaderValue::from_static("0")));
    });
}

#[test]
fn answers_without_a_body_keep_the_length_that_they_state() {
    local(async {
        let bodiless = |request: Request| async move {
            let status = if request.head.method() == "HEAD" { 200 } else { 304 };
            let mut response = answered(status, Body::empty());
            response.head.length = Some(1234);
            response
        };
        let (link, _stop, _) = linked(bodiless);
        for method in ["HEAD", "GET"] {
            let response = link.send(request(method, "/", Body::empty())).await.expect("answered");
            assert_eq!(response.head.length, Some(1234), "{method}");
            assert!(response.body.is_end_stream());
        }
        let empty = |_: Request| async { ok(Body::empty()) };
        let (link, _stop, _) = linked(empty);
        let response = link.send(get("/")).await.expect("answered");
        assert!(response.body.is_end_stream() && !held::is_small(&response.body, 100));
    });
}

#[test]
fn a_handler_is_dropped_when_its_caller_goes_away() {
    local(async {
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |_: Request| {
            let begun = begun.clone();
            async move {
                let (dropped, was_dropped) = oneshot::channel();
                let _dropped = Dropped(Some(dropped));
                begun.send(was_dropped).expect("the test listens");
                std::future::pending().await
            }
        };
        let (link, _stop, _) = linked(handler);
        let asked = tokio::task::spawn_local({
            let link = link.clone();
            async move { link.send(get("/")).await.map(drop) }
        });
        let was_dropped = has_begun.recv().await.expect("it began");
        asked.abort();
        was_dropped.await.expect("it was dropped");
        assert!(!link.is_closed(), "the others go on");
    });
}

#[test]
fn an_answer_that_breaks_off_is_no_whole_one() {
    local(async {
        let broken = |_: Request| async {
            let body = Body::boxed(Broken(Some(Bytes::from_static(b"half"))));
            ok(body)
        };
        let (link, _stop, _) = linked(broken);
        let response = link.send(get("/")).await.expect("answered");
        let error = response.body.collect(100).await.expect_err("it breaks off");
        assert_eq!(error.response_reason(), Reason::IdleTimeout, "{error:?}");
    });
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            let _ = dropped.send(());
        }
    }
}

/// A body of which nothing ever comes.
struct Endless(#[expect(dead_code, reason = "only dropped")] Dropped);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        std::task::Poll::Pending
    }
}

#[test]
fn an_answer_that_comes_early_ends_the_rest_of_the_request() {
    local(async {
        let (link, _stop, _) = linked(|_: Request| async { ok(Body::full("enough")) });
        let (dropped, was_dropped) = oneshot::channel();
        let endless = Body::boxed(Endless(Dropped(Some(dropped))));
        let response = link.send(request("POST", "/", endless)).await.expect("answered");
        assert_eq!(text(response).await, "enough");
        was_dropped.await.expect("nobody waits for the rest");
        assert!(link.send(get("/")).await.is_ok() && link.streams() == 0);
    });
}

/// A body that breaks off after its data.
struct Broken(Option<Bytes>);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let next = self.0.take().map(http_body::Frame::data).ok_or(BodyError::Idle);
        std::task::Poll::Ready(Some(next))
    }
}

#[test]
fn a_callers_body_that_fails_blames_the_caller() {
    local(async {
        let (link, _stop, _) = linked(mirror);
        let error = link.send(request("POST", "/", Body::boxed(Broken(None)))).await.expect_err("it fails");
        assert_eq!(error.failure(), SendFailure::RequestBody(Reason::BodyTimeout));
    });
}

#[test]
fn a_callers_body_that_has_failed_is_not_answered_by_an_early_answer() {
    local(async {
        let (link, _stop, _) = linked(|_: Request| async { ok(Body::full("early")) });
        for before in [None, Some(Bytes::from_static(b"before"))] {
            let error = link.send(request("POST", "/", Body::boxed(Broken(before)))).await.expect_err("it fails");
            assert_eq!(error.failure(), SendFailure::RequestBody(Reason::BodyTimeout));
        }
    });
}

#[test]
fn a_body_waits_until_it_is_asked_for() {
    local(async {
        let asked = Rc::new(Cell::new(0));
        let seen = Rc::clone(&asked);
        let handler = move |request: Request| {
            let seen = Rc::clone(&seen);
            async move {
                if request.head.target() == "/refused" {
                    return answered(401, Body::full("no"));
                }
                seen.set(request.body.collect(100).await.expect("whole").0.len());
                ok(Body::empty())
            }
        };
        // It never comes unasked.
        let (link, _stop, _) = linked_with(100 * PATIENCE, handler);
        let expecting = |target: &str| {
            let mut request = request("POST", target, Body::full("12345"));
            request.head.expects_continue = true;
            request
        };
        let refused = link.send(expecting("/refused")).await.expect("answered");
        assert_eq!((refused.head.status, text(refused).await.as_str()), (401, "no"));
        link.send(expecting("/")).await.expect("answered");
        assert_eq!(asked.get(), 5);
    });
}

#[test]
fn an_opaque_stream_carries_bytes_and_both_ends() {
    local(async {
        let handler = |request: Request| async move {
            assert_eq!((request.head.method(), request.head.fields.get("x-a")), ("CONNECT", Some(&b"1"[..])));
            let upgrading = request.upgrading.expect("a stream");
            tokio::task::spawn_local(async move {
                let mut io = upgrading.io().await.expect("open");
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.expect("to its end");
                all.reverse();
                io.write_all(&all).await.expect("taken");
                io.shutdown().await.expect("ended");
            });
            ok(Body::empty())
        };
        let (link, _stop, _) = linked(handler);
        let mut io = link.open("redis.shop.mesh.internal:6379", &[("x-a", "1")]).await.expect("open");
        let sent: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 249) as u8).collect();
        let (mut back, mut expected) = (Vec::new(), sent.clone());
        expected.reverse();
        io.write_all(&sent).await.expect("taken");
        io.shutdown().await.expect("half closed");
        io.read_to_end(&mut back).await.expect("to its end");
        assert!(back == expected);
    });
}

#[test]
fn answers_that_nobody_reads_keep_no_room() {
    local(async {
        const SIZE: usize = 200 << 10;
        let large = |_: Request| async { ok(Body::full(vec![b'a'; SIZE])) };
        let (link, _stop, _) = linked(large);
        for _ in 0..2 * LinkOptions::default().connection_window as usize / SIZE {
            let _unread = link.send(get("/")).await.expect("answered");
            // It comes in full.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(link.streams(), 0);
        let last = link.send(get("/")).await.expect("answered");
        assert_eq!(text(last).await.len(), SIZE);
    });
}

#[test]
fn who_only_stops_listening_to_an_opaque_stream_is_heard_to_its_end() {
    local(async {
        let handler = |request: Request| async move {
            let upgrading = request.upgrading.expect("a stream");
            tokio::task::spawn_local(async move {
                let mut io = upgrading.io().await.expect("open");
                io.read_exact(&mut [0]).await.expect("a byte");
                io.write_all(b"enough").await.expect("taken");
                io.shutdown().await.expect("ended");
            });
            ok(Body::empty())
        };
        let (link, _stop, _) = linked(handler);
        let mut io = link.open("redis.shop.mesh.internal:6379", &[]).await.expect("open");
        let mut taken = 0_usize;
        let error = loop {
            match io.write(&[7; 1000]).await {
                Ok(written) => taken += written,
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        };
        assert!(matches!(StreamError::of(&error), Some(StreamError::Stopped(_))), "{error:?} after {taken} bytes");
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.expect("to its end");
        assert_eq!(answer, "enough");
    });
}

/// Changes to the protocol that it is asked for, if it knows it, and says back what comes in capitals.
async fn switch(request: Request) -> Response {
    if request.head.upgrade() != Some(b"shout") {
        return answered(426, Body::full("no"));
    }
    let upgrading = request.upgrading.expect("it comes with an upgrade");
    tokio::task::spawn_local(async move {
        let mut io = upgrading.io().await.expect("granted");
        let mut said = Vec::new();
        io.read_to_end(&mut said).await.expect("open");
        io.write_all(&said.to_ascii_uppercase()).await.expect("open");
        io.shutdown().await.expect("open");
    });
    Response::new(ResponseHead::with_room(101, Some(b"shout"), 0), Body::empty())
}

fn asking_for(protocol: &[u8]) -> Request {
    let authority = ("payments.shop.mesh.internal", Some(protocol));
    Request::new(RequestHead::with_room(HttpVersion::Http11, "GET", "/", authority, 0), Body::empty())
}

#[test]
fn an_upgrade_carries_bytes_and_both_ends() {
    local(async {
        let (link, _stop, _) = linked(switch);
        let response = link.send(asking_for(b"shout")).await.expect("answered");
        assert_eq!((response.head.status, response.head.upgrade()), (101, Some(&b"shout"[..])));
        let mut io = response.upgrading.expect("granted").io().await.expect("open");
        io.write_all(b"hello").await.expect("open");
        io.shutdown().await.expect("open");
        let mut heard = String::new();
        io.read_to_string(&mut heard).await.expect("an end");
        assert_eq!((heard.as_str(), link.streams()), ("HELLO", 0));
    });
}

#[test]
fn an_upgrade_that_is_refused_is_an_answer_like_others() {
    local(async {
        let (link, _stop, _) = linked(switch);
        let refused = link.send(asking_for(b"whisper")).await.expect("answered");
        assert_eq!((refused.head.status, text(refused).await.as_str()), (426, "no"));
        until(|| link.streams() == 0).await;
        // Who drops the bytes of another protocol ends them.
        drop(link.send(asking_for(b"shout")).await.expect("answered"));
        until(|| link.streams() == 0).await;
    });
}

#[test]
fn an_answer_that_changes_the_protocol_unasked_is_a_fault() {
    local(async {
        let unasked =
            |_: Request| async { Response::new(ResponseHead::with_room(101, Some(b"shout"), 0), Body::empty()) };
        let (link, _stop, _) = linked(unasked);
        assert_eq!(link.send(get("/")).await.expect_err("unasked").failure(), SendFailure::Protocol);
        until(|| link.streams() == 0).await;
    });
}

#[test]
fn requests_within_an_opaque_stream_are_served() {
    local(async {
        let handler = |request: Request| async move {
            let upgrading = request.upgrading.expect("a stream");
            tokio::task::spawn_local(async move {
                let io = upgrading.io().await.expect("open");
                let never = std::future::pending();
                serve(io, &ServerOptions::new("within"), &Sweeper::new(), never, mirror).await
            });
            ok(Body::empty())
        };
        let (link, _stop, _) = linked(handler);
        // Nobody wants the upgrades that are asked for.
        for asked in ["connection: close", "connection: close, upgrade\r\nupgrade: tail"] {
            let mut io = link.open("payments.shop.mesh.internal:80", &[]).await.expect("open");
            let request = format!("GET /a HTTP/1.1\r\nhost: x.y\r\n{asked}\r\n\r\n");
            io.write_all(request.as_bytes()).await.expect("taken");
            let mut answer = String::new();
            io.read_to_string(&mut answer).await.expect("to its end");
            assert!(answer.contains("GET /a HTTP/1.1 for x.y"), "{answer}");
        }
    });
}

#[test]
fn an_opaque_stream_is_refused_by_the_reason_of_the_answer() {
    local(async {
        let refusing = |_: Request| async { refuse::response(Reason::UnknownPort, "n", false) };
        let (link, _stop, _) = linked(refusing);
        let refused = link.open("redis.shop.mesh.internal:1", &[]).await;
        assert!(matches!(refused, Err(Unopened::Refused(Reason::UnknownPort))), "{refused:?}");
    });
}

#[test]
fn what_is_no_request_is_refused_and_the_others_go_on() {
    local(async {
        let (link, _stop, _) = linked(mirror);
        let no_host = crate::testing::request("GET", "/", "user@x.y", Body::empty());
        let error = link.send(no_host).await.expect_err("not sent");
        assert!(error.is_unprocessed());
        assert!(link.send(get("/")).await.is_ok());
    });
}

#[test]
fn a_server_that_stops_finishes_what_is_under_way_and_takes_nothing_more() {
    local(async {
        let (go, wait) = oneshot::channel::<()>();
        let wait = Rc::new(Cell::new(Some(wait)));
        let handler = move |_: Request| {
            let wait = wait.take();
            async move {
                if let Some(wait) = wait {
                    wait.await.expect("told");
                }
                ok(Body::full("done"))
            }
        };
        let (link, stop, served) = linked(handler);
        let asked = tokio::task::spawn_local({
            let link = link.clone();
            async move { text(link.send(get("/")).await.expect("answered")).await }
        });
        while link.streams() == 0 {
            tokio::task::yield_now().await;
        }
        stop.send(()).expect("it serves");
        while !link.is_closed() {
            tokio::task::yield_now().await;
        }
        let error = link.send(get("/")).await.expect_err("it drains");
        assert!(error.is_unprocessed() && error.failure() == SendFailure::Closed);
        go.send(()).expect("it waits");
        assert_eq!(asked.await.expect("no panic"), "done");
        assert!(matches!(served.await.expect("no panic"), Ended::Done));
    });
}

#[test]
fn a_peer_that_is_gone_fails_what_is_under_way() {
    local(async {
        let (near, far) = Io::pair(64 * 1024);
        let link = Link::new(near, &LinkOptions::default(), PATIENCE);
        let asked = tokio::task::spawn_local({
            let link = link.clone();
            async move { link.send(get("/")).await.map(drop) }
        });
        let opening = tokio::task::spawn_local({
            let link = link.clone();
            async move { link.open("redis:6379", &[]).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(far);
        assert!(matches!(opening.await.expect("no panic"), Err(Unopened::Broken(_))));
        let error = asked.await.expect("no panic").expect_err("nobody answers");
        assert!(matches!(error.failure(), SendFailure::Reset | SendFailure::Refused), "{error:?}");
        assert!(link.is_closed());
    });
}

#[test]
fn a_peer_that_is_silent_is_noticed_by_pings() {
    local(async {
        let (near, far) = Io::pair(64 * 1024);
        let link = Link::new(near, &LinkOptions::default(), PATIENCE);
        let error = link.send(get("/")).await.expect_err("nobody answers");
        assert_eq!(error.failure(), SendFailure::Unresponsive);
        drop(far);
    });
}

#[tokio::test]
async fn what_came_of_an_answer_before_its_reset_is_read_before_its_fault() {
    let shared = Shared::new(Side::Connecting, &LinkOptions::default());
    let head = RequestHead::new(HttpVersion::Http11, "GET", "/", "a");
    let now = shared.lock().now();
    let id = shared.lock().connection.open_request(heads::request(&head, None, true), true, now).expect("a stream");
    let mut body = Incoming::answer(shared.stream(id, false), None);
    let rest = Event::Rest { stream: id, data: Bytes::from_static(b"a part") };
    for event in [rest, Event::Reset { stream: id, reason: Reason::AppUnreachable }] {
        assert!(shared.lock().take_in(event).is_none());
    }
    let frame = body.frame().await.expect("a frame").expect("no fault yet");
    assert_eq!(frame.into_data().expect("data"), "a part");
    let fault = body.frame().await.expect("a fault").expect_err("it broke off");
    assert!(matches!(fault, BodyError::Aborted(Reason::AppUnreachable)), "{fault}");
    assert!(body.frame().await.is_none());
}
