//! Deadlines without a timer each: one task per worker looks over all of them every 25 ms.
//!
//! A request arms a cell and disarms it by dropping it: both are a few writes to memory of this thread, and read no clock; the
//! next look does. A deadline therefore fires up to two periods late, and never early. Limits below a few periods belong to the runtime's own timers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How often deadlines are looked at, unless said otherwise.
pub const PERIOD: Duration = Duration::from_millis(25);

/// The deadlines of one worker. Clones share them; the task ends with the last clone and the last deadline.
#[derive(Clone)]
pub struct Sweeper(Rc<Inner>);

struct Inner {
    cells: RefCell<Cells>,
    /// What a deadline is until its first look.
    begun: Instant,
    /// Cells in use; the task sleeps without a period while there are none.
    live: Cell<usize>,
    notify: Rc<Notify>,
}

#[derive(Default)]
struct Cells {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// `None` once the deadline was seen to have passed, or while the slot is free.
    at: Option<Instant>,
    /// What the look after a touch adds to now.
    idle: Duration,
    /// It begins, or begins anew, with the next look.
    touched: bool,
    waker: Option<Waker>,
}

impl Sweeper {
    /// Starts the sweeping task on the current `LocalSet`.
    pub fn new() -> Self {
        Self::with_period(PERIOD)
    }

    /// Starts the sweeping task with another period.
    pub fn with_period(period: Duration) -> Self {
        let notify = Rc::new(Notify::new());
        let inner = Rc::new(Inner {
            cells: RefCell::default(),
            begun: Instant::now(),
            live: Cell::new(0),
            notify: Rc::clone(&notify),
        });
        tokio::task::spawn_local(run(Rc::downgrade(&inner), notify, period));
        Self(inner)
    }

    /// A deadline `limit` from now. [`Deadline::touch`] moves it to `limit` from the touch.
    pub fn after(&self, limit: Duration) -> Deadline {
        let slot = Slot { at: Some(self.0.begun), idle: limit.min(LONGEST), touched: true, waker: None };
        let mut cells = self.0.cells.borrow_mut();
        let index = match cells.free.pop() {
            Some(index) => {
                cells.slots[index] = slot;
                index
            }
            None => {
                cells.slots.push(slot);
                cells.slots.len() - 1
            }
        };
        drop(cells);
        if self.0.live.replace(self.0.live.get() + 1) == 0 {
            self.0.notify.notify_one();
        }
        Deadline { inner: Rc::clone(&self.0), index }
    }

    /// Runs `future`, but not longer than `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] if the limit passed first; the future is dropped then.
    pub async fn within<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut deadline = self.after(limit);
        let mut future = pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => deadline.poll_expired(context).map(|()| Err(Elapsed)),
        })
        .await
    }

    /// How many deadlines are armed.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }
}

impl Default for Sweeper {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper").field("live", &self.live()).finish()
    }
}

/// A limit passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time limit passed")]
pub struct Elapsed;

/// A point in time that the worker's sweeper watches. Resolves once it was seen to have passed; dropping disarms it.
pub struct Deadline {
    inner: Rc<Inner>,
    index: usize,
}

impl Deadline {
    /// Something happened: an idle limit starts anew. Reads no clock; the next sweep does.
    pub fn touch(&self) {
        self.inner.cells.borrow_mut().slots[self.index].touched = true;
    }

    /// Starts an idle limit anew, also if it had passed.
    pub fn restart(&self) {
        let slot = &mut self.inner.cells.borrow_mut().slots[self.index];
        slot.touched = true;
        slot.at = Some(self.inner.begun);
    }

    /// Moves the deadline to `limit` from now, also if it had passed.
    pub fn reset(&self, limit: Duration) {
        let slot = &mut self.inner.cells.borrow_mut().slots[self.index];
        slot.at = Some(self.inner.begun);
        slot.idle = limit.min(LONGEST);
        slot.touched = true;
    }

    /// Whether the sweeper saw it pass.
    pub fn is_expired(&self) -> bool {
        self.inner.cells.borrow().slots[self.index].at.is_none()
    }

    /// Ready once the sweeper saw it pass; else the task is woken then.
    pub fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let slot = &mut self.inner.cells.borrow_mut().slots[self.index];
        if slot.at.is_none() {
            return Poll::Ready(());
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => slot.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_expired(context)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut cells = self.inner.cells.borrow_mut();
        let slot = &mut cells.slots[self.index];
        slot.at = None;
        let waker = slot.waker.take();
        cells.free.push(self.index);
        drop(cells);
        drop(waker);
        self.inner.live.set(self.inner.live.get() - 1);
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("expired", &self.is_expired()).finish()
    }
}

impl Inner {
    /// Marks what has passed and returns who waits for it, to be woken without the cells being borrowed.
    fn sweep(&self, now: Instant) -> Vec<Waker> {
        let mut woken = Vec::new();
        for slot in &mut self.cells.borrow_mut().slots {
            let Some(at) = slot.at else { continue };
            if slot.touched {
                slot.touched = false;
                slot.at = Some(now + slot.idle);
            } else if at <= now {
                slot.at = None;
                woken.extend(slot.waker.take());
            }
        }
        woken
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.notify.notify_one();
    }
}

async fn run(inner: Weak<Inner>, notify: Rc<Notify>, period: Duration) {
    while let Some(strong) = inner.upgrade() {
        if strong.live.get() == 0 {
            drop(strong);
            notify.notified().await;
            continue;
        }
        let woken = strong.sweep(Instant::now());
        drop(strong);
        woken.into_iter().for_each(Waker::wake);
        tokio::time::sleep(period).await;
    }
}

/// Bounded, so that "no limit" written as a huge duration does not overflow the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests;
