//! Requests: the judgement, and its application to what hyper parsed.

use eastway_core::Reason;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri, Version, request};

use super::{authority, may_be_nominated, nominated, persistent, strip, tokens};
use crate::head::{Headers, UpgradeTo};

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
pub struct Verdict<'a> {
    /// Whom the request is for: the target's authority if it has one, else `Host`.
    pub authority: &'a str,
    /// How its body is delimited.
    pub length: Length,
    /// The protocol that the caller wants to change to, if it asked in the proper form.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the caller takes trailers (`TE: trailers`).
    pub trailers: bool,
    /// Whether the caller waits for 100 (Continue).
    pub expects_continue: bool,
    /// Whether the connection is to carry another request after this one (HTTP/1).
    pub persistent: bool,
}

/// Judges a request's head.
///
/// # Errors
/// The reason to refuse it with.
pub fn judge<'a>(
    version: Version,
    method: &str,
    target: Target<'a>,
    headers: Headers<'a>,
) -> Result<Verdict<'a>, Reason> {
    let connection = || headers.all("connection");
    if nominated(connection()).any(|name| !may_be_nominated(name)) {
        return Err(Reason::MalformedRequest);
    }
    let length = length(version, headers)?;
    // What is asked for with TLS must not be served without (RFC 9110, section 7.4). Between sidecars HTTP/2 says `https`.
    if version < Version::HTTP_2 && target.scheme == Some("https") {
        return Err(Reason::PlainHttpOnly);
    }
    check_target(method, target, length)?;
    Ok(Verdict {
        authority: whom(version, target, headers)?,
        length,
        upgrade: upgrade(version, method, headers),
        trailers: tokens(headers.all("te")).any(|token| token.eq_ignore_ascii_case(b"trailers")),
        expects_continue: asks_to_continue(headers) && version == Version::HTTP_11,
        persistent: persistent(version, headers),
    })
}

/// Whether the head asks for 100 (Continue), which HTTP/1.0 does in vain.
pub fn asks_to_continue(headers: Headers<'_>) -> bool {
    headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Exactly one way to say the length, and one value.
fn length(version: Version, headers: Headers<'_>) -> Result<Length, Reason> {
    let mut lengths = headers.all("content-length");
    let stated = lengths.next();
    if lengths.next().is_some() {
        return Err(Reason::ConflictingLength);
    }
    let mut codings = headers.all("transfer-encoding");
    match (stated, codings.next()) {
        (Some(_), Some(_)) => Err(Reason::ConflictingLength),
        (None, None) => Ok(Length::Unstated),
        (Some(digits), None) => parse_length(digits).map(Length::Known).ok_or(Reason::ConflictingLength),
        (None, Some(coding)) => {
            let sole = codings.next().is_none() && coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if sole && version == Version::HTTP_11 { Ok(Length::Chunked) } else { Err(Reason::MalformedRequest) }
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

fn whom<'a>(version: Version, target: Target<'a>, headers: Headers<'a>) -> Result<&'a str, Reason> {
    let mut hosts = headers.all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Reason::BadHost);
    }
    let host = match host {
        Some(host) => Some(authority::parse(host).ok_or(Reason::BadHost)?),
        // HTTP/1.1 demands it even beside an absolute target.
        None if version == Version::HTTP_11 => return Err(Reason::BadHost),
        None => None,
    };
    let Some(target_authority) = target.authority else { return host.ok_or(Reason::BadHost) };
    let stated = authority::parse(target_authority.as_bytes()).ok_or(Reason::BadHost)?;
    if target.path.is_none() && !authority::has_port(stated) {
        return Err(Reason::BadHost);
    }
    let differs = host.is_some_and(|host| !authority::same(host, stated, target.scheme));
    // In HTTP/1 the absolute target replaces Host; HTTP/2 forbids the two to differ.
    if differs && version >= Version::HTTP_2 { Err(Reason::BadHost) } else { Ok(stated) }
}

fn upgrade<'a>(version: Version, method: &str, headers: Headers<'a>) -> Option<&'a [u8]> {
    if version != Version::HTTP_11 || method == "CONNECT" {
        return None;
    }
    let nominated = tokens(headers.all("connection")).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let protocol = headers.get("upgrade").filter(|_| nominated)?;
    // HTTP/2 without TLS starts by prior knowledge here, never by an upgrade.
    let h2c = tokens(std::iter::once(protocol)).any(|token| token.eq_ignore_ascii_case(b"h2c"));
    (!h2c).then_some(protocol)
}

/// The caller waits for 100 (Continue) before it sends its body: kept beside the head, and asked of the next hop as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectsContinue;

