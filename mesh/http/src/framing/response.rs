//! Responses: what an upstream may say, and what goes to the caller.

use eastway_core::Reason;
use eastway_core::head::is_grpc;
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version, response};

use super::request::parse_length;
use super::{may_be_nominated, nominated, persistent, strip};
use crate::head::{Headers, UpgradeTo};

/// What a request was, as far as it says how its response is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// By HEAD: no response to it has a body.
    pub head: bool,
    /// By CONNECT: a success opens a tunnel.
    pub connect: bool,
    /// It wants to change the protocol, so that a 101 may come.
    pub upgrade: bool,
}

/// How a response's body is delimited in HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseLength {
    /// There is none, whatever the head states.
    Nothing,
    /// By `Content-Length`.
    Known(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What [`judge_response`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseVerdict<'a> {
    /// How its body is delimited.
    pub length: ResponseLength,
    /// The length to be told to the caller; of responses to HEAD and of 304 it is that of a body that does not come.
    pub stated: Option<u64>,
    /// Whether the length is stated more than once, by the same value.
    pub repeated: bool,
    /// The protocol that was agreed on, in a 101.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the connection is to carry another response after this one.
    pub persistent: bool,
}

/// Judges a response's head.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if readers could disagree about where it ends, or nobody asked for what it does.
pub fn judge_response<'a>(
    version: Version,
    status: StatusCode,
    asked: Asked,
    headers: Headers<'a>,
) -> Result<ResponseVerdict<'a>, Reason> {
    if nominated(headers.all("connection")).any(|name| !may_be_nominated(name)) {
        return Err(Reason::UpstreamProtocol);
    }
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !asked.upgrade {
        return Err(Reason::UpstreamProtocol);
    }
    let mut codings = headers.all("transfer-encoding");
    let coding = codings.next();
    if coding.is_some() && headers.get("content-length").is_some() {
        // Two readers could disagree where it ends, and what follows would be taken for another response.
        return Err(Reason::UpstreamProtocol);
    }
    let (stated, repeated) = one_length(headers)?;
    let never = status == StatusCode::NO_CONTENT || status.is_informational() || (asked.connect && status.is_success());
    let length = match coding {
        _ if never || asked.head || status == StatusCode::NOT_MODIFIED => ResponseLength::Nothing,
        // Another coding would have to be undone before the field that names it is taken out.
        Some(coding) => {
            let sole = codings.next().is_none() && coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !sole || version < Version::HTTP_11 {
                return Err(Reason::UpstreamProtocol);
            }
            ResponseLength::Chunked
        }
        None => stated.map_or(ResponseLength::UntilClose, ResponseLength::Known),
    };
    Ok(ResponseVerdict {
        length,
        stated: stated.filter(|_| !never),
        repeated,
        upgrade: headers.get("upgrade").filter(|_| switching),
        persistent: persistent(version, headers) && length != ResponseLength::UntilClose,
    })
}

/// Judges an upstream's response that hyper parsed, and takes out what concerns one connection only. A 101 keeps its
/// protocol as an [`UpgradeTo`] extension.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if readers could disagree about where it ends.
pub fn admit_response(parts: &mut response::Parts) -> Result<(), Reason> {
    // hyper has read it with the request in mind, and whether a 101 was asked for is looked at before.
    let asked = Asked { upgrade: true, ..Asked::default() };
    let verdict = judge_response(parts.version, parts.status, asked, Headers::Map(&parts.headers))?;
    let upgrade = verdict.upgrade.and_then(|protocol| HeaderValue::from_bytes(protocol).ok());
    let (stated, repeated) = (verdict.stated, verdict.repeated);
    let gone: Vec<HeaderName> = nominated(Headers::Map(&parts.headers).all("connection"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();

    let headers = &mut parts.headers;
    if let Some(protocol) = upgrade {
        parts.extensions.insert(UpgradeTo(protocol));
    }
    for name in gone {
        headers.remove(name);
    }
    strip(headers);
    headers.remove(header::TE);
    match stated {
        None => drop(headers.remove(header::CONTENT_LENGTH)),
        Some(length) if repeated => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Some(_) => {}
    }
    parts.version = Version::HTTP_11;
    Ok(())
}

/// The length, and whether it is stated more than once: then all statements must agree.
fn one_length(headers: Headers<'_>) -> Result<(Option<u64>, bool), Reason> {
    let mut lengths = headers.all("content-length").flat_map(|value| value.split(|byte| *byte == b','));
    let Some(first) = lengths.next() else { return Ok((None, false)) };
    let length = parse_length(first.trim_ascii()).ok_or(Reason::UpstreamProtocol)?;
    let mut repeated = false;
    for other in lengths {
        repeated = true;
        if parse_length(other.trim_ascii()) != Some(length) {
            return Err(Reason::UpstreamProtocol);
        }
    }
    Ok((Some(length), repeated))
}

/// Over HTTP/1, hyper sends only trailers that the head announces. gRPC's are known without.
fn announce_grpc_trailers(parts: &mut response::Parts) {
    let content_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if is_grpc(content_type) && !parts.headers.contains_key(header::TRAILER) {
        let names = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");
        parts.headers.insert(header::TRAILER, names);
    }
}

/// Brings a response into the form that is sent to a caller that speaks `version`. Of the hop-by-hop fields only
/// `Connection: close` of our own refusals and an agreed upgrade go out, and only over HTTP/1.
pub fn seal_response(parts: &mut response::Parts, version: Version) {
    let close = parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
    strip(&mut parts.headers);
    let upgrade = parts.extensions.remove::<UpgradeTo>();
    parts.version = version.max(Version::HTTP_11);
    if version >= Version::HTTP_2 {
        return;
    }
    announce_grpc_trailers(parts);
    if close {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(UpgradeTo(protocol)) = upgrade.filter(|_| parts.status == StatusCode::SWITCHING_PROTOCOLS) {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
    }
}
