//! The smoke test of the fuzz targets: seeded random bytes, and mutations of frames and heads that are right.
//!
//! `EASTWAY_FUZZ_SEED` repeats a run, `EASTWAY_FUZZ_ROUNDS` makes it longer.

use super::*;
use crate::frame::{END, Kind, OPAQUE, put_goodbye, put_number, put_ping};

fn head_seeds() -> Vec<Vec<u8>> {
    let request = |length, upgrade| RequestHead {
        version: HttpVersion::Http2,
        method: "PURGE",
        authority: "payments.mesh:80",
        target: "/a?b",
        length,
        upgrade,
        fields: [("accept", "*/*"), ("x-own", "value"), ("te", "trailers"), ("cookie", "a=b")],
    };
    let mut seeds = vec![Vec::new(); 5];
    encode_request(request(Some(5000), None), MAX_HEAD, &mut seeds[0]).expect("a head");
    encode_response(answer(103), MAX_HEAD, &mut seeds[1]).expect("a head");
    encode_opaque(OpaqueHead { authority: "db:1", fields: [("x", "y")] }, MAX_HEAD, &mut seeds[2]).expect("a head");
    encode_trailers([("grpc-status", "0"), ("x-sum", "7")], MAX_HEAD, &mut seeds[3]).expect("trailers");
    encode_request(request(None, Some("websocket")), MAX_HEAD, &mut seeds[4]).expect("a head");
    seeds
}

/// A proper frame of each kind.
fn frames() -> Vec<Vec<u8>> {
    let heads = head_seeds();
    let frame = |kind, flags, stream, payload: &[u8]| {
        [&Header::new(kind, flags, stream, payload.len() as u16).bytes(), payload].concat()
    };
    let mut frames = vec![
        frame(Kind::Open, 0, 1, &heads[0]),
        frame(Kind::Open, END, 1, &heads[0]),
        frame(Kind::Open, 0, 1, &heads[4]),
        frame(Kind::Open, OPAQUE, 2, &heads[2]),
        frame(Kind::Interim, 0, 1, &heads[1]),
        frame(Kind::Response, 0, 1, &[0, 0, 200, 0x85]),
        frame(Kind::Data, 0, 1, &[5; 3000]),
        frame(Kind::Data, END, 1, &[5; 2000]),
        frame(Kind::Trailers, 0, 1, &heads[3]),
        frame(Kind::Ignorable, 9, 7, b"later"),
    ];
    let mut small = Vec::new();
    put_number(&mut small, Kind::Window, 0, 1, 4096);
    put_number(&mut small, Kind::Reset, 1, 1, 20);
    frames.push(small);
    let mut end = Vec::new();
    put_ping(&mut end, Kind::Ping, [1; 8]);
    put_number(&mut end, Kind::Drain, 0, 0, 3);
    put_goodbye(&mut end, 1, 2, "why");
    frames.push(end);
    frames
}

/// A conversation of random frames after the byte that says how to read it.
fn conversation(rng: &mut fastrand::Rng) -> Vec<u8> {
    let frames = frames();
    let mut bytes = vec![rng.u8(..)];
    for stream in 1..=rng.u32(1..12) {
        let mut frame = frames[rng.usize(..frames.len())].clone();
        // Most belong together.
        if rng.u8(..4) > 0 && frame[7] == 1 {
            frame[7] = stream.div_ceil(2) as u8;
        }
        bytes.extend_from_slice(&frame);
    }
    bytes
}

fn mutate(rng: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    if rng.u8(..) < 16 {
        return (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
    }
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..4) {
            0 => bytes.insert(at, rng.u8(..)),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            _ => drop(bytes.drain(at..(at + rng.usize(..8)).min(bytes.len()))),
        }
    }
    bytes
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn drive(rounds: u64, target: fn(&[u8]), mut input: impl FnMut(&mut fastrand::Rng) -> Vec<u8>) {
    let seed = setting("EASTWAY_FUZZ_SEED", 0x0ea5_7a1e);
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..setting("EASTWAY_FUZZ_ROUNDS", rounds) {
        let bytes = input(&mut rng);
        let shown = bytes.escape_ascii().to_string();
        let result = std::panic::catch_unwind(|| target(&bytes));
        assert!(result.is_ok(), "EASTWAY_FUZZ_SEED={seed}, round {round}: {shown}");
    }
}

#[test]
fn heads_are_read() {
    let seeds = head_seeds();
    seeds.iter().for_each(|bytes| heads(bytes));
    drive(50_000, heads, |rng| {
        let bytes = seeds[rng.usize(..seeds.len())].clone();
        mutate(rng, bytes)
    });
}

#[test]
fn connections_are_read() {
    drive(10_000, connection, |rng| {
        let bytes = conversation(rng);
        if rng.bool() { mutate(rng, bytes) } else { bytes }
    });
}

#[test]
#[should_panic(expected = "only frames are written")]
fn the_judge_of_what_was_written_is_not_blind() {
    assert_frames(&[0, 0, 0x7f, 0, 0, 0, 0, 0]);
}
