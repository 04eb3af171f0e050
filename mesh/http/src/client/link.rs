//! A link to another sidecar: many requests and opaque streams at once.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use eastway_core::Reason;
use eastway_link::{LinkError, LinkOptions, OpaqueHead, OpenError, ResponseBuf, Side};
use eastway_transport::Io;
use eastway_transport::link::{Driver, Opaque, Shared, Stream, StreamFault};
use http_body::Body as _;

use super::expect::Gate;
use super::{SendError, SendFailure};
use crate::body::{Body, BodyError, Unread};
use crate::framing::Asked;
use crate::link::body::Incoming;
use crate::link::heads;
use crate::link::upload::{finish, upload};
use crate::message::{Request, Response};
use crate::upgrade::Upgrading;

/// How long a lost packet says that more will be lost.
const LOSS_MATTERS: Duration = Duration::from_secs(60);

/// A link, from the side that opens streams. Clones share it; it ends with the last clone and the last stream.
#[derive(Clone)]
pub struct Link(Rc<Handle>);

struct Handle {
    shared: Shared,
    continue_after: Duration,
    /// Responses that nobody reads, of which so many take half of the connection's window.
    unread: Unread,
    most_unread: u32,
    used: Cell<bool>,
    held: RefCell<Option<Box<dyn Any>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut link = self.shared.lock();
        link.connection.drain();
        link.wake_driver();
    }
}

impl Link {
    /// Speaks over `io`, on which both sides have agreed to do so. The driving task starts on the current `LocalSet`. A body
    /// that the other side is to ask for is sent unasked after `continue_after`.
    pub fn new(io: Io, options: &LinkOptions, continue_after: Duration) -> Self {
        let shared = Shared::new(Side::Connecting, options);
        let mut driver = Driver::new(io, shared.clone()).telling_losses();
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                let drained = driver.shared.lock().connection.is_drained();
                if drained {
                    driver.shared.lock().connection.close();
                }
                driver.poll(cx, |_| {})
            });
            let ended = ended.await;
            if !ended.is_orderly() {
                tracing::debug!(error = %ended, "a link failed");
            }
            driver.finish().await;
        });
        let options = options.bounded();
        Self(Rc::new(Handle {
            shared,
            continue_after,
            unread: Unread::default(),
            most_unread: (options.connection_window / options.stream_window.max(1) / 2).max(1),
            used: Cell::new(false),
            held: RefCell::default(),
        }))
    }

    /// Keeps `guard` for as long as the link is.
    #[must_use]
    pub fn holding(self, guard: impl Any) -> Self {
        self.0.held.replace(Some(Box::new(guard)));
        self
    }

    /// Whether it takes no new streams for good: it has ended, or one side drains.
    pub fn is_closed(&self) -> bool {
        let may = self.0.shared.lock().connection.may_open();
        matches!(may, Err(OpenError::Closed | OpenError::Draining | OpenError::Exhausted))
    }

    /// Whether it has ended because the other side answered nothing any more.
    pub fn fell_silent(&self) -> bool {
        matches!(self.0.shared.lock().connection.ended(), Some(LinkError::Unresponsive(_)))
    }

    /// Whether it takes a stream more just now. Not while responses that nobody reads take up half of the connection's
    /// window: what comes after them might wait for their readers.
    pub fn has_room(&self) -> bool {
        self.0.unread.count() < self.0.most_unread && self.0.shared.lock().connection.may_open().is_ok()
    }

    /// Whether the network has lost packets of it lately: each holds up all streams, for up to some hundred milliseconds. Over
    /// anything but TCP that is not known.
    pub fn loses_packets(&self) -> bool {
        let link = self.0.shared.lock();
        link.lost_at.is_some_and(|lost| link.now().since(lost) < LOSS_MATTERS)
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.0.shared.lock().connection.stats().streams
    }

    /// Sends a request and waits for the head of the response, whose body streams. Dropping the future or the response's body
    /// resets the stream. A request that asks for another protocol must have no body: what would follow it is that protocol's.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub async fn send(&self, request: Request) -> Result<Response, SendError> {
        let reused = self.0.used.replace(true);
        let (head, upgrade) = (&request.head, request.head.upgrade().is_some());
        let end = request.body.is_end_stream() && !upgrade;
        let length = head.length.or_else(|| request.body.size_hint().exact()).filter(|_| !end && !upgrade);
        let opened = {
            let mut link = self.0.shared.lock();
            let now = link.now();
            let opened = link.connection.open_request(heads::request(head, length, end), end, now);
            link.wake_driver();
            opened
        };
        let stream = match opened {
            Ok(id) => self.0.shared.stream(id, false),
            Err(error) => {
                tracing::debug!(%error, "a request cannot be sent over a link");
                let head = matches!(error, OpenError::Head(_));
                let failure = if head { SendFailure::Internal } else { SendFailure::Closed };
                return Err(SendError::unsent(failure, reused, request));
            }
        };
        let Request { head, body, interim, .. } = request;
        let mut waiting = Waiting(Some(stream.clone()));
        let (body, gate) = Gate::before(&head, body, self.0.continue_after);
        if !end && !upgrade {
            let stream = stream.clone();
            tokio::task::spawn_local(async move { upload(&stream, body, BodyError::request_reason).await });
        }
        let answered = poll_fn(|cx| {
            let mut link = stream.lock();
            let Some(state) = link.state(stream.id()) else { return Poll::Ready(Err(StreamFault::Lost)) };
            if std::mem::take(&mut state.wants_body)
                && let Some(gate) = &gate
            {
                gate.open();
            }
            let hints = std::mem::take(&mut state.interim);
            let answered = match (state.head.take(), state.fault) {
                (Some(head), _) => Poll::Ready(Ok(head)),
                (None, Some(fault)) => Poll::Ready(Err(fault)),
                (None, None) => state.wait_to_read(cx),
            };
            drop(link);
            if let Some(interim) = &interim {
                hints.iter().for_each(|hint| interim.pass(heads::answered(hint)));
            }
            answered
        });
        let answered = answered.await;
        let (answer, ended) = answered.map_err(|broken| SendError::new(failure(broken), reused))?;
        if answer.view().status == 101 && !upgrade {
            return Err(SendError::new(SendFailure::Protocol, reused));
        }
        waiting.0 = None;
        let asked = Asked { head: head.method() == "HEAD", connect: false, upgrade };
        let response = received(&stream, &answer, ended, asked);
        stream.lock().connection.recycle(answer);
        Ok(Gate::answered(gate, Response { unread: Some(self.0.unread.clone()), ..response }))
    }

    /// Opens an opaque stream to `authority`.
    ///
    /// # Errors
    /// [`Unopened`].
    pub async fn open(&self, authority: &str, headers: &[(&str, &str)]) -> Result<Io, Unopened> {
        let broken = |failure| Unopened::Broken(SendError::new(failure, self.0.used.get()));
        let stream = {
            let mut link = self.0.shared.lock();
            let now = link.now();
            let head = OpaqueHead { authority, fields: headers.iter().copied() };
            let opened = link.connection.open_opaque(head, now);
            link.wake_driver();
            opened.map_err(|_| broken(SendFailure::Closed))?
        };
        let stream = self.0.shared.stream(stream, false);
        let mut waiting = Waiting(Some(stream.clone()));
        let answered = poll_fn(|cx| {
            let mut link = stream.lock();
            let Some(state) = link.state(stream.id()) else { return Poll::Ready(Err(StreamFault::Lost)) };
            match (state.head.take(), state.fault) {
                (Some(_), _) => Poll::Ready(Ok(())),
                (None, Some(fault)) => Poll::Ready(Err(fault)),
                (None, None) => state.wait_to_read(cx),
            }
        });
        let answered = answered.await;
        waiting.0 = None;
        match answered {
            Ok(()) => Ok(Io::chunked(Opaque::new(stream))),
            Err(StreamFault::Refused(reason) | StreamFault::Reset(reason)) => Err(Unopened::Refused(reason)),
            Err(fault) => Err(broken(failure(fault))),
        }
    }
}

