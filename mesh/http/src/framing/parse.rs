//! Judging raw heads, for a forwarder that does not use hyper, and for the fuzzer.

use eastway_core::Reason;
use http::Version;

use super::request::{Target, Verdict, judge};
use crate::head::{Head, Headers};

/// A request head, judged, and borrowed from the bytes that it was read from.
#[derive(Debug)]
pub struct RawRequest<'a> {
    /// The head as policy sees it.
    pub head: Head<'a>,
    /// The judgement.
    pub verdict: Verdict<'a>,
    /// How many bytes the head takes; what follows is body.
    pub length: usize,
}

/// Reads and judges an HTTP/1 request head; `None` while it is incomplete.
///
/// Stricter than hyper where bytes are passed on and not written anew: every line must end in CRLF.
///
/// # Errors
/// The reason to refuse it with: [`Reason::HeaderTooLarge`] beyond `limit` bytes or the space in `fields`.
pub fn parse_request<'a>(
    bytes: &'a [u8],
    fields: &'a mut [httparse::Header<'a>],
    limit: usize,
) -> Result<Option<RawRequest<'a>>, Reason> {
    let mut parsed = httparse::Request::new(fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= limit => length,
        Ok(httparse::Status::Partial) if bytes.len() <= limit => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeaderTooLarge),
        Err(_) => return Err(Reason::MalformedRequest),
    };
    if has_bare_line_feed(&bytes[..length]) {
        return Err(Reason::MalformedRequest);
    }
    let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reason::MalformedRequest);
    };
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let target = target(method, path).ok_or(Reason::MalformedRequest)?;
    let headers: &'a [httparse::Header<'a>] = parsed.headers;
    let verdict = judge(version, method, target, Headers::Raw(headers))?;
    let upgrade = verdict.upgrade.is_some();
    let head = Head::raw(method, target.path.unwrap_or(""), verdict.authority, version, upgrade, headers);
    Ok(Some(RawRequest { head, verdict, length }))
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    // Empty lines before the request line are skipped by every reader alike.
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

/// Origin form, absolute form, authority form (CONNECT only) or `*`.
fn target<'a>(method: &str, text: &'a str) -> Option<Target<'a>> {
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return None;
    }
    if method == "CONNECT" {
        return Some(Target { authority: Some(text), ..Target::default() });
    }
    if text.starts_with('/') || text == "*" {
        return Some(Target { path: Some(text), ..Target::default() });
    }
    let (scheme, rest) = text.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A query without a path would have to be rewritten to be forwarded.
    let path = if path.is_empty() { "/" } else { path };
    Some(Target { scheme: Some(scheme), authority: Some(authority), path: Some(path) })
}
