//! The halves by themselves: what they write at once.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use eastway_core::head::HttpVersion;
use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::{GET, OK, Peer};
use crate::body::Body;
use crate::framing::Length;
use crate::limits::HeadLimits;
use crate::message::{RequestHead, ResponseHead};
use crate::sweeper::Sweeper;
use crate::testing::paused;
use crate::wire::{Buffers, ClientConnection, Limits, ServerConnection, ServerEnd, Shared};

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

fn client() -> (ClientConnection, Peer<DuplexStream>, Arc<AtomicUsize>) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Io::other(Counted(near, Arc::clone(&writes)));
    (ClientConnection::new(io, HeadLimits::default()), Peer(far), writes)
}

fn server(io: Io) -> ServerConnection {
    let (limits, sweeper) = (Rc::new(Limits::default()), Sweeper::new());
    ServerConnection::new(io, b"", &Shared { buffers: Buffers::of_this_thread(), sweeper, limits })
}

fn head(method: &str) -> RequestHead {
    RequestHead::new(HttpVersion::Http11, method, "/", "a")
}

/// The head of [`OK`].
fn ok_head() -> ResponseHead {
    let mut head = ResponseHead::new(200);
    head.fields.append("date", b"now");
    head
}

#[test]
fn a_head_and_the_first_of_its_body_go_in_one_write() {
    paused(async {
        for size in [10, 4_000, 30_000, 100_000] {
            let (mut client, mut upstream, counted) = client();
            client.send(&head("POST"), Length::Known(size as u64));
            let body = "x".repeat(size);
            let sent = poll_fn(|cx| client.conn_mut().poll_send(cx, body.as_bytes())).await.expect("it reads");
            assert_eq!(sent, size);
            client.conn_mut().end_body(std::iter::empty()).expect("whole");
            let polled = poll_fn(|cx| Poll::Ready(client.poll_response(cx))).await;
            assert!(polled.is_pending());
            let expected = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{body}");
            upstream.expect(&expected).await;
            assert_eq!(counted.load(Ordering::Relaxed), 1, "{size} bytes");
        }
    });
}

#[test]
fn answers_to_pipelined_requests_go_in_one_write() {
    paused(async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let writes = Arc::new(AtomicUsize::new(0));
        let mut server = server(Io::other(Counted(far, Arc::clone(&writes))));
        let mut peer = Peer(near);
        peer.send(GET.repeat(5)).await;
        for _ in 0..5 {
            poll_fn(|cx| server.poll_next(cx)).await.expect("a request");
            assert!(server.answer(&ok_head(), &Body::full("ok")));
            assert_eq!(poll_fn(|cx| server.conn_mut().poll_send(cx, b"ok")).await, Ok(2));
            server.conn_mut().end_body(std::iter::empty()).expect("whole");
        }
        assert_eq!(writes.load(Ordering::Relaxed), 0, "nothing was waited for");
        peer.shutdown().await;
        assert_eq!(poll_fn(|cx| server.poll_next(cx)).await.expect_err("no more"), ServerEnd::Done);
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        peer.expect(&OK.repeat(5)).await;
    });
}

#[test]
fn who_takes_no_more_says_so_in_the_answer() {
    paused(async {
        let (near, far) = Io::pair(64 * 1024);
        let (mut peer, mut server) = (Peer(near), server(far));
        peer.send(GET.repeat(2)).await;
        poll_fn(|cx| server.poll_next(cx)).await.expect("a request");
        server.take_no_more();
        assert!(!server.answer(&ResponseHead::new(204), &Body::empty()));
        assert_eq!(poll_fn(|cx| server.poll_next(cx)).await.expect_err("no more"), ServerEnd::Done);
        server.close().await;
        let answer = peer.rest().await;
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    });
}
