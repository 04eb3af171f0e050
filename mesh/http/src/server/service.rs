//! Between hyper and the handler: judging on the way in, sealing on the way out.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use eastway_core::Reason;
use eastway_core::head::is_grpc;
use http::{Method, Request, Response, header, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};

use super::Handler;
use super::io::{Active, Progress};
use crate::body::{Body, BodyError};
use crate::framing::Forwards;
use crate::{framing, refuse};

pub(super) fn service<H: Handler>(
    handler: H,
    progress: Arc<Progress>,
    node: Arc<str>,
    max_head: usize,
) -> impl HttpService<Incoming, ResBody = Outgoing, Error = Infallible, Future: 'static> {
    let handler = Rc::new(handler);
    service_fn(move |request: Request<Incoming>| {
        let active = progress.start();
        let unread = Arc::clone(progress.unread());
        let handler = Rc::clone(&handler);
        let node = Arc::clone(&node);
        async move {
            let (mut parts, incoming) = request.into_parts();
            let version = parts.version;
            let bodiless = parts.method == Method::HEAD && version >= http::Version::HTTP_2;
            let response = match admit(&mut parts, max_head) {
                Ok(Forwards::Answer) => last_hop(&parts),
                Ok(Forwards::On) => {
                    handler.handle(Request::from_parts(parts, Body::received(incoming, version, &unread))).await
                }
                Err(reason) => {
                    handler.refused(reason);
                    let content_type = parts.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
                    refuse::response(reason, &node, is_grpc(content_type), version)
                }
            };
            let (mut parts, body) = response.into_parts();
            framing::seal_response(&mut parts, version);
            let body = if bodiless { headed(&mut parts, body) } else { body };
            // HTTP/1.0 has no chunks: without a length, the end of the connection is the end of the body.
            let close_delimited = version < http::Version::HTTP_11 && body.size_hint().exact().is_none();
            Ok(Response::from_parts(parts, Outgoing { body, active, close_delimited, failed: None }))
        }
    })
}

/// A response to HEAD has the head of the response to GET and nothing else. hyper sees to that in HTTP/1 only.
fn headed(parts: &mut response::Parts, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Body::empty()
}

/// Judges the head. hyper leaves it to us to refuse an HTTP/2 head that is too large, because it would not say why.
pub(super) fn admit(parts: &mut http::request::Parts, max_head: usize) -> Result<Forwards, Reason> {
    if parts.version == http::Version::HTTP_2 && framing::head_size(parts) > max_head {
        return Err(Reason::HeaderTooLarge);
    }
    framing::admit_request(parts)?;
    Ok(framing::count_forwards(parts))
}

/// The answer to a request that may go no further: to OPTIONS that there is nothing to say, to TRACE that nothing of the
/// request is shown, which could hold what is nobody's business.
pub(super) fn last_hop(parts: &http::request::Parts) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    if parts.method == Method::TRACE {
        *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("OPTIONS"));
    }
    response
}

/// A response's body, which keeps its request counted as active.
pub(super) struct Outgoing {
    body: Body,
    active: Active,
    close_delimited: bool,
    /// How the body failed, until what went before has been sent: hyper throws away what it has not sent when it learns of it.
    failed: Option<BodyError>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Err(error))) = polled else { return polled };
        if self.close_delimited {
            self.active.cut_off();
        }
        // hyper sends what it has whenever a body lets it wait.
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
