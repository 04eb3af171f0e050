//! Reading and judging the heads of HTTP/1 requests.

use std::fmt;
use std::mem::MaybeUninit;

use eastway_core::Reason;
use eastway_core::head::HttpVersion;

use super::Headers;
use super::request::{Length, Target, judge};
use crate::limits::{HeadLimits, MAX_FIELDS};
use crate::message::RequestHead;

/// A request's head that was read and judged.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    /// The head.
    pub head: RequestHead,
    /// How its body is delimited.
    pub body: Length,
    /// Whether the connection is to carry another request after it.
    pub persistent: bool,
    /// How many bytes the head takes; what follows is body.
    pub size: usize,
}

/// Why a raw head is refused, and where, if one byte of the target is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason towards the caller.
    pub reason: Reason,
    /// The byte of the target that no request may have there.
    pub byte: Option<TargetByte>,
}

/// A byte of a request's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetByte {
    /// The byte itself.
    pub byte: u8,
    /// Its position in the target, from 0.
    pub at: usize,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, byte: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.meaning())?;
        match self.byte {
            Some(TargetByte { byte, at }) => write!(f, " The target has the byte 0x{byte:02x} at position {at}."),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// Reads and judges an HTTP/1 request head; `None` while it is incomplete.
///
/// Stricter than others where readers in front of this one may have seen another message: every line must end in CRLF.
///
/// # Errors
/// The reason to refuse it with: [`Reason::HeaderTooLarge`] beyond the limits.
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Result<Option<ParsedRequest>, Refused> {
    // Few heads have many fields, and a small array keeps the stack warm.
    let few = limits.fields.min(FEW);
    match parse_with::<FEW>(bytes, HeadLimits { fields: few, ..limits }) {
        Err(refused) if refused.reason == Reason::HeaderTooLarge && few < limits.fields => {
            parse_with::<MAX_FIELDS>(bytes, limits)
        }
        parsed => parsed,
    }
}

/// Fields for which the small array is enough.
const FEW: usize = 48;

fn parse_with<const N: usize>(bytes: &[u8], limits: HeadLimits) -> Result<Option<ParsedRequest>, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; N];
    let fields = &mut fields[..limits.fields.min(N)];
    let mut parsed = httparse::Request::new(&mut []);
    let size = match parsed.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(size)) if size <= limits.bytes => size,
        Ok(httparse::Status::Partial) if bytes.len() <= limits.bytes => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeaderTooLarge.into()),
        Err(_) => return Err(malformed(bytes)),
    };
    if has_bare_line_feed(&bytes[..size]) {
        return Err(Reason::MalformedRequest.into());
    }
    let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reason::MalformedRequest.into());
    };
    let version = if minor == 1 { HttpVersion::Http11 } else { HttpVersion::Http10 };
    let byte = bad_byte(path.as_bytes());
    let target = target(method, path).filter(|_| byte.is_none());
    let target = target.ok_or(Refused { reason: Reason::MalformedRequest, byte })?;
    let headers = Headers::Raw(parsed.headers);
    let verdict = judge(version, method, target, headers)?;
    let path = target.path.unwrap_or_default();
    let head = match path.starts_with('?') {
        true => verdict.head(version, method, &format!("/{path}"), headers),
        false => verdict.head(version, method, path, headers),
    };
    Ok(Some(ParsedRequest { head, body: verdict.length, persistent: verdict.persistent, size }))
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    // Empty lines before the request line are skipped by every reader alike.
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

/// The refusal of a head that is none. If a byte of its target is to blame, it is named.
fn malformed(bytes: &[u8]) -> Refused {
    let begun = bytes.trim_ascii_start();
    let line = begun.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let (_, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').map_or(line.len(), |space| space + 1));
    let end = rest.windows(6).rposition(|window| window == b" HTTP/").unwrap_or(rest.len());
    Refused { reason: Reason::MalformedRequest, byte: bad_byte(&rest[..end]) }
}

/// The first byte that a target must not have, because some reader takes it for something else: a space, also one beyond ASCII
/// (Python's servers split the request line at 0x85 and 0xa0), a control character, the start of a fragment, and in the
/// path a backslash, which is a slash to some. What RFC 3986 forbids beyond that (`{`, `}`, `|`, `"`, `^`, a backtick, `<`,
/// `>`, brackets) browsers and other clients send as it is, and it ends a target to nobody.
fn bad_byte(target: &[u8]) -> Option<TargetByte> {
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let at = target.iter().enumerate().position(|(at, byte)| is_bad(*byte, at < query))?;
    Some(TargetByte { byte: target[at], at })
}

/// Whether a target must not have the byte there; `in_path` says that no query began before it.
fn is_bad(byte: u8, in_path: bool) -> bool {
    match byte {
        b'#' => true,
        b'\\' => in_path,
        byte => !byte.is_ascii_graphic(),
    }
}

/// Origin form, absolute form, authority form (CONNECT only) or `*`.
fn target<'a>(method: &str, text: &'a str) -> Option<Target<'a>> {
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
    let path = if path.is_empty() { "/" } else { path };
    Some(Target { scheme: Some(scheme), authority: Some(authority), path: Some(path) })
}
