//! Malformed, ambiguous and oversized requests.

use crate::testing::{OK, Raw, Recorder, Upstream, ask, listen, local, mirror, proxy};

/// One answer with this status, then the end; our own words, and `Proxy-Status`.
fn assert_refused(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    let details = format!("proxy-status: test-node; error=http_request_error; details=\"{code}\"\r\n");
    assert!(answer.contains(&details), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(body.ends_with(&format!("({code})\n")) && body.lines().count() == 1, "{answer}");
}

#[test]
fn malformed_heads_are_refused_and_the_connection_closed() {
    local(async {
        let server = listen(mirror).await;
        for (request, code) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "malformed_request"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "malformed_request"),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "malformed_request"),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
            ("\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03\r\n\r\n", "malformed_request"),
            ("GET / HTTP/1.1\r\n\r\n", "bad_host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "bad_host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "bad_host"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad_host"),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "bad_host"),
            ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_host"),
            ("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n", "malformed_request"),
        ] {
            assert_refused(&ask(server, format!("{request}GET /second HTTP/1.1\r\nHost: a\r\n\r\n")).await, 400, code);
        }
        let answer = ask(server, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("(bad_host)"), "{answer}");
    });
}

#[test]
fn lengths_in_doubt_are_refused_and_the_connection_closed() {
    local(async {
        let server = listen(mirror).await;
        for (fields, code) in [
            ("Content-Length: 4\r\nContent-Length: 5", "conflicting_length"),
            ("Content-Length: +4", "conflicting_length"),
            ("Content-Length: 4, 4", "conflicting_length"),
            ("Content-Length: 4,5", "conflicting_length"),
            ("Content-Length: 0x4", "conflicting_length"),
            ("Content-Length: -0", "conflicting_length"),
            ("Transfer-Encoding: xchunked", "malformed_request"),
            ("Transfer-Encoding: chunked, identity", "malformed_request"),
            ("Transfer-Encoding: gzip, chunked", "malformed_request"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "malformed_request"),
            ("Transfer-Encoding : chunked", "malformed_request"),
            ("Transfer-Encoding:\x0bchunked", "malformed_request"),
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nbody");
            assert_refused(&ask(server, &request).await, 400, code);
        }
        let request = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(ask(server, request).await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn both_lengths_and_bare_line_feeds_are_refused_and_never_passed_on() {
    local(async {
        // By its length, the second request would be the first one's body.
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        for (request, code) in [
            (format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"), "conflicting_length"),
            (format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{smuggled}"), "conflicting_length"),
            ("POST /x HTTP/1.1\nHost: a\nX: y\nContent-Length: 2\n\nhi".to_owned(), "malformed_request"),
            ("POST /x HTTP/1.1\r\nHost: a\nContent-Length: 2\r\n\r\nhi".to_owned(), "malformed_request"),
        ] {
            let upstream = Recorder::new(OK).await;
            let server = listen(proxy(Upstream::H1(upstream.address))).await;
            assert_refused(&ask(server, request).await, 400, code);
            assert_eq!(upstream.text(), "");
        }
    });
}

#[test]
fn a_line_feed_in_a_chunk_extension_ends_the_connection_and_never_looks_like_an_end() {
    local(async {
        let upstream = Recorder::new(b"").await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = ask(server, format!("{head}3\r\nabc\r\n2;x=\n\r\nde\r\n0\r\n\r\n")).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        upstream.closed().await;
        assert!(!upstream.text().ends_with("0\r\n\r\n"), "{}", upstream.text());
    });
}

#[test]
fn an_absolute_target_replaces_host_upstream() {
    local(async {
        let upstream = Recorder::new(OK).await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let answer =
            ask(server, "GET http://right.example:81/x?y HTTP/1.1\r\nHost: wrong\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let seen = upstream.text();
        assert!(seen.starts_with("GET /x?y HTTP/1.1\r\n") && seen.contains("host: right.example:81\r\n"), "{seen}");
        assert!(!seen.contains("wrong"), "{seen}");
    });
}

#[test]
fn oversized_heads_get_431() {
    local(async {
        let server = listen(mirror).await;
        let long = "x".repeat(70 * 1024);
        let many: String = (0..256).map(|at| format!("x-{at}: y\r\n")).collect();
        for request in [
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            assert_refused(&ask(server, request).await, 431, "header_too_large");
        }
        let fits = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\nConnection: close\r\n\r\n", "x".repeat(60 * 1024));
        assert!(ask(server, fits).await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn oversized_http2_heads_get_431() {
    local(async {
        let server = listen(mirror).await;
        let (mut client, connection) = h2::client::handshake(crate::testing::dial(server).await).await.expect("HTTP/2");
        tokio::task::spawn_local(connection);
        let request = http::Request::get("http://a/").header("x", "x".repeat(70 * 1024)).body(()).expect("valid");
        let (response, _) = client.send_request(request, true).expect("open");
        assert_eq!(response.await.expect("an answer").status(), 431);
    });
}

#[test]
fn an_http2_body_shorter_than_its_length_is_not_forwarded_as_whole() {
    local(async {
        let upstream = Recorder::new(b"").await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let (mut client, connection) = h2::client::handshake(crate::testing::dial(server).await).await.expect("HTTP/2");
        tokio::task::spawn_local(connection);
        let request = http::Request::post("http://a/").header("content-length", "10").body(()).expect("valid");
        let (response, mut body) = client.send_request(request, false).expect("open");
        body.send_data(bytes::Bytes::from_static(b"abc"), true).expect("open");
        assert!(response.await.is_err(), "the stream is reset");
        let seen = upstream.text();
        assert!(seen.is_empty() || seen.ends_with("content-length: 10\r\n\r\n") || seen.ends_with("abc"), "{seen}");
    });
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    local(async {
        let server = listen(mirror).await;
        let mut raw = Raw::dial(server).await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        for at in 0..2000 {
            // The server may have closed already: that is what is asked for.
            let line = format!("x-{at}: {}\r\n", "y".repeat(100));
            if tokio::io::AsyncWriteExt::write_all(&mut raw.0, line.as_bytes()).await.is_err() {
                break;
            }
        }
        let answer = raw.rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn a_refusal_behind_a_good_request_does_not_disturb_its_answer() {
    local(async {
        let server = listen(mirror).await;
        let answer = ask(server, "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("GET /one for a"), "{answer}");
        assert!(answer.contains("HTTP/1.1 400 Bad Request\r\n") && answer.contains("(bad_host)"), "{answer}");
        let mut raw = Raw::dial(server).await;
        raw.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.until("\n\n\n").await;
        raw.send("nonsense\r\n\r\n").await;
        assert_refused(&raw.rest().await, 400, "malformed_request");
    });
}

#[test]
fn hop_by_hop_fields_go_in_both_directions() {
    local(async {
        let upstream = Recorder::new(
            b"HTTP/1.1 200 OK\r\nConnection: x-secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\n\
              Proxy-Connection: x\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
        let server = listen(proxy(Upstream::H1(upstream.address))).await;
        let answer = ask(
            server,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 1\r\n\
             Proxy-Authorization: Basic x\r\nTE: trailers, gzip\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
        let seen = upstream.text().to_ascii_lowercase();
        for (text, kept) in [(&seen, "te: trailers\r\n"), (&answer.to_ascii_lowercase(), "x-kept: 1\r\n")] {
            assert!(text.contains(kept) && text.contains("x-kept: 1\r\n"), "{text}");
            for gone in ["x-mine", "x-secret", "keep-alive", "proxy-", "gzip"] {
                assert!(!text.contains(gone), "{gone} in {text}");
            }
        }
    });
}

#[test]
fn an_upstream_whose_answer_is_in_doubt_is_502() {
    local(async {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            b"nonsense\r\n\r\n",
        ] {
            let upstream = Recorder::new(answer).await;
            let server = listen(proxy(Upstream::H1(upstream.address))).await;
            let answer = ask(server, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_protocol"), "{answer}");
        }
    });
}

#[test]
fn http2_authority_and_host_agree_or_get_400() {
    local(async {
        let server = listen(mirror).await;
        for (authority, host, status) in [("a.b", Some("a.c"), 400), ("a.b", Some("A.B:80"), 200), ("a.b", None, 200)] {
            let (mut client, connection) =
                h2::client::handshake(crate::testing::dial(server).await).await.expect("HTTP/2");
            let connection = tokio::task::spawn_local(connection);
            let mut request = http::Request::get(format!("http://{authority}/"));
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let request = request.body(()).expect("valid");
            let (response, _) = client.send_request(request, true).expect("open");
            let response = response.await.expect("an answer");
            assert_eq!(response.status(), status, "{authority} {host:?}");
            assert_eq!(response.headers().contains_key("proxy-status"), status == 400);
            drop((client, response));
            let _ = connection.await;
        }
    });
}
