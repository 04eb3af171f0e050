//! Draining: a process that was told to end finishes what it has in hand, within a grace period.
//!
//! [`Drain`] starts it and waits for its end; [`Draining`] is what everything else holds: it tells that draining has
//! begun, and hands out guards for work in flight. Dropping a guard is the signal, so nobody can forget it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often [`Draining::until`] looks.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// The trigger. Clones start and force the same drain.
#[derive(Clone, Debug)]
pub struct Drain {
    state: Arc<State>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct State {
    started: CancellationToken,
    forced: CancellationToken,
    in_flight: AtomicUsize,
    idle: Notify,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything in flight has finished.
    Finished,
    /// The grace period is over, with so much left in flight.
    GraceOver(usize),
    /// Somebody lost patience, with so much left in flight.
    Forced(usize),
}

impl Drain {
    /// A drain that has not begun and will wait at most `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { state: Arc::default(), grace }
    }

    /// Begins draining; again: no effect.
    pub fn start(&self) {
        self.state.started.cancel();
    }

    /// Begins draining and ends the grace period at once.
    pub fn force(&self) {
        self.state.started.cancel();
        self.state.forced.cancel();
    }

    /// The handle for everybody else.
    pub fn draining(&self) -> Draining {
        Draining { state: Arc::clone(&self.state) }
    }

    /// The longest that [`Drain::finished`] waits once draining has begun.
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// How many guards are held.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Acquire)
    }

    /// Waits until draining begins, and then until nothing is in flight, the grace period is over or patience is.
    pub async fn finished(&self) -> Drained {
        self.state.started.cancelled().await;
        tokio::select! {
            biased;
            () = self.idle() => Drained::Finished,
            () = self.state.forced.cancelled() => Drained::Forced(self.in_flight()),
            () = tokio::time::sleep(self.grace) => Drained::GraceOver(self.in_flight()),
        }
    }

    async fn idle(&self) {
        loop {
            let notified = self.state.idle.notified();
            tokio::pin!(notified);
            // Registered before the count is read: a guard that is dropped in between wakes us.
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Whether the process drains, and the count of what it still does.
#[derive(Clone, Debug)]
pub struct Draining {
    state: Arc<State>,
}

impl Draining {
    /// Whether draining has begun.
    pub fn started(&self) -> bool {
        self.state.started.is_cancelled()
    }

    /// Completes when draining begins. Owned, so that a task may keep it.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        self.state.started.clone().cancelled_owned()
    }

    /// Completes when patience is over: what is still in flight should be cut.
    pub fn forced(&self) -> impl Future<Output = ()> + Send + 'static {
        self.state.forced.clone().cancelled_owned()
    }

    /// Completes when `done` says so, which is asked every so often, or when patience is over.
    pub async fn until(&self, done: impl Fn() -> bool) {
        let forced = self.forced();
        tokio::pin!(forced);
        let mut ticks = tokio::time::interval(LOOK_PERIOD);
        while !done() {
            tokio::select! {
                () = &mut forced => return,
                _ = ticks.tick() => {}
            }
        }
    }

    /// Counts something in flight until the guard is dropped.
    pub fn guard(&self) -> InFlight {
        self.state.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { state: Arc::clone(&self.state) }
    }
}

/// Something in flight that the drain waits for.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<State>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.state.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.state.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn nothing_in_flight_ends_at_once() {
        let drain = Drain::new(GRACE);
        assert!(timeout(Duration::from_secs(99), drain.finished()).await.is_err(), "not begun, so never finished");
        drain.start();
        assert!(drain.draining().started());
        assert_eq!(drain.finished().await, Drained::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_guard_ends_it() {
        let drain = Drain::new(GRACE);
        let (one, two) = (drain.draining().guard(), drain.draining().guard());
        drain.start();
        let begun = Instant::now();
        let release = async {
            drop(one);
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(two);
        };
        let (drained, ()) = tokio::join!(drain.finished(), release);
        assert_eq!(drained, Drained::Finished);
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_bounds_it() {
        let drain = Drain::new(GRACE);
        let _stuck = drain.draining().guard();
        drain.start();
        let begun = Instant::now();
        assert_eq!(drain.finished().await, Drained::GraceOver(1));
        assert_eq!(begun.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn force_ends_the_grace_period() {
        let drain = Drain::new(GRACE);
        let draining = drain.draining();
        let _stuck = draining.guard();
        let clone = drain.clone();
        let begun = Instant::now();
        let (drained, ()) = tokio::join!(drain.finished(), async move { clone.force() });
        assert_eq!(drained, Drained::Forced(1));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        draining.wait().await;
        draining.forced().await;
    }
}
