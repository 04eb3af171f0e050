//! Heads of a link in the types of the `http` crate, and back.

use eastway_link::{Fields, HttpVersion, RequestBuf, RequestHead, ResponseBuf};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri, Version, request, response};

use crate::framing::{self, ExpectsContinue};
use crate::head::version;

/// The fields of `headers` that go over a link as such.
pub(crate) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .filter(|(name, _)| **name != header::HOST && **name != header::CONTENT_LENGTH)
        .filter(|(name, _)| !framing::is_hop_by_hop(name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Adds the fields to `headers`. What the `http` crate does not take is left out.
pub(crate) fn append(headers: &mut HeaderMap, fields: Fields<'_>) {
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
}

/// The head of an admitted request, to be sent.
pub(crate) fn request_head<'a>(
    parts: &'a request::Parts,
    length: Option<u64>,
) -> RequestHead<'a, impl Iterator<Item = (&'a str, &'a [u8])>> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let expects = parts.extensions.get::<ExpectsContinue>().map(|_| ("expect", &b"100-continue"[..]));
    RequestHead {
        version: version(parts.version),
        method: parts.method.as_str(),
        authority: host.unwrap_or_default(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()),
        length,
        upgrade: None,
        fields: fields(&parts.headers).chain(expects),
    }
}

/// A request that was received, not admitted yet; `None` if the `http` crate does not take it.
pub(crate) fn received(head: &RequestBuf) -> Option<request::Parts> {
    let head = head.view();
    let uri: Uri = head.target.parse().ok()?;
    let spoken = match head.version {
        HttpVersion::Http10 => Version::HTTP_10,
        HttpVersion::Http11 => Version::HTTP_11,
        HttpVersion::Http2 => Version::HTTP_2,
    };
    let mut request = Request::builder().method(head.method).uri(uri).version(spoken);
    let headers = request.headers_mut()?;
    append(headers, head.fields);
    headers.insert(header::HOST, HeaderValue::from_str(head.authority).ok()?);
    if let Some(length) = head.length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// A response that was received, not admitted yet; `None` if the `http` crate does not take it.
pub(crate) fn answered(head: &ResponseBuf) -> Option<response::Parts> {
    let head = head.view();
    let mut response = Response::builder().status(head.status);
    let headers = response.headers_mut()?;
    append(headers, head.fields);
    if let Some(length) = head.length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Some(response.body(()).ok()?.into_parts().0)
}

/// The length that a head states.
pub(crate) fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
