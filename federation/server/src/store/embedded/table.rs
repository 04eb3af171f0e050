//! The tables of the embedded store's file. Everything here may block.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::super::{Commit, Event, LeaseId, Listing, Op, Revision, StoreEntry, StoreError, Txn, chain};

/// Key → (revision of the last change, lease or 0, value).
const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");

/// Facts about the store itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const REVISION: &str = "revision";
const CLUSTER_ID: &str = "cluster_id";
const FORMAT: &str = "format";

/// The layout of these tables. Another number is not opened.
const FORMAT_VERSION: u64 = 1;

/// Bytes of pages that redb may keep in memory. Its default is 1 GiB.
const CACHE: usize = 8 << 20;

type Open = dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync;

/// How the file is opened. Tests put something between redb and the disk.
pub(super) struct Opener(pub(super) Box<Open>);

impl Opener {
    /// As it is on disk.
    pub(super) fn of_disk() -> Self {
        Self(Box::new(|path| Database::builder().set_cache_size(CACHE).create(path)))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
}

impl Tables {
    /// Opens the file, or makes it; also yields the store's identity. It writes: where it succeeds, others can.
    pub(super) fn open(path: &Path, opener: &Opener) -> Result<(Self, u64), StoreError> {
        let database = (opener.0)(path).map_err(file)?;
        let write = database.begin_write().map_err(file)?;
        let cluster_id = {
            write.open_table(ENTRIES).map_err(file)?;
            let mut meta = write.open_table(META).map_err(file)?;
            let format = read(&meta, FORMAT)?.unwrap_or(FORMAT_VERSION);
            if format != FORMAT_VERSION {
                return Err(StoreError::Options(format!(
                    "`{}` has format {format}; this version reads {FORMAT_VERSION}",
                    path.display()
                )));
            }
            meta.insert(FORMAT, format).map_err(file)?;
            let id = read(&meta, CLUSTER_ID)?.unwrap_or_else(|| fastrand::Rng::new().u64(1..));
            meta.insert(CLUSTER_ID, id).map_err(file)?;
            let revision = read(&meta, REVISION)?.unwrap_or(1);
            meta.insert(REVISION, revision).map_err(file)?;
            id
        };
        write.commit().map_err(file)?;
        Ok((Self { database }, cluster_id))
    }

    /// Deletes all keys that hang on leases; yields the store's revision.
    pub(super) fn drop_leased(&self) -> Result<Revision, StoreError> {
        let listing = self.list("")?;
        let leased = listing.entries.into_iter().filter(|entry| entry.lease.is_some());
        let ops: Vec<Op> = leased.map(|entry| Op::Delete { key: entry.key }).collect();
        if ops.is_empty() {
            return Ok(listing.revision);
        }
        let (commit, _) = self.commit(&Txn { expects: Vec::new(), ops })?;
        Ok(commit.applied().unwrap_or(listing.revision))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        let read = self.database.begin_read().map_err(file)?;
        entry(&read.open_table(ENTRIES).map_err(file)?, key)
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let transaction = self.database.begin_read().map_err(file)?;
        let meta = transaction.open_table(META).map_err(file)?;
        let table = transaction.open_table(ENTRIES).map_err(file)?;
        let mut listing = Listing { entries: Vec::new(), revision: read(&meta, REVISION)?.unwrap_or(1) };
        for item in table.range(prefix..).map_err(file)? {
            let (key, value) = item.map_err(file)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            listing.entries.push(to_entry(key.value(), value.value()));
        }
        Ok(listing)
    }

    /// Applies `txn` durably, if its comparisons hold, and yields the events of what changed. A transaction that
    /// changes nothing has no events and no revision of its own.
    pub(super) fn commit(&self, txn: &Txn) -> Result<(Commit, Vec<Event>), StoreError> {
        let write = self.database.begin_write().map_err(file)?;
        let mut events = Vec::new();
        let revision = {
            let mut meta = write.open_table(META).map_err(file)?;
            let mut entries = write.open_table(ENTRIES).map_err(file)?;
            if let Some(conflict) = conflict(&entries, txn)? {
                return Ok((conflict, events));
            }
            let last = read(&meta, REVISION)?.unwrap_or(1);
            for op in &txn.ops {
                events.extend(apply(&mut entries, op, last + 1)?);
            }
            if events.is_empty() {
                return Ok((Commit::Applied(last), events));
            }
            meta.insert(REVISION, last + 1).map_err(file)?;
            last + 1
        };
        // It may be on the disk all the same.
        let unknown = |error| StoreError::OutcomeUnknown { attempts: 1, reason: chain(&error) };
        write.commit().map_err(unknown)?;
        Ok((Commit::Applied(revision), events))
    }
}

/// What the compared keys hold, if a comparison does not.
fn conflict(
    entries: &impl ReadableTable<&'static str, (u64, u64, &'static [u8])>,
    txn: &Txn,
) -> Result<Option<Commit>, StoreError> {
    let mut current = Vec::with_capacity(txn.expects.len());
    let mut holds = true;
    for (key, expect) in &txn.expects {
        let found = entry(entries, key)?;
        holds &= expect.holds(found.as_ref().map(|entry| entry.revision));
        current.push(found);
    }
    Ok((!holds).then_some(Commit::Conflict(current)))
}

fn apply(
    entries: &mut Table<'_, &'static str, (u64, u64, &'static [u8])>,
    op: &Op,
    revision: Revision,
) -> Result<Option<Event>, StoreError> {
    match op {
        Op::Put { key, value, lease } => {
            let row = (revision, lease.map_or(0, |lease| lease.0), &value[..]);
            entries.insert(key.as_str(), row).map_err(file)?;
            let entry = StoreEntry { key: key.clone(), value: value.clone(), revision, lease: *lease };
            Ok(Some(Event::Put(entry)))
        }
        Op::Delete { key } => {
            let found = entries.remove(key.as_str()).map_err(file)?.is_some();
            Ok(found.then(|| Event::Delete { key: key.clone(), revision }))
        }
    }
}

fn entry(
    table: &impl ReadableTable<&'static str, (u64, u64, &'static [u8])>,
    key: &str,
) -> Result<Option<StoreEntry>, StoreError> {
    Ok(table.get(key).map_err(file)?.map(|row| to_entry(key, row.value())))
}

fn to_entry(key: &str, (revision, lease, value): (u64, u64, &[u8])) -> StoreEntry {
    let lease = (lease != 0).then_some(LeaseId(lease));
    StoreEntry { key: key.to_owned(), value: Bytes::copy_from_slice(value), revision, lease }
}

fn read(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<Option<u64>, StoreError> {
    Ok(meta.get(name).map_err(file)?.map(|value| value.value()))
}

/// Every error of the file is one kind to callers: they can do the same about each.
fn file(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::File(Box::new(error))
}
