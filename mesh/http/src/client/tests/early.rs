//! An upstream that answers before it has read the request, and closes.

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::body::Body;
use crate::testing::{h1, local, post};

/// Reads the head of a request, answers with `answer`, and closes with the body unread: the kernel resets the connection.
async fn answering_early(answer: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::task::spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = [0; 64];
            let _ = tcp.read(&mut head).await;
            let _ = tcp.write_all(answer).await;
        }
    });
    address
}

fn upload() -> Body {
    Body::full(Bytes::from(vec![7; 32 << 20]))
}

#[test]
fn an_answer_that_comes_early_is_read_before_the_reset_is_told() {
    local(async {
        let upstream = answering_early(b"HTTP/1.1 413 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        for _ in 0..20 {
            let response = h1(upstream).await.send(post("a", upload())).await.expect("the answer");
            assert_eq!(response.head.status, 413);
            assert_eq!(response.body.collect(9).await.expect("whole").0, "much");
        }
    });
}

#[test]
fn a_reset_without_an_answer_is_told() {
    local(async {
        let upstream = answering_early(b"").await;
        let error = h1(upstream).await.send(post("a", upload())).await.expect_err("reset");
        assert_eq!(error.failure(), crate::client::SendFailure::Reset, "{error:?}");
    });
}

#[test]
fn a_body_that_only_the_reset_ends_is_not_whole() {
    local(async {
        let upstream = answering_early(b"HTTP/1.1 413 No\r\nconnection: close\r\n\r\nmuch").await;
        let response = h1(upstream).await.send(post("a", upload())).await.expect("the answer");
        response.body.collect(9).await.expect_err("it may have been longer");
    });
}
