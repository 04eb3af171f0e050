//! What only a store with servers elsewhere has: servers that die, lose their history, go mute, or are not ours.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::etcd_process::{Certificates, Etcd, Mode, Relay, SHORT, patient};
use super::suite::{event, eventually, ready, soon, until};
use super::*;

async fn open(options: EtcdOptions) -> EtcdStore {
    EtcdStore::new(options).await.expect("options")
}

async fn raw(etcd: &Etcd) -> etcd_client::Client {
    etcd_client::Client::connect([etcd.url()], None).await.expect("connected")
}

/// Writes 0, 1, 2 ... to one key until `count`.
fn write_numbers(store: &EtcdStore, count: u32) -> tokio::task::JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move {
        for number in 0..count {
            store.put("/n", number.to_string().into()).await.expect("written in the end");
        }
    })
}

/// Takes the next number from a watch of `/n`.
async fn next_number(watch: &mut Watch) -> u32 {
    let Event::Put(entry) = event(watch).await else { panic!("only puts were made") };
    String::from_utf8(entry.value.to_vec()).expect("text").parse().expect("a number")
}

#[tokio::test]
async fn a_server_killed_and_started_again_loses_no_event_and_applies_each_write_once() {
    let etcd = Etcd::start().await;
    let store = open(etcd.options()).await;
    let start = store.list("/").await.expect("listed").revision;
    let mut watch = store.watch("/n", Some(start));
    let writer = write_numbers(&store, 300);
    for expected in 0..300 {
        assert_eq!(next_number(&mut watch).await, expected);
        if expected % 100 == 50 {
            etcd.restart().await;
        }
    }
    writer.await.expect("no panic");
    let last = store.get("/n").await.expect("read").expect("there");
    assert_eq!(last.revision, start + 300, "every write happened exactly once");
    assert!(store.health().last_error.is_some(), "the crash was seen");
}

#[tokio::test]
async fn what_happens_while_a_watch_is_cut_off_arrives_when_it_is_back() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let direct = open(etcd.options()).await;
    let start = direct.put("/elsewhere", "1".into()).await.expect("written");
    let mut watch = open(patient([relay.url()])).await.watch("/n", Some(start));
    for round in 0..3 {
        direct.put("/n", (round * 10).to_string().into()).await.expect("written");
        assert_eq!(next_number(&mut watch).await, round * 10);
        relay.set(Mode::Cut);
        for number in 1..10 {
            direct.put("/n", (round * 10 + number).to_string().into()).await.expect("written");
        }
        relay.set(Mode::Open);
        for number in 1..10 {
            assert_eq!(next_number(&mut watch).await, round * 10 + number);
        }
    }
}

#[tokio::test]
async fn the_loss_of_the_used_member_of_three_is_hardly_noticed() {
    let members = Etcd::start_three().await;
    let store = open(patient(members.iter().map(Etcd::url))).await;
    store.put("/n", "0".into()).await.expect("written");
    let start = store.list("/").await.expect("listed").revision;
    let mut watch = store.watch("/n", Some(start));
    let session = StoreSession::start(Arc::new(store.clone()), Duration::from_secs(20));
    let lease = eventually("a lease", async || session.lease()).await;

    let mut killed = String::new();
    let writer = write_numbers(&store, 100);
    for expected in 0..100 {
        assert_eq!(next_number(&mut watch).await, expected);
        if expected == 30 {
            killed = store.health().member.expect("one is used");
            members.iter().find(|member| member.url() == killed).expect("ours").kill();
        }
    }
    writer.await.expect("no panic");
    assert_eq!(store.get("/n").await.expect("read").map(|entry| entry.revision), Some(start + 100));
    let health = store.health();
    assert!(health.healthy && health.member.as_ref().is_some_and(|used| *used != killed), "{health:?}");
    assert!(health.members.iter().any(|member| member.address == killed && member.failures > 0), "{health:?}");
    assert!(store.renew(lease).await.expect("renewed"));

    // It is known to be back, though another one is used and goes on to be.
    members.iter().find(|member| member.url() == killed).expect("ours").restart().await;
    let back = async || store.health().members.iter().all(|member| member.failures == 0).then_some(());
    eventually("no member is said to fail", back).await;
    assert_eq!(store.health().member, health.member);
}

