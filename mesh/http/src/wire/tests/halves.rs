//! The halves by themselves: what they write at once, and what they tell of a failure.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use eastway_core::Reason;
use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::{GET, OK, Peer, shared};
use crate::client::Failure;
use crate::testing::paused;
use crate::wire::{Answer, Change, ClientConnection, ServerConnection, ServerEnd, Shared};

/// Counts the writes.
#[derive(Debug)]
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A request that was read, for a client to send.
async fn request(text: &str, shared: &Shared) -> ServerConnection {
    let (near, far) = Io::pair(64 * 1024);
    let mut server = ServerConnection::new(far, shared);
    Peer(near).send(text).await;
    server.next().await.expect("a request");
    server
}

fn client() -> (ClientConnection, Peer<DuplexStream>, Arc<AtomicUsize>) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Io::other(Counted(near, Arc::clone(&writes)));
    (ClientConnection::new(io, &shared()), Peer(far), writes)
}

fn nothing() -> std::iter::Empty<Change<'static>> {
    std::iter::empty()
}

#[test]
fn a_head_and_the_first_of_its_body_go_in_one_write() {
    paused(async {
        let shared = shared();
        for (size, writes) in [(10, 1), (4_000, 1), (30_000, 1), (100_000, 1)] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            let server = request(&head, &shared).await;
            let (mut client, mut upstream, counted) = client();
            client.send(&server.request().expect("a request"), nothing()).expect("possible");
            let body = "x".repeat(size);
            let sent = poll_fn(|cx| client.poll_send(cx, body.as_bytes())).await.expect("it reads");
            assert_eq!(sent, size);
            client.end_body().expect("whole");
            let polled = poll_fn(|cx| Poll::Ready(client.poll_response(cx))).await;
            assert!(polled.is_pending());
            upstream.expect(&format!("{head}{body}")).await;
            assert_eq!(counted.load(Ordering::Relaxed), writes, "{size} bytes");
        }
    });
}

#[test]
fn answers_to_pipelined_requests_go_in_one_write() {
    paused(async {
        let shared = shared();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let writes = Arc::new(AtomicUsize::new(0));
        let mut server = ServerConnection::new(Io::other(Counted(far, Arc::clone(&writes))), &shared);
        let mut peer = Peer(near);
        peer.send(GET.repeat(5)).await;
        let answer = crate::wire::tests::harness::head(OK);
        for _ in 0..5 {
            server.next().await.expect("a request");
            let (head, places) = &answer;
            server.respond(&head.view(OK.as_bytes(), places), nothing()).expect("possible");
            assert_eq!(poll_fn(|cx| server.poll_send(cx, b"ok")).await, Ok(2));
            server.end_body().expect("whole");
        }
        assert_eq!(writes.load(Ordering::Relaxed), 0, "nothing was waited for");
        peer.shutdown().await;
        assert_eq!(server.next().await, Err(ServerEnd::Done));
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        peer.expect(&OK.repeat(5)).await;
    });
}

/// What a client tells if its upstream says `said` to its second request and hangs up, or to its first.
async fn failure(before: &str, said: &str) -> (Failure, bool, bool) {
    let shared = shared();
    let server = request(GET, &shared).await;
    let (mut client, mut upstream, _) = client();
    if !before.is_empty() {
        client.send(&server.request().expect("a request"), nothing()).expect("possible");
        upstream.send(before).await;
        assert_eq!(poll_fn(|cx| client.poll_response(cx)).await, Ok(Answer::Final));
        let taken =
            poll_fn(|cx| client.poll_body(cx).map(|piece| matches!(piece, Ok(crate::wire::Piece::Data(b"ok"))))).await;
        assert!(taken);
        client.consume(2);
        assert!(client.settle() && client.is_reused());
    }
    client.send(&server.request().expect("a request"), nothing()).expect("possible");
    upstream.send(said).await;
    drop(upstream);
    let error = poll_fn(|cx| client.poll_response(cx)).await.expect_err("no answer");
    assert!(!client.settle());
    (error.failure, error.reused, error.unsent)
}

#[test]
fn a_failure_tells_whether_anything_was_sent_and_whether_the_connection_was_used_before() {
    paused(async {
        assert_eq!(failure("", "HTTP/1.1 200 O").await, (Failure::Closed, false, true), "it had gone before");
        assert_eq!(failure("", "nonsense\r\n\r\n").await, (Failure::Protocol, false, true));
        assert_eq!(failure(OK, "").await, (Failure::Closed, true, true));
        let shared = shared();
        let server = request(GET, &shared).await;
        let (mut client, mut upstream, _) = client();
        client.send(&server.request().expect("a request"), nothing()).expect("possible");
        let told = Cell::new(None);
        let answered = async { told.set(Some(poll_fn(|cx| client.poll_response(cx)).await)) };
        let hangs_up = async {
            upstream.until("\r\n\r\n").await;
            drop(upstream);
        };
        tokio::join!(answered, hangs_up);
        let error = told.take().expect("told").expect_err("no answer");
        assert_eq!((error.failure, error.unsent, error.reason()), (Failure::Reset, false, Reason::UpstreamReset));
    });
}

#[test]
fn an_idle_connection_that_was_closed_or_spoken_over_is_stale() {
    paused(async {
        let (mut client, mut upstream, _) = client();
        assert!(!client.is_stale());
        upstream.send("HTTP/1.1 408 Too Late\r\n\r\n").await;
        assert!(client.is_stale());
        let (mut client, upstream, _) = self::client();
        drop(upstream);
        assert!(client.is_stale());
    });
}

#[test]
fn who_takes_no_more_says_so_in_the_answer() {
    paused(async {
        let shared = shared();
        let mut server = request(&GET.repeat(2), &shared).await;
        server.take_no_more();
        let (head, places) = crate::wire::tests::harness::head(OK);
        server.respond(&head.view(OK.as_bytes(), &places), nothing()).expect("possible");
        assert_eq!(poll_fn(|cx| server.poll_send(cx, b"ok")).await, Ok(2));
        server.end_body().expect("whole");
        assert_eq!(server.next().await, Err(ServerEnd::Done));
    });
}
