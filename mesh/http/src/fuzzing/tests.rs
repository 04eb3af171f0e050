//! The smoke test of the fuzz targets: seeded random bytes, and mutations of heads that are nearly right.
//!
//! `EASTWAY_FUZZ_SEED` repeats a run, `EASTWAY_FUZZ_ROUNDS` makes it longer.

use super::*;

const SEEDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
    b"POST /x?y HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: c\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n",
    b"GET http://b.c/d HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\nX: 1\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n\x16\x03\x01",
    b"OPTIONS * HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1",
    b"GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close, x\r\nX: 1\r\n\r\nbody",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
];
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"Host: z\r\n",
    b"Content-Length: 1\r\n",
    b"Content-Length: +1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\tidentity\r\n",
    b"Connection: host\r\n",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
    b"1;\n\r\n",
    b"HTTP/1.0",
    b"@",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b", ",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn input(rng: &mut fastrand::Rng) -> Vec<u8> {
    if rng.u8(..) < 16 {
        return (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
    }
    let mut bytes = SEEDS[rng.usize(..SEEDS.len())].to_vec();
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..4) {
            0 => drop(bytes.splice(at..at, TOKENS[rng.usize(..TOKENS.len())].iter().copied())),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => drop(bytes.drain(at..(at + rng.usize(..8)).min(bytes.len()))),
            _ => {
                let other = SEEDS[rng.usize(..SEEDS.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.usize(..other.len())..]);
            }
        }
    }
    bytes
}

fn drive(rounds: u64, target: fn(&[u8])) {
    let seed = setting("EASTWAY_FUZZ_SEED", 0x0ea5_7a1e);
    let mut rng = fastrand::Rng::with_seed(seed);
    SEEDS.iter().for_each(|bytes| target(bytes));
    for round in 0..setting("EASTWAY_FUZZ_ROUNDS", rounds) {
        let bytes = input(&mut rng);
        let shown = bytes.escape_ascii().to_string();
        let result = std::panic::catch_unwind(|| target(&bytes));
        assert!(result.is_ok(), "EASTWAY_FUZZ_SEED={seed}, round {round}: {shown}");
    }
}

#[test]
fn request_heads() {
    drive(40_000, request_head);
}

#[test]
fn response_heads() {
    drive(20_000, response_head);
}

#[test]
fn exchanges() {
    drive(3_000, exchange);
}

#[test]
fn requests_both_ways() {
    drive(3_000, both_ways);
}

#[test]
fn responses_both_ways() {
    drive(3_000, both_ways_back);
}

#[test]
#[should_panic(expected = "one length")]
fn the_judge_of_what_was_forwarded_is_not_blind() {
    assert_forwarded(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn requests_do_reach_upstreams_in_an_exchange() {
    let forwarded = |bytes: &[u8]| -> Vec<String> {
        let received = ways::run(Way::Ours, bytes, ways::OK, false).upstream;
        received.into_iter().map(|bytes| String::from_utf8(bytes).expect("ASCII")).collect()
    };
    assert_eq!(forwarded(SEEDS[0]), ["GET / HTTP/1.1\r\nhost: a.b\r\n\r\n"]);
    let two = forwarded(SEEDS[1]);
    assert!(two.len() == 2 && two[0].ends_with("body") && two[1].contains("host: c\r\n"), "{two:?}");
    let chunked = forwarded(SEEDS[2]);
    assert!(chunked.len() == 1 && chunked[0].ends_with("3\r\nabc\r\n0\r\nx: y\r\n\r\n"), "{chunked:?}");
    assert_eq!(forwarded(SEEDS[3]), [""; 0], "two lengths");
}