#[tokio::test]
async fn without_a_quorum_nothing_is_answered_and_nothing_is_lost() {
    let members = Etcd::start_three().await;
    let patient_store = open(patient(members.iter().map(Etcd::url))).await;
    patient_store.put("/a", "1".into()).await.expect("written");
    let mut options = patient(members.iter().map(Etcd::url));
    options.operation_timeout = Duration::from_secs(1);
    let store = open(options).await;
    members[0].kill();
    members[1].kill();
    let error = store.get("/a").await.expect_err("no quorum");
    assert!(error.is_transient(), "{error}");
    let waiting = tokio::spawn(async move { patient_store.put("/b", "2".into()).await });
    members[0].restart().await;
    soon("the write", waiting).await.expect("no panic").expect("written");
    eventually("both are there", async || (store.list("/").await.ok()?.entries.len() == 2).then_some(())).await;
}

#[tokio::test]
async fn what_was_compacted_while_disconnected_arrives_as_differences() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let direct = open(etcd.options()).await;
    let store = open(patient([relay.url()])).await;
    for (key, value) in [("/c/kept", "1"), ("/c/changed", "1"), ("/c/deleted", "1")] {
        direct.put(key, value.into()).await.expect("written");
    }
    let mut follower = Follower::new(&store, "/c/");
    ready(&mut follower).await;
    assert_eq!(follower.known().entries().len(), 3);

    relay.set(Mode::Cut);
    direct.put("/c/changed", "2".into()).await.expect("written");
    direct.delete("/c/deleted").await.expect("deleted");
    let last = direct.put("/c/new", "1".into()).await.expect("written");
    let last = i64::try_from(last).expect("small");
    raw(&etcd).await.compact(last, None).await.expect("compacted");
    relay.set(Mode::Open);

    let mut changes = Vec::new();
    for _ in 0..3 {
        changes.push(match soon("a difference", follower.next()).await.expect("open") {
            Change::Put(entry) => (entry.key, Some(entry.value)),
            Change::Delete(entry) => (entry.key, None),
            Change::Ready(_) | Change::Relisted(_) => panic!("before the differences"),
        });
    }
    let expected = [("/c/deleted", None), ("/c/changed", Some("2".into())), ("/c/new", Some("1".into()))];
    assert_eq!(changes, expected.map(|(key, value): (_, Option<Bytes>)| (key.to_owned(), value)));
    // And it goes on from there.
    direct.put("/c/later", "1".into()).await.expect("written");
    until(&mut follower, |entries| entries.len() == 4).await;
}

#[tokio::test]
async fn a_server_that_begins_anew_resets_the_watch() {
    let etcd = Etcd::start().await;
    let store = open(etcd.options()).await;
    for number in 0..5 {
        store.put(&format!("/old/{number}"), "1".into()).await.expect("written");
    }
    let mut follower = Follower::new(&store, "/");
    ready(&mut follower).await;
    etcd.wipe();
    etcd.restart().await;
    store.put("/new", "1".into()).await.expect("written");
    until(&mut follower, |entries| entries.len() == 1 && entries.contains_key("/new")).await;
}

#[tokio::test]
async fn a_store_of_another_history_that_has_come_as_far_resets_the_watch() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let store = open(patient([relay.url()])).await;
    let mut follower = Follower::new(&store, "/k/");
    ready(&mut follower).await;
    let seen = store.put("/k/seen", "1".into()).await.expect("written");
    until(&mut follower, |entries| entries.contains_key("/k/seen")).await;

    // As a snapshot that was restored, and written to before the watch is back: the same cluster, as many revisions.
    relay.set(Mode::Cut);
    etcd.wipe();
    etcd.restart().await;
    let direct = open(etcd.options()).await;
    while direct.put("/k/other", "2".into()).await.expect("written") <= seen + 1 {}
    relay.set(Mode::Open);
    until(&mut follower, |entries| entries.len() == 1 && entries.contains_key("/k/other")).await;
}

