//! The store in an etcd cluster: for clusters with several gateways. The only place that knows etcd.
//!
//! `etcd-client` is a stub for etcd's calls and no more: what makes it survive faults is here. One client for each
//! member, and our own failover between them (`cluster`, `ranking`); lists in pages at one revision; watches that
//! resume exactly where they were (`watch`, `position`). Every write is guarded by a comparison with what it replaces,
//! so that it can be tried again on another member when an answer is lost, and so that a request which was delayed on
//! its way can never undo a later one.

mod cluster;
mod failure;
mod options;
mod position;
mod ranking;
mod watch;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, LeaseGrantOptions, PutOptions, TxnOp,
    TxnOpResponse, TxnResponse,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use self::cluster::{Cluster, Retry};
pub use self::options::{EtcdCredentials, EtcdOptions, EtcdTls, Renewal};
use super::txn::{check, check_key, check_value, overwrite, remove};
use super::{Commit, Expect, LeaseId, Listing, Op, Revision, Store, StoreEntry, StoreError, StoreHealth, Txn, Watch};

/// How often a list begins anew because the server compacted its revision meanwhile, and how often a prefix that is
/// written to is tried to be deleted.
const ROUNDS: u32 = 8;

/// How often it is looked whether a member that failed is to be asked again; each has pauses of its own.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The store in an etcd cluster. Clones share its connections.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    /// Stands before all keys of ours.
    prefix: String,
    page: i64,
    rng: Mutex<fastrand::Rng>,
}

