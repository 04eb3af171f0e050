//! Writing heads in HTTP/1.1.

use eastway_core::head::HttpVersion;
use http::StatusCode;
use http_body::Body as _;

use super::date;
use super::encode::Encoder;
use super::text::{decimal, write_field};
use crate::body::Body;
use crate::framing::Length;
use crate::message::{FieldList, RequestHead, ResponseHead};

/// Writes the head of a request whose body has the `length`.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, length: Length) -> Encoder {
    let target = if head.is_connect() { head.authority() } else { head.target() };
    for part in [head.method(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_field(out, b"host", head.authority().as_bytes());
    write_fields(out, &head.fields);
    // Nobody is asked to wait for a body that does not come.
    if head.expects_continue && !matches!(length, Length::Unstated | Length::Known(0)) {
        write_field(out, b"expect", b"100-continue");
    }
    match length {
        Length::Known(length) => write_length(out, length),
        Length::Chunked => write_field(out, b"transfer-encoding", b"chunked"),
        Length::Unstated => {}
    }
    if let Some(protocol) = head.upgrade() {
        write_field(out, b"connection", b"upgrade");
        write_field(out, b"upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
    Encoder::of_request(length)
}

/// Writes fields. HTTP/2 callers may split their cookies over several; HTTP/1 knows one (RFC 9113, section 8.2.3).
fn write_fields(out: &mut Vec<u8>, fields: &FieldList) {
    let is_cookie = |name: &[u8]| name.len() == 6 && name.eq_ignore_ascii_case(b"cookie");
    let mut cookie = false;
    for (name, value) in fields.iter() {
        if !is_cookie(name) {
            write_field(out, name, value);
        } else if !std::mem::replace(&mut cookie, true) {
            let crumbs: Vec<_> = fields.iter().filter(|(name, _)| is_cookie(name)).map(|(_, value)| value).collect();
            write_field(out, name, &crumbs.join(&b"; "[..]));
        }
    }
}

/// To whom a response goes.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The version that the caller speaks.
    pub version: HttpVersion,
    /// Whether the caller asked by HEAD.
    pub head: bool,
    /// Whether the caller asked by CONNECT.
    pub connect: bool,
    /// Whether another request may follow.
    pub persistent: bool,
}

/// How a response was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How its body is to be written.
    pub encoder: Encoder,
    /// Whether the caller may send another request after it.
    pub persistent: bool,
}

/// Writes the head of a response with this body for the caller.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, body: &Body, caller: Caller) -> Written {
    status_line(out, head.status);
    for (name, value) in head.fields.iter() {
        write_field(out, name, value);
    }
    if head.fields.get("date").is_none() {
        write_field(out, b"date", &date::now());
    }
    let never = matches!(head.status, 100..=199 | 204) || (caller.connect && head.is_success());
    // What a response to HEAD, or a 304, states is the length of a body that does not come.
    let bodiless = never || head.status == 304 || caller.head;
    let empty = body.is_end_stream();
    let known = if empty { (!bodiless).then_some(0) } else { body.size_hint().exact() };
    let length = head.length.or(known).filter(|_| !never);
    if let Some(length) = length {
        write_length(out, length);
    }
    let encoder = match length {
        _ if never => Encoder::Ended,
        _ if bodiless => Encoder::Discard,
        Some(0) => Encoder::Ended,
        Some(length) => Encoder::Length(length),
        None if caller.version < HttpVersion::Http11 => Encoder::UntilClose,
        None => {
            write_field(out, b"transfer-encoding", b"chunked");
            Encoder::Chunked(0)
        }
    };
    let persistent = caller.persistent && !head.closes && encoder != Encoder::UntilClose;
    match (head.upgrade().filter(|_| head.is_switch()), persistent) {
        (Some(protocol), _) => {
            write_field(out, b"connection", b"upgrade");
            write_field(out, b"upgrade", protocol);
        }
        (None, false) if !never || head.closes => write_field(out, b"connection", b"close"),
        // The version does not say it.
        (None, true) if caller.version < HttpVersion::Http11 => write_field(out, b"connection", b"keep-alive"),
        (None, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    Written { encoder, persistent }
}

/// Writes an interim response.
pub(super) fn write_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status);
    for (name, value) in head.fields.iter() {
        write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(phrase.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}