/// Judges a request that hyper parsed and brings it into the one form that the rest of the program sees:
///
/// * `Host` is its only authority (for CONNECT the URI is the same), and the URI is path and query;
/// * hop-by-hop fields and those that `Connection` nominated are gone, except for `TE: trailers`;
/// * `Expect: 100-continue` is an [`ExpectsContinue`] extension. hyper answers it as soon as the body is first asked for, so
///   whoever sends the request on does not ask before the next hop does (HTTP/1.0 and HTTP/2 get no answer);
/// * an upgrade is an [`UpgradeTo`] extension.
///
/// # Errors
/// The reason to refuse it with.
pub fn admit_request(parts: &mut request::Parts) -> Result<(), Reason> {
    let uri = &parts.uri;
    let is_connect = parts.method == Method::CONNECT;
    let target = Target {
        scheme: uri.scheme_str(),
        authority: uri.authority().map(http::uri::Authority::as_str),
        path: uri.path_and_query().map(PathAndQuery::as_str),
    };
    let verdict = judge(parts.version, parts.method.as_str(), target, Headers::Map(&parts.headers))?;
    let host = host_to_set(&verdict, parts)?;
    let upgrade = verdict.upgrade.and_then(|protocol| HeaderValue::from_bytes(protocol).ok());
    let trailers = verdict.trailers;
    let expects_continue = asks_to_continue(Headers::Map(&parts.headers));
    let nominated = nominated_names(parts);

    let headers = &mut parts.headers;
    for name in nominated {
        headers.remove(name);
    }
    strip(headers);
    if headers.remove(header::TE).is_some() && trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if expects_continue {
        headers.remove(header::EXPECT);
        if parts.version > Version::HTTP_10 {
            parts.extensions.insert(ExpectsContinue);
        }
    }
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    if let Some(protocol) = upgrade {
        parts.extensions.insert(UpgradeTo(protocol));
    }
    if !is_connect {
        to_origin_form(&mut parts.uri);
    }
    Ok(())
}

fn host_to_set(verdict: &Verdict<'_>, parts: &request::Parts) -> Result<Option<HeaderValue>, Reason> {
    let current = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    if current == Some(verdict.authority.as_bytes()) {
        return Ok(None);
    }
    HeaderValue::from_str(verdict.authority).map(Some).map_err(|_| Reason::BadHost)
}

fn nominated_names(parts: &request::Parts) -> Vec<HeaderName> {
    nominated(Headers::Map(&parts.headers).all("connection"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

fn to_origin_form(uri: &mut Uri) {
    if uri.authority().is_none() {
        return;
    }
    let path = std::mem::take(uri).into_parts().path_and_query;
    let path = path.and_then(|path| match path.as_str().strip_prefix('?') {
        Some(query) => PathAndQuery::try_from(format!("/?{query}")).ok(),
        None => Some(path),
    });
    // A target without a path reads as `/`, but would be written as nothing.
    let path = path.filter(|path| path.as_str() != "/").unwrap_or_else(|| PathAndQuery::from_static("/"));
    *uri = Uri::from(path);
}

/// Brings an admitted request into the form that is sent over `version`: HTTP/1.1 takes it as it is, with the upgrade
/// put back; HTTP/2 wants an absolute URI and no `Host`.
///
/// # Errors
/// [`Reason::BadHost`] if the request has no usable `Host`: it was not admitted.
pub fn seal_request(parts: &mut request::Parts, version: Version, scheme: http::uri::Scheme) -> Result<(), Reason> {
    strip(&mut parts.headers);
    parts.version = version;
    let upgrade = parts.extensions.remove::<UpgradeTo>();
    if parts.extensions.remove::<ExpectsContinue>().is_some() {
        parts.headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if version < Version::HTTP_2 {
        join_cookies(&mut parts.headers);
        if let Some(UpgradeTo(protocol)) = upgrade {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        return if parts.headers.contains_key(header::HOST) { Ok(()) } else { Err(Reason::BadHost) };
    }
    let host = parts.headers.remove(header::HOST);
    if parts.method == Method::CONNECT {
        return Ok(());
    }
    let host = host.ok_or(Reason::BadHost)?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.authority = Some(host.as_bytes().try_into().map_err(|_| Reason::BadHost)?);
    uri.scheme = Some(scheme);
    uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::BadHost)?;
    Ok(())
}

/// HTTP/2 callers may split their cookies over several fields; HTTP/1 knows one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(header::COOKIE).iter();
    if fields.by_ref().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Parts of valid values, joined by printable characters, are a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}
