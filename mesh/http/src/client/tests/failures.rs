//! Every way in which a request can end without a response, and what is said of it.

use std::time::Duration;

use bytes::Bytes;
use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use eastway_transport::Io;
use http::uri::Scheme;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::body::{Body, BodyError};
use crate::client::{ClientOptions, H1, H2, SendError, SendFailure};
use crate::message::{Request, RequestHead};
use crate::sweeper::Sweeper;
use crate::testing::{Recorder, channel, data, frame, get, h1, h2, listen, local, mirror, ok, paused, post, until};

/// An HTTP/1.1 connection whose peer reads a head, answers with `answer` and hangs up.
async fn hanging_up(answers: &'static [&'static [u8]]) -> H1 {
    let (near, mut far) = Io::pair(4096);
    tokio::task::spawn_local(async move {
        let mut head = [0; 4096];
        for answer in answers {
            let _ = far.read(&mut head).await;
            let _ = far.write_all(answer).await;
        }
    });
    H1::new(near, &ClientOptions::default())
}

fn says(error: &SendError, failure: SendFailure, reused: bool, unprocessed: bool, reason: Reason) {
    assert_eq!(error.failure(), failure, "{error:?}");
    assert_eq!((error.is_reused(), error.is_unprocessed()), (reused, unprocessed), "{error:?}");
    assert_eq!(error.reason(), reason);
    assert!(!error.to_string().contains(':'), "one level only: {error}");
}

#[test]
fn a_connection_that_ended_before_gives_the_request_back_for_another() {
    local(async {
        let mut ended = hanging_up(&[]).await;
        until(|| ended.is_closed()).await;
        let mut error = ended.send(post("a", Body::full("hi"))).await.expect_err("closed");
        says(&error, SendFailure::Closed, false, true, Reason::UpstreamReset);
        let request = error.take_request().expect("nothing was sent");
        let answer = h1(listen(mirror).await).await.send(request).await.expect("an answer");
        let (bytes, _) = answer.body.collect(999).await.expect("whole");
        assert_eq!(bytes, "POST / for a\n\n\nhi");
    });
}

#[test]
fn a_request_that_comes_back_is_as_it_was() {
    local(async {
        let mut ended = hanging_up(&[]).await;
        until(|| ended.is_closed()).await;
        let mut head = RequestHead::with_room(HttpVersion::Http11, "GET", "/", ("a.b:81", Some(&b"websocket"[..])), 0);
        head.fields.append("x", b"1");
        let request = Request::new(head.clone(), Body::empty());
        let mut error = ended.send(request).await.expect_err("closed");
        let request = error.take_request().expect("nothing was sent");
        assert_eq!((request.head.upgrade(), &request.head.fields), (head.upgrade(), &head.fields));

        let (near, far) = Io::pair(4096);
        let ended = H2::new(near, Scheme::HTTP, &ClientOptions::default()).await.expect("no answer is waited for");
        drop(far);
        until(|| ended.is_closed()).await;
        let mut error = ended.send(get("a.b:81")).await.expect_err("closed");
        says(&error, SendFailure::Closed, false, true, Reason::UpstreamReset);
        let request = error.take_request().expect("nothing was sent");
        assert_eq!((request.head.target(), request.head.authority()), ("/", "a.b:81"));
    });
}

#[test]
fn interim_responses_without_end_are_no_response() {
    local(async {
        for (count, answered) in [(32, true), (33, false)] {
            let hints = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count).into_bytes();
            let answer = [hints, crate::testing::OK.to_vec()].concat();
            let upstream = Recorder::new(Box::leak(answer.into_boxed_slice())).await;
            let sent = h1(upstream.address).await.send(get("a")).await;
            assert_eq!(
                sent.map_err(|error| error.failure()).map(drop),
                if answered { Ok(()) } else { Err(SendFailure::Protocol) }
            );
        }
    });
}

#[test]
fn a_reset_before_the_response_tells_fresh_from_reused() {
    local(async {
        let error = hanging_up(&[b""]).await.send(get("a")).await.expect_err("hung up");
        says(&error, SendFailure::Reset, false, false, Reason::UpstreamReset);
        let mut connection = hanging_up(&[crate::testing::OK, b""]).await;
        let first = connection.send(get("a")).await.expect("an answer");
        first.body.collect(9).await.expect("whole");
        let error = connection.send(get("a")).await.expect_err("hung up");
        says(&error, SendFailure::Reset, true, false, Reason::UpstreamReset);
    });
}

