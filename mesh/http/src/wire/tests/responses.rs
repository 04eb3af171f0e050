//! What comes from upstreams: one table of answers, and what the caller gets.

use crate::fuzzing::message::Message;
use crate::fuzzing::ways::{Way, run};

/// What the caller gets.
#[derive(Clone, Copy, Debug)]
enum To {
    /// The answers, interim ones before the last: status, fields, trailers and body of each.
    Pass(&'static str),
    /// A refusal by this code.
    Refuse(&'static str),
    /// A head, and a body that breaks off.
    Break,
}

use To::{Break, Pass, Refuse};

const BROKEN: To = Refuse("upstream_protocol");
const GONE: To = Refuse("upstream_reset");

/// How the answer is read: the request's line, and what it says besides `Host`.
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n";
const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";

const TABLE: &[(&str, &str, To)] = &[
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (CLOSE, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (OLD, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 Quite Fine\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nok", Pass("404||ok")),
    (GET, "HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok", Pass("999||ok")),
    (GET, "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\n\r\nok", Pass("200|x: y|ok")),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Pass("200||")),
    (GET, "HTTP/1.1 200 OK\r\n\r\nok", Pass("200||ok")),
    (OLD, "HTTP/1.1 200 OK\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.0 200 OK\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2,3\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Pass("200||ok")),
    (OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1;x\r\no\r\n1 \r\nk\r\n0\r\n\r\n", Pass("200||ok")),
    (GET, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", BROKEN),
    (
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        BROKEN,
    ),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", Pass("200||x: y|ok")),
    (
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
        Pass("200|trailer: x|x: y|ok"),
    ),
    (OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", Pass("200||ok")),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", Break),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n", Break),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", Break),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Break),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Break),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokextra", Pass("200||ok")),
    (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Pass("200||")),
    (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nunwanted!", Pass("200||")),
    (HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Pass("200||")),
    (HEAD, "HTTP/1.1 200 OK\r\n\r\n", Pass("200||")),
    (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", Pass("304||")),
    (GET, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", Pass("304|etag: \"x\"|")),
    (GET, "HTTP/1.1 204 No Content\r\n\r\n", Pass("204||")),
    (GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Pass("204||")),
    (GET, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Pass("204||")),
    (GET, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", Pass("205||")),
    (
        GET,
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Pass("103|link: x|;200||ok"),
    ),
    (
        GET,
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        Pass("102||;102||;204||"),
    ),
    (GET, "HTTP/1.1 103 Early Hints\r\nEastway-Load: 1\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Pass("103||;204||")),
    (OLD, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (
        GET,
        "HTTP/1.1 103 Early Hints\r\nConnection: x\r\nX: 1\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok",
        Pass("103||;200||ok"),
    ),
    (GET, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", BROKEN),
    (UPGRADE, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Pass("101|upgrade: x|")),
    (UPGRADE, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass("200||ok")),
    (
        GET,
        "HTTP/1.1 200 OK\r\nConnection: x, close\r\nX: 1\r\nY: 2\r\nContent-Length: 2\r\n\r\nok",
        Pass("200|y: 2|ok"),
    ),
    (GET, "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nConnection: Content-Encoding\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (
        GET,
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nUpgrade: y\r\nContent-Length: 2\r\n\r\nok",
        Pass("200||ok"),
    ),
    (
        GET,
        "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: 1\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        Pass("200|set-cookie: a|set-cookie: b|x: 1|ok"),
    ),
    (GET, "HTTP/1.1 200 OK\r\nX: \u{e9}\r\nY:\r\nContent-Length: 2\r\n\r\nok", Pass("200|x: \u{e9}|y: |ok")),
    (GET, "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", BROKEN),
    (GET, "HTTP/1.1 20 OK\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 2000 OK\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 099 OK\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 abc OK\r\n\r\n", BROKEN),
    (GET, "HTTP/1.2 200 OK\r\n\r\n", BROKEN),
    (GET, "HTTP/2 200 OK\r\n\r\n", BROKEN),
    (GET, "ICY 200 OK\r\n\r\n", BROKEN),
    (GET, "SSH-2.0-OpenSSH\r\n\r\n", BROKEN),
    (GET, "nonsense\r\n\r\n", BROKEN),
    (GET, "HTTP/1.1 200 O", GONE),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", GONE),
    (GET, "", GONE),
];

fn found(way: Way, request: &str, answer: &str) -> String {
    let seen = run(way, format!("{request}\r\n").as_bytes(), answer.as_bytes(), true);
    let answers = Message::responses(&seen.answer, request == HEAD);
    let shown = answers.iter().map(|answer| match answer.refusal() {
        Some(code) => format!("refused {code}"),
        None if !answer.whole => "broken".to_owned(),
        None => {
            let trailers = if answer.trailers.is_empty() { String::new() } else { answer.trailers.join("|") + "|" };
            let body = String::from_utf8_lossy(&answer.body);
            format!("{}|{}|{trailers}{body}", answer.line, answer.fields.join("|"))
        }
    });
    let shown = shown.collect::<Vec<_>>().join(";");
    // What breaks off at once may never have been sent.
    if shown.is_empty() { "broken".to_owned() } else { shown }
}

fn expected(way: Way, to: &To) -> String {
    match to {
        // The library for HTTP/2 knows no interim answers.
        Pass(text) if way == Way::Http2 => text.rsplit(';').next().unwrap_or_default().to_owned(),
        Pass(text) => (*text).to_owned(),
        Refuse(code) => format!("refused {code}"),
        Break => "broken".to_owned(),
    }
}

#[test]
fn what_upstreams_say_is_passed_on_in_one_form_or_refused() {
    let mut complaints = Vec::new();
    for way in Way::NODES {
        for (request, answer, to) in TABLE {
            // Nodes that speak HTTP/2 send what asks for another protocol over a connection of HTTP/1.1.
            if *request == UPGRADE && way == Way::Http2 {
                continue;
            }
            let (found, expected) = (found(way, request, answer), expected(way, to));
            if found != expected {
                complaints.push(format!("{way:?} {answer:?}: {found} instead of {expected}"));
            }
        }
    }
    assert!(TABLE.len() >= 50);
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), TABLE.len(), complaints.join("\n"));
}
