//! The behaviour that both stores have: every test here runs against the embedded store and against real etcd.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// How long an eventual assertion waits. Generous, because it only costs time when something is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it yields something.
pub(super) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for `future`, but not for ever.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Takes changes until the first listing is complete.
pub(super) async fn ready(follower: &mut Follower) {
    while !matches!(soon("the follower is ready", follower.next()).await, Some(Change::Ready(_))) {}
}

/// Takes changes until `holds`.
pub(super) async fn until(follower: &mut Follower, holds: impl Fn(&BTreeMap<String, StoreEntry>) -> bool) {
    while !holds(follower.known().entries()) {
        soon("the expected change", follower.next()).await.expect("the store is open");
    }
}

/// Takes the next event.
pub(super) async fn event(watch: &mut Watch) -> Event {
    soon("an event", watch.next()).await.expect("the store is open")
}

fn leased(key: &str, value: &str, lease: LeaseId) -> Txn {
    Txn::new().put_leased(key, value.to_owned(), lease)
}

pub(super) async fn what_is_written_is_read(store: Arc<dyn Store>) {
    assert_eq!(store.get("/k").await.expect("read"), None);
    let first = store.put("/k", Bytes::from_static(b"\x00\xff1")).await.expect("written");
    let second = store.put("/k", "2".into()).await.expect("written");
    assert!(second > first && first > 0);
    let entry = store.get("/k").await.expect("read").expect("there");
    assert_eq!(entry, StoreEntry { key: "/k".to_owned(), value: "2".into(), revision: second, lease: None });
    assert!(store.delete("/k").await.expect("deleted"));
    assert!(!store.delete("/k").await.expect("deleted"));
    assert_eq!(store.get("/k").await.expect("read"), None);
}

pub(super) async fn a_prefix_is_listed_in_order_at_one_revision(store: Arc<dyn Store>) {
    for key in ["/p/b", "/p/a", "/q/x", "/p", "/p/a/c"] {
        store.put(key, key.to_owned().into()).await.expect("written");
    }
    let listing = store.list("/p/").await.expect("listed");
    let keys: Vec<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/p/a", "/p/a/c", "/p/b"]);
    assert!(listing.entries.iter().all(|entry| entry.value == entry.key.as_bytes()));
    let last = store.put("/z", "1".into()).await.expect("written");
    assert_eq!(listing.revision + 1, last);
    let all = store.list("").await.expect("listed");
    assert_eq!((all.entries.len(), all.revision), (6, last));
    assert_eq!(store.list("/none/").await.expect("listed"), Listing { entries: vec![], revision: last });
}

pub(super) async fn many_and_large_entries_are_listed(store: Arc<dyn Store>) {
    for chunk in 0..12 {
        let txn = (0..MAX_TXN_OPS).fold(Txn::new(), |txn, i| txn.put(format!("/many/{chunk:02}-{i:02}"), "x"));
        assert!(store.txn(txn).await.expect("written").applied().is_some());
    }
    for i in 0..9 {
        store.put(&format!("/large/{i}"), vec![i; MAX_VALUE].into()).await.expect("written");
    }
    assert_eq!(store.list("/many/").await.expect("listed").entries.len(), 12 * MAX_TXN_OPS);
    let large = store.list("/large/").await.expect("listed");
    assert_eq!(large.entries.iter().map(|entry| entry.value.len()).sum::<usize>(), 9 * MAX_VALUE);
    assert_eq!(store.delete_prefix("/many/").await.expect("deleted"), 12 * MAX_TXN_OPS as u64);
}

pub(super) async fn conditions_decide_and_tell_what_is_there(store: Arc<dyn Store>) {
    let made = store.put_if("/k", Expect::Absent, "1".into()).await.expect("tried").applied().expect("applied");
    let again = store.put_if("/k", Expect::Absent, "2".into()).await.expect("tried");
    let Commit::Conflict(current) = again else { panic!("{again:?}") };
    assert_eq!(current[0].as_ref().map(|e| (&e.value[..], e.revision)), Some((&b"1"[..], made)));
    let next = store.put_if("/k", Expect::At(made), "3".into()).await.expect("tried").applied().expect("applied");
    assert!(matches!(store.put_if("/k", Expect::At(made), "4".into()).await.expect("tried"), Commit::Conflict(_)));
    assert_eq!(store.get("/k").await.expect("read").map(|e| (e.value, e.revision)), Some(("3".into(), next)));
    let gone = store.put_if("/other", Expect::At(made), "5".into()).await.expect("tried");
    assert_eq!(gone, Commit::Conflict(vec![None]));
}