#[test]
fn half_a_head_is_a_reset_and_nonsense_a_breach() {
    local(async {
        let error = hanging_up(&[b"HTTP/1.1 200 O"]).await.send(get("a")).await.expect_err("half a head");
        says(&error, SendFailure::Reset, false, false, Reason::UpstreamReset);
        const NONSENSE: [&[&[u8]]; 2] =
            [&[b"SSH-2.0-OpenSSH\r\n\r\n"], &[b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]];
        for answer in NONSENSE {
            let error = hanging_up(answer).await.send(get("a")).await.expect_err("nonsense");
            says(&error, SendFailure::Protocol, false, false, Reason::UpstreamProtocol);
        }
    });
}

#[test]
fn a_body_that_breaks_off_after_the_head_is_told_by_the_body() {
    local(async {
        let mut connection = hanging_up(&[b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]).await;
        let response = connection.send(get("a")).await.expect("a head");
        let error = response.body.collect(99).await.expect_err("broken off");
        assert_eq!(error.response_reason(), Reason::UpstreamReset);
    });
}

#[test]
fn the_callers_own_failing_body_is_the_callers_fault() {
    local(async {
        let upstream = Recorder::new(b"").await;
        let server = listen(|request: Request| async {
            let _ = request.body.collect(99).await;
            ok(Body::empty())
        })
        .await;
        for (failed, reason) in [
            (BodyError::Truncated, Reason::CallerGone),
            (BodyError::Idle, Reason::BodyTimeout),
            (BodyError::Aborted(Reason::Draining), Reason::Draining),
        ] {
            let (sender, body) = channel();
            sender.send(data(b"abc")).await.expect("room");
            sender.send(Err(failed)).await.expect("room");
            let error = h1(upstream.address).await.send(post("a", body)).await.expect_err("no body");
            says(&error, SendFailure::RequestBody(reason), false, false, reason);
        }
        let (sender, body) = channel();
        sender.send(Err(BodyError::Truncated)).await.expect("room");
        let error = h2(server).await.send(post("a", body)).await.expect_err("no body");
        says(&error, SendFailure::RequestBody(Reason::CallerGone), false, false, Reason::CallerGone);
    });
}

#[test]
fn what_http2_has_no_room_for_is_not_sent() {
    local(async {
        let client = h2(listen(mirror).await).await;
        let error = client.send(get("")).await.expect_err("no host");
        says(&error, SendFailure::Internal, false, true, Reason::Internal);
    });
}

#[test]
fn a_limit_of_time_is_an_error_like_the_others() {
    paused(async {
        let (near, _far) = Io::pair(4096);
        let mut connection = H1::new(near, &ClientOptions::default());
        let sweeper = Sweeper::new();
        let limited = sweeper.within(Duration::from_secs(15), connection.send(get("a"))).await;
        let error = limited.map_err(SendError::from).and_then(|sent| sent).expect_err("nobody answers");
        says(&error, SendFailure::Timeout, false, false, Reason::ResponseTimeout);
    });
}

/// An HTTP/2 connection, and the other end of it without a server.
async fn half_open() -> (H2, Io) {
    let (near, far) = Io::pair(1 << 20);
    let client = H2::new(near, Scheme::HTTP, &ClientOptions::default()).await.expect("no answer is waited for");
    (client, far)
}

type Streams = h2::server::Connection<Io, Bytes>;

async fn accept(streams: &mut Streams) -> h2::server::SendResponse<Bytes> {
    streams.accept().await.expect("a request").expect("well").1
}

fn answer(respond: &mut h2::server::SendResponse<Bytes>) {
    respond.send_response(http::Response::new(()), true).expect("open");
}

#[test]
fn goaway_refuses_what_comes_later_and_gives_it_back() {
    local(async {
        let (client, far) = half_open().await;
        let server = async {
            let mut streams = h2::server::handshake(far).await.expect("HTTP/2");
            let mut first = accept(&mut streams).await;
            streams.graceful_shutdown();
            answer(&mut first);
            drop(first);
            while let Some(Ok(_)) = streams.accept().await {}
        };
        let (_, first) = tokio::join!(server, client.send(get("a")));
        first.expect("it was under way");
        let mut error = client.send(post("a", Body::full("hi"))).await.expect_err("GOAWAY");
        says(&error, SendFailure::Closed, true, true, Reason::UpstreamReset);
        assert!(error.take_request().is_some());
        until(|| client.is_closed()).await;
    });
}

#[test]
fn goaway_names_the_streams_that_it_did_not_process() {
    local(async {
        let (client, far) = half_open().await;
        let (one, other) = (client.clone(), client.clone());
        let (first, second, ()) = tokio::join!(
            async move { one.send(get("a")).await },
            async move { other.send(get("a")).await },
            goaway_after_the_first(far)
        );
        first.expect("it was processed");
        let error = second.expect_err("it was not");
        says(&error, SendFailure::Refused, true, true, Reason::UpstreamReset);
    });
}

