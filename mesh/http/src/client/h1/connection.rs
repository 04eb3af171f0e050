//! What the parts of an exchange share, and an idle connection's watch.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use eastway_transport::Io;
use http_body::Frame;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::body::{BodyError, Source};
use crate::framing::{Asked, Length};
use crate::limits::HeadLimits;
use crate::message::{RequestHead, ResponseHead};
use crate::wire::{ClientConnection, Conn, Over, Sending, Unanswered, Unsent};

/// A connection, and where its exchange is.
pub(super) struct Connection {
    /// `None` once it has ended.
    wire: RefCell<Option<ClientConnection>>,
    /// The request is not sent to its end.
    sends: Cell<bool>,
    /// The response is not read to its end.
    receives: Cell<bool>,
    /// Sends what is left of the request behind the head of the response.
    upload: Cell<Option<AbortHandle>>,
    ended: Cell<Option<Instant>>,
    /// Is to notice that the connection ends while it is idle.
    watch: Cell<Option<Waker>>,
    /// Waits for a body, or until the connection is idle.
    waiting: Cell<Option<Waker>>,
}

/// Who uses the connection: it is closed when nobody does.
pub(super) struct Hold(Rc<Connection>);

impl Hold {
    pub(super) fn new(connection: Rc<Connection>) -> Rc<Self> {
        Rc::new(Self(connection))
    }

    pub(super) const fn connection(&self) -> &Rc<Connection> {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Connection {
    pub(super) fn new(io: Io, limits: HeadLimits) -> Rc<Self> {
        let wire = ClientConnection::new(io, limits);
        let connection = Rc::new(Self {
            wire: RefCell::new(Some(wire)),
            sends: Cell::new(false),
            receives: Cell::new(false),
            upload: Cell::default(),
            ended: Cell::default(),
            watch: Cell::default(),
            waiting: Cell::default(),
        });
        tokio::task::spawn_local(watch(Rc::downgrade(&connection)));
        connection
    }

    /// Does something with the connection, unless it has ended.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut ClientConnection) -> T) -> Option<T> {
        self.wire.borrow_mut().as_mut().map(what)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.borrow().is_none()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.sends.get() && !self.receives.get() && !self.is_closed()
    }

    pub(super) const fn ended_at(&self) -> Option<Instant> {
        self.ended.get()
    }

    /// Waits until the connection is idle; `false` if it ends before.
    pub(super) fn poll_idle(&self, cx: &Context<'_>) -> Poll<bool> {
        if self.is_closed() {
            return Poll::Ready(false);
        }
        if self.is_idle() {
            return Poll::Ready(true);
        }
        self.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Begins an exchange over an idle connection.
    pub(super) fn begin(&self, head: &RequestHead, length: Length) {
        self.sends.set(true);
        self.receives.set(true);
        self.with(|wire| wire.send(head, length));
    }

    /// The next head that comes.
    pub(super) fn poll_response(&self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Unanswered>> {
        let gone = Unanswered { malformed: false, unsent: false };
        self.with(|wire| wire.poll_response(cx)).unwrap_or(Poll::Ready(Err(gone)))
    }

    /// What the request asked for.
    pub(super) fn asked(&self) -> Asked {
        self.with(|wire| wire.asked()).unwrap_or_default()
    }

    /// The body of the response, if all of it is here already.
    pub(super) fn take_body(&self) -> Option<Bytes> {
        self.with(ClientConnection::take_body).flatten()
    }

    /// The raw bytes behind the head of the response. The connection has ended then.
    pub(super) fn take_io(&self) -> Option<Io> {
        let io = self.with(ClientConnection::take_io);
        self.close();
        io
    }

    /// Sends what is left of the request, as long as somebody waits for the response or the connection.
    pub(super) fn go_on(self: &Rc<Self>, upload: Option<Sending>) {
        let Some(mut upload) = upload else { return self.sent() };
        let connection = Rc::downgrade(self);
        let task = tokio::task::spawn_local(poll_fn(move |cx| {
            let Some(connection) = connection.upgrade() else { return Poll::Ready(()) };
            match ready!(upload.poll(&*connection, cx)) {
                // Its end, too, is to go out.
                Ok(()) => {
                    let _ = ready!(connection.with_conn(|conn| conn.poll_flush(cx)).unwrap_or(Poll::Ready(Ok(()))));
                    connection.sent();
                }
                Err(Unsent::Unwanted | Unsent::Stalled) => connection.sent(),
                Err(Unsent::Body(_) | Unsent::WrongLength) => connection.close(),
            }
            Poll::Ready(())
        }));
        self.upload.set(Some(task.abort_handle()));
    }

    fn sent(&self) {
        self.sends.set(false);
        self.settle();
    }

    /// The response was read to its end.
    pub(super) fn received(&self) {
        self.receives.set(false);
        self.settle();
    }

    /// Makes the connection idle once both directions are done, or closes it if it carries no other exchange.
    fn settle(&self) {
        if self.sends.get() || self.receives.get() {
            return;
        }
        self.upload.take();
        if self.with(ClientConnection::settle) != Some(true) {
            return self.close();
        }
        if let Some(watch) = self.watch.take() {
            let _ = self.poll_watch(&Context::from_waker(&watch));
            self.watch.set(Some(watch));
        }
        self.wake();
    }

    /// Ready when the connection has ended.
    fn poll_watch(&self, cx: &Context<'_>) -> Poll<()> {
        let mut cx = Context::from_waker(cx.waker());
        if self.is_idle() && self.with(|wire| wire.poll_stale(&mut cx).is_ready()) == Some(true) {
            self.close();
        }
        if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the connection, whatever is under way.
    pub(super) fn close(&self) {
        let wire = self.wire.take();
        if wire.is_none() {
            return;
        }
        self.ended.set(Some(Instant::now()));
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
        self.watch.take().into_iter().for_each(Waker::wake);
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// The body of the response.
impl Source for Hold {
    fn poll_frame(&self, _: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let connection = &self.0;
        let polled = connection.with(|wire| wire.poll_frame(cx));
        let polled = polled.unwrap_or(Poll::Ready(Some(Err(BodyError::Truncated))));
        if polled.is_pending() && connection.sends.get() {
            // If the request fails, the connection ends, and nothing comes that would say so.
            connection.waiting.set(Some(cx.waker().clone()));
        }
        polled
    }

    fn is_read(&self) -> bool {
        self.0.with(|wire| wire.is_body_read()).unwrap_or(true)
    }

    fn let_go(&self, _: u64, whole: bool) {
        if whole {
            self.0.received();
        } else {
            self.0.close();
        }
    }
}

impl Over for Connection {
    fn with_conn<T>(&self, what: impl FnOnce(&mut Conn) -> T) -> Option<T> {
        self.with(|wire| what(wire.conn_mut()))
    }
}

/// Notices that a connection ends while it is idle.
async fn watch(connection: Weak<Connection>) {
    poll_fn(|cx| {
        let Some(connection) = connection.upgrade() else { return Poll::Ready(()) };
        connection.watch.set(Some(cx.waker().clone()));
        connection.poll_watch(cx)
    })
    .await;
}
