//! Serving a link: the requests and the opaque streams of another sidecar.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use eastway_core::head::Fields as _;
use eastway_core::{Chain, Reason};
use eastway_link::{LinkError, SendError, Side, StreamId};
use eastway_transport::Io;
use eastway_transport::link::{Driver, Opaque, Opened, Shared, Stream};
use http_body::Body as _;
use tokio::task::JoinHandle;

use super::service::last_hop;
use super::{Ended, Handler, ServerOptions};
use crate::body::{Body, BodyError};
use crate::framing::{Forwards, count_forwards};
use crate::link::body::Incoming;
use crate::link::heads;
use crate::link::upload::upload;
use crate::message::{Interim, Request, RequestHead, Response, ResponseHead};
use crate::refuse::PROXY_STATUS;
use crate::sweeper::Sweeper;
use crate::upgrade::Upgrading;

/// Serves a link until it ends. Once `stop` resolves it takes no further stream, tells the peer so, and ends with the last one.
/// A link that has had no stream for too long is drained in the same way; one whose peer does not read meanwhile, or still holds
/// it after as long again, is closed. Streams on which nothing moves are bounded by whoever serves them.
pub(super) async fn serve(
    io: Io,
    options: &ServerOptions,
    sweeper: &Sweeper,
    stop: impl Future<Output = ()>,
    handler: impl Handler,
) -> Ended {
    let mut limits = options.link.clone();
    limits.max_head_bytes = u16::try_from(options.max_header_bytes).unwrap_or(u16::MAX);
    let shared = Shared::new(Side::Accepting, &limits);
    let mut driver = Driver::new(io, shared.clone());
    let mut serving = Serving { shared, handler: Rc::new(handler), tasks: HashMap::new() };
    let (mut stop, mut idle) = (pin!(stop), sweeper.after(options.idle_timeout));
    let (mut stopping, mut expired, mut stalled_at) = (false, false, None);
    let ended = poll_fn(|cx| {
        while idle.poll_expired(cx).is_ready() {
            let mut link = driver.shared.lock();
            let is_unused = link.connection.stats().streams == 0;
            if stalled_at.is_some() || (stopping && is_unused) {
                link.connection.close();
            }
            expired |= is_unused || stalled_at.is_some();
            idle.restart();
        }
        if !stopping && (expired || stop.as_mut().poll(cx).is_ready()) {
            stopping = true;
            driver.shared.lock().connection.drain();
        }
        let ended = driver.poll(cx, |opened| serving.open(opened));
        let stalled_before = std::mem::replace(&mut stalled_at, driver.stalled_at());
        let moves = stalled_at.is_none() || stalled_at != stalled_before;
        let mut link = driver.shared.lock();
        if link.connection.stats().streams > 0 {
            if moves {
                idle.restart();
            }
        } else if stopping && ended.is_pending() && link.connection.is_drained() {
            link.connection.close();
            link.wake_driver();
        }
        ended
    });
    let ended = ended.await;
    driver.finish().await;
    match ended {
        error if error.is_orderly() && expired => Ended::Idle,
        error if error.is_orderly() => Ended::Done,
        LinkError::Lost | LinkError::Unresponsive(_) => Ended::CallerGone,
        error => {
            tracing::debug!(error = %Chain(&error), "a link failed");
            Ended::Malformed(Reason::MalformedRequest)
        }
    }
}

/// What answers the streams of a connection.
struct Serving<H> {
    shared: Shared,
    handler: Rc<H>,
    /// Those that are being answered, and some that were; they end with the connection.
    tasks: HashMap<StreamId, JoinHandle<()>>,
}