/// HTTP/2 by hand: two requests come, GOAWAY names the first as the last, which then is answered.
async fn goaway_after_the_first(mut io: Io) {
    let mut seen = Vec::new();
    let headers =
        |seen: &[u8]| seen.windows(9).filter(|frame| frame[..3] == [0, 0, frame[2]] && is_headers(frame)).count();
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("open");
    while headers(&seen) < 2 {
        let mut chunk = [0; 4096];
        let read = io.read(&mut chunk).await.expect("open");
        seen.extend_from_slice(&chunk[..read]);
    }
    io.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).await.expect("open");
    // HEADERS of stream 1, END_STREAM and END_HEADERS: `:status: 200` is index 8 of HPACK's static table.
    io.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]).await.expect("open");
    io.flush().await.expect("open");
}

/// A HEADERS frame of stream 1 or 3 that ends its stream.
fn is_headers(frame: &[u8]) -> bool {
    frame[3] == 1 && frame[4] == 5 && matches!(frame[5..9], [0, 0, 0, 1 | 3])
}

#[test]
fn an_http2_response_shorter_than_its_length_is_truncated_whatever_the_code() {
    local(async {
        for code in [h2::Reason::NO_ERROR, h2::Reason::CANCEL] {
            let (client, far) = half_open().await;
            let (reset, told) = tokio::sync::oneshot::channel();
            let server = async move {
                let mut streams = h2::server::handshake(far).await.expect("HTTP/2");
                let response = http::Response::builder().header("content-length", "10").body(()).expect("valid");
                let mut body = accept(&mut streams).await.send_response(response, false).expect("open");
                body.send_data(Bytes::from_static(b"abc"), false).expect("open");
                tokio::task::spawn_local(async move {
                    told.await.expect("told");
                    body.send_reset(code);
                });
                while let Some(Ok(_)) = streams.accept().await {}
            };
            tokio::task::spawn_local(server);
            let mut response = client.send(get("a")).await.expect("a head");
            assert!(matches!(frame(&mut response.body).await, Some(Ok(_))));
            reset.send(()).expect("it serves");
            let error = response.body.collect(99).await.expect_err("too short");
            assert_eq!(error.response_reason(), Reason::UpstreamReset, "{code:?}");
        }
    });
}

#[test]
fn a_refused_stream_was_not_processed_and_a_cancelled_one_may_have_been() {
    local(async {
        for (code, failure, unprocessed) in [
            (h2::Reason::REFUSED_STREAM, SendFailure::Refused, true),
            (h2::Reason::CANCEL, SendFailure::Reset, false),
            (h2::Reason::INTERNAL_ERROR, SendFailure::Reset, false),
        ] {
            let (client, far) = half_open().await;
            let server = async move {
                let mut streams = h2::server::handshake(far).await.expect("HTTP/2");
                accept(&mut streams).await.send_reset(code);
                while let Some(Ok(_)) = streams.accept().await {}
            };
            let server = tokio::task::spawn_local(server);
            let error = client.send(get("a")).await.expect_err("reset");
            says(&error, failure, false, unprocessed, Reason::UpstreamReset);
            drop(client);
            server.await.expect("it ends with the connection");
        }
    });
}

#[test]
fn a_peer_that_does_not_answer_pings_is_given_up_quickly() {
    paused(async {
        let (client, far) = half_open().await;
        let mut streams = h2::server::Builder::new().handshake::<_, Bytes>(far).await.expect("HTTP/2");
        let start = tokio::time::Instant::now();
        let mute = async {
            let _held = accept(&mut streams).await;
            // Not polling the connection any more is what a vanished host looks like.
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            sent = client.send(get("a")) => sent.expect_err("nobody answers"),
            () = mute => unreachable!("it pends"),
        };
        says(&error, SendFailure::Unresponsive, false, false, Reason::UpstreamReset);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(450) && took <= Duration::from_millis(700), "{took:?}");
        until(|| client.is_closed()).await;
    });
}

#[test]
fn an_idle_http2_connection_is_not_pinged() {
    paused(async {
        let (client, far) = half_open().await;
        let mut streams = h2::server::Builder::new().handshake::<_, Bytes>(far).await.expect("HTTP/2");
        let mut first = None;
        let sent = client.send(get("a"));
        let (sent, ()) = tokio::join!(sent, async {
            let mut respond = accept(&mut streams).await;
            answer(&mut respond);
            first = Some(respond);
            let _ = tokio::time::timeout(Duration::from_millis(10), streams.accept()).await;
        });
        sent.expect("an answer");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!client.is_closed(), "silence without work outstanding is no evidence");
    });
}
