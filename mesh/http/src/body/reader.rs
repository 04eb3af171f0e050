//! A body that is given up when nobody reads on.
//!
//! What is not read stays in the windows of the connection that it comes over, and when these are full, all other streams of the
//! connection wait, too. Nobody polls such a body, so a task of its own looks after it, and ends with it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{Body, BodyError};
use crate::sweeper::Deadline;

/// The reader's end.
struct Read {
    shared: Rc<RefCell<Shared>>,
    /// Tells the task that the body has been dropped.
    _alive: oneshot::Sender<()>,
}

struct Shared {
    /// `None` once it was given up.
    body: Option<Body>,
    /// Somebody read, or waits for what comes next, since the last look.
    wanted: bool,
    waiting: bool,
}

/// `body`, which must not be left unread for twice the limit of `deadline`.
pub(super) fn limited(body: Body, deadline: Deadline) -> Body {
    let shared = Rc::new(RefCell::new(Shared { body: Some(body), wanted: false, waiting: false }));
    let (alive, dropped) = oneshot::channel();
    tokio::task::spawn_local(look_after(Rc::downgrade(&shared), deadline, dropped));
    Body::boxed(Read { shared, _alive: alive })
}

async fn look_after(shared: Weak<RefCell<Shared>>, mut deadline: Deadline, mut dropped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut dropped => return,
            () = &mut deadline => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.borrow_mut();
        if !std::mem::take(&mut state.wanted) && !state.waiting {
            let unread = state.body.take();
            // Its observers may be interested in anything.
            drop(state);
            drop(unread);
            return;
        }
        drop(state);
        deadline.restart();
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

    use crate::body::{Body, BodyError};
    use crate::sweeper::Sweeper;
    use crate::testing::{channel, data, frame, paused};

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_body_that_nobody_reads_is_let_go() {
        paused(async {
            let (sender, body) = channel();
            let mut body = body.read_limit(Sweeper::new().after(LIMIT));
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
            let mut body = body.read_limit(Sweeper::new().after(LIMIT));
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
            drop(Body::full("x").read_limit(sweeper.after(LIMIT)));
            while sweeper.live() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
