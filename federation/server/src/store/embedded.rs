//! The store in the gateway's own process, on disk: for one machine, and for a cluster with a single gateway.
//!
//! Every write is durable when it is answered. The history of changes is kept in memory only, and bounded: a watch that
//! wants to resume from before the process began, or from too long ago, starts with a reset. Leases are bound to the
//! process: their keys are deleted when they are revoked, or else when the store is opened again.
//!
//! After one error of its file, such as a full disk, redb refuses everything until it is opened anew. So the store closes
//! and opens it, again and again until that works; meanwhile its operations fail, and what was answered before stays.

mod history;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_runtime::state_file;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::history::History;
use self::table::{Opener, Tables};
use super::txn::{check, check_key, check_value};
use super::{
    Commit, Event, LeaseId, Listing, MemberHealth, Op, Revision, Store, StoreEntry, StoreError, StoreHealth, Txn,
    Watch, chain,
};

/// The pause before the file is opened anew after an error, doubled from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before the next attempt to open the file anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Failures are logged no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The embedded store. Closed when the last clone, session and pending operation are gone; watches then end.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    cluster_id: u64,
    opener: Opener,
    /// Absent while the file cannot be opened anew. Taken after `leases`.
    tables: RwLock<Option<Tables>>,
    /// A task opens the file anew, or is about to.
    reopening: AtomicBool,
    /// Held while writing, from the decision until the events are in the history, so that they are there in order.
    leases: Mutex<Leases>,
    history: History,
    recent: Mutex<Recent>,
}

/// The leases of this process and the keys that hang on each.
#[derive(Debug, Default)]
struct Leases {
    last: u64,
    keys: BTreeMap<LeaseId, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Recent {
    success: Option<Instant>,
    failures: u32,
    error: Option<String>,
    /// When a failure was last logged.
    told: Option<Instant>,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, which is made if it does not exist. Keys that hung on leases of an earlier
    /// process are deleted.
    ///
    /// # Errors
    /// [`StoreError::File`] if the file cannot be made, read or locked: another process may have it open.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_by(directory, Opener::of_disk()).await
    }

    async fn open_by(directory: &Path, opener: Opener) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        blocking(move || {
            let path = directory.join("store.redb");
            state_file::narrow(&path).map_err(|error| StoreError::File(error.into()))?;
            let (tables, cluster_id) = Tables::open(&path, &opener)?;
            let revision = tables.drop_leased()?;
            let history = History::new(revision);
            Ok(Self {
                inner: Arc::new(Inner {
                    path,
                    cluster_id,
                    opener,
                    tables: RwLock::new(Some(tables)),
                    reopening: AtomicBool::new(false),
                    leases: Mutex::default(),
                    history,
                    recent: Mutex::default(),
                }),
            })
        })
        .await
    }

    /// Runs `work` on the blocking pool and notes how it went. An error of the file has it opened anew.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let result = work(&inner);
            inner.note(&result);
            if broke_the_file(&result) && !inner.reopening.swap(true, Ordering::AcqRel) {
                *inner.tables.write() = None;
                Handle::current().spawn(reopen(Arc::downgrade(&inner)));
            }
            result
        })
        .await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| inner.tables()?.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |inner| inner.tables()?.list(&prefix)).await
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        check(&txn)?;
        self.run(move |inner| inner.commit(&txn)).await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<Revision, StoreError> {
        check_key(key)?;
        check_value(key, &value)?;
        let txn = Txn::new().put(key, value);
        let commit = self.run(move |inner| inner.commit(&txn)).await?;
        Ok(commit.applied().expect("a transaction without comparisons is applied"))
    }

    async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| {
            let mut leases = inner.leases.lock();
            inner.apply_deletes(&mut leases, [key]).map(|count| count > 0)
        })
        .await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64, StoreError> {
        check_key(prefix)?;
        let prefix = prefix.to_owned();
        self.run(move |inner| {
            let mut leases = inner.leases.lock();
            let listing = inner.tables()?.list(&prefix)?;
            inner.apply_deletes(&mut leases, listing.entries.into_iter().map(|entry| entry.key))
        })
        .await
    }

    fn watch(&self, prefix: &str, after: Option<Revision>) -> Watch {
        let store = Arc::downgrade(&self.inner);
        let prefix = prefix.to_owned();
        Watch::spawn(move |sender| feed(store, prefix, after, sender))
    }

    async fn grant(&self, _ttl: Duration) -> Result<LeaseId, StoreError> {
        let mut leases = self.inner.leases.lock();
        leases.last += 1;
        let lease = LeaseId(leases.last);
        leases.keys.insert(lease, BTreeSet::new());
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.inner.leases.lock().keys.contains_key(&lease))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.run(move |inner| {
            let mut leases = inner.leases.lock();
            let Some(keys) = leases.keys.get(&lease).cloned() else { return Ok(()) };
            inner.apply_deletes(&mut leases, keys)?;
            leases.keys.remove(&lease);
            Ok(())
        })
        .await
    }

    async fn cluster_id(&self) -> Result<u64, StoreError> {
        Ok(self.inner.cluster_id)
    }

    fn health(&self) -> StoreHealth {
        let recent = self.inner.recent.lock();
        let address = self.inner.path.display().to_string();
        StoreHealth {
            kind: "embedded",
            healthy: recent.failures == 0,
            member: recent.success.map(|_| address.clone()),
            age_seconds: recent.success.map(|at| at.elapsed().as_secs_f64()),
            last_error: recent.error.clone(),
            members: vec![MemberHealth { address, failures: recent.failures, last_error: recent.error.clone() }],
        }
    }
}

