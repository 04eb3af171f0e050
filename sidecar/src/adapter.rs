//! Between hyper's messages and the decisions about requests: what bodies tell as they pass, and where edits are made.

use std::cell::Cell;
use std::rc::Rc;

use eastway_core::Reason;
use eastway_core::head::{Edits, Fields};
use eastway_core::resource::ServicePort;
use eastway_http::body::{BodyError, End, Observer};
use eastway_http::server::Handler;
use eastway_http::{Body, Request, Response, Upgrading};
use eastway_request::{Answer, AnswerEnd, RequestRecord};
use eastway_runtime::clock;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;

use crate::record::Telemetry;
use crate::stream;
use crate::worker::Worker;

/// Answers the requests of one side's connections by `handle`, and counts what never became a request.
pub(crate) struct Counting<H> {
    pub(crate) telemetry: Telemetry,
    pub(crate) handle: H,
}

impl<H, F> Handler for Counting<H>
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    fn handle(&self, request: Request) -> impl Future<Output = Response> + 'static + use<H, F> {
        (self.handle)(request)
    }

    fn refused(&self, reason: Reason) {
        self.telemetry.refused(reason);
    }
}

/// Counts the bytes of a request's body, if anybody wants to know.
pub(crate) fn count_sent(record: &RequestRecord<Telemetry>, body: Body) -> Body {
    if body.is_end_stream() || !record.wants_bytes() {
        return body;
    }
    body.observe(Sent(record.counts_sent()))
}

/// A request's body on its way.
struct Sent(Rc<Cell<u64>>);

impl Observer for Sent {
    fn data(&mut self, len: usize) {
        self.0.set(self.0.get() + len as u64);
    }

    fn end(&mut self, _: &End<'_>) {}
}

/// Passes an answer on, with the changes of its head. If it changes the protocol, what follows is relayed between its
/// caller, `asking`, and whoever serves it.
pub(crate) fn pass(
    worker: &Rc<Worker>,
    response: Response,
    (edits, answer): (Edits, Answer<Telemetry>),
    (asking, port): (Option<Upgrading>, Option<ServicePort>),
) -> Response {
    let mut response = response.edited(&edits);
    if response.head.is_switch()
        && let (Some(asking), Some(serving)) = (asking, response.upgrading.take())
    {
        // There is no body, but it may hold what counts the connection.
        let held = std::mem::take(&mut response.body);
        relay(worker, async move { Some((asking.io().await.ok()?, serving.io().await.ok()?)) }, (answer, port), held);
        return response;
    }
    worker.passing(response).map(|body| body.observe(Passing(answer)))
}

/// Relays a stream, once both of its ends are there, until both have ended; `held` is kept for so long.
pub(crate) fn relay(
    worker: &Rc<Worker>,
    ends: impl Future<Output = Option<(eastway_transport::Io, eastway_transport::Io)>> + 'static,
    (answer, port): (Answer<Telemetry>, Option<ServicePort>),
    held: impl Sized + 'static,
) {
    let (guard, worker) = (worker.node.draining.guard(), Rc::clone(worker));
    tokio::task::spawn_local(async move {
        let _guards = (held, guard);
        if let Some(ends) = ends.await {
            stream::relay(&worker, ends, port.as_ref(), answer).await;
        }
    });
}

/// An answer's body on its way. If its reader lets go of it before its end, it ends as cancelled.
struct Passing(Answer<Telemetry>);

impl Observer for Passing {
    fn data(&mut self, len: usize) {
        self.0.data(len);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.0.trailers(&Trailers(trailers));
    }

    fn end(&mut self, end: &End<'_>) {
        let end = match end {
            End::Complete => AnswerEnd::Complete,
            End::Failed(BodyError::Unread) | End::Dropped => AnswerEnd::Dropped,
            End::Failed(error) => AnswerEnd::Failed(error.response_reason()),
        };
        self.0.end(end, clock::now());
    }
}

/// Trailers as decisions see them.
#[derive(Debug)]
struct Trailers<'a>(&'a HeaderMap);

impl Fields for Trailers<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }

    fn count(&self, name: &str) -> usize {
        self.0.get_all(name).iter().count()
    }
}
