use serde_json::json;

use super::*;
use crate::store::EmbeddedStore;

fn service(namespace: &str, name: &str, port: u16) -> (DocumentId, Value) {
    let document = json!({
        "kind": "Service", "apiVersion": "eastway.dev/v1",
        "metadata": { "name": name, "namespace": namespace }, "spec": { "ports": [{ "port": port }] },
    });
    (DocumentId::of(&document).expect("an id"), document)
}

async fn store() -> (EmbeddedStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (EmbeddedStore::open(folder.path()).await.expect("a store"), folder)
}

async fn replace(store: &EmbeddedStore, documents: &Documents) -> Option<u64> {
    let stored = Stored::read(store).await.expect("read");
    stored.replace(store, documents, &BTreeSet::new(), ("ann@desk", 7, "gw-1")).await.expect("written")
}

#[tokio::test]
async fn what_was_applied_is_read_back_with_how_it_came_about() {
    let (store, _folder) = store().await;
    assert_eq!(Stored::read(&store).await.expect("read").number(), 0);
    let first = Documents::from([service("shop", "pay", 80), service("bank", "book", 80)]);
    assert_eq!(replace(&store, &first).await, Some(1));
    let second = Documents::from([service("shop", "pay", 81), service("shop", "cart", 80)]);
    assert_eq!(replace(&store, &second).await, Some(2));
    let stored = Stored::read(&store).await.expect("read");
    assert_eq!((stored.number(), stored.now()), (2, second));
    assert_eq!(stored.documents(stored.generation(1).expect("kept")), first);
    let generation = stored.current().expect("one");
    assert_eq!((generation.by.as_str(), generation.at, generation.changed), ("ann@desk", 7, 3));
    let changes: Vec<_> = generation.changes.iter().map(|change| (change.id.to_string(), change.became)).collect();
    let expected = [
        ("Service bank/book".to_owned(), Became::Deleted),
        ("Service shop/cart".to_owned(), Became::Created),
        ("Service shop/pay".to_owned(), Became::Changed),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn of_two_that_read_the_same_only_the_first_writes() {
    let (store, _folder) = store().await;
    let stored = Stored::read(&store).await.expect("read");
    let (ours, theirs) = (Documents::from([service("a", "a", 1)]), Documents::from([service("a", "b", 1)]));
    assert_eq!(stored.replace(&store, &ours, &BTreeSet::new(), ("ann", 1, "gw-1")).await.expect("written"), Some(1));
    assert_eq!(stored.replace(&store, &theirs, &BTreeSet::new(), ("bob", 2, "gw-2")).await.expect("compared"), None);
    assert_eq!(Stored::read(&store).await.expect("read").now(), ours);
}

#[tokio::test]
async fn a_small_change_writes_little_and_nothing_unneeded_stays() {
    let (store, _folder) = store().await;
    let mut documents: Documents = (0..50).map(|at| service(&format!("team-{at}"), "pay", 80)).collect();
    for change in 0..KEPT as u16 + 5 {
        documents.extend([service("team-7", "pay", 100 + change)]);
        let before = Stored::read(&store).await.expect("read").parts.len();
        replace(&store, &documents).await.expect("written");
        let stored = Stored::read(&store).await.expect("read");
        assert!(change == 0 || stored.parts.len() <= before + 1, "{before} {}", stored.parts.len());
        assert_eq!(stored.now(), documents);
    }
    let stored = Stored::read(&store).await.expect("read");
    let numbers: Vec<u64> = stored.generations.iter().map(|generation| generation.number).collect();
    assert_eq!(numbers, (5..=15).collect::<Vec<_>>());
    // 49 that never changed, and the changed one as it is in each generation that is kept.
    assert_eq!(stored.parts.len(), 49 + KEPT + 1);
    assert!(stored.generations.iter().all(|generation| stored.documents(generation).len() == 50));
}

#[tokio::test]
async fn a_set_larger_than_a_value_is_taken_as_a_whole() {
    let (store, _folder) = store().await;
    let documents: Documents = (0..6_000).map(|at| service("shop", &format!("service-{at:05}"), 80)).collect();
    assert!(serde_json::to_vec(&documents.values().collect::<Vec<_>>()).expect("JSON").len() > PART * 2);
    assert_eq!(replace(&store, &documents).await, Some(1));
    let stored = Stored::read(&store).await.expect("read");
    assert_eq!(stored.now(), documents);
    assert_eq!(
        stored.current().map(|generation| (generation.changes.len(), generation.changed)),
        Some((LISTED, 6_000))
    );
}

#[tokio::test]
async fn what_a_later_release_wrote_is_kept_as_it_is() {
    let (store, _folder) = store().await;
    let later = json!({
        "kind": "Tunnel", "apiVersion": "eastway.dev/v2", "metadata": { "name": "t" }, "spec": { "depth": [1, 2] },
    });
    let id = DocumentId::of(&later).expect("an id");
    assert_eq!(replace(&store, &Documents::from([(id.clone(), later.clone())])).await, Some(1));
    let mut documents = Stored::read(&store).await.expect("read").now();
    documents.extend([service("shop", "pay", 80)]);
    assert_eq!(replace(&store, &documents).await, Some(2));
    assert_eq!(Stored::read(&store).await.expect("read").now().get(&id), Some(&later));
}

#[tokio::test]
async fn a_set_that_is_half_told_or_damaged_is_not_taken() {
    let (store, _folder) = store().await;
    replace(&store, &Documents::from([service("shop", "pay", 80)])).await.expect("written");
    let listing = store.list(keys::CONFIG).await.expect("listed");
    for missing in 0..listing.entries.len() {
        let rest = listing.entries.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, entry)| entry);
        let key = &listing.entries[missing].key;
        // Without the key that says what counts, nothing was applied.
        let counts_nothing = Stored::of(rest).map(|stored| stored.number());
        assert_eq!(counts_nothing, key.ends_with("/current").then_some(0), "{key}");
    }
    store.put(&keys::config_generation(1), "damaged".into()).await.expect("written");
    let error = Stored::read(&store).await.expect_err("damaged").to_string();
    assert!(error.contains("is damaged: restore the store"), "{error}");
}