pub(super) async fn transactions_are_applied_as_a_whole_or_not_at_all(store: Arc<dyn Store>) {
    let a = store.put("/a", "1".into()).await.expect("written");
    let wrong = Txn::new().when("/a", Expect::At(a)).when("/b", Expect::At(1)).put("/a", "2").put("/b", "2");
    assert!(store.txn(wrong).await.expect("tried").applied().is_none());
    assert_eq!(store.get("/a").await.expect("read").map(|e| e.revision), Some(a));
    let right =
        Txn::new().when("/a", Expect::At(a)).when("/b", Expect::Absent).delete("/a").put("/b", "2").put("/c", "2");
    let revision = store.txn(right).await.expect("tried").applied().expect("applied");
    let listing = store.list("/").await.expect("listed");
    let found: Vec<_> = listing.entries.iter().map(|e| (e.key.as_str(), e.revision)).collect();
    assert_eq!(found, [("/b", revision), ("/c", revision)]);
}

pub(super) async fn a_prefix_is_deleted_under_one_revision(store: Arc<dyn Store>) {
    for key in ["/d/1", "/d/2", "/d3"] {
        store.put(key, "x".into()).await.expect("written");
    }
    let before = store.list("/").await.expect("listed").revision;
    let mut watch = store.watch("/d", Some(before));
    assert_eq!(store.delete_prefix("/d/").await.expect("deleted"), 2);
    assert_eq!(store.delete_prefix("/d/").await.expect("deleted"), 0);
    let (first, second) = (event(&mut watch).await, event(&mut watch).await);
    assert_eq!((first.revision(), second.revision()), (before + 1, before + 1));
    assert_eq!(store.list("/").await.expect("listed").entries.len(), 1);
}

pub(super) async fn a_watch_tells_every_change_once_and_in_order(store: Arc<dyn Store>) {
    store.put("/w/old", "0".into()).await.expect("written");
    let start = store.list("/w/").await.expect("listed").revision;
    let one = store.put("/w/a", "1".into()).await.expect("written");
    let mut watch = store.watch("/w/", Some(start));
    store.put("/elsewhere", "1".into()).await.expect("written");
    let txn = Txn::new().put("/w/b", "2").delete("/w/a");
    let two = store.txn(txn).await.expect("tried").applied().expect("applied");
    let three = store.put("/w/a", "3".into()).await.expect("written");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match event(&mut watch).await {
            Event::Put(entry) => (entry.key, Some(entry.value), entry.revision),
            Event::Delete { key, revision } => (key, None, revision),
            Event::Reset(_) => panic!("nothing was lost"),
        });
    }
    seen[1..3].sort();
    let key = |text: &str| format!("/w/{text}");
    let expected = [
        (key("a"), Some("1".into()), one),
        (key("a"), None, two),
        (key("b"), Some("2".into()), two),
        (key("a"), Some("3".into()), three),
    ];
    assert_eq!(seen, expected);
}

pub(super) async fn a_watch_without_a_position_begins_with_everything(store: Arc<dyn Store>) {
    let first = store.put("/w/a", "1".into()).await.expect("written");
    let mut watch = store.watch("/w/", None);
    let Event::Reset(listing) = event(&mut watch).await else { panic!("begins with a reset") };
    assert_eq!(listing.entries.iter().map(|e| e.revision).collect::<Vec<_>>(), [first]);
    let next = store.put("/w/a", "2".into()).await.expect("written");
    assert_eq!(event(&mut watch).await.revision(), next);
}