#[tokio::test]
async fn a_mute_member_is_passed_over() {
    let etcd = Etcd::start().await;
    let mute = Relay::start(etcd.client_address()).await;
    mute.set(Mode::Mute);
    // Which member is asked first is random: among these some begin with the mute one.
    for round in 0..8_u32 {
        let mut options = patient([mute.url(), etcd.url()]);
        options.try_timeout = SHORT;
        let store = open(options).await;
        let key = format!("/m/{round}");
        store.put(&key, "1".into()).await.expect("written");
        let mut watch = store.watch(&key, None);
        assert!(matches!(event(&mut watch).await, Event::Reset(listing) if listing.entries.len() == 1));
        for _ in 0..20 {
            store.get(&key).await.expect("read");
        }
        assert_eq!(store.health().member, Some(etcd.url()));
    }
}

#[tokio::test]
async fn a_member_that_falls_silent_under_a_watch_is_left() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let mut options = patient([relay.url()]);
    options.keep_alive_interval = Duration::from_millis(200);
    options.keep_alive_timeout = Duration::from_millis(200);
    let store = open(options).await;
    let start = store.put("/n", "0".into()).await.expect("written");
    let mut watch = store.watch("/n", Some(start));
    let direct = open(etcd.options()).await;
    direct.put("/n", "1".into()).await.expect("written");
    assert_eq!(next_number(&mut watch).await, 1);
    // Answers vanish, but no connection breaks: as when packets are dropped.
    relay.set(Mode::Deaf);
    direct.put("/n", "2".into()).await.expect("written");
    assert!(timeout(SHORT, watch.next()).await.is_err(), "nothing can arrive");
    relay.set(Mode::Open);
    assert_eq!(next_number(&mut watch).await, 2);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_happens_once() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let mut options = patient([relay.url()]);
    options.try_timeout = SHORT;
    let store = open(options).await;
    let direct = open(etcd.options()).await;
    store.put("/warm", "1".into()).await.expect("written");

    relay.set(Mode::Deaf);
    let writing = tokio::spawn(async move { store.put_if("/k", Expect::Absent, "1".into()).await });
    let there = eventually("the write arrives", async || direct.get("/k").await.ok().flatten()).await;
    relay.set(Mode::Open);
    let commit = soon("the write", writing).await.expect("no panic").expect("answered in the end");
    assert_eq!(commit, Commit::Applied(there.revision), "it is not taken for somebody else's");
    let mut client = raw(&etcd).await;
    let versions = client.get("/k", None).await.expect("read");
    assert_eq!(versions.kvs()[0].version(), 1);
}

#[tokio::test]
async fn an_unguarded_transaction_whose_answer_is_lost_is_not_tried_again() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let mut options = patient([relay.url()]);
    options.try_timeout = SHORT;
    let store = open(options).await;
    store.put("/warm", "1".into()).await.expect("written");
    relay.set(Mode::Deaf);
    let result = store.txn(Txn::new().put("/k", "1")).await;
    assert!(matches!(result, Err(StoreError::OutcomeUnknown { attempts: 1, .. })), "{result:?}");
}

#[tokio::test]
async fn a_write_that_reaches_nobody_did_not_happen() {
    let mut options = patient(["http://127.0.0.1:1".to_owned()]);
    options.operation_timeout = SHORT;
    let store = open(options).await;
    let error = store.put("/k", "1".into()).await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let health = store.health();
    assert!(!health.healthy && health.member.is_none() && health.last_error.is_some(), "{health:?}");
}

