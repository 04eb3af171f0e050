//! What connections do in the course of time: over and over, half-closed, waiting, and when one side gives up.

use std::time::Duration;

use eastway_core::Reason;
use eastway_transport::Io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::harness::{GET, OK, Peer, caller, quick, serve, serve_over, tcp};
use crate::message::{Request, Response, ResponseHead};
use crate::server::{Ended, ServerOptions};
use crate::sweeper::Sweeper;
use crate::testing::{local, paused, until};
use crate::wire::Buffers;

#[test]
fn an_idle_connection_holds_no_buffer_and_its_upstream_is_used_again() {
    paused(async {
        let (mut peer, served) = caller(|io, number| async move {
            assert_eq!(number, 1, "one connection is enough");
            quick(io, number).await;
        });
        for _ in 0..3 {
            peer.ask(GET, OK).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(Buffers::of_this_thread().lent(), 0);
        }
        peer.shutdown().await;
        assert!(matches!(served.await.expect("no panic"), Ended::Done));
        assert_eq!(peer.rest().await, "");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    paused(async {
        let (mut peer, _) = caller(|io, _| async {
            let mut upstream = Peer(io);
            for path in ["one", "two", "three"] {
                let head = upstream.until("\r\n\r\n").await;
                assert!(head.starts_with(&format!("GET /{path} ")), "{head}");
                // The first takes longest.
                tokio::time::sleep(Duration::from_secs(9 - path.len() as u64)).await;
                upstream.send(format!("HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 5\r\n\r\n{path:>5}")).await;
            }
        });
        let requests = ["one", "two", "three"].map(|path| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")).concat();
        let answers = ["  one", "  two", "three"]
            .map(|body| format!("HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 5\r\n\r\n{body}"));
        peer.ask(&requests, &answers.concat()).await;
    });
}

#[test]
fn a_caller_that_sends_its_requests_and_ends_gets_all_answers_but_the_last() {
    local(async {
        let (near, far) = tcp().await;
        let mut peer = Peer(near);
        let served = serve(far, quick);
        peer.send(GET.repeat(3)).await;
        peer.shutdown().await;
        // The last one is waited for by nobody who could be told from a caller that has gone.
        let answers = peer.rest().await;
        assert!(answers.starts_with(&OK.repeat(2)), "{answers}");
        assert!(matches!(served.await.expect("no panic"), Ended::Done | Ended::CallerGone));
    });
}

#[test]
fn a_caller_that_breaks_off_while_it_waits_ends_the_request_upstream() {
    local(async {
        let (near, far) = tcp().await;
        let mut peer = Peer(near);
        let (told, gone) = tokio::sync::oneshot::channel();
        let told = std::cell::Cell::new(Some(told));
        let served = serve(far, move |io, _| {
            let told = told.take().expect("one request");
            async move {
                let mut upstream = Peer(io);
                upstream.until("\r\n\r\n").await;
                told.send(upstream.rest().await).expect("it is waited for");
            }
        });
        peer.send(GET).await;
        tokio::task::yield_now().await;
        peer.0.set_zero_linger().expect("open");
        drop(peer);
        assert_eq!(gone.await.as_deref(), Ok(""));
        assert!(matches!(served.await.expect("no panic"), Ended::CallerGone));
    });
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[test]
fn only_the_upstream_asks_for_the_body_that_waits() {
    paused(async {
        let (mut peer, _) = caller(|io, _| async {
            let mut upstream = Peer(io);
            let head = upstream.until("\r\n\r\n").await;
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            upstream.expect("body").await;
            upstream.send(OK).await;
        });
        peer.send(EXPECTING).await;
        peer.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.ask("body", OK).await;
    });
}

#[test]
fn a_body_that_waits_is_not_sent_to_who_refuses_it() {
    paused(async {
        let (mut peer, served) = caller(|io, _| async {
            let mut upstream = Peer(io);
            upstream.until("\r\n\r\n").await;
            upstream.send("HTTP/1.1 401 Unauthorized\r\ndate: now\r\ncontent-length: 0\r\n\r\n").await;
            assert_eq!(upstream.rest().await, "", "nothing was uploaded");
        });
        peer.send(EXPECTING).await;
        peer.expect("HTTP/1.1 401 Unauthorized\r\ndate: now\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(matches!(served.await.expect("no panic"), Ended::Done));
    });
}

#[test]
fn an_upstream_that_knows_nothing_of_the_expectation_gets_the_body_after_a_while() {
    paused(async {
        let start = Instant::now();
        let (mut peer, _) = caller(|io, _| async {
            let mut upstream = Peer(io);
            upstream.until("\r\n\r\n").await;
            upstream.expect("body").await;
            upstream.send(OK).await;
        });
        peer.send(EXPECTING).await;
        peer.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert!(start.elapsed() >= Duration::from_secs(1));
        peer.ask("body", OK).await;
    });
}

#[test]
fn an_early_answer_reaches_the_caller_although_the_upstream_closed() {
    local(async {
        let (near, far) = tcp().await;
        let (dialled, upstream) = tcp().await;
        serve_over(far, ServerOptions::new("test-node"), {
            let upstream = std::cell::Cell::new(Some(upstream));
            move || upstream.take().expect("one request")
        });
        let mut answering = Peer(dialled);
        let refused = async {
            answering.until("\r\n\r\n").await;
            answering
                .send("HTTP/1.1 413 Too Large\r\ndate: now\r\nconnection: close\r\ncontent-length: 3\r\n\r\nno!")
                .await;
            answering.shutdown().await;
            drop(answering);
        };
        let (mut reader, mut writer) = near.into_split();
        let upload = async {
            writer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await.expect("open");
            // It may not want all of it.
            let piece = vec![7; 1 << 20];
            for _ in 0..20 {
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
            }
        };
        let answer = async {
            let mut answer = String::new();
            reader.read_to_string(&mut answer).await.expect("an orderly end");
            answer
        };
        let ((), (), answer) = tokio::join!(refused, upload, answer);
        assert_eq!(answer, "HTTP/1.1 413 Payload Too Large\r\ndate: now\r\ncontent-length: 3\r\n\r\nno!");
    });
}

#[test]
fn an_upgrade_gives_raw_bytes_in_both_directions_with_those_read_ahead() {
    paused(async {
        let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        for (request, answer) in [
            (asked, "HTTP/1.1 101 Switching Protocols\r\ndate: now\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "HTTP/1.1 200 OK\r\ndate: now\r\n\r\n"),
        ] {
            let (mut peer, _) = caller(move |io, _| async move {
                let mut upstream = Peer(io);
                upstream.until("\r\n\r\n").await;
                upstream.send(format!("{answer}ahead")).await;
                upstream.expect("early then late").await;
                upstream.send(" and after").await;
                upstream.shutdown().await;
            });
            peer.send(format!("{request}early")).await;
            peer.expect(&format!("{answer}ahead")).await;
            peer.send(" then late").await;
            assert_eq!(peer.rest().await, " and after");
        }
    });
}

#[test]
fn http10_is_answered_without_chunks_and_kept_if_it_asks() {
    paused(async {
        let (mut peer, _) = caller(|io, _| async {
            let mut upstream = Peer(io);
            upstream.until("\r\n\r\n").await;
            upstream.send(OK).await;
            upstream.until("\r\n\r\n").await;
            upstream
                .send("HTTP/1.1 200 OK\r\ndate: now\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n")
                .await;
        });
        let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        peer.ask(request, "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok")
            .await;
        peer.send(request).await;
        assert_eq!(peer.rest().await, "HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nok");
    });
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    local(async {
        let (near, far) = tcp().await;
        let mut peer = Peer(near);
        serve(far, |io, _| async {
            let mut upstream = Peer(io);
            upstream.until("\r\n\r\n").await;
            upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        });
        peer.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let mut answer = Vec::new();
        peer.0.read_to_end(&mut answer).await.expect_err("a reset, because an end would end the body");
    });
}

#[test]
fn limits_of_time_end_what_does_not_come() {
    paused(async {
        let half = "GET / HTTP/1.1\r\nHo";
        for (sent, seconds) in [("", 10), (half, 10), (GET, 300), (&format!("{GET}{half}"), 10)] {
            let (mut peer, served) = caller(quick);
            let start = Instant::now();
            peer.send(sent).await;
            assert!(matches!(served.await.expect("no panic"), Ended::Idle), "{sent:?}");
            let took = start.elapsed().as_secs();
            assert!((seconds..=seconds + 11).contains(&took), "{took} s for {sent:?}");
        }
    });
}

#[test]
fn a_body_that_falls_silent_is_refused_and_a_reader_that_stalls_is_let_go() {
    paused(async {
        let (mut peer, _) = caller(quick);
        peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
        // The upstream of this test answers at once, so that the rest is neither waited for nor taken for a request.
        assert_eq!(peer.rest().await, OK);
        let (mut peer, _) = caller(|io, _| async { Peer(io).rest().await.clear() });
        let start = Instant::now();
        peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
        let answer = peer.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("(body_timeout)"), "{answer}");
        assert!(start.elapsed() >= Duration::from_secs(300));
        let (mut peer, served) = caller(|io, _| async {
            let mut upstream = Peer(io);
            upstream.until("\r\n\r\n").await;
            upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await;
            let _ = upstream.0.write_all(&vec![7; 10_000_000]).await;
        });
        peer.send(GET).await;
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
    });
}

#[test]
fn a_refusal_names_the_byte_and_waits_for_a_caller_that_still_sends() {
    local(async {
        let (near, far) = tcp().await;
        let mut peer = Peer(near);
        let served = serve(far, quick);
        peer.send(format!("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n{}", "x".repeat(1 << 20))).await;
        peer.shutdown().await;
        let answer = peer.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("connection: close\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("proxy-status: test-node; error=http_request_error; details=\"malformed_request\"\r\n")
        );
        let line = "The request breaks HTTP's rules. The target has the byte 0x5c at position 2. (malformed_request)\n";
        assert!(answer.ends_with(line), "{answer}");
        assert!(matches!(served.await.expect("no panic"), Ended::Malformed(Reason::MalformedRequest)));
    });
}

#[test]
fn what_an_upstream_sends_unasked_spoils_its_connection() {
    paused(async {
        let numbers = std::rc::Rc::new(std::cell::Cell::new(0));
        for said in [
            format!("{OK}unasked"),
            OK.replacen("\r\n", "\r\nConnection: close\r\n", 1),
            OK.replacen("1.1", "1.0", 1),
            "HTTP/1.1 200 OK\r\n\r\nok".to_owned(),
        ] {
            let last = std::rc::Rc::clone(&numbers);
            let (mut peer, _) = caller(move |io, number| {
                last.set(number);
                let said = said.clone();
                async move {
                    let mut upstream = Peer(io);
                    upstream.until("\r\n\r\n").await;
                    upstream.send(said).await;
                }
            });
            for _ in 0..2 {
                peer.send(GET).await;
                peer.until("ok").await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(numbers.get(), 2, "the second request came over another connection");
        }
    });
}

/// Bodies that no buffer holds, both ways, and in all framings.
#[test]
fn large_bodies_arrive_as_they_were_sent() {
    local(async {
        let body: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        for chunked in [false, true] {
            let (near, far) = tcp().await;
            serve(far, |io, _| echo(io));
            let (mut reader, mut writer) = near.into_split();
            let length = body.len();
            let sent = async {
                if !chunked {
                    let head =
                        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                    writer.write_all(head.as_bytes()).await.expect("open");
                    writer.write_all(&body).await.expect("open");
                    return;
                }
                let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes()).await.expect("open");
                for piece in body.chunks(70_001) {
                    writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.expect("open");
                    writer.write_all(piece).await.expect("open");
                    writer.write_all(b"\r\n").await.expect("open");
                }
                writer.write_all(b"0\r\nx-sum: 1\r\n\r\n").await.expect("open");
            };
            let mut answer = Vec::new();
            let (_, read) = tokio::join!(sent, reader.read_to_end(&mut answer));
            read.expect("an orderly end");
            let answer = crate::fuzzing::message::Message::response(&answer, false).expect("a head");
            assert!(answer.whole && answer.body == body, "{} of {length}", answer.body.len());
        }
    });
}

/// Answers with the request's body as it comes, in the framing that it came in.
async fn echo(io: Io) {
    let handler = |request: Request| async move {
        let mut head = ResponseHead::new(200);
        head.length = request.head.length;
        Response::new(head, request.body)
    };
    crate::serve(io, &ServerOptions::new("echo"), &Sweeper::new(), std::future::pending(), handler).await;
}

#[test]
fn a_caller_that_has_gone_between_requests_is_let_go_at_once() {
    local(async {
        let (near, far) = tcp().await;
        let served = serve(far, quick);
        let mut peer = Peer(near);
        peer.ask(GET, OK).await;
        drop(peer);
        until(|| served.is_finished()).await;
    });
}
