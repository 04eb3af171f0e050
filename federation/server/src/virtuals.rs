//! Virtual addresses: names that sidecars ask for get theirs in the store, once for the whole cluster.
//!
//! Which number a name gets, and when it loses it, is decided in `eastway_registry::virtuals`. Any gateway gives one; the leader
//! takes away those that nobody uses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::MeshHost;
use eastway_registry::NoNumber;
use eastway_registry::membership::RETRY;
use eastway_runtime::throttled;
use tokio::time::{interval, sleep};

use crate::hub::Hub;
use crate::store::{Change, Commit, Election, Follower, Op, Revision, Store, StoreEntry, StoreError, Txn, keys};
use crate::topic::Topic;

/// Between two looks which names are in use, and which are not any more.
const REVIEWS: Duration = Duration::from_secs(600);

/// How often a name is tried against a store that turns out to hold something else.
const ATTEMPTS: u32 = 8;

/// The number of the name; if it has none, it is to get one.
pub(crate) fn want(hub: &Hub, host: &MeshHost) -> Option<u32> {
    let number = hub.virtuals.lock().number(host);
    if number.is_none() {
        hub.unnumbered.add([host.clone()]);
    }
    number
}

/// The entries are in the store. Answers the names of which that is news.
fn learn(hub: &Hub, entries: impl IntoIterator<Item = StoreEntry>) -> Vec<MeshHost> {
    let mut known = hub.virtuals.lock();
    entries.into_iter().filter_map(|entry| known.change(&Change::Put(entry))).collect()
}

/// Takes over what a store holds. What fails here is told when the store is followed.
pub(crate) async fn load(hub: &Hub, from: &dyn Store) {
    learn(hub, from.list(keys::VIRTUALS).await.unwrap_or_default().entries);
}

/// Follows the store, and gives numbers to names that want one. Runs until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, store: Arc<dyn Store>, election: Arc<Election>) {
    let mut stored = Follower::new(&*store, keys::VIRTUALS);
    let mut reviews = interval(REVIEWS);
    loop {
        tokio::select! {
            change = stored.next() => match change {
                Some(Change::Ready(_)) => {
                    let gone = hub.virtuals.lock().keep(stored.known());
                    announce(&hub, gone);
                }
                Some(change) => announce(&hub, hub.virtuals.lock().change(&change)),
                None => return,
            },
            () = hub.unnumbered.added(), if stored.known().is_ready() => allot_wanted(&hub, &*store).await,
            _ = reviews.tick(), if stored.known().is_ready() => review(&hub, &*store, &election).await,
        }
    }
}

fn announce(hub: &Hub, hosts: impl IntoIterator<Item = MeshHost>) {
    let topics: Vec<Topic> = hosts.into_iter().map(Topic::Address).collect();
    hub.announce(&topics);
}

async fn allot_wanted(hub: &Hub, store: &dyn Store) {
    let mut left = BTreeSet::new();
    for host in hub.unnumbered.take() {
        if !is_offered(hub, &host) {
            continue;
        }
        if let Err(error) = allot(hub, store, &host).await {
            throttled!(warn, %host, %error, "a name gets no virtual address yet: the store does not take it");
            left.insert(host);
        }
    }
    let failed = !left.is_empty();
    hub.unnumbered.written(left);
    if failed {
        sleep(RETRY).await;
    }
}

/// Whether some cluster may offer it: other names get no number, so that nobody can use them up.
fn is_offered(hub: &Hub, MeshHost { service, cluster }: &MeshHost) -> bool {
    hub.read(|catalogue, _| {
        let is_cluster =
            |name: &Arc<str>| **name == *catalogue.meta().name || catalogue.resources().peers.contains_key(&**name);
        catalogue.facts(service).is_some() && cluster.as_ref().is_none_or(is_cluster)
    })
}

/// Gives the name a number, unless another gateway was faster.
async fn allot(hub: &Hub, store: &dyn Store, host: &MeshHost) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let allotted = hub.virtuals.lock().allot(host, now(hub));
        let txn = match allotted {
            Ok(txn) => txn,
            Err(NoNumber::Held) => {
                announce(hub, [host.clone()]);
                return Ok(());
            }
            Err(error @ (NoNumber::Limit(_) | NoNumber::Taken)) => {
                throttled!(warn, %host, %error, "a name gets no virtual address");
                return Ok(());
            }
        };
        // What the store answers is known before the watch tells it.
        let news = match store.txn(txn.clone()).await? {
            Commit::Applied(revision) => learn(hub, written(txn, revision)),
            Commit::Conflict(entries) => learn(hub, entries.into_iter().flatten()),
        };
        announce(hub, news);
    }
    Err(StoreError::Unavailable { attempts: ATTEMPTS, reason: "it changes faster than it can be read".to_owned() })
}

/// What a transaction that was applied has put.
fn written(txn: Txn, revision: Revision) -> impl Iterator<Item = StoreEntry> {
    txn.ops.into_iter().filter_map(move |op| match op {
        Op::Put { key, value, lease } => Some(StoreEntry { key, value, revision, lease }),
        Op::Delete { .. } => None,
    })
}

/// Stores which names are in use; the leader takes away what is not.
async fn review(hub: &Hub, store: &dyn Store, election: &Election) {
    let used = hub.addressed();
    let mut due: Vec<Txn> = {
        let known = hub.virtuals.lock();
        used.iter().filter_map(|host| known.renew(host, now(hub))).collect()
    };
    if let Some(leader) = election.fence() {
        due.extend(hub.virtuals.lock().free(now(hub), leader));
    }
    for txn in due {
        // Whoever was faster has done the same, or uses it again.
        if let Err(error) = store.txn(txn).await {
            throttled!(warn, %error, "which virtual addresses are in use cannot be stored: it is tried again later");
            return;
        }
    }
}

/// Seconds since 1970.
fn now(hub: &Hub) -> u64 {
    (hub.options.wall_clock)() / 1_000
}
