//! Sessions: keys that vanish when their owner does.
//!
//! For: the keys of gateways and of the election, and nothing else ([`keys::may_hang_on_lease`]). A session renews its
//! lease every third of its time to live; when that fails for too long it says *lost*, gets a new lease and writes its
//! keys again. Losing is decided by the owner's own clock, from the moment the last successful renewal was *sent*: an
//! owner that cannot reach the store knows that it lost before the store gives its keys away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::txn::{check_key, check_value, overwrite};
use super::{LeaseId, Store, StoreError, chain, keys};

/// The time to live of a session where none is configured.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// The shortest time to live: etcd grants no less than one and a half election timeouts.
pub const MIN_TTL: Duration = Duration::from_secs(2);

/// How long the end of a session waits for the store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a session's keys are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The lease is held. A new lease after a loss is another id.
    Held(LeaseId),
    /// No lease: the keys may be gone or taken. The session works at getting a new one.
    Lost,
}

/// A lease that is kept alive, and the keys that hang on it. Dropping it ends the lease in the background;
/// [`StoreSession::close`] waits for that.
#[derive(Debug)]
pub struct StoreSession {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    ttl: Duration,
    /// What shall be in the store: `None` is to be deleted. The number tells a later wish from an earlier one.
    wishes: Mutex<BTreeMap<String, (u64, Option<Bytes>)>>,
    changed: Notify,
    state: watch::Sender<SessionState>,
    /// Until when the lease is held for sure.
    until: Mutex<Instant>,
}

