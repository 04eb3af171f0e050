//! A caller's connection, which the exchange and the request's body share.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use eastway_transport::Io;
use http_body::Frame;

use crate::body::{Body, BodyError, Source, Streamed};
use crate::message::{Response, ResponseHead, TakesInterim};
use crate::wire::{CallerState, Conn, Over, SendFault, ServerConnection};

/// A connection, and who reads the body of its request.
pub(super) struct Caller {
    /// `None` once it was closed or given away.
    connection: RefCell<Option<ServerConnection>>,
    /// Counts requests: a body that outlives its own must not read from the next.
    request: Cell<u64>,
    /// Somebody may still read the request's body.
    read: Cell<bool>,
    stops: Cell<bool>,
    /// The task that drives the connection.
    task: RefCell<Option<Waker>>,
}

impl Caller {
    pub(super) fn new(connection: ServerConnection) -> Rc<Self> {
        Rc::new(Self {
            connection: RefCell::new(Some(connection)),
            request: Cell::new(0),
            read: Cell::new(false),
            stops: Cell::new(false),
            task: RefCell::default(),
        })
    }

    /// Does something with the connection, unless it has ended.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut ServerConnection) -> T) -> Option<T> {
        self.connection.borrow_mut().as_mut().map(what)
    }

    /// No further request is taken once `stop` resolves.
    pub(super) fn poll_stop<S: Future<Output = ()>>(&self, stop: Pin<&mut S>, cx: &mut Context<'_>) {
        if !self.stops.get() && stop.poll(cx).is_ready() {
            self.stops.set(true);
        }
    }

    pub(super) const fn stops(&self) -> bool {
        self.stops.get()
    }

    /// The body of the request that was read, with its length if that is known.
    pub(super) fn body(self: &Rc<Self>, length: Option<u64>) -> Body {
        self.request.set(self.request.get() + 1);
        if self.is_read() {
            return Body::empty();
        }
        self.read.set(true);
        Body::streamed(Streamed::new(Rc::clone(self) as _, self.request.get(), length))
    }

    /// Writes the head of the answer, whose body it gives; `None` if the caller has gone.
    pub(super) fn begin_answer(&self, answer: Response) -> Option<Body> {
        let Response { head, body, .. } = answer;
        self.with(|connection| {
            if self.stops() {
                connection.take_no_more();
            }
            if connection.answer(&head, &body) { body } else { Body::empty() }
        })
    }

    /// Ready when the caller has gone. It is looked after only while nobody waits for the request's body: who does learns it.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wake_here(cx);
        self.with(|connection| match connection.is_body_read() {
            true => match connection.poll_caller(cx) {
                // It has sent other requests before, and wants their answers.
                Poll::Ready(CallerState::HalfClosed) if connection.has_begun_request() => Poll::Pending,
                polled => polled.map(|_| ()),
            },
            false => Poll::Pending,
        })
        .unwrap_or(Poll::Ready(()))
    }

    /// Sends what was answered, and waits until nobody reads the request any more.
    pub(super) fn poll_request_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.read.get() {
            return Poll::Ready(());
        }
        self.wake_here(cx);
        let sent = self.with(|connection| connection.poll_flush(cx));
        if matches!(sent, Some(Poll::Pending | Poll::Ready(Ok(())))) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Ends the connection as it is.
    pub(super) fn abandon(&self) {
        drop(self.connection.take());
    }

    /// Ends the connection in order.
    pub(super) async fn close(&self) {
        let connection = self.connection.take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    /// Gives the stream away.
    pub(super) async fn take_io(&self) -> Option<Result<Io, SendFault>> {
        let connection = self.connection.take()?;
        Some(connection.into_io().await)
    }

    fn wake_here(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match &mut *task {
            Some(known) => known.clone_from(cx.waker()),
            None => *task = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// The bodies of requests.
impl Source for Caller {
    fn poll_frame(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if number != self.request.get() {
            return Poll::Ready(Some(Err(BodyError::Truncated)));
        }
        let polled = self.with(|connection| {
            // Who asks for the body wants it to be sent.
            if connection.send_continue() {
                self.wake();
            }
            connection.poll_frame(cx)
        });
        polled.unwrap_or(Poll::Ready(Some(Err(BodyError::Truncated))))
    }

    fn is_read(&self) -> bool {
        self.with(|connection| connection.is_body_read()).unwrap_or(true)
    }

    fn let_go(&self, number: u64, _: bool) {
        if number == self.request.get() && self.read.replace(false) {
            self.wake();
        }
    }
}

/// They are sent when whoever awaits the answer has nothing else to do.
impl TakesInterim for Caller {
    fn interim(&self, head: &ResponseHead) {
        self.with(|connection| connection.interim(head));
    }
}

impl Over for Caller {
    fn with_conn<T>(&self, what: impl FnOnce(&mut Conn) -> T) -> Option<T> {
        self.with(|connection| what(connection.conn_mut()))
    }
}
