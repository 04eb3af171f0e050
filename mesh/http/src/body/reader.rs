//! A body that is given up when nobody reads on.
//!
//! What is not read stays in the windows of the connection that it comes over, and when these are full, all other streams of
//! the connection wait, too. Nobody polls such a body, so a task of its own looks after it, and ends with it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{Body, BodyError};
use crate::sweeper::{Deadline, Sweeper};

/// The reader's end.
struct Read {
    shared: Rc<RefCell<Shared>>,
    /// Tells the task that the body has been dropped.
    _alive: oneshot::Sender<()>,
}

struct Shared {
    /// `None` once it was given up.
    body: Option<Body>,
    /// Somebody has read since the last look.
    wanted: bool,
    /// Somebody waits for what comes next.
    waiting: bool,
}

/// How many bodies of a connection nobody reads at present: what they hold of its window others lack.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<AtomicU32>);

impl Unread {
    /// The number of them.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of them, until this is dropped.
struct Counted(Unread);

impl Counted {
    fn among(unread: &Unread) -> Self {
        unread.0.fetch_add(1, Ordering::Relaxed);
        Self(unread.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is left unread for so long counts as unread.
const NOTICED: Duration = Duration::from_secs(1);

/// `body`, which must not be left unread for longer than `limit`; `unread` learns of it before.
pub(super) fn limited(body: Body, sweeper: &Sweeper, limit: Duration, unread: Unread) -> Body {
    let shared = Rc::new(RefCell::new(Shared { body: Some(body), wanted: false, waiting: false }));
    let (alive, dropped) = oneshot::channel();
    let deadline = sweeper.after(limit.min(NOTICED));
    tokio::task::spawn_local(look_after(Rc::downgrade(&shared), deadline, limit, unread, dropped));
    Body::boxed(Read { shared, _alive: alive })
}

async fn look_after(
    shared: Weak<RefCell<Shared>>,
    mut deadline: Deadline,
    limit: Duration,
    unread: Unread,
    mut dropped: oneshot::Receiver<()>,
) {
    let period = limit.min(NOTICED);
    let mut unread_for = Duration::ZERO;
    let mut counted = None;
    loop {
        tokio::select! {
            _ = &mut dropped => return,
            () = &mut deadline => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if shared.borrow_mut().is_read() {
            unread_for = Duration::ZERO;
            counted = None;
        } else {
            unread_for += period;
            counted.get_or_insert_with(|| Counted::among(&unread));
        }
        if unread_for >= limit {
            // Its observers may be interested in anything, so nothing is borrowed when it is dropped.
            let given_up = shared.borrow_mut().body.take();
            drop(given_up);
            return;
        }
        deadline.reset(period);
    }
}

impl Shared {
    /// Whether somebody has read since the last look, or waits for what comes next.
    const fn is_read(&mut self) -> bool {
        std::mem::replace(&mut self.wanted, false) || self.waiting
    }
}

impl HttpBody for Read {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.shared.borrow_mut();
        let Some(body) = &mut state.body else { return Poll::Ready(Some(Err(BodyError::Unread))) };
        let polled = Pin::new(body).poll_frame(cx);
        state.wanted = true;
        state.waiting = polled.is_pending();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.shared.borrow().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.borrow().body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::body::{Body, BodyError, Unread};
    use crate::sweeper::Sweeper;
    use crate::testing::{channel, data, frame, paused};

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_body_that_nobody_reads_is_let_go() {
        paused(async {
            let (sender, body) = channel();
            let mut body = body.read_limit(&Sweeper::new(), LIMIT, Unread::default());
            sender.send(data(b"one")).await.expect("room");
            assert!(frame(&mut body).await.is_some_and(|frame| frame.is_ok()));
            sender.closed().await;
            assert!(matches!(frame(&mut body).await, Some(Err(BodyError::Unread))));
        });
    }

    #[test]
    fn a_body_that_is_waited_for_is_kept_however_long_it_is_silent() {
        paused(async {
            let (sender, body) = channel();
            let mut body = body.read_limit(&Sweeper::new(), LIMIT, Unread::default());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(20 * LIMIT).await;
                sender.send(data(b"late")).await.expect("it is waited for");
            });
            assert!(frame(&mut body).await.is_some_and(|frame| frame.is_ok()));
            assert!(frame(&mut body).await.is_none());
        });
    }

    #[test]
    fn nothing_is_left_of_a_body_that_was_dropped() {
        paused(async {
            let sweeper = Sweeper::new();
            drop(Body::full("x").read_limit(&sweeper, LIMIT, Unread::default()));
            while sweeper.live() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