impl StoreSession {
    /// Starts a session. It never fails: as long as the store is away, the session is [`SessionState::Lost`].
    pub fn start(store: Arc<dyn Store>, ttl: Duration) -> Self {
        let shared = Arc::new(Shared {
            store,
            ttl: ttl.max(MIN_TTL),
            wishes: Mutex::default(),
            changed: Notify::new(),
            state: watch::channel(SessionState::Lost).0,
            until: Mutex::new(Instant::now()),
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(Arc::clone(&shared), stopped));
        Self { shared, stop: Some(stop), task: Some(task) }
    }

    /// Keeps `key` at `value` for as long as the session lives: written soon, and again after each loss.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the key may not hang on a lease, or is too long, or the value is.
    pub fn keep(&self, key: &str, value: impl Into<Bytes>) -> Result<(), StoreError> {
        let value = value.into();
        check_key(key)?;
        check_value(key, &value)?;
        if !keys::may_hang_on_lease(key) {
            return Err(StoreError::Invalid(format!("`{key}` may not hang on a lease")));
        }
        self.shared.wish(key, Some(value));
        Ok(())
    }

    /// Deletes a key that was kept.
    pub fn forget(&self, key: &str) {
        self.shared.wish(key, None);
    }

    /// The lease, if it is held for sure at this moment.
    pub fn lease(&self) -> Option<LeaseId> {
        match *self.shared.state.borrow() {
            SessionState::Held(lease) if Instant::now() < *self.shared.until.lock() => Some(lease),
            _ => None,
        }
    }

    /// Tells of gains and losses. A loss that is made good at once may show only as another lease.
    pub fn states(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    /// The store it lives in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Ends the lease, which deletes the keys, and waits until that is done or clearly fails.
    pub async fn close(mut self) {
        self.stop.take();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!(error = chain(&error), "a session of the store ended badly");
        }
    }
}

impl Shared {
    fn wish(&self, key: &str, value: Option<Bytes>) {
        let mut wishes = self.wishes.lock();
        let number = wishes.get(key).map_or(0, |(number, _)| number + 1);
        wishes.insert(key.to_owned(), (number, value));
        drop(wishes);
        self.changed.notify_one();
    }
}

/// The life of a session: leases one after another until it is stopped, or dropped, which closes `stopped`.
async fn run(shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let mut lease = None;
    tokio::select! {
        () = hold_leases(&shared, &mut lease) => {}
        _ = stopped => {}
    }
    shared.state.send_replace(SessionState::Lost);
    if let Some(lease) = lease
        && !matches!(timeout(CLOSE_TIMEOUT, shared.store.revoke(lease)).await, Ok(Ok(())))
    {
        debug!(?lease, "the lease could not be ended and will expire");
    }
}

async fn hold_leases(shared: &Shared, current: &mut Option<LeaseId>) {
    let mut pause = Pause::new(shared.ttl);
    loop {
        let sent = Instant::now();
        let lease = match shared.store.grant(shared.ttl).await {
            Ok(lease) => lease,
            Err(error) => {
                debug!(error = chain(&error), "no lease for the session");
                pause.wait().await;
                continue;
            }
        };
        pause.reset();
        *current = Some(lease);
        *shared.until.lock() = sent + shared.ttl;
        shared.state.send_replace(SessionState::Held(lease));
        tokio::select! {
            () = renew(shared, lease, sent) => {}
            () = write_wishes(shared, lease) => {}
        }
        shared.state.send_replace(SessionState::Lost);
        info!(?lease, "the lease is lost");
    }
}

/// Renews `lease`; returns when it is lost.
async fn renew(shared: &Shared, lease: LeaseId, granted: Instant) {
    let third = shared.ttl / 3;
    let mut next = granted + third;
    let mut until = granted + shared.ttl;
    loop {
        sleep_until(next).await;
        let sent = Instant::now();
        tokio::select! {
            () = sleep_until(until) => return,
            answer = shared.store.renew(lease) => match answer {
                Ok(true) => {
                    until = sent + shared.ttl;
                    *shared.until.lock() = until;
                    next = sent + third;
                }
                Ok(false) => return,
                Err(error) => {
                    debug!(error = chain(&error), "the lease could not be renewed yet");
                    next = Instant::now() + shared.ttl / 12;
                }
            }
        }
    }
}

/// Brings the kept keys under `lease`, and follows their changes; returns when the lease turns out to be lost.
async fn write_wishes(shared: &Shared, lease: LeaseId) {
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let mut pause = Pause::new(shared.ttl);
    loop {
        let changed = shared.changed.notified();
        let next = {
            let wishes = shared.wishes.lock();
            let open = |(key, (number, _)): &(&String, &(u64, Option<Bytes>))| written.get(*key) != Some(number);
            wishes.iter().find(open).map(|(key, (number, value))| (key.clone(), *number, value.clone()))
        };
        let Some((key, number, value)) = next else {
            changed.await;
            continue;
        };
        let result = match value {
            Some(value) => overwrite(&*shared.store, &key, value, Some(lease)).await.map(|_| ()),
            None => shared.store.delete(&key).await.map(|_| ()),
        };
        match result {
            Ok(()) => {
                written.insert(key, number);
                pause.reset();
            }
            Err(StoreError::LeaseLost) => return,
            Err(error) => {
                debug!(key, error = chain(&error), "a key of the session could not be written yet");
                pause.wait().await;
            }
        }
    }
}

/// Waits that grow from a fiftieth of the time to live to a quarter, with jitter.
#[derive(Debug)]
pub(super) struct Pause {
    ttl: Duration,
    round: u32,
    rng: fastrand::Rng,
}

impl Pause {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, round: 0, rng: fastrand::Rng::new() }
    }

    pub(super) const fn reset(&mut self) {
        self.round = 0;
    }

    pub(super) async fn wait(&mut self) {
        let bound = (self.ttl / 50 * 2_u32.saturating_pow(self.round.min(8))).min(self.ttl / 4);
        self.round += 1;
        sleep(bound.mul_f64(0.5 + 0.5 * self.rng.f64())).await;
    }
}

impl Drop for StoreSession {
    fn drop(&mut self) {
        // Closing the channel stops the task, which ends the lease by itself.
        self.stop.take();
    }
}
