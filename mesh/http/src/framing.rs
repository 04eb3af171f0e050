//! The strict judge of HTTP framing: where a message ends, whom it is for, and what must not be passed on.
//!
//! Everything that two parsers could read differently is decided here, once: lengths, `Host`, targets, hop-by-hop
//! fields. [`judge`] and [`judge_response`] are pure and read a head from any parser; what they let through gets the one form
//! that the rest of the program sees ([`RequestHead`](crate::RequestHead), [`ResponseHead`](crate::ResponseHead)). There is no
//! I/O here.

mod authority;
mod forwards;
mod headers;
mod parse;
mod request;
mod response;

pub use forwards::{Forwards, count_forwards};
pub use headers::Headers;
pub use parse::{ParsedRequest, Refused, TargetByte, parse_request};
pub use request::{Length, RequestVerdict, Target, admit_request, judge, judge_target};
pub(crate) use response::parse_response;
pub use response::{Asked, ParsedResponse, ResponseLength, ResponseVerdict, admit_response, judge_response};

use eastway_core::head::HttpVersion;
use http::header::HeaderName;

use crate::names::{is_any, is_hop_by_hop};

/// What a `Connection` header must not name: without it the message would mean something else to the next hop.
const NEVER_NOMINATED: [&str; 3] = ["host", "content-length", "content-encoding"];

/// The size of an HTTP/2 request's head, by the measure of RFC 9113, section 10.5.1.
pub fn head_size(parts: &http::request::Parts) -> usize {
    let field = |name: &HeaderName, value: &http::HeaderValue| name.as_str().len() + value.len() + 32;
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    // Four pseudo headers, of which `:scheme` and `:method` are short.
    let pseudo = 4 * 32 + 33 + authority + target + parts.method.as_str().len();
    parts.headers.iter().map(|(name, value)| field(name, value)).sum::<usize>() + pseudo
}

/// The tokens of a list, empty ones skipped.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether this token of `Connection` names a field that is not stripped anyway.
fn is_nominated(token: &[u8]) -> bool {
    !is_hop_by_hop(token) && !is_any(token, &["close", "te"])
}

fn may_be_nominated(name: &[u8]) -> bool {
    !is_any(name, &NEVER_NOMINATED)
}

/// Whether a field of this name goes on, in its place: what concerns one connection only does not, nor what is said apart.
fn goes_on(name: &[u8], headers: Headers<'_>, nominates: bool) -> bool {
    let apart = matches!(name.len(), 2 | 14) && is_any(name, &["te", "content-length"]);
    let nominated = || headers.all("connection").flat_map(tokens).any(|token| token.eq_ignore_ascii_case(name));
    !(apart || is_hop_by_hop(name) || nominates && nominated())
}

/// Whether an HTTP/1 connection goes on after a message with these fields (RFC 9112, section 9.3).
fn persistent(version: HttpVersion, connection: headers::Connection) -> bool {
    !connection.close && (version >= HttpVersion::Http11 || connection.keep_alive)
}

#[cfg(test)]
mod tests;