impl EtcdStore {
    /// A store that speaks to the members of `options`. It does not wait for any of them to answer.
    ///
    /// # Errors
    /// [`StoreError::Options`] if the options cannot work, whatever the members do.
    pub async fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let prefix = options.prefix.clone();
        let page = i64::from(options.page.max(1));
        let cluster = Cluster::new(options).await?;
        let inner = Arc::new(Inner { cluster, prefix, page, rng: Mutex::new(fastrand::Rng::new()) });
        tokio::spawn(ask_again(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }
}

/// Asks members that have failed whether they are back, for as long as there is the store.
async fn ask_again(store: Weak<Inner>) {
    loop {
        sleep(ASK_AGAIN).await;
        let Some(store) = store.upgrade() else { return };
        store.cluster.ask_again().await;
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        check_key(key)?;
        let full = self.inner.full(key);
        let request = |client: cluster::Client| {
            let full = full.clone();
            async move { client.kv().get(full, None).await }
        };
        let (mut response, _) = self.inner.cluster.call(Retry::Harmless, request).await?;
        Ok(response.take_kvs().into_iter().next().and_then(|kv| self.inner.entry(kv)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.inner.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        check(&txn)?;
        let retry = if txn.is_guarded() { Retry::Guarded } else { Retry::IfNotSent };
        let request = self.inner.request(&txn);
        let call = |client: cluster::Client| {
            let request = request.clone();
            async move { client.kv().txn(request).await }
        };
        let (response, maybe_sent) = self.inner.cluster.call(retry, call).await?;
        let revision = header_revision(response.header());
        if response.succeeded() {
            return Ok(Commit::Applied(revision));
        }
        let current = self.inner.current(&response);
        let find = |key: &str| current.iter().flatten().find(|entry| entry.key == key).cloned();
        if maybe_sent && let Some(revision) = applied_before(&txn, find, revision) {
            return Ok(Commit::Applied(revision));
        }
        Ok(Commit::Conflict(txn.expects.iter().map(|(key, _)| find(key)).collect()))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<Revision, StoreError> {
        check_value(key, &value)?;
        overwrite(self, key, value, None).await
    }

    async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        remove(self, key).await
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64, StoreError> {
        check_key(prefix)?;
        for _ in 0..ROUNDS {
            if let Some(count) = self.inner.delete_unless_changed(prefix).await? {
                return Ok(count);
            }
        }
        Err(StoreError::Unavailable { attempts: ROUNDS, reason: format!("`{prefix}` never stood still") })
    }

    fn watch(&self, prefix: &str, after: Option<Revision>) -> Watch {
        let inner = Arc::clone(&self.inner);
        let prefix = prefix.to_owned();
        Watch::spawn(move |sender| watch::run(inner, prefix, after, sender))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        // Naming the lease ourselves makes it possible to ask again: it then exists already.
        let id = self.inner.rng.lock().i64(1..);
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        let request = move |client: cluster::Client| async move {
            let options = LeaseGrantOptions::new().with_id(id);
            match client.lease().grant(seconds, Some(options)).await {
                Err(error) if failure::is_existing_lease(&error) => Ok(()),
                granted => granted.map(|_| ()),
            }
        };
        self.inner.cluster.call(Retry::Harmless, request).await?;
        Ok(LeaseId(id.unsigned_abs()))
    }

    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let id = to_i64(lease.0);
        let request = move |client: cluster::Client| async move { client.lease().keep_alive(id).await.map(|_| ()) };
        match self.inner.cluster.call(Retry::Harmless, request).await {
            Ok(_) => Ok(true),
            Err(StoreError::LeaseLost) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let id = to_i64(lease.0);
        let request = move |client: cluster::Client| async move { client.lease().revoke(id).await.map(|_| ()) };
        match self.inner.cluster.call(Retry::Harmless, request).await {
            Ok(_) | Err(StoreError::LeaseLost) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn cluster_id(&self) -> Result<u64, StoreError> {
        self.inner.cluster.cluster_id().await
    }

    fn health(&self) -> StoreHealth {
        self.inner.cluster.health()
    }
}

impl Inner {
    /// The key as etcd knows it.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What etcd says of a key. Keys that are not text are not ours.
    fn entry(&self, kv: KeyValue) -> Option<StoreEntry> {
        let (revision, lease) = (to_u64(kv.mod_revision()), to_u64(kv.lease()));
        let (key, value) = kv.into_key_value();
        let key = String::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?.to_owned();
        Some(StoreEntry { key, value: value.into(), revision, lease: (lease != 0).then_some(LeaseId(lease)) })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut last = None;
        for _ in 0..ROUNDS {
            match self.list_at_one_revision(prefix).await {
                Err(StoreError::Unavailable { reason, .. }) if reason == failure::COMPACTED => last = Some(reason),
                result => return result,
            }
        }
        Err(StoreError::Unavailable { attempts: ROUNDS, reason: last.unwrap_or_default() })
    }

    /// Asks page after page at the revision of the first; pages that are too large are asked for again, half as long.
    async fn list_at_one_revision(&self, prefix: &str) -> Result<Listing, StoreError> {
        let (mut key, end) = range(&self.full(prefix));
        let mut listing = Listing::default();
        let mut page = self.page;
        loop {
            let mut response = match self.page(&key, &end, page, listing.revision).await {
                Err(StoreError::Refused(reason)) if reason == failure::TOO_LARGE && page > 1 => {
                    page /= 2;
                    continue;
                }
                response => response?,
            };
            if listing.revision == 0 {
                listing.revision = header_revision(response.header());
            }
            let more = response.more();
            let kvs = response.take_kvs();
            if let Some(last) = kvs.last() {
                key = [last.key(), &[0]].concat();
            }
            let was_empty = kvs.is_empty();
            listing.entries.extend(kvs.into_iter().filter_map(|kv| self.entry(kv)));
            if !more || was_empty {
                return Ok(listing);
            }
        }
    }

    /// The entry of `key` as it was at `revision`.
    async fn entry_at(&self, key: &str, revision: Revision) -> Result<Option<StoreEntry>, StoreError> {
        let key = self.full(key).into_bytes();
        let end = [&key[..], &[0]].concat();
        let kvs = self.page(&key, &end, 1, revision).await?.take_kvs();
        Ok(kvs.into_iter().next().and_then(|kv| self.entry(kv)))
    }

    async fn page(&self, key: &[u8], end: &[u8], limit: i64, revision: Revision) -> Result<GetResponse, StoreError> {
        let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(to_i64(revision));
        let request = |client: cluster::Client| {
            let (key, options) = (key.to_vec(), options.clone());
            async move { client.kv().get(key, Some(options)).await }
        };
        Ok(self.cluster.call(Retry::Harmless, request).await?.0)
    }

    /// The number of keys under `prefix`, and the store's revision, by a quorum.
    async fn count(&self, prefix: &str) -> Result<(u64, Revision), StoreError> {
        let (key, end) = range(&self.full(prefix));
        let options = GetOptions::new().with_range(end).with_count_only();
        let request = |client: cluster::Client| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.kv().get(key, Some(options)).await }
        };
        let (response, _) = self.cluster.call(Retry::Harmless, request).await?;
        Ok((to_u64(response.count()), header_revision(response.header())))
    }

    /// Deletes `prefix`, unless something under it changes between looking and deleting: then `None`.
    async fn delete_unless_changed(&self, prefix: &str) -> Result<Option<u64>, StoreError> {
        let (count, revision) = self.count(prefix).await?;
        if count == 0 {
            return Ok(Some(0));
        }
        let (key, end) = range(&self.full(prefix));
        let unchanged =
            Compare::mod_revision(key.clone(), CompareOp::Less, to_i64(revision) + 1).with_range(end.clone());
        let delete = TxnOp::delete(key, Some(DeleteOptions::new().with_range(end)));
        let request = etcd_client::Txn::new().when([unchanged]).and_then([delete]);
        let call = |client: cluster::Client| {
            let request = request.clone();
            async move { client.kv().txn(request).await }
        };
        let (response, maybe_sent) = self.cluster.call(Retry::Guarded, call).await?;
        if !response.succeeded() {
            return Ok(None);
        }
        let deleted = response.op_responses().iter().map(deleted).sum();
        // Deleted by an attempt whose answer was lost.
        Ok(Some(if deleted == 0 && maybe_sent { count } else { deleted }))
    }

    /// The transaction in etcd's words. Where it is not applied, it asks for all keys that it names.
    fn request(&self, txn: &Txn) -> etcd_client::Txn {
        let compares: Vec<Compare> = txn
            .expects
            .iter()
            .map(|(key, expect)| {
                let revision = if let Expect::At(revision) = expect { to_i64(*revision) } else { 0 };
                Compare::mod_revision(self.full(key), CompareOp::Equal, revision)
            })
            .collect();
        let operations: Vec<TxnOp> = txn
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value, lease } => {
                    let options = PutOptions::new().with_lease(lease.map_or(0, |lease| to_i64(lease.0)));
                    TxnOp::put(self.full(key), value.to_vec(), Some(options))
                }
                Op::Delete { key } => TxnOp::delete(self.full(key), None),
            })
            .collect();
        let mut named: Vec<&str> = txn.expects.iter().map(|(key, _)| key.as_str()).collect();
        named.extend(txn.ops.iter().map(Op::key));
        named.sort_unstable();
        named.dedup();
        let questions: Vec<TxnOp> = named.into_iter().map(|key| TxnOp::get(self.full(key), None)).collect();
        etcd_client::Txn::new().when(compares).and_then(operations).or_else(questions)
    }

    /// The entries in the answer to a transaction that was not applied.
    fn current(&self, response: &TxnResponse) -> Vec<Option<StoreEntry>> {
        let answers = response.op_responses().into_iter().filter_map(|answer| match answer {
            TxnOpResponse::Get(mut got) => Some(got.take_kvs().into_iter().next()),
            _ => None,
        });
        answers.map(|kv| kv.and_then(|kv| self.entry(kv))).collect()
    }
}

/// Whether what the keys hold now is what `txn` writes: then an earlier attempt, whose answer was lost, was applied.
/// Yields its revision, or `now` if it only deletes.
fn applied_before(txn: &Txn, find: impl Fn(&str) -> Option<StoreEntry>, now: Revision) -> Option<Revision> {
    let mut applied = None;
    for op in &txn.ops {
        match (op, find(op.key())) {
            (Op::Delete { .. }, None) => {}
            (Op::Put { value, lease, .. }, Some(entry))
                if entry.value == *value
                    && entry.lease == *lease
                    && applied.is_none_or(|revision| revision == entry.revision) =>
            {
                applied = Some(entry.revision);
            }
            _ => return None,
        }
    }
    Some(applied.unwrap_or(now))
}

/// The range of all keys that start with `prefix`, as etcd wants it.
fn range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (prefix.as_bytes().to_vec(), end);
        }
    }
    (vec![0], vec![0])
}

