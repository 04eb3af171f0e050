//! Heads in the types of hyper, for HTTP/2: what it read is admitted by [`framing`](crate::framing), and this is what it
//! writes.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use crate::message::{FieldList, RequestHead, ResponseHead};

/// The head of a request; `None` if HTTP/2 has no room for it.
pub(crate) fn request(head: &RequestHead, scheme: &Scheme) -> Option<Request<()>> {
    let method = Method::from_bytes(head.method().as_bytes()).ok()?;
    let authority: Authority = head.authority().parse().ok()?;
    let uri = match method == Method::CONNECT {
        true => Uri::from(authority),
        false => Uri::builder()
            .scheme(scheme.clone())
            .authority(authority)
            .path_and_query(PathAndQuery::try_from(head.target()).ok()?)
            .build()
            .ok()?,
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields(&head.fields, head.length);
    if head.expects_continue {
        request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    Some(request)
}

/// The head of a response.
pub(crate) fn response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields(&head.fields, head.length);
    response
}

fn fields(fields: &FieldList, length: Option<u64>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 2);
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    if let Some(length) = length {
        map.insert(header::CONTENT_LENGTH, length.into());
    }
    map
}