pub(super) async fn a_watch_from_the_future_is_reset(store: Arc<dyn Store>) {
    let last = store.put("/w/a", "1".into()).await.expect("written");
    let mut watch = store.watch("/w/", Some(last + 1000));
    let Event::Reset(listing) = event(&mut watch).await else { panic!("a position that never was") };
    assert_eq!((listing.entries.len(), listing.revision), (1, last));
}

pub(super) async fn a_follower_ends_with_the_truth(store: Arc<dyn Store>) {
    store.put("/f/old", "0".into()).await.expect("written");
    let mut follower = Follower::new(&*store, "/f/");
    ready(&mut follower).await;
    assert!(follower.known().entries().contains_key("/f/old"));
    let writers = (0..4).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..25 {
                let key = format!("/f/{}", (writer + round) % 7);
                store.put(&key, format!("{writer}-{round}").into()).await.expect("written");
                if round % 5 == 0 {
                    store.delete(&key).await.expect("deleted");
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    store.put("/f/end", "1".into()).await.expect("written");
    until(&mut follower, |entries| entries.contains_key("/f/end")).await;
    let truth = store.list("/f/").await.expect("listed").entries;
    assert_eq!(follower.known().entries().values().cloned().collect::<Vec<_>>(), truth);
}

pub(super) async fn concurrent_conditions_have_one_winner(store: Arc<dyn Store>) {
    let tries = (0..8).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.put_if("/one", Expect::Absent, format!("{i}").into()).await })
    });
    let mut winners = 0;
    for attempt in tries.collect::<Vec<_>>() {
        winners += usize::from(attempt.await.expect("no panic").expect("tried").applied().is_some());
    }
    assert_eq!(winners, 1);
}

pub(super) async fn leased_keys_end_with_their_lease(store: Arc<dyn Store>) {
    let key = keys::gateway("gw-1");
    let lease = store.grant(DEFAULT_TTL).await.expect("granted");
    store.txn(leased(&key, "1", lease)).await.expect("tried").applied().expect("applied");
    assert_eq!(store.get(&key).await.expect("read").and_then(|e| e.lease), Some(lease));
    assert!(store.renew(lease).await.expect("renewed"));
    let mut watch = store.watch(&key, Some(store.list("").await.expect("listed").revision));
    store.revoke(lease).await.expect("revoked");
    assert!(matches!(event(&mut watch).await, Event::Delete { key: gone, .. } if gone == key));
    assert!(!store.renew(lease).await.expect("asked"));
    store.revoke(lease).await.expect("revoking twice is no error");
    assert!(matches!(store.txn(leased(&key, "2", lease)).await, Err(StoreError::LeaseLost)));
}

pub(super) async fn a_key_written_again_leaves_its_old_lease(store: Arc<dyn Store>) {
    let key = keys::gateway("gw-1");
    let old = store.grant(DEFAULT_TTL).await.expect("granted");
    let new = store.grant(DEFAULT_TTL).await.expect("granted");
    assert_ne!(old, new);
    store.txn(leased(&key, "1", old)).await.expect("tried");
    store.txn(leased(&key, "2", new)).await.expect("tried");
    store.revoke(old).await.expect("revoked");
    assert_eq!(store.get(&key).await.expect("read").map(|e| e.value), Some("2".into()));
    store.revoke(new).await.expect("revoked");
    assert_eq!(store.get(&key).await.expect("read"), None);
}

pub(super) async fn a_session_keeps_its_keys_and_returns_after_a_loss(store: Arc<dyn Store>) {
    let key = keys::gateway("gw-1");
    let session = StoreSession::start(Arc::clone(&store), MIN_TTL);
    assert!(matches!(session.keep("/eastway/v1/self/meta", "x"), Err(StoreError::Invalid(_))));
    session.keep(&key, "1").expect("allowed");
    let first = eventually("the key is kept", async || store.get(&key).await.ok().flatten()).await;
    assert_eq!(first.lease, session.lease());

    let mut states = session.states();
    let held = first.lease.expect("leased");
    store.revoke(held).await.expect("revoked");
    let is_new = |state: &SessionState| matches!(state, SessionState::Held(lease) if *lease != held);
    soon("it has another lease", states.wait_for(is_new)).await.expect("open");
    let second = eventually("the key is back", async || store.get(&key).await.ok().flatten()).await;
    assert_ne!(second.lease, Some(held));

    session.keep(&key, "2").expect("allowed");
    eventually("the new value", async || store.get(&key).await.ok().flatten().filter(|e| e.value == "2")).await;
    session.forget(&key);
    eventually("it is gone", async || store.get(&key).await.ok()?.is_none().then_some(())).await;
    session.keep(&key, "3").expect("allowed");
    eventually("it is there", async || store.get(&key).await.ok().flatten()).await;
    session.close().await;
    assert_eq!(store.get(&key).await.expect("read"), None);
}

