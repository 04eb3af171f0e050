//! What comes from callers: one table of requests that readers could understand differently, and what becomes of them.

use crate::fuzzing::ways::{OK, Seen, Way, run, run_in_pieces};
use crate::fuzzing::{assert_forwarded, message::Message};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum To {
    /// It is sent on: the request line and the fields that differ from `host: a`, and the body.
    Pass(&'static str, &'static str),
    /// It is refused by this code, and the connection closed.
    Refuse(&'static str),
}

use To::{Pass, Refuse};

const MALFORMED: To = Refuse("malformed_request");
const LENGTH: To = Refuse("conflicting_length");
const HOST: To = Refuse("bad_host");
const LARGE: To = Refuse("header_too_large");

fn only(seen: &Seen, name: &str) -> String {
    let answers = Message::responses(&seen.answer, false);
    let last = answers.last().unwrap_or_else(|| panic!("{name}: no answer"));
    seen.requests().first().filter(|request| request.whole).map_or_else(
        || format!("refused {}", last.refusal().unwrap_or("otherwise")),
        |request| {
            let fields: Vec<_> = request.fields.iter().filter(|field| *field != "host: a").cloned().collect();
            let trailers = if request.trailers.is_empty() { String::new() } else { request.trailers.join("|") + "|" };
            format!("{}|{}|{trailers}{}", request.line, fields.join("|"), request.body.escape_ascii())
        },
    )
}

fn expected(to: &To) -> String {
    match to {
        Pass(head, body) => format!("{head}|{body}"),
        Refuse(code) => format!("refused {code}"),
    }
}

fn check(way: Way, name: &str, bytes: &[u8], to: &To) -> Vec<String> {
    let mut complaints = Vec::new();
    let seen = run(way, bytes, OK, false);
    seen.upstream.iter().for_each(|bytes| assert_forwarded(bytes));
    let (found, expected) = (only(&seen, name), expected(to));
    if found != expected {
        complaints.push(format!("{way:?} {name}: {found} instead of {expected}"));
    }
    if seen.requests().iter().any(|request| request.line.contains("smuggled")) {
        complaints.push(format!("{way:?} {name}: smuggled"));
    }
    complaints
}

/// Request lines, sent with `Host: a`.
const LINES: &[(&str, To)] = &[
    ("GET / HTTP/1.1", Pass("GET /|", "")),
    ("GET / HTTP/1.0", Pass("GET /|", "")),
    ("\r\n\r\nGET / HTTP/1.1", Pass("GET /|", "")),
    ("get / HTTP/1.1", Pass("get /|", "")),
    ("X-Y!~ / HTTP/1.1", Pass("X-Y!~ /|", "")),
    ("OPTIONS * HTTP/1.1", Pass("OPTIONS *|", "")),
    ("GET //b//c HTTP/1.1", Pass("GET //b//c|", "")),
    ("GET /%00%0d%0a HTTP/1.1", Pass("GET /%00%0d%0a|", "")),
    ("GET /a|{\"}?b|{}^`\\ HTTP/1.1", Pass("GET /a|{\"}?b|{}^`\\|", "")),
    ("GET /?\" HTTP/1.1", Pass("GET /?\"|", "")),
    ("GET /^ HTTP/1.1", Pass("GET /^|", "")),
    ("GET /[a]?[b] HTTP/1.1", Pass("GET /[a]?[b]|", "")),
    ("GET /` HTTP/1.1", Pass("GET /`|", "")),
    ("GET /<a> HTTP/1.1", Pass("GET /<a>|", "")),
    ("GET /?<a> HTTP/1.1", Pass("GET /?<a>|", "")),
    ("GET /a\\b HTTP/1.1", MALFORMED),
    ("GET /a#b HTTP/1.1", MALFORMED),
    ("GET /\u{e9} HTTP/1.1", MALFORMED),
    ("GET /\u{85}b HTTP/1.1", MALFORMED),
    ("GET http://a HTTP/1.1", Pass("GET /|", "")),
    ("GET http://a/b?c HTTP/1.1", Pass("GET /b?c|", "")),
    ("GET http://a?x=1 HTTP/1.1", Pass("GET /?x=1|", "")),
    ("GET HTTP://a/b HTTP/1.1", Pass("GET /b|", "")),
    ("GET http://b:81/c HTTP/1.1", Pass("GET /c|host: b:81", "")),
    ("GET https://a/ HTTP/1.1", Refuse("plain_http_only")),
    ("GET ftp://a/ HTTP/1.1", MALFORMED),
    ("GET http:///b HTTP/1.1", HOST),
    ("GET http://u@a/ HTTP/1.1", HOST),
    ("GET http://a:x/ HTTP/1.1", HOST),
    ("GET http://[::1/ HTTP/1.1", HOST),
    ("GET a HTTP/1.1", MALFORMED),
    ("GET * HTTP/1.1", MALFORMED),
    ("GET ?x HTTP/1.1", MALFORMED),
    ("GET  HTTP/1.1", MALFORMED),
    ("GET  / HTTP/1.1", MALFORMED),
    ("GET /  HTTP/1.1", MALFORMED),
    ("GET\t/\tHTTP/1.1", MALFORMED),
    ("GET / HTTP/1.1 ", MALFORMED),
    ("GET /a b HTTP/1.1", MALFORMED),
    ("GET / HTTP/1.2", MALFORMED),
    ("GET / HTTP/2.0", MALFORMED),
    ("GET / HTTP/0.9", MALFORMED),
    ("GET / http/1.1", MALFORMED),
    ("GET / HTTP/1.1x", MALFORMED),
    ("GET /", MALFORMED),
    ("GET", MALFORMED),
    ("G@T / HTTP/1.1", MALFORMED),
    ("GET /\x7f HTTP/1.1", MALFORMED),
    ("GET /\0 HTTP/1.1", MALFORMED),
    ("GET /\rx HTTP/1.1", MALFORMED),
    (" GET / HTTP/1.1", MALFORMED),
    ("\nGET / HTTP/1.1", MALFORMED),
    ("CONNECT a HTTP/1.1", HOST),
    ("CONNECT /a HTTP/1.1", HOST),
    ("CONNECT http://a:1/ HTTP/1.1", HOST),
    ("CONNECT u@a:1 HTTP/1.1", HOST),
];

/// Fields of `POST / HTTP/1.1` with `Host: a`, and what follows the head.
const FIELDS: &[(&str, &str, To)] = &[
    ("Content-Length: 4", "body", Pass("POST /|", "body")),
    ("Content-Length: 4", "bodyGET /smuggled", Pass("POST /|", "body")),
    ("Content-Length:4", "body", Pass("POST /|", "body")),
    ("Content-Length: \t 4 \t", "body", Pass("POST /|", "body")),
    ("content-LENGTH: 0004", "body", Pass("POST /|", "body")),
    ("Content-Length: 0", "", Pass("POST /|", "")),
    ("Content-Length: 4\r\nContent-Length: 4", "body", LENGTH),
    ("Content-Length: 4\r\nContent-Length: 5", "body", LENGTH),
    ("Content-Length: 4, 4", "body", LENGTH),
    ("Content-Length: 4,5", "body", LENGTH),
    ("Content-Length: 4 4", "body", LENGTH),
    ("Content-Length: +4", "body", LENGTH),
    ("Content-Length: -0", "body", LENGTH),
    ("Content-Length: 0x4", "body", LENGTH),
    ("Content-Length: 4.0", "body", LENGTH),
    ("Content-Length:", "body", LENGTH),
    ("Content-Length: \"4\"", "body", LENGTH),
    ("Content-Length: 18446744073709551616", "body", LENGTH),
    ("Content-Length : 4", "body", MALFORMED),
    ("Content-Length\t: 4", "body", MALFORMED),
    (" Content-Length: 4", "body", MALFORMED),
    ("Content-Length: 4\r\n ", "body", MALFORMED),
    ("X: y\r\n Content-Length: 4", "body", MALFORMED),
    ("X: y\r\n\tContent-Length: 4", "body", MALFORMED),
    ("X: y\nContent-Length: 4", "body", MALFORMED),
    ("X: y\rContent-Length: 4", "body", MALFORMED),
    ("X: y\0\r\nContent-Length: 4", "body", MALFORMED),
    ("X: y\x0b\r\nContent-Length: 4", "body", MALFORMED),
    ("X: y\x7f\r\nContent-Length: 4", "body", MALFORMED),
    ("X: \u{e9}\r\nContent-Length: 4", "body", Pass("POST /|x: \u{e9}", "body")),
    ("X:\r\nContent-Length: 4", "body", Pass("POST /|x: ", "body")),
    (": y\r\nContent-Length: 4", "body", MALFORMED),
    ("X y: z\r\nContent-Length: 4", "body", MALFORMED),
    ("X\": z\r\nContent-Length: 4", "body", MALFORMED),
    ("\u{e9}: z\r\nContent-Length: 4", "body", MALFORMED),
    ("no colon\r\nContent-Length: 4", "body", MALFORMED),
    ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n", Pass("POST /|", "body")),
    ("transfer-encoding: CHUNKED", "4\r\nbody\r\n0\r\n\r\nGET /smuggled", Pass("POST /|", "body")),
    ("Transfer-Encoding:\tchunked\t", "4\r\nbody\r\n0\r\n\r\n", Pass("POST /|", "body")),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: identity", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: identity, chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked,", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: ,chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked;x=1", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunk", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding:", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding : chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding:\x0bchunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: chunked\x0b", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding: \0chunked", "0\r\n\r\n", MALFORMED),
    ("Transfer-Encoding\r\n: chunked", "0\r\n\r\n", MALFORMED),
    ("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n", MALFORMED),
    ("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", LENGTH),
    ("Transfer-Encoding: chunked\r\nContent-Length: 6", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", LENGTH),
    ("Transfer_Encoding: chunked\r\nContent-Length: 4", "body", Pass("POST /|transfer_encoding: chunked", "body")),
    ("Content_Length: 9\r\nContent-Length: 4", "body", Pass("POST /|content_length: 9", "body")),
    ("Host: a", "", HOST),
    ("Host: b", "", HOST),
    ("host: b", "", HOST),
    ("Connection: Host\r\nContent-Length: 4", "body", MALFORMED),
    ("Connection: close, content-LENGTH\r\nContent-Length: 4", "body", MALFORMED),
    ("Connection: content-encoding\r\nContent-Length: 4", "body", MALFORMED),
    ("Connection: transfer-encoding\r\nTransfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", Pass("POST /|", "a")),
    ("Connection: x , ,Y\r\nX: 1\r\ny: 2\r\nZ: 3\r\nContent-Length: 4", "body", Pass("POST /|z: 3", "body")),
    ("Connection: x\r\nConnection: y\r\nX: 1\r\nY: 2\r\nContent-Length: 4", "body", Pass("POST /|", "body")),
    ("Connection: close\r\nContent-Length: 4", "bodyGET /smuggled", Pass("POST /|", "body")),
    (
        "Keep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nContent-Length: 4",
        "body",
        Pass("POST /|", "body"),
    ),
    ("TE: gzip, Trailers\r\nContent-Length: 4", "body", Pass("POST /|te: trailers", "body")),
    ("TE: chunked,\r\nContent-Length: 4", "body", Pass("POST /|", "body")),
    (
        "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nhttp2-settings: x\r\nContent-Length: 4",
        "body",
        Pass("POST /|", "body"),
    ),
    ("Upgrade: x\r\nContent-Length: 4", "body", Pass("POST /|", "body")),
    ("Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 4", "body", Pass("POST /|upgrade: x", "body")),
    ("Expect: 100-continue\r\nContent-Length: 4", "body", Pass("POST /|expect: 100-continue", "body")),
    ("Expect: 100-Continue\r\nContent-Length: 0", "", Pass("POST /|", "")),
    ("Expect: x\r\nContent-Length: 4", "body", Pass("POST /|expect: x", "body")),
    ("Cookie: a=1\r\nX: y\r\nCookie: b=2\r\nContent-Length: 4", "body", Pass("POST /|cookie: a=1; b=2|x: y", "body")),
    ("X: 1\r\nY: 2\r\nx: 3\r\nContent-Length: 4", "body", Pass("POST /|x: 1|x: 3|y: 2", "body")),
];

/// What follows `POST / HTTP/1.1` with `Host: a` and `Transfer-Encoding: chunked`.
const CHUNKS: &[(&str, To)] = &[
    ("0\r\n\r\n", Pass("POST /|", "")),
    ("4\r\nbody\r\n00\r\n\r\n", Pass("POST /|", "body")),
    ("1\r\nb\r\n3\r\nody\r\n0\r\n\r\n", Pass("POST /|", "body")),
    ("a\r\n0123456789\r\n0\r\n\r\n", Pass("POST /|", "0123456789")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Pass("POST /|", "0123456789")),
    ("00000000000000000000004\r\nbody\r\n0\r\n\r\n", Pass("POST /|", "body")),
    ("4;a=b\r\nbody\r\n0;c\r\n\r\n", Pass("POST /|", "body")),
    ("4 \r\nbody\r\n0\t\r\n\r\n", Pass("POST /|", "body")),
    ("4 ; a = \"b\"\r\nbody\r\n0\r\n\r\n", Pass("POST /|", "body")),
    ("4;a\nb\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("4;a\rb\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("4\nbody\n0\n\n", MALFORMED),
    ("4\r\nbody\n0\r\n\r\n", MALFORMED),
    ("4\r\nbody\r0\r\n\r\n", MALFORMED),
    ("4\r\nbodyx\r\n0\r\n\r\n", MALFORMED),
    ("4\r\nbod\r\n0\r\n\r\n", MALFORMED),
    ("0x4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("-4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("+4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    (" 4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("4 4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("\r\n4\r\nbody\r\n0\r\n\r\n", MALFORMED),
    (";\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("g\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("10000000000000004\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("ffffffffffffffffffff\r\nbody\r\n0\r\n\r\n", MALFORMED),
    ("0\r\nX: y\r\n\r\n", Pass("POST /|", "x: y|")),
    ("0\r\nContent-Length: 9\r\n\r\n", MALFORMED),
    ("0\r\nTransfer-Encoding: x\r\n\r\n", MALFORMED),
    ("0\r\nHost: b\r\n\r\n", MALFORMED),
    ("0\r\nConnection: x\r\nEastway-Source: x\r\nTE: y\r\n\r\n", Pass("POST /|", "")),
    ("0\r\nX : y\r\n\r\n", MALFORMED),
    ("0\r\nX: y\r\n z\r\n\r\n", MALFORMED),
    ("0\r\nno colon\r\n\r\n", MALFORMED),
    ("0\r\nX: y\n\r\n\r\n", MALFORMED),
    ("0\r\n\n", MALFORMED),
    ("0\r\n\rGET /smuggled", MALFORMED),
];

/// Other requests as they are.
const RAW: &[(&str, To)] = &[
    ("GET / HTTP/1.1\r\n\r\n", HOST),
    ("GET / HTTP/1.0\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", HOST),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Pass("GET /|", "")),
    ("GET / HTTP/1.1\r\nHost: A.B:80\r\n\r\n", Pass("GET /|host: A.B:80", "")),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Pass("GET /|host: [::1]:80", "")),
    ("GET / HTTP/1.1\nHost: a\n\n", MALFORMED),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", MALFORMED),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", MALFORMED),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED),
    ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Pass("GET /|", "abc")),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Pass("GET /|", "abc")),
    ("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", Pass("POST /|", "body")),
    ("GET http://b/ HTTP/1.0\r\n\r\n", Pass("GET /|host: b", "")),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 4\r\n\r\nbody", MALFORMED),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MALFORMED),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n", Pass("GET /|", "")),
    ("\x16\x03\x01\x02\0\x01\0\x01\x7f\x03\x03\r\n\r\n", MALFORMED),
    ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", MALFORMED),
];

/// The whole table: raw bytes, and what becomes of them.
fn table() -> Vec<(String, &'static To)> {
    let lines = LINES.iter().map(|(line, to)| (format!("{line}\r\nHost: a\r\n\r\n"), to));
    let posted = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
    let fields = FIELDS.iter().map(move |(fields, body, to)| (posted(fields, body), to));
    let chunks = CHUNKS.iter().map(move |(chunks, to)| (posted("Transfer-Encoding: chunked", chunks), to));
    let many: String = (0..150).map(|at| format!("x-{at}: y\r\n")).collect();
    let long = "x".repeat(70_000);
    let large = [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), &LARGE),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), &LARGE),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", many.repeat(2)), &LARGE),
    ];
    let raw = RAW.iter().map(|(raw, to)| ((*raw).to_owned(), to));
    lines.chain(fields).chain(chunks).chain(raw).chain(large).collect()
}

