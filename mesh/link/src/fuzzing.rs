//! The fuzzer's entry points: each takes any bytes and panics if a promise of this crate is broken.
//!
//! The targets in `fuzz/` call them with what the fuzzer finds, the tests with seeded random and mutated inputs. The program
//! itself never calls them.

use bytes::{Buf, Bytes};
use eastway_core::{Reason, Timestamp};

use crate::frame::{HEADER_BYTES, Header};
use crate::head::{Fields, decode_trailers, encode_opaque, encode_request, encode_response, encode_trailers};
use crate::{
    Connection, Event, HttpVersion, LinkOptions, OpaqueHead, Outgoing, RequestHead, ResponseHead, Side, StreamId,
};

/// The largest head that the entry points read.
const MAX_HEAD: usize = 16_384;

/// What a head may keep of a connection's memory beside its windows: heads, answers, and the beginning of a frame.
const SLACK: usize = 512 * 1024;

/// Reads the bytes as each kind of head. What is accepted has one meaning and can be sent on.
pub fn heads(bytes: &[u8]) {
    if let Ok(head) = RequestHead::decode(bytes, MAX_HEAD) {
        assert_line(head.method.as_bytes());
        assert_line(head.target.as_bytes());
        assert_line(head.authority.as_bytes());
        assert!(!head.method.is_empty() && !head.authority.is_empty());
        assert_fields(head.fields, bytes);
        let mut again = Vec::new();
        assert_eq!(encode_request(head, MAX_HEAD, &mut again), Ok(()), "what was read can be sent on");
        assert_eq!(RequestHead::decode(&again, MAX_HEAD), Ok(head), "and says the same");
    }
    if let Ok(head) = ResponseHead::decode(bytes, MAX_HEAD) {
        assert!((100..=999).contains(&head.status));
        assert_fields(head.fields, bytes);
        let mut again = Vec::new();
        assert_eq!(encode_response(head, MAX_HEAD, &mut again), Ok(()), "what was read can be sent on");
        assert_eq!(ResponseHead::decode(&again, MAX_HEAD), Ok(head), "and says the same");
    }
    if let Ok(head) = OpaqueHead::decode(bytes, MAX_HEAD) {
        assert_line(head.authority.as_bytes());
        assert_fields(head.fields, bytes);
        let mut again = Vec::new();
        assert_eq!(encode_opaque(head, MAX_HEAD, &mut again), Ok(()), "what was read can be sent on");
    }
    if let Ok(fields) = decode_trailers(bytes, MAX_HEAD) {
        assert_fields(fields, bytes);
        let mut again = Vec::new();
        assert_eq!(encode_trailers(fields, MAX_HEAD, &mut again), Ok(()), "what was read can be sent on");
    }
}

fn assert_line(text: &[u8]) {
    assert!(!text.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)), "{:?}", text.escape_ascii().to_string());
}

fn assert_fields(fields: Fields<'_>, bytes: &[u8]) {
    let mut size = 0;
    for (name, value) in fields {
        size += name.len() + value.len();
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?}");
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
        assert!(!["host", "content-length", "transfer-encoding", "connection", "upgrade"].contains(&name));
        assert!(name != "te" || value.eq_ignore_ascii_case(b"trailers"));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
    }
    assert!(size <= MAX_HEAD, "{size} bytes from {}", bytes.len());
}

/// Reads the bytes as what a peer sends, cut into pieces: the first byte says to which side, with or without a proper HELLO before
/// it, and how it is cut. Whatever comes, memory stays bounded, and what is answered is well-formed.
pub fn connection(bytes: &[u8]) {
    let Some((shape, mut rest)) = bytes.split_first() else { return };
    let now = Timestamp::from_millis(1);
    let options = LinkOptions { stream_window: 65_536, connection_window: 262_144, ..LinkOptions::default() };
    let side = if shape & 1 == 0 { Side::Accepting } else { Side::Connecting };
    let mut connection = Connection::new(side, &options, now);
    open_some(&mut connection, now);
    let mut out = Outgoing::new();
    if shape & 2 == 0 {
        let mut hello = Vec::new();
        options.hello().put(&mut hello);
        assert_eq!(connection.receive(&hello, now), Ok(()));
    }
    let piece = usize::from(shape >> 2).max(1).pow(2);
    while !rest.is_empty() {
        let (now_read, later) = rest.split_at(piece.min(rest.len()));
        rest = later;
        let result = connection.receive(now_read, now);
        assert_eq!(result.as_ref().err(), connection.ended());
        serve(&mut connection, now);
        let buffered = connection.stats().buffered;
        assert!(buffered <= 262_144 + SLACK, "{buffered} bytes are kept");
        connection.transmit(now, &mut out, SLACK);
        assert_frames(&out.copy_to_bytes(out.remaining()));
    }
    connection.lost();
    assert!(connection.ended().is_some() && connection.stats().streams == 0);
}

fn open_some(connection: &mut Connection, now: Timestamp) {
    let head = RequestHead {
        version: HttpVersion::Http11,
        method: "POST",
        authority: "a",
        target: "/",
        length: None,
        upgrade: None,
        fields: [("accept", "*/*")],
    };
    for end in [true, false, true] {
        // Only one of the sides may.
        let _ = connection.open_request(head, end, now);
    }
}

/// Answers what comes, as an application would. Calls that come too late are refused, which is no matter here.
fn serve(connection: &mut Connection, now: Timestamp) {
    while let Some(event) = connection.poll_event() {
        match event {
            Event::Request { stream, head, .. } => {
                assert!(!head.view().authority.is_empty());
                let _ = connection.send_response(stream, answer(200), false);
                let _ = connection.send_data(stream, &mut Bytes::from_static(&[7; 5000]), true, now);
                connection.recycle(head);
            }
            Event::Opaque { stream, .. } => connection.refuse(stream, Reason::NoReadyEndpoint),
            Event::Readable(stream) => read(connection, stream),
            Event::Finished { stream, .. } => {
                let _ = connection.finish(stream);
            }
            _ => {}
        }
    }
}

fn read(connection: &mut Connection, stream: StreamId) {
    loop {
        let length = connection.read(stream).len();
        // Some applications are slow.
        if !stream.number().is_multiple_of(3) {
            connection.consume(stream, length);
        }
        if length == 0 {
            return;
        }
    }
}

fn answer(status: u16) -> ResponseHead<'static, [(&'static str, &'static str); 1]> {
    ResponseHead { status, length: None, upgrade: None, fields: [("content-type", "text/plain")] }
}

/// Reads what a connection writes as strictly as a peer would.
fn assert_frames(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (header, after) = rest.split_first_chunk::<HEADER_BYTES>().expect("frames are written whole");
        let header = Header::read(*header, usize::from(u16::MAX)).expect("only frames are written");
        rest = after.get(usize::from(header.length)..).expect("frames are written whole");
    }
}

#[cfg(test)]
mod tests;
