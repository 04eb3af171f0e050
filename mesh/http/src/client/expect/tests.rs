//! What becomes of a body that the upstream has to ask for.

use crate::body::Body;
use crate::client::{ClientOptions, H1};
use crate::message::Request;
use crate::testing::{Recorder, channel, data, dial, local, post, until};

fn expecting(body: Body) -> Request {
    let mut request = post("a", body);
    request.head.expects_continue = true;
    request
}

#[test]
fn a_body_is_sent_when_the_upstream_asks_for_it() {
    local(async {
        let upstream =
            Recorder::new(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let options =
            ClientOptions { continue_after: std::time::Duration::from_secs(3600), ..ClientOptions::default() };
        let mut client = H1::new(dial(upstream.address).await, &options);
        let (sender, body) = channel();
        sender.send(data(b"abc")).await.expect("room");
        drop(sender);
        let response = client.send(expecting(body)).await.expect("an answer");
        assert_eq!(response.head.status, 200);
        until(|| upstream.text().ends_with("abc\r\n0\r\n\r\n")).await;
        assert!(upstream.text().contains("expect: 100-continue\r\n"), "{}", upstream.text());
    });
}

#[test]
fn nothing_is_sent_to_an_upstream_that_answers_without_it() {
    local(async {
        let upstream = Recorder::new(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno").await;
        let mut client = H1::new(dial(upstream.address).await, &ClientOptions::default());
        let response = client.send(expecting(Body::full("secret"))).await.expect("an answer");
        assert_eq!(response.body.collect(9).await.expect("whole").0, "no");
        upstream.closed().await;
        assert!(upstream.text().ends_with("\r\n\r\n"), "{}", upstream.text());
    });
}

#[test]
fn an_upstream_that_says_nothing_gets_the_body_all_the_same() {
    local(async {
        let upstream = Recorder::new(b"").await;
        let options =
            ClientOptions { continue_after: std::time::Duration::from_millis(10), ..ClientOptions::default() };
        let mut client = H1::new(dial(upstream.address).await, &options);
        tokio::task::spawn_local(async move { client.send(expecting(Body::full("hello"))).await.is_ok() });
        until(|| upstream.text().ends_with("hello")).await;
    });
}

#[test]
fn an_upstream_that_says_yes_before_it_reads_gets_the_body() {
    local(async {
        let upstream = Recorder::new(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let options =
            ClientOptions { continue_after: std::time::Duration::from_secs(3600), ..ClientOptions::default() };
        let mut client = H1::new(dial(upstream.address).await, &options);
        let response = client.send(expecting(Body::full("hello"))).await.expect("an answer");
        assert_eq!(response.head.status, 200);
        until(|| upstream.text().ends_with("hello")).await;
    });
}
