//! The store in the gateway's own process, on disk: for one machine, and for a cluster with a single gateway.
//!
//! Every write is durable when it is answered. The history of changes is kept in memory only, and bounded: a watch that
//! wants to resume from before the process began, or from too long ago, starts with a reset. Leases are bound to the
//! process: their keys are deleted when they are revoked, or else when the store is opened again.

mod history;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::history::History;
use self::table::Tables;
use super::txn::{check_key, check_value};
use super::{
    Commit, Entry, Event, LeaseId, Listing, MemberHealth, Op, Revision, Store, StoreError, StoreHealth, Txn, Watch,
    chain,
};

/// The embedded store. Closed when the last clone, session and pending operation are gone; watches then end.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    cluster_id: u64,
    tables: Tables,
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
}

impl EmbeddedStore {
    /// Opens the store in `directory`, which is made if it does not exist. Keys that hung on leases of an earlier
    /// process are deleted.
    ///
    /// # Errors
    /// [`StoreError::File`] if the file cannot be made, read or locked: another process may have it open.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        blocking(move || {
            std::fs::create_dir_all(&directory).map_err(|error| StoreError::File(error.into()))?;
            let path = directory.join("store.redb");
            let (tables, cluster_id) = Tables::open(&path)?;
            let revision = tables.drop_leased()?;
            let history = History::new(revision);
            Ok(Self {
                inner: Arc::new(Inner {
                    path,
                    cluster_id,
                    tables,
                    leases: Mutex::default(),
                    history,
                    recent: Mutex::default(),
                }),
            })
        })
        .await
    }

    /// Runs `work` on the blocking pool and notes how it went.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let result = work(&inner);
            inner.note(&result);
            result
        })
        .await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |inner| inner.tables.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |inner| inner.tables.list(&prefix)).await
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        txn.check()?;
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
            let listing = inner.tables.list(&prefix)?;
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
        let (commit, events) = self.tables.commit(txn)?;
        self.publish(&mut leases, events);
        Ok(commit)
    }

    /// Deletes `keys` under one revision; says how many existed.
    fn apply_deletes(&self, leases: &mut Leases, keys: impl IntoIterator<Item = String>) -> Result<u64, StoreError> {
        let ops = keys.into_iter().map(|key| Op::Delete { key }).collect();
        let (_, events) = self.tables.commit(&Txn { expects: Vec::new(), ops })?;
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

    fn note<T>(&self, result: &Result<T, StoreError>) {
        let mut recent = self.recent.lock();
        match result {
            Err(StoreError::File(error)) => {
                recent.failures = recent.failures.saturating_add(1);
                recent.error = Some(chain(&**error));
            }
            _ => {
                recent.failures = 0;
                recent.success = Some(Instant::now());
            }
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
                    tokio::time::sleep(Duration::from_secs(1)).await;
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
mod tests;
