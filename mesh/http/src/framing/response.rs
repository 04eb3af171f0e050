//! Responses: what an upstream may say, and what goes to the caller.

use eastway_core::Reason;
use eastway_core::head::is_grpc;
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version, response};

use super::request::parse_length;
use super::{may_be_nominated, nominated, strip};
use crate::head::{Headers, UpgradeTo};

/// Judges an upstream's response that hyper parsed, and takes out what concerns one connection only. A 101 keeps its
/// protocol as an [`UpgradeTo`] extension.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if readers could disagree about where it ends.
pub fn admit_response(parts: &mut response::Parts) -> Result<(), Reason> {
    let headers = Headers::Map(&parts.headers);
    let mut drop = Vec::new();
    for name in nominated(headers.all("connection")) {
        if !may_be_nominated(name) {
            return Err(Reason::UpstreamProtocol);
        }
        drop.extend(HeaderName::from_bytes(name));
    }
    let chunked = headers.get("transfer-encoding").is_some();
    if chunked && headers.get("content-length").is_some() {
        // Two readers could disagree where it ends, and what follows would be taken for another response.
        return Err(Reason::UpstreamProtocol);
    }
    let bodiless = parts.status == StatusCode::NO_CONTENT || parts.status.is_informational();
    let length = one_length(headers)?;

    let headers = &mut parts.headers;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(protocol) = headers.get(header::UPGRADE).cloned()
    {
        parts.extensions.insert(UpgradeTo(protocol));
    }
    for name in drop {
        headers.remove(name);
    }
    strip(headers);
    headers.remove(header::TE);
    if chunked || bodiless {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    parts.version = Version::HTTP_11;
    Ok(())
}

/// The length, if it is stated more than once: then all statements must agree, and become one.
fn one_length(headers: Headers<'_>) -> Result<Option<u64>, Reason> {
    let mut lengths = headers.all("content-length").flat_map(|value| value.split(|byte| *byte == b','));
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = parse_length(first.trim_ascii()).ok_or(Reason::UpstreamProtocol)?;
    let mut repeated = false;
    for other in lengths {
        repeated = true;
        if parse_length(other.trim_ascii()) != Some(length) {
            return Err(Reason::UpstreamProtocol);
        }
    }
    Ok(repeated.then_some(length))
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
