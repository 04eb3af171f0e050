//! Requests: the judgement, and the form that admitted ones get.

use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use http::uri::{Authority, PathAndQuery};
use http::{Version, request};

use super::headers::{Found, Once};
use super::{Headers, authority, goes_on, persistent};
use crate::message::RequestHead;

/// The target of a request line, or of HTTP/2's pseudo headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// The scheme, if the target is in absolute form.
    pub scheme: Option<&'a str>,
    /// The authority, if the target has one.
    pub authority: Option<&'a str>,
    /// Path and query; `None` for CONNECT.
    pub path: Option<&'a str>,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By `Content-Length`.
    Known(u64),
    /// By chunks (HTTP/1.1).
    Chunked,
    /// By the protocol itself: no body in HTTP/1, the stream's end in HTTP/2.
    Unstated,
}

/// What [`judge`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVerdict<'a> {
    /// Whom the request is for: the target's authority if it has one, else `Host`.
    pub authority: &'a str,
    /// How its body is delimited.
    pub length: Length,
    /// The protocol that the caller wants to change to, if it asked in the proper form.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the caller takes trailers (`TE: trailers`).
    pub trailers: bool,
    /// Whether the caller waits for 100 (Continue). HTTP/1.0 says so in vain.
    pub expects_continue: bool,
    /// Whether the connection is to carry another request after this one (HTTP/1).
    pub persistent: bool,
    /// Whether `Connection` names fields that no other hop may see.
    nominates: bool,
}

/// Judges a request's head.
///
/// # Errors
/// The reason to refuse it with.
pub fn judge<'a>(
    version: HttpVersion,
    method: &str,
    target: Target<'a>,
    headers: Headers<'a>,
) -> Result<RequestVerdict<'a>, Reason> {
    let found = Found::among(headers);
    if found.connection.forbidden {
        return Err(Reason::MalformedRequest);
    }
    let length = length(version, &found)?;
    // What is asked for with TLS must not be served without (RFC 9110, section 7.4). Between sidecars HTTP/2 says `https`.
    if version < HttpVersion::Http2 && target.scheme == Some("https") {
        return Err(Reason::PlainHttpOnly);
    }
    check_target(method, target, length)?;
    Ok(RequestVerdict {
        authority: whom(version, target, found.host)?,
        length,
        upgrade: upgrade(version, method, &found),
        trailers: found.trailers,
        expects_continue: found.expect.is_some_and(asks_to_continue) && version > HttpVersion::Http10,
        persistent: persistent(version, found.connection),
        nominates: found.connection.nominates,
    })
}

/// Judges the target of a request for `authority` whose fields frame nothing, and says whom it is for.
///
/// # Errors
/// The reason to refuse it with.
pub fn judge_target<'a>(method: &str, path: Option<&'a str>, authority: &'a str) -> Result<&'a str, Reason> {
    let target = Target { scheme: None, authority: Some(authority), path };
    check_target(method, target, Length::Unstated)?;
    whom(HttpVersion::Http2, target, Once::default())
}

fn asks_to_continue(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"100-continue")
}

/// Exactly one way to say the length, and one value.
fn length(version: HttpVersion, found: &Found<'_>) -> Result<Length, Reason> {
    if found.length.again {
        return Err(Reason::ConflictingLength);
    }
    match (found.length.first, found.coding.first) {
        (Some(_), Some(_)) => Err(Reason::ConflictingLength),
        (None, None) => Ok(Length::Unstated),
        (Some(digits), None) => parse_length(digits).map(Length::Known).ok_or(Reason::ConflictingLength),
        (None, Some(coding)) => {
            let sole = !found.coding.again && coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if sole && version == HttpVersion::Http11 { Ok(Length::Chunked) } else { Err(Reason::MalformedRequest) }
        }
    }
}

pub(super) fn parse_length(digits: &[u8]) -> Option<u64> {
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| valid)?.parse().ok()
}

