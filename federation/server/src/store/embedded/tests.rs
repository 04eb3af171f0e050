//! What only the embedded store has: a file, and leases that end with the process.

use super::*;
use crate::store::{Expect, Follower, StoreSession, keys, suite};

/// Opens the store, as soon as those who had it open let go of it.
async fn reopen(directory: &Path) -> EmbeddedStore {
    suite::eventually("the store can be opened again", async || EmbeddedStore::open(directory).await.ok()).await
}

#[tokio::test]
async fn everything_but_leased_keys_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(directory.path()).await.expect("opened");
    let id = store.cluster_id().await.expect("known");
    let first = store.put("/a", "1".into()).await.expect("written");
    let second = store.put("/b", "2".into()).await.expect("written");
    let lease = store.grant(Duration::from_secs(10)).await.expect("granted");
    let txn = Txn::new().put_leased(keys::LEADER, "gw-1", lease);
    store.txn(txn).await.expect("written").applied().expect("applied");
    drop(store);

    let store = reopen(directory.path()).await;
    assert_eq!(store.cluster_id().await.expect("known"), id);
    let listing = store.list("/").await.expect("listed");
    let found: Vec<_> = listing.entries.iter().map(|e| (e.key.as_str(), &e.value[..], e.revision)).collect();
    assert_eq!(found, [("/a", &b"1"[..], first), ("/b", &b"2"[..], second)]);
    let next = store.put("/a", "3".into()).await.expect("written");
    assert!(next > listing.revision && listing.revision > second, "revisions never return");
    assert_eq!(
        store.txn(Txn::new().put_leased(keys::LEADER, "gw-1", lease)).await.err().map(|e| e.to_string()),
        Some(StoreError::LeaseLost.to_string())
    );
}

#[tokio::test]
async fn a_watch_across_a_restart_begins_with_a_reset_or_resumes_where_nothing_happened() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(directory.path()).await.expect("opened");
    let first = store.put("/a", "1".into()).await.expect("written");
    let second = store.put("/a", "2".into()).await.expect("written");
    let mut watch = store.watch("/", Some(second));
    drop(store);
    assert_eq!(watch.next().await, None, "a watch ends with its store");

    let store = reopen(directory.path()).await;
    let mut late = store.watch("/", Some(first));
    let mut current = store.watch("/", Some(second));
    let third = store.put("/b", "3".into()).await.expect("written");
    assert!(matches!(late.next().await, Some(Event::Reset(listing)) if listing.entries.iter().any(|e| e.key == "/a")));
    assert!(matches!(current.next().await, Some(Event::Put(entry)) if entry.revision == third));
}

#[tokio::test]
async fn a_file_has_one_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(directory.path()).await.expect("opened");
    let second = EmbeddedStore::open(directory.path()).await;
    assert!(matches!(second, Err(StoreError::File(_))), "{second:?}");
    drop(store);
}

#[tokio::test]
async fn a_broken_file_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("store.redb"), b"not a store at all, but long enough to be read")
        .expect("written");
    assert!(matches!(EmbeddedStore::open(directory.path()).await, Err(StoreError::File(_))));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_reset_and_ends_with_the_truth() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(directory.path()).await.expect("opened");
    let mut follower = Follower::new(&store, "/big/");
    suite::ready(&mut follower).await;
    // More bytes than the history keeps, while nobody reads.
    for round in 0..24_u8 {
        let fresh = vec![round; 1 << 20];
        store.put(&format!("/big/{}", round % 3), fresh.into()).await.expect("written");
    }
    suite::until(&mut follower, |entries| entries.get("/big/2").is_some_and(|e| e.value[0] == 23)).await;
    assert_eq!(follower.known().entries()["/big/0"].value[0], 21);
    assert_eq!(follower.known().entries()["/big/1"].value[0], 22);
}

#[tokio::test]
async fn closing_a_session_deletes_its_keys_and_lets_go_of_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(directory.path()).await.expect("opened"));
    let session = StoreSession::start(Arc::clone(&store), Duration::from_secs(10));
    session.keep(&keys::gateway("gw-1"), "here").expect("allowed");
    suite::eventually("the key is there", async || store.get(&keys::gateway("gw-1")).await.ok().flatten()).await;
    session.close().await;
    assert_eq!(store.get(&keys::gateway("gw-1")).await.expect("read"), None);
    let commit = store.put_if("/k", Expect::Absent, "1".into()).await.expect("written");
    assert!(commit.applied().is_some());
    drop(store);
    reopen(directory.path()).await;
}