/// Why there is no opaque stream.
#[derive(Debug)]
pub enum Unopened {
    /// The other side says why.
    Refused(Reason),
    /// The link failed.
    Broken(SendError),
}

/// A stream that waits for its answer: who gives up waiting gives up the stream.
struct Waiting(Option<Stream>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset(Reason::CallerGone);
        }
    }
}

const fn failure(broken: StreamFault) -> SendFailure {
    match broken {
        StreamFault::Refused(_) => SendFailure::Refused,
        StreamFault::Unsent(reason) => SendFailure::RequestBody(reason),
        StreamFault::Silent => SendFailure::Unresponsive,
        StreamFault::Reset(_) | StreamFault::Lost => SendFailure::Reset,
    }
}

/// What came back; the link has judged it. If it has `ended`, it is all head.
fn received(stream: &Stream, answer: &ResponseBuf, ended: bool, asked: Asked) -> Response {
    let head = heads::answered(answer);
    if head.is_switch() && asked.upgrade {
        let upgrading = Some(Upgrading::here(Io::chunked(Opaque::new(stream.clone()))));
        return Response { upgrading, ..Response::new(head, Body::empty()) };
    }
    if asked.upgrade {
        // Nothing follows the request.
        finish(stream);
    }
    if ended {
        return Response::new(head, Body::empty());
    }
    let length = head.length.filter(|_| !asked.is_bodiless(head.status));
    Response::new(head, Body::boxed(Incoming::answer(stream.clone(), length)))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("closed", &self.is_closed()).finish()
    }
}