fn check_target(method: &str, target: Target<'_>, length: Length) -> Result<(), Reason> {
    if method == "CONNECT" {
        let bare = target.path.is_none() && target.scheme.is_none() && target.authority.is_some();
        // A tunnel's bytes are not a body: with a length, two readers could disagree where they start.
        let no_body = matches!(length, Length::Unstated | Length::Known(0));
        return if bare && no_body { Ok(()) } else { Err(Reason::MalformedRequest) };
    }
    let scheme = matches!(target.scheme, None | Some("http" | "https"));
    // An absolute target may go on with its query (RFC 9112, section 3.2.2).
    let bare_query = |path: &str| path.starts_with('?') && target.scheme.is_some();
    let asterisk = |path: &str| path == "*" && method == "OPTIONS";
    let path = target.path.is_some_and(|path| path.starts_with('/') || bare_query(path) || asterisk(path));
    if scheme && path { Ok(()) } else { Err(Reason::MalformedRequest) }
}

fn whom<'a>(version: HttpVersion, target: Target<'a>, host: Once<'a>) -> Result<&'a str, Reason> {
    if host.again {
        return Err(Reason::BadHost);
    }
    let host = match host.first {
        Some(host) => Some(authority::parse(host).ok_or(Reason::BadHost)?),
        // HTTP/1.1 demands it even beside an absolute target.
        None if version == HttpVersion::Http11 => return Err(Reason::BadHost),
        None => None,
    };
    let Some(target_authority) = target.authority else { return host.ok_or(Reason::BadHost) };
    let stated = authority::parse(target_authority.as_bytes()).ok_or(Reason::BadHost)?;
    if target.path.is_none() && !authority::has_port(stated) {
        return Err(Reason::BadHost);
    }
    let differs = host.is_some_and(|host| !authority::same(host, stated, target.scheme));
    // In HTTP/1 the absolute target replaces Host; HTTP/2 forbids the two to differ.
    if differs && version >= HttpVersion::Http2 { Err(Reason::BadHost) } else { Ok(stated) }
}

fn upgrade<'a>(version: HttpVersion, method: &str, found: &Found<'a>) -> Option<&'a [u8]> {
    if version != HttpVersion::Http11 || method == "CONNECT" {
        return None;
    }
    let protocol = found.upgrade.filter(|_| found.connection.upgrade)?;
    // HTTP/2 without TLS starts by prior knowledge here, never by an upgrade.
    let h2c = super::tokens(protocol).any(|token| token.eq_ignore_ascii_case(b"h2c"));
    (!h2c).then_some(protocol)
}

impl RequestVerdict<'_> {
    /// The head in the form that the rest of the program sees, with `target` as its path and query: without what concerns one
    /// connection only, and with the rest of what frames it apart.
    pub(super) fn head(&self, version: HttpVersion, method: &str, target: &str, headers: Headers<'_>) -> RequestHead {
        let room = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut head = RequestHead::with_room(version, method, target, (self.authority, self.upgrade), room);
        if let Length::Known(length) = self.length {
            head.length = Some(length);
        }
        head.expects_continue = self.expects_continue;
        for (name, value) in headers.iter() {
            let apart = match name.len() {
                4 => name.eq_ignore_ascii_case(b"host"),
                // Other expectations are for the application to refuse.
                6 => name.eq_ignore_ascii_case(b"expect") && asks_to_continue(value),
                _ => false,
            };
            if !apart && goes_on(name, headers, self.nominates) {
                head.fields.push(name, value);
            }
        }
        if self.trailers {
            head.fields.push(b"te", b"trailers");
        }
        head
    }
}

/// Judges a request that hyper read.
///
/// # Errors
/// The reason to refuse it with.
pub fn admit_request(parts: &request::Parts) -> Result<RequestHead, Reason> {
    let (uri, version) = (&parts.uri, spoken(parts.version));
    let target = Target {
        scheme: uri.scheme_str(),
        authority: uri.authority().map(Authority::as_str),
        path: uri.path_and_query().map(PathAndQuery::as_str),
    };
    let (method, headers) = (parts.method.as_str(), Headers::Map(&parts.headers));
    let verdict = judge(version, method, target, headers)?;
    let path = target.path.unwrap_or_default();
    if path.starts_with('?') {
        return Ok(verdict.head(version, method, &format!("/{path}"), headers));
    }
    Ok(verdict.head(version, method, path, headers))
}

fn spoken(version: Version) -> HttpVersion {
    match version {
        Version::HTTP_2 => HttpVersion::Http2,
        Version::HTTP_10 => HttpVersion::Http10,
        _ => HttpVersion::Http11,
    }
}