pub(super) async fn one_candidate_leads_and_another_follows_it(store: Arc<dyn Store>) {
    let candidate = |name: &str| {
        let session = Arc::new(StoreSession::start(Arc::clone(&store), MIN_TTL));
        (Election::campaign(Arc::clone(&session), name), session)
    };
    let (first, _first_session) = candidate("gw-1");
    eventually("the first leads", async || first.is_leader().then_some(())).await;
    let (second, _second_session) = candidate("gw-2");
    let mut leader = second.leader();
    soon("the second knows", leader.wait_for(|l| l.as_deref() == Some("gw-1"))).await.expect("open");
    assert!(!second.is_leader());
    let (key, expect) = first.fence().expect("leads");
    let fenced = || Txn::new().when(key, expect).put("/led", "1");
    assert!(store.txn(fenced()).await.expect("tried").applied().is_some());

    first.resign().await.expect("resigned");
    eventually("the second leads", async || second.is_leader().then_some(())).await;
    assert!(store.txn(fenced()).await.expect("tried").applied().is_none(), "the old leader's writes fail");
}

pub(super) async fn a_leader_whose_lease_ends_stops_leading_and_may_return(store: Arc<dyn Store>) {
    let session = Arc::new(StoreSession::start(Arc::clone(&store), MIN_TTL));
    let election = Election::campaign(Arc::clone(&session), "gw-1");
    eventually("it leads", async || election.is_leader().then_some(())).await;
    let before = election.fence();
    store.revoke(session.lease().expect("held")).await.expect("revoked");
    eventually("it leads anew", async || (election.is_leader() && election.fence() != before).then_some(())).await;
}

pub(super) async fn rules_are_the_same_everywhere(store: Arc<dyn Store>) {
    let invalid = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Invalid(_)));
    assert!(invalid(store.put("", "1".into()).await.map(|_| ())));
    assert!(invalid(store.put("/k", vec![0; MAX_VALUE + 1].into()).await.map(|_| ())));
    assert!(invalid(store.get("").await.map(|_| ())));
    assert!(invalid(store.delete("").await.map(|_| ())));
    assert!(invalid(store.delete_prefix("").await.map(|_| ())), "deleting everything is a mistake");
    assert!(invalid(store.txn(Txn::new().put("/k", "1").delete("/k")).await.map(|_| ())));
    assert!(store.put("/k", vec![1; MAX_VALUE].into()).await.is_ok());
    let lease = store.grant(DEFAULT_TTL).await.expect("granted");
    assert!(invalid(store.txn(leased("/k", "1", lease)).await.map(|_| ())));
}

pub(super) async fn health_tells_what_happened(store: Arc<dyn Store>) {
    store.put("/k", "1".into()).await.expect("written");
    let health = store.health();
    assert!(health.healthy && health.member.is_some() && health.age_seconds.is_some(), "{health:?}");
    assert_ne!(store.cluster_id().await.expect("known"), 0);
    assert_eq!(store.cluster_id().await.expect("known"), store.cluster_id().await.expect("known"));
}