impl<H> Drop for Serving<H> {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl<H: Handler> Serving<H> {
    fn open(&mut self, opened: Opened) {
        let (id, used, request) = match opened {
            Opened::Request { stream, head, end } => {
                let used = self.shared.stream(stream, end);
                let request = heads::received(&head).map(|head| match head.upgrade() {
                    Some(_) => upgrading(&used, head),
                    None => {
                        let body = body_of(&used, &head, end);
                        Request { interim: Some(Interim::over(used.clone(), send_interim)), ..Request::new(head, body) }
                    }
                });
                used.lock().connection.recycle(head);
                (stream, used, request)
            }
            Opened::Opaque { stream, head } => {
                let used = self.shared.stream(stream, false);
                let request = heads::opened(&head).map(|head| upgrading(&used, head));
                (stream, used, request)
            }
        };
        let (stream, request) = match request {
            Ok(request) => (used, request),
            Err(reason) => {
                used.lock().connection.refuse(id, reason);
                return self.handler.refused(reason);
            }
        };
        let handler = Rc::clone(&self.handler);
        // Boxed: to begin a task, the runtime moves its future several times, and this one is large.
        let task = tokio::task::spawn_local(Box::pin(async move {
            let mut gone = Gone(Some(stream.clone()));
            tokio::select! {
                biased;
                () = answer(&*handler, &stream, request) => gone.0 = None,
                () = given_up(&stream) => {}
            }
        }));
        // Before it grows.
        if self.tasks.len() == self.tasks.capacity() {
            self.tasks.retain(|_, task| !task.is_finished());
        }
        self.tasks.insert(id, task);
    }
}

/// A request after whose head nothing comes but the bytes of an opaque stream, or of another protocol.
fn upgrading(stream: &Stream, head: RequestHead) -> Request {
    let stream = stream.clone();
    let upgrading = Some(Upgrading::lazy(move || Io::chunked(Opaque::new(stream))));
    Request { upgrading, ..Request::new(head, Body::empty()) }
}

/// The body of a request, which ends with its head or not.
fn body_of(stream: &Stream, head: &RequestHead, end: bool) -> Body {
    if end {
        return Body::empty();
    }
    Body::boxed(Incoming::request(stream.clone(), head.length, head.expects_continue))
}

/// A stream that is being answered: it is given up if its answer is.
struct Gone(Option<Stream>);

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset(Reason::CallerGone);
        }
    }
}

/// Completes when the caller has given the stream up.
async fn given_up(stream: &Stream) {
    poll_fn(|cx| match stream.lock().state(stream.id()) {
        Some(state) if !state.is_given_up() => state.wait_until_given_up(cx),
        _ => Poll::Ready(()),
    })
    .await;
}

async fn answer<H: Handler>(handler: &H, stream: &Stream, mut request: Request) {
    let is_connect = request.head.is_connect();
    let Response { head, body, .. } = match count_forwards(&mut request.head) {
        Forwards::Answer => last_hop(&request.head),
        Forwards::On => handler.handle(request).await,
    };
    if is_connect {
        return opened(stream, &head);
    }
    let end = body.is_end_stream() && !head.is_switch();
    if send_head(stream, &head, &body, end).await.is_err() {
        return;
    }
    if head.is_switch() {
        return;
    }
    if !end {
        upload(stream, body, BodyError::response_reason).await;
    }
    // Whatever is left of the request is not wanted any more.
    let mut link = stream.lock();
    link.connection.stop(stream.id(), Reason::CallerGone);
    link.wake_driver();
}

/// Accepts or refuses an opaque stream.
fn opened(stream: &Stream, head: &ResponseHead) {
    let mut link = stream.lock();
    if head.is_success() {
        let _ = link.connection.send_response(stream.id(), heads::response(head, None), false);
    } else {
        link.connection.refuse(stream.id(), reason(head));
    }
    link.wake_driver();
}

fn reason(head: &ResponseHead) -> Reason {
    head.fields.text(PROXY_STATUS).and_then(Reason::from_proxy_status).unwrap_or(Reason::Internal)
}

/// Interim responses are hints: that one cannot be sent does not matter.
fn send_interim(stream: &Stream, head: &ResponseHead) {
    let mut link = stream.lock();
    let _ = link.connection.send_interim(stream.id(), heads::response(head, None));
    link.wake_driver();
}

async fn send_head(stream: &Stream, head: &ResponseHead, body: &Body, end: bool) -> Result<(), SendError> {
    let length = head.length.or_else(|| body.size_hint().exact().filter(|_| !end && !head.is_switch()));
    poll_fn(|cx| {
        let mut link = stream.lock();
        let sent = link.connection.send_response(stream.id(), heads::response(head, length), end);
        link.wake_driver();
        match sent {
            Err(SendError::Busy) => match link.state(stream.id()) {
                Some(state) if !state.takes_nothing() => state.wait_to_write(cx),
                _ => Poll::Ready(Err(SendError::Gone)),
            },
            Err(error @ SendError::Gone) => Poll::Ready(Err(error)),
            Err(error) => {
                tracing::debug!(%error, "an answer cannot be sent over a link");
                link.connection.reset(stream.id(), Reason::UpstreamProtocol);
                Poll::Ready(Err(error))
            }
            Ok(()) => Poll::Ready(Ok(())),
        }
    })
    .await
}
