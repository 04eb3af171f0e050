//! Between hyper and the handler, for HTTP/2: judging on the way in, and what has to be said on the way out.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use eastway_core::Reason;
use eastway_core::head::is_grpc;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};

use super::Handler;
use super::io::{Active, Progress};
use crate::body::{Body, BodyError};
use crate::framing::{self, Forwards, count_forwards};
use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::upgrade::Upgrading;
use crate::{h2_heads, refuse};

pub(super) fn service<H: Handler>(
    handler: H,
    progress: Arc<Progress>,
    node: Arc<str>,
    max_head: usize,
) -> impl HttpService<Incoming, ResBody = Outgoing, Error = Infallible, Future: 'static> {
    let handler = Rc::new(handler);
    service_fn(move |request: http::Request<Incoming>| {
        let active = progress.start();
        let (handler, node) = (Rc::clone(&handler), Arc::clone(&node));
        async move {
            let (mut parts, incoming) = request.into_parts();
            let bodiless = parts.method == http::Method::HEAD;
            let response = match admit(&parts, max_head) {
                Ok(mut head) => match count_forwards(&mut head) {
                    Forwards::Answer => last_hop(&head),
                    Forwards::On => {
                        let upgrading = Upgrading::of_hyper(&mut parts.extensions);
                        let body = Body::received(incoming);
                        handler.handle(Request { upgrading, ..Request::new(head, body) }).await
                    }
                },
                Err(reason) => {
                    handler.refused(reason);
                    let content_type = parts.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
                    refuse::response(reason, &node, is_grpc(content_type))
                }
            };
            let Response { mut head, body, .. } = response;
            let body = if bodiless { headed(&mut head, body) } else { body };
            Ok(h2_heads::response(&head).map(|()| Outgoing { body, _active: active, failed: None }))
        }
    })
}

/// A response to HEAD has the head of the response to GET and nothing else.
fn headed(head: &mut ResponseHead, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    head.length = head.length.or_else(|| body.size_hint().exact());
    Body::empty()
}

/// Judges the head. hyper leaves it to us to refuse one that is too large, because it would not say why.
fn admit(parts: &http::request::Parts, max_head: usize) -> Result<RequestHead, Reason> {
    if framing::head_size(parts) > max_head {
        return Err(Reason::HeaderTooLarge);
    }
    framing::admit_request(parts)
}

/// The answer to a request that may go no further: to OPTIONS that there is nothing to say, to TRACE that nothing of the
/// request is shown, which could hold what is nobody's business.
pub(super) fn last_hop(head: &RequestHead) -> Response {
    if head.method() != "TRACE" {
        return Response::empty(200);
    }
    let mut response = Response::empty(405);
    response.head.fields.append("allow", b"OPTIONS");
    response
}

/// A response's body, which keeps its request counted as active.
pub(super) struct Outgoing {
    body: Body,
    _active: Active,
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
