//! The strict judge of HTTP framing: where a message ends, whom it is for, and what must not be passed on.
//!
//! Everything that two parsers could read differently is decided here, once: lengths, `Host`, targets, hop-by-hop
//! fields. [`judge`] is pure and reads a head from any parser; [`admit_request`] and [`admit_response`] apply its verdict
//! to what hyper parsed. There is no I/O here.
//!
//! What hyper hides from this module is safe by construction, because hyper re-serialises every head and body: a request
//! with both lengths reaches us with `Transfer-Encoding` alone and on a connection that closes after it, and bare line feeds
//! reach us as the lines that they end. Both leave with CRLF and one length. hyper itself refuses folded lines, white space
//! before colons, differing or signed lengths, and codings other than a final `chunked`.

mod authority;
mod forwards;
mod parse;
mod request;
mod response;

pub use forwards::{Forwards, count_forwards};
pub use parse::{RawRequest, Refused, TargetByte, parse_request};
pub use request::{ExpectsContinue, Length, Target, Verdict, admit_request, asks_to_continue, judge, seal_request};
pub use response::{Asked, ResponseLength, ResponseVerdict, admit_response, judge_response, seal_response};

use eastway_core::head::{MESH_PREFIX, folds_onto};
use http::Version;
use http::header::{self, HeaderMap, HeaderName};

use crate::head::Headers;

/// The fields that concern one connection only, whether or not `Connection` names them. `te` is treated apart.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];

/// What a `Connection` header must not name: without it the message would mean something else to the next hop.
const NEVER_NOMINATED: [&str; 3] = ["host", "content-length", "content-encoding"];

/// Whether `name` (any case) is stripped at every hop.
pub fn is_hop_by_hop(name: &str) -> bool {
    // Looked at for each field of each head: most are ruled out by their length.
    matches!(name.len(), 7 | 10 | 14 | 16..=19) && HOP_BY_HOP.iter().any(|field| field.as_str().eq_ignore_ascii_case(name))
}

/// Removes from trailers what would change how the message is framed or routed, and what only nodes of the mesh say:
/// they say it in heads, so that in trailers it is always somebody else's.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| is_dropped_trailer(name.as_str())).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Whether a trailer of this name (any case) would change how the message is framed or whom it is for: a reader that
/// believes it sees another message, so the message is refused where that is still possible.
pub fn is_forbidden_trailer(name: &str) -> bool {
    ["content-length", "transfer-encoding", "host"].iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

/// Whether a trailer of this name (any case) goes no further: what concerns one hop only, and what only nodes of the mesh
/// say in heads.
pub fn is_dropped_trailer(name: &str) -> bool {
    let hop = is_hop_by_hop(name) || name.eq_ignore_ascii_case("te") || name.eq_ignore_ascii_case("trailer");
    hop || is_forbidden_trailer(name) || folds_onto(name, MESH_PREFIX)
}

fn strip(headers: &mut HeaderMap) {
    // Most heads have none of them, and one look at all names costs less than a search for each.
    if headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// The size of an HTTP/2 request's head, by the measure of RFC 9113, section 10.5.1.
pub fn head_size(parts: &http::request::Parts) -> usize {
    let field = |name: &HeaderName, value: &header::HeaderValue| name.as_str().len() + value.len() + 32;
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    // Four pseudo headers, of which `:scheme` and `:method` are short.
    let pseudo = 4 * 32 + 33 + authority + target + parts.method.as_str().len();
    parts.headers.iter().map(|(name, value)| field(name, value)).sum::<usize>() + pseudo
}

/// Whether a head that hyper refused states its length more than once: as several fields, or as a list.
pub fn states_lengths(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).take_while(|line| !line.is_empty());
    let lengths = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(b"content-length").then_some(value)
    });
    lengths.map(|value| 1 + value.iter().filter(|byte| **byte == b',').count()).sum::<usize>() > 1
}

/// The tokens of list-valued fields, empty ones skipped.
fn tokens<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// The fields that `Connection` nominates, other than those stripped anyway.
pub(crate) fn nominated<'a>(connection: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    tokens(connection).filter(|token| {
        let known = token.eq_ignore_ascii_case(b"close") || token.eq_ignore_ascii_case(b"te");
        !known && !std::str::from_utf8(token).is_ok_and(is_hop_by_hop)
    })
}

/// Whether an HTTP/1 connection goes on after a message with these fields (RFC 9112, section 9.3).
fn persistent(version: Version, headers: Headers<'_>) -> bool {
    let says = |word: &str| tokens(headers.all("connection")).any(|token| token.eq_ignore_ascii_case(word.as_bytes()));
    !says("close") && (version >= Version::HTTP_11 || says("keep-alive"))
}

fn may_be_nominated(name: &[u8]) -> bool {
    !NEVER_NOMINATED.iter().any(|fixed| name.eq_ignore_ascii_case(fixed.as_bytes()))
}

#[cfg(test)]
mod tests;