/// Random operations, each compared with what a map in memory would do.
pub(super) async fn random_operations_agree_with_a_model(store: Arc<dyn Store>) {
    let seed = std::env::var("EASTWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::Rng::new().u64(..));
    println!("again with EASTWAY_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model: BTreeMap<String, (String, Revision)> = BTreeMap::new();
    let mut last = store.list("").await.expect("listed").revision;
    let mut follower = Follower::new(&*store, "/r/");
    for round in 0..200 {
        let key = format!("/r/{}/{}", rng.u8(..3), rng.u8(..4));
        let value = round.to_string();
        let known = model.get(&key).map(|(_, revision)| *revision);
        match rng.u8(..5) {
            0 => {
                let revision = store.put(&key, value.clone().into()).await.expect("written");
                model.insert(key, (value, revision));
            }
            1 => assert_eq!(store.delete(&key).await.expect("deleted"), model.remove(&key).is_some()),
            2 => {
                let expect = if rng.bool() { Expect::Absent } else { Expect::At((last - rng.u64(..2)).max(1)) };
                let commit = store.put_if(&key, expect, value.clone().into()).await.expect("tried");
                assert_eq!(commit.applied().is_some(), expect.holds(known));
                if let Some(revision) = commit.applied() {
                    model.insert(key, (value, revision));
                }
            }
            3 if round % 10 == 0 => {
                let prefix = &key[..5];
                let before = model.len();
                model.retain(|key, _| !key.starts_with(prefix));
                assert_eq!(store.delete_prefix(prefix).await.expect("deleted"), (before - model.len()) as u64);
            }
            _ => {
                let expect = known.map_or(Expect::Absent, Expect::At);
                let txn = Txn::new().when(&key, expect).delete(&key).put("/r/both", value.clone());
                let revision = store.txn(txn).await.expect("tried").applied().expect("applied");
                model.remove(&key);
                model.insert("/r/both".to_owned(), (value, revision));
            }
        }
        let listing = store.list("/r/").await.expect("listed");
        let found = listing.entries.iter().map(|e| (&e.key, &e.value[..], e.revision));
        assert!(found.eq(model.iter().map(|(key, (value, revision))| (key, value.as_bytes(), *revision))), "{round}");
        assert!(listing.revision == last || listing.revision == last + 1, "one revision for each change");
        last = listing.revision;
    }
    let end = store.put("/r/end", "1".into()).await.expect("written");
    until(&mut follower, |entries| entries.get("/r/end").is_some_and(|entry| entry.revision == end)).await;
    let followed = follower.known().entries().values().map(|entry| (&entry.key, entry.revision));
    let truth = model.iter().map(|(key, (_, revision))| (key, *revision));
    assert!(followed.filter(|(key, _)| *key != "/r/end").eq(truth));
}

/// Makes each test of the suite a test of one store. `$open` yields the store and whatever must live as long.
macro_rules! suite {
    ($open:expr, $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _keep) = $open().await;
                super::$name(store).await;
            }
        )+
    };
    ($open:expr) => {
        suite!(
            $open,
            what_is_written_is_read,
            a_prefix_is_listed_in_order_at_one_revision,
            many_and_large_entries_are_listed,
            conditions_decide_and_tell_what_is_there,
            transactions_are_applied_as_a_whole_or_not_at_all,
            a_prefix_is_deleted_under_one_revision,
            a_watch_tells_every_change_once_and_in_order,
            a_watch_without_a_position_begins_with_everything,
            a_watch_from_the_future_is_reset,
            a_follower_ends_with_the_truth,
            concurrent_conditions_have_one_winner,
            leased_keys_end_with_their_lease,
            a_key_written_again_leaves_its_old_lease,
            a_session_keeps_its_keys_and_returns_after_a_loss,
            one_candidate_leads_and_another_follows_it,
            a_leader_whose_lease_ends_stops_leading_and_may_return,
            random_operations_agree_with_a_model,
            rules_are_the_same_everywhere,
            health_tells_what_happened,
        );
    };
}

mod embedded {
    use super::*;

    async fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(directory.path()).await.expect("opened");
        (Arc::new(store), directory)
    }

    suite!(open);
}

mod etcd {
    use super::etcd_process::Etcd;
    use super::*;

    async fn open() -> (Arc<dyn Store>, Etcd) {
        let etcd = Etcd::start().await;
        let store = EtcdStore::new(etcd.options()).await.expect("options");
        (Arc::new(store), etcd)
    }

    suite!(open);
}