fn deleted(answer: &TxnOpResponse) -> u64 {
    if let TxnOpResponse::Delete(response) = answer { to_u64(response.deleted()) } else { 0 }
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(0, |header| to_u64(header.revision()))
}

/// etcd's numbers are signed and never negative.
fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, revision: Revision) -> StoreEntry {
        StoreEntry { key: key.to_owned(), value: value.to_owned().into(), revision, lease: None }
    }

    #[test]
    fn prefixes_become_ranges() {
        assert_eq!(range("/a/"), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(range(""), (vec![0], vec![0]));
    }

    #[test]
    fn a_lost_answer_is_told_from_a_conflict() {
        let txn = Txn::new().when("a", Expect::At(3)).put("a", "2").put("b", "2").delete("c");
        let state = |entries: Vec<StoreEntry>| move |key: &str| entries.iter().find(|entry| entry.key == key).cloned();
        let ours = state(vec![entry("a", "2", 7), entry("b", "2", 7)]);
        assert_eq!(applied_before(&txn, ours, 9), Some(7));
        for other in [
            vec![entry("a", "2", 7), entry("b", "2", 8)],
            vec![entry("a", "2", 7), entry("b", "x", 7)],
            vec![entry("a", "2", 7)],
            vec![entry("a", "2", 7), entry("b", "2", 7), entry("c", "1", 2)],
        ] {
            assert_eq!(applied_before(&txn, state(other), 9), None);
        }
        assert_eq!(applied_before(&Txn::new().when("a", Expect::At(3)).delete("a"), state(vec![]), 9), Some(9));
    }
}