impl Inner {
    /// Applies a checked transaction, and publishes its events.
    fn commit(&self, txn: &Txn) -> Result<Commit, StoreError> {
        let mut leases = self.leases.lock();
        let wanted = txn.ops.iter().filter_map(|op| if let Op::Put { lease, .. } = op { *lease } else { None });
        for lease in wanted {
            if !leases.keys.contains_key(&lease) {
                return Err(StoreError::LeaseLost);
            }
        }
        let (commit, events) = self.tables()?.commit(txn)?;
        self.publish(&mut leases, events);
        Ok(commit)
    }

    /// Deletes `keys` under one revision; says how many existed.
    fn apply_deletes(&self, leases: &mut Leases, keys: impl IntoIterator<Item = String>) -> Result<u64, StoreError> {
        let ops = keys.into_iter().map(|key| Op::Delete { key }).collect();
        let (_, events) = self.tables()?.commit(&Txn { expects: Vec::new(), ops })?;
        let count = events.len() as u64;
        self.publish(leases, events);
        Ok(count)
    }

    fn publish(&self, leases: &mut Leases, events: Vec<Event>) {
        for event in &events {
            let (key, lease) = match event {
                Event::Put(entry) => (&entry.key, entry.lease),
                Event::Delete { key, .. } => (key, None),
                Event::Reset(_) => continue,
            };
            for (id, keys) in &mut leases.keys {
                if lease == Some(*id) {
                    keys.insert(key.clone());
                } else {
                    keys.remove(key);
                }
            }
        }
        self.history.publish(events);
    }

    /// The tables, if the file is open.
    fn tables(&self) -> Result<MappedRwLockReadGuard<'_, Tables>, StoreError> {
        RwLockReadGuard::try_map(self.tables.read(), Option::as_ref).map_err(|_| {
            let why = self.recent.lock().error.clone().unwrap_or_default();
            StoreError::Unavailable { attempts: 1, reason: format!("the store's file is being opened anew: {why}") }
        })
    }

    /// Opens the file, which is closed, anew. Nothing that was answered is lost: a write is answered when it is on the disk.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut leases = self.leases.lock();
        let mut tables = self.tables.write();
        // Where there is no file, an empty one would be made.
        std::fs::metadata(&self.path).map_err(|error| StoreError::File(error.into()))?;
        let (fresh, cluster_id) = Tables::open(&self.path, &self.opener)?;
        let listing = fresh.list("")?;
        if cluster_id != self.cluster_id || !self.history.resume(listing.revision) {
            return Err(StoreError::File("another file is in its place; start the gateway again to use that".into()));
        }
        // A write of unknown outcome may have changed what hangs on leases.
        leases.keys.values_mut().for_each(BTreeSet::clear);
        for entry in listing.entries {
            if let Some(keys) = entry.lease.and_then(|lease| leases.keys.get_mut(&lease)) {
                keys.insert(entry.key);
            }
        }
        *tables = Some(fresh);
        self.reopening.store(false, Ordering::Release);
        Ok(())
    }

    fn note<T>(&self, result: &Result<T, StoreError>) {
        let mut recent = self.recent.lock();
        match result {
            Err(error @ (StoreError::File(_) | StoreError::OutcomeUnknown { .. })) => {
                recent.failures = recent.failures.saturating_add(1);
                recent.error = Some(chain(error));
                if recent.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    recent.told = Some(Instant::now());
                    tracing::warn!(path = %self.path.display(), error = chain(error), "the store's file failed and is opened anew");
                }
            }
            Err(StoreError::Unavailable { .. }) => recent.failures = recent.failures.saturating_add(1),
            _ => {
                recent.failures = 0;
                recent.success = Some(Instant::now());
            }
        }
    }
}

/// Whether redb refuses everything from now on.
const fn broke_the_file<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::File(_) | StoreError::OutcomeUnknown { .. }))
}

/// Opens the file anew, as often as it takes. Ends with the store.
async fn reopen(store: Weak<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let Some(inner) = store.upgrade() else { return };
        let opened = blocking(move || {
            let opened = inner.reopen();
            inner.note(&opened);
            opened
        });
        if opened.await.is_ok() {
            tracing::info!("the store's file is open again");
            return;
        }
    }
}

/// Feeds one watch. It holds the store only while it reads from it, so that a watch keeps no file open.
async fn feed(store: Weak<Inner>, prefix: String, after: Option<Revision>, sender: mpsc::Sender<Event>) {
    let Some(mut news) = store.upgrade().map(|inner| inner.history.subscribe()) else { return };
    let mut position = after;
    loop {
        news.mark_unchanged();
        let Some(inner) = store.upgrade() else { return };
        let batch = match position.and_then(|after| inner.history.after(after, &prefix)) {
            Some(batch) => batch,
            None => {
                let store = EmbeddedStore { inner: Arc::clone(&inner) };
                let Ok(listing) = store.list(&prefix).await else {
                    drop((store, inner));
                    sleep(Duration::from_secs(1)).await;
                    continue;
                };
                history::Batch { revision: listing.revision, events: vec![Event::Reset(listing)], more: true }
            }
        };
        drop(inner);
        for event in batch.events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        position = Some(batch.revision);
        if !batch.more && news.changed().await.is_err() {
            return;
        }
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::File(error.into())),
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
