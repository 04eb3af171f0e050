//! What becomes of the store when its disk fails: something between redb and the file refuses to write.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicI64;

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::*;
use crate::store::{Follower, keys, suite};

/// A disk that may be full. Counts the writes that it still takes.
#[derive(Debug)]
struct Disk(AtomicI64);

impl Disk {
    fn fills_up_after(&self, writes: i64) {
        self.0.store(writes, Ordering::SeqCst);
    }

    fn is_freed(&self) {
        self.0.store(i64::MAX, Ordering::SeqCst);
    }

    fn takes_a_write(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            1.. => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[derive(Debug)]
struct Storage {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.takes_a_write()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.takes_a_write()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.takes_a_write()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on such a disk, which has room.
async fn store(directory: &Path) -> (EmbeddedStore, Arc<Disk>) {
    let disk = Arc::new(Disk(AtomicI64::new(i64::MAX)));
    let below = Arc::clone(&disk);
    let opener = Opener(Box::new(move |path| {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let storage = Storage { file: FileBackend::new(file)?, disk: Arc::clone(&below) };
        Database::builder().create_with_backend(storage)
    }));
    (EmbeddedStore::open_by(directory, opener).await.expect("opened"), disk)
}

/// Writes until it fails; answers what was acknowledged, and the error.
async fn fill(store: &EmbeddedStore) -> (Vec<(String, Revision)>, StoreError) {
    let mut acknowledged = Vec::new();
    for number in 0..1_000 {
        let key = format!("/fill/{number}");
        match store.put(&key, vec![7; 5_000].into()).await {
            Ok(revision) => acknowledged.push((key, revision)),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("the disk never fills up");
}

async fn is_written(store: &EmbeddedStore, key: &str) {
    suite::eventually("it takes writes again", async || store.put(key, "1".into()).await.ok()).await;
}

#[tokio::test]
async fn a_full_disk_that_is_freed_loses_nothing_that_was_acknowledged() {
    // Wherever in a commit it fills up.
    for writes in [0, 1, 2, 3, 4, 5, 6, 8, 12, 20] {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, disk) = store(directory.path()).await;
        let before = store.put("/before", "1".into()).await.expect("written");
        let mut follower = Follower::new(&store, "/");
        suite::ready(&mut follower).await;

        disk.fills_up_after(writes);
        let (acknowledged, error) = fill(&store).await;
        assert!(error.is_transient(), "{writes}: {error}");
        assert!(!store.health().healthy, "{writes}");
        assert!(store.put("/refused", "1".into()).await.is_err(), "{writes}");

        disk.is_freed();
        is_written(&store, "/after").await;
        let health = store.health();
        assert!(
            health.healthy && health.last_error.is_some_and(|error| error.contains("no storage space")),
            "{writes}"
        );
        let listing = store.list("/").await.expect("listed");
        for (key, revision) in acknowledged.iter().cloned().chain([("/before".to_owned(), before)]) {
            let found = listing.entries.iter().find(|entry| entry.key == key).map(|entry| entry.revision);
            assert_eq!(found, Some(revision), "{writes}: {key}");
        }
        suite::until(&mut follower, |entries| entries.contains_key("/after")).await;
        assert!(follower.known().entries().values().eq(&listing.entries), "{writes}: who watches sees the same");
    }
}

#[tokio::test]
async fn leases_outlive_the_reopening_of_their_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, disk) = store(directory.path()).await;
    let lease = store.grant(Duration::from_secs(10)).await.expect("granted");
    let txn = Txn::new().put_leased(keys::LEADER, "gw-1", lease);
    store.txn(txn).await.expect("written").applied().expect("applied");
    disk.fills_up_after(3);
    fill(&store).await;
    disk.is_freed();
    is_written(&store, "/after").await;
    assert!(store.renew(lease).await.expect("known"));
    assert!(store.get(keys::LEADER).await.expect("read").is_some());
    store.revoke(lease).await.expect("ended");
    assert_eq!(store.get(keys::LEADER).await.expect("read"), None);
}

#[tokio::test]
async fn a_file_that_vanished_is_not_replaced_by_an_empty_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, disk) = store(directory.path()).await;
    let path = directory.path().join("store.redb");
    disk.fills_up_after(0);
    fill(&store).await;
    std::fs::rename(&path, directory.path().join("aside")).expect("renamed");
    disk.is_freed();
    let tells = async || store.health().last_error.filter(|error| error.contains("No such file"));
    suite::eventually("it says what is wrong", tells).await;
    assert!(store.put("/lost", "1".into()).await.is_err() && !path.exists());
    std::fs::rename(directory.path().join("aside"), &path).expect("renamed");
    is_written(&store, "/after").await;
}