#[tokio::test]
async fn passwords_are_used_and_survive_a_restart_of_the_server() {
    let etcd = Etcd::start().await;
    let mut admin = raw(&etcd).await;
    admin.user_add("root", "secret", None).await.expect("added");
    admin.user_grant_role("root", "root").await.expect("granted");
    admin.role_add("mesh").await.expect("added");
    let all = etcd_client::Permission::read_write("/eastway/").with_prefix();
    admin.role_grant_permission("mesh", all).await.expect("granted");
    admin.user_add("gateway", "pass", None).await.expect("added");
    admin.user_grant_role("gateway", "mesh").await.expect("granted");
    admin.auth_enable().await.expect("enabled");

    let with = |user: &str, password: &str| {
        let mut options = etcd.options();
        options.user = Some((user.to_owned(), password.to_owned()));
        options
    };
    let wrong = open(with("gateway", "wrong")).await.get(keys::META).await;
    assert!(matches!(&wrong, Err(StoreError::Refused(why)) if why.contains("authentication failed")), "{wrong:?}");
    let nobody = open(etcd.options()).await.get(keys::META).await;
    assert!(matches!(nobody, Err(StoreError::Refused(_))), "{nobody:?}");

    let store = open(with("gateway", "pass")).await;
    store.put(keys::META, "1".into()).await.expect("written");
    let outside = store.put("/elsewhere", "1".into()).await;
    assert!(matches!(&outside, Err(StoreError::Refused(why)) if why.contains("permission denied")), "{outside:?}");
    let mut follower = Follower::new(&store, keys::ROOT);
    ready(&mut follower).await;
    let session = StoreSession::start(Arc::new(store.clone()), MIN_TTL);
    session.keep(&keys::gateway("gw-1"), "here").expect("allowed");
    until(&mut follower, |entries| entries.len() == 2).await;

    // The server forgets all tokens.
    etcd.restart().await;
    store.put(keys::META, "2".into()).await.expect("written with a new token");
    until(&mut follower, |entries| entries.get(keys::META).is_some_and(|entry| entry.value == "2")).await;
    session.close().await;
    until(&mut follower, |entries| entries.len() == 1).await;
}

#[tokio::test]
async fn tls_is_verified_on_both_sides() {
    let certificates = Certificates::new();
    let etcd = Etcd::start_tls(&certificates).await;
    let with = |tls: EtcdTls| {
        let mut options = etcd.options();
        options.tls = Some(tls);
        options
    };
    let store = open(with(certificates.client(true))).await;
    store.put("/k", "1".into()).await.expect("written");
    let mut watch = store.watch("/", None);
    assert!(matches!(event(&mut watch).await, Event::Reset(listing) if listing.entries.len() == 1));

    let foreign = Certificates::new();
    let wrong = [
        ("a stranger's CA", foreign.client(true)),
        ("no certificate of ours", certificates.client(false)),
        ("another name", EtcdTls { server_name: Some("other".to_owned()), ..certificates.client(true) }),
    ];
    for (what, tls) in wrong {
        let mut options = with(tls);
        options.operation_timeout = SHORT;
        let error = open(options).await.get("/k").await.expect_err(what);
        assert!(matches!(error, StoreError::Unavailable { .. }), "{what}: {error:?}");
    }
    let mut broken = etcd.options();
    broken.tls = Some(EtcdTls { identity: Some((b"no".to_vec(), b"pem".to_vec())), ..certificates.client(false) });
    let error = EtcdStore::new(broken).await.err();
    assert!(matches!(error, Some(StoreError::Options(_))), "{error:?}");
}

