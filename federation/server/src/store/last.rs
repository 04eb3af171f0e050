//! What the store held last, in a file: what a gateway starts from when no member of the store answers.
//!
//! It is read like a store and cannot be written. Whoever starts from it follows the real store as soon as that answers, and makes
//! up for what has changed meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_runtime::state_file;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use super::{Commit, LeaseId, Listing, Revision, Store, StoreEntry, StoreError, StoreHealth, Txn, Watch, keys};

/// The file in the state folder.
const FILE: &str = "store.json";
/// The file's layout; files of another are ignored.
const LAYOUT: u32 = 1;
/// The largest file that is read: far more than a store holds.
const MOST: u64 = 512 << 20;

/// What is kept of the store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    layout: u32,
    /// The identity of the store.
    store: u64,
    /// When it was read, in milliseconds since 1970.
    saved_at: u64,
    revision: Revision,
    entries: Vec<Kept>,
}

/// An entry. All values of ours are texts.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    value: String,
    revision: Revision,
}

/// The store as it was.
#[derive(Debug)]
pub(crate) struct LastStore {
    /// The identity of the store.
    pub(crate) id: u64,
    /// When it was read, in milliseconds since 1970.
    pub(crate) saved_at: u64,
    revision: Revision,
    entries: BTreeMap<String, StoreEntry>,
}

impl LastStore {
    /// Reads the file in `folder`. `None` if there is none that can be used; it says why in the log.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(FILE);
        let file = state_file::read(&path, MOST).and_then(|bytes| Ok(serde_json::from_slice::<File>(&bytes)?));
        match file {
            Ok(file) if file.layout == LAYOUT => Some(Self::of(file)),
            Ok(_) => {
                tracing::warn!(path = %path.display(), "what is kept of the store is of another version: not used");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what is kept of the store cannot be read");
                None
            }
        }
    }

    fn of(File { store, saved_at, revision, entries, .. }: File) -> Self {
        let entry = |Kept { key, value, revision }| {
            let entry = StoreEntry { key: String::clone(&key), value: value.into(), revision, lease: None };
            (key, entry)
        };
        Self { id: store, saved_at, revision, entries: entries.into_iter().map(entry).collect() }
    }
}

/// The identity of the store that is kept in `folder`, if one is.
pub fn kept_id(folder: &Path) -> Option<u64> {
    LastStore::read(folder).map(|last| last.id)
}

/// Keeps what the store holds in a file of `folder`, read anew every `every` if the store has changed. Runs until it is dropped.
pub(crate) async fn keep(store: Arc<dyn Store>, folder: PathBuf, every: Duration, wall_clock: fn() -> u64) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = 0;
    loop {
        rounds.tick().await;
        match save(&*store, &folder, kept, wall_clock()).await {
            Ok(revision) => kept = revision,
            Err(SaveError::Store(error)) => {
                tracing::debug!(%error, "the store does not answer: what is kept of it stays")
            }
            Err(SaveError::File(error)) => {
                tracing::warn!(folder = %folder.display(), %error, "what the store holds cannot be kept for a start without it");
            }
        }
    }
}

/// Why nothing was saved.
enum SaveError {
    Store(StoreError),
    File(io::Error),
}

/// Saves what the store holds unless it is as it was at the revision `kept`. Returns the revision that is kept now.
async fn save(store: &dyn Store, folder: &Path, kept: Revision, now: u64) -> Result<Revision, SaveError> {
    // Tells the revision of the whole store.
    let revision = store.list(keys::META).await.map_err(SaveError::Store)?.revision;
    if revision == kept {
        return Ok(kept);
    }
    let id = store.cluster_id().await.map_err(SaveError::Store)?;
    let Listing { entries, revision } = store.list(keys::ROOT).await.map_err(SaveError::Store)?;
    let text = |entry: StoreEntry| {
        let value = String::from_utf8(entry.value.into()).ok()?;
        Some(Kept { key: entry.key, value, revision: entry.revision })
    };
    let entries = entries.into_iter().filter(|entry| entry.key != keys::LEADER).filter_map(text).collect();
    let file = File { layout: LAYOUT, store: id, saved_at: now, revision, entries };
    let path = folder.join(FILE);
    let written = tokio::task::spawn_blocking(move || state_file::write(&path, &serde_json::to_vec(&file)?));
    written.await.map_err(io::Error::other).and_then(|written| written).map_err(SaveError::File)?;
    Ok(revision)
}

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable { attempts: 0, reason: "this is what the store held last".to_owned() })
}

#[async_trait]
impl Store for LastStore {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let from = self.entries.range(prefix.to_owned()..);
        let entries = from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect();
        Ok(Listing { entries, revision: self.revision })
    }

    async fn txn(&self, _: Txn) -> Result<Commit, StoreError> {
        away()
    }

    async fn put(&self, _: &str, _: Bytes) -> Result<Revision, StoreError> {
        away()
    }

    async fn delete(&self, _: &str) -> Result<bool, StoreError> {
        away()
    }

    async fn delete_prefix(&self, _: &str) -> Result<u64, StoreError> {
        away()
    }

    fn watch(&self, _: &str, _: Option<Revision>) -> Watch {
        Watch::spawn(|_| std::future::pending())
    }

    async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        away()
    }

    async fn renew(&self, _: LeaseId) -> Result<bool, StoreError> {
        away()
    }

    async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        away()
    }

    async fn cluster_id(&self) -> Result<u64, StoreError> {
        Ok(self.id)
    }

    fn health(&self) -> StoreHealth {
        StoreHealth {
            kind: "last",
            healthy: false,
            member: None,
            age_seconds: None,
            last_error: None,
            members: Vec::new(),
        }
    }
}