#[test]
fn how_the_bytes_are_cut_into_pieces_changes_nothing() {
    for (bytes, _) in table().iter().filter(|(bytes, _)| bytes.len() < 10_000) {
        let whole = only(&run(Way::Ours, bytes.as_bytes(), OK, false), bytes);
        for sizes in [&[1][..], &[2, 3, 1], &[40, 1]] {
            let pieces = run_in_pieces(Way::Ours, bytes.as_bytes(), OK, false, sizes);
            assert_eq!(only(&pieces, bytes), whole, "{bytes:?} in {sizes:?}");
        }
    }
}

#[test]
fn what_readers_could_understand_differently_is_refused_or_passed_on_in_one_form() {
    let table = table();
    assert!(table.len() >= 100, "{}", table.len());
    let mut complaints = Vec::new();
    for way in Way::NODES {
        for (bytes, to) in &table {
            let to = match way {
                // Nodes send what asks for another protocol over a connection of HTTP/1.1.
                Way::Link | Way::Http2 if bytes.contains("Upgrade: x") => continue,
                // Its library takes no such targets.
                Way::Http2 if matches!(to, Pass("GET /?\"|" | "GET /`|" | "GET /<a>|" | "GET /?<a>|", _)) => {
                    &Refuse("internal")
                }
                _ => to,
            };
            let name: String = bytes.escape_debug().take(160).collect();
            complaints.extend(check(way, &name, bytes.as_bytes(), to));
        }
    }
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), table.len(), complaints.join("\n"));
}