#[tokio::test]
async fn a_member_of_another_cluster_is_not_spoken_to() {
    let (ours, theirs) = (Etcd::start().await, Etcd::start().await);
    let relay = Relay::start(ours.client_address()).await;
    let store = open(patient([relay.url()])).await;
    store.put("/k", "1".into()).await.expect("written");
    let id = store.cluster_id().await.expect("known");

    relay.redirect(theirs.client_address());
    // The first write may have been sent on the old connection just before it broke.
    eventually("the stranger is recognised", async || {
        let error = store.put("/k", "2".into()).await.expect_err("nobody of ours is there");
        matches!(error, StoreError::Foreign { expected, .. } if expected == id).then_some(())
    })
    .await;
    let stranger = open(theirs.options()).await;
    assert_eq!(stranger.get("/k").await.expect("read"), None);

    let mut pinned = theirs.options();
    pinned.cluster_id = Some(id);
    assert!(matches!(open(pinned).await.get("/k").await, Err(StoreError::Foreign { .. })));
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends() {
    let etcd = Etcd::start().await;
    let store = open(etcd.options()).await;
    let lease = store.grant(MIN_TTL).await.expect("granted");
    let txn = Txn::new().put_leased(keys::LEADER, "gw-1", lease);
    let revision = store.txn(txn).await.expect("tried").applied().expect("applied");
    let mut watch = store.watch(keys::LEADER, Some(revision));
    assert!(matches!(event(&mut watch).await, Event::Delete { key, .. } if key == keys::LEADER));
    assert!(!store.renew(lease).await.expect("asked"));
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_store_stops_leading_before_another_begins() {
    let etcd = Etcd::start().await;
    let relay = Relay::start(etcd.client_address()).await;
    let candidate = |store: EtcdStore, name: &'static str| {
        let session = Arc::new(StoreSession::start(Arc::new(store), MIN_TTL));
        (Election::campaign(Arc::clone(&session), name), session)
    };
    let (cut_off, cut_off_session) = candidate(open(patient([relay.url()])).await, "gw-1");
    eventually("the first leads", async || cut_off.is_leader().then_some(())).await;
    let (other, _other_session) = candidate(open(etcd.options()).await, "gw-2");
    let mut leader = other.leader();
    soon("the second knows", leader.wait_for(|name| name.as_deref() == Some("gw-1"))).await.expect("open");

    relay.set(Mode::Cut);
    let both = async || {
        assert!(!(cut_off.is_leader() && other.is_leader()), "two lead");
        other.is_leader().then_some(())
    };
    eventually("the second leads", both).await;
    assert_eq!(cut_off_session.lease(), None);
    let mut states = cut_off_session.states();
    soon("the loss is told", states.wait_for(|state| *state == SessionState::Lost)).await.expect("open");
    relay.set(Mode::Open);
    let mut known = cut_off.leader();
    soon("the first learns of it", known.wait_for(|name| name.as_deref() == Some("gw-2"))).await.expect("open");
}

#[tokio::test]
async fn a_prefix_of_ones_own_keeps_meshes_apart() {
    let etcd = Etcd::start().await;
    let with = |prefix: &str| {
        let mut options = etcd.options();
        options.prefix = prefix.to_owned();
        options
    };
    let (a, b) = (open(with("/a")).await, open(with("/b")).await);
    let mut watch = b.watch("", None);
    assert!(matches!(event(&mut watch).await, Event::Reset(listing) if listing.entries.is_empty()));
    a.put("/k", "a".into()).await.expect("written");
    b.put("/k", "b".into()).await.expect("written");
    assert!(matches!(event(&mut watch).await, Event::Put(entry) if entry.key == "/k" && entry.value == "b"));
    assert_eq!(a.list("").await.expect("listed").entries.len(), 1);
    assert_eq!(a.delete_prefix("/").await.expect("deleted"), 1);
    assert_eq!(b.list("").await.expect("listed").entries.len(), 1);
}

#[tokio::test]
async fn lists_are_cut_into_pages_that_fit() {
    let etcd = Etcd::start().await;
    let mut options = etcd.options();
    options.page = 4;
    options.max_message = 300_000;
    let store = open(options).await;
    for number in 0..11 {
        store.put(&format!("/p/{number:02}"), vec![number; 100_000].into()).await.expect("written");
    }
    let listing = store.list("/p/").await.expect("listed");
    let order: Vec<u8> = listing.entries.iter().map(|entry| entry.value[0]).collect();
    assert_eq!(order, (0..11).collect::<Vec<u8>>());
    let mut follower = Follower::new(&store, "/p/");
    ready(&mut follower).await;
    assert_eq!(follower.known().entries().len(), 11);
}
