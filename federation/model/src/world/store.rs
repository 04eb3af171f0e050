//! A store as the production ones behave: revisions, comparisons, leases, a history that is compacted, a copy that is restored.
//!
//! It checks what no gateway may do to it: [`Store::apply`] answers with the rule that a transaction broke.

use std::collections::BTreeMap;

use eastway_registry::Slice;
use eastway_registry::store::keys::{self, Key};
use eastway_registry::store::{Commit, Event, Expect, LeaseId, Listing, Op, Revision, StoreEntry, Txn};

use crate::COLLECT_AFTER;

/// How far the revision goes on when a copy is restored, as etcd's `--bump-revision` makes it: watchers notice by it.
const BUMP: Revision = 10_000;

/// Who asked for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writer<'a> {
    /// The gateway's id.
    pub(crate) gateway: &'a str,
    /// The epoch of its life.
    pub(crate) epoch: u64,
}

/// One cluster's store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    entries: BTreeMap<String, StoreEntry>,
    revision: Revision,
    /// Changes by revision, since the last compaction.
    history: Vec<(Revision, Event)>,
    compacted: Revision,
    /// When each lease ends.
    leases: BTreeMap<LeaseId, u64>,
    granted: u64,
    /// Since when each gateway's key has been gone.
    gone: BTreeMap<String, u64>,
    backup: Option<BTreeMap<String, StoreEntry>>,
}

impl Store {
    /// The entry at a key.
    pub(crate) fn get(&self, key: &str) -> Option<&StoreEntry> {
        self.entries.get(key)
    }

    /// All entries under a prefix.
    pub(crate) fn list(&self, prefix: &str) -> Listing {
        let from = self.entries.range(prefix.to_owned()..);
        let entries = from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect();
        Listing { entries, revision: self.revision }
    }

    /// The slices, by the gateway that has their endpoints from the source.
    pub(crate) fn slices(&self) -> impl Iterator<Item = (String, Slice)> {
        self.list(keys::SERVICES).entries.into_iter().filter_map(|entry| {
            let Key::Slice { gateway, .. } = Key::parse(&entry.key)? else { return None };
            Some((gateway, read_slice(&entry)))
        })
    }

    /// What happened under a prefix after a revision; a listing if that is not known any more.
    pub(crate) fn since(&self, prefix: &str, after: Option<Revision>) -> (Vec<Event>, Revision) {
        match after.filter(|after| *after >= self.compacted && *after <= self.revision) {
            None => (vec![Event::Reset(self.list(prefix))], self.revision),
            Some(after) => {
                let from = self.history.partition_point(|(revision, _)| *revision <= after);
                let concerns = |event: &&Event| match event {
                    Event::Put(entry) => entry.key.starts_with(prefix),
                    Event::Delete { key, .. } => key.starts_with(prefix),
                    Event::Reset(_) => false,
                };
                (self.history[from..].iter().map(|(_, event)| event).filter(concerns).cloned().collect(), self.revision)
            }
        }
    }

    /// Applies a transaction if its comparisons hold.
    ///
    /// # Errors
    /// The rule that the writer broke, if it was applied against one.
    pub(crate) fn apply(&mut self, txn: &Txn, writer: Writer<'_>, now: u64) -> Result<Commit, String> {
        let holds = |(key, expect): &(String, Expect)| expect.holds(self.get(key).map(|entry| entry.revision));
        let lease_lost = txn.ops.iter().any(|op| match op {
            Op::Put { lease: Some(lease), .. } => !self.leases.contains_key(lease),
            _ => false,
        });
        if lease_lost || !txn.expects.iter().all(holds) {
            return Ok(Commit::Conflict(txn.expects.iter().map(|(key, _)| self.get(key).cloned()).collect()));
        }
        for op in &txn.ops {
            self.judge(op.key(), writer, now)?;
        }
        self.revision += 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let entry =
                        StoreEntry { key: key.clone(), value: value.clone(), revision: self.revision, lease: *lease };
                    self.put(entry, now);
                }
                Op::Delete { key } => self.delete(key, now),
            }
        }
        Ok(Commit::Applied(self.revision))
    }

    /// The rules of who may write what: a slice, its gateway in its latest life, or the leader once that gateway has been gone
    /// for long.
    fn judge(&self, key: &str, writer: Writer<'_>, now: u64) -> Result<(), String> {
        let Some(Key::Slice { gateway, .. }) = Key::parse(key) else { return Ok(()) };
        let Writer { gateway: by, epoch } = writer;
        if gateway == by {
            return match self.epoch_of(by) {
                Some(latest) if latest == epoch => Ok(()),
                latest => Err(format!(
                    "fencing: a slice is written only in the latest life of its gateway, but `{key}` was written by {by} in \
                     epoch {epoch}, and the latest is {latest:?}"
                )),
            };
        }
        let leader = self.get(keys::LEADER).map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        if leader.as_deref() != Some(by) {
            return Err(format!("collection: only the leader collects, but {by} wrote `{key}`, and {leader:?} leads"));
        }
        match self.gone.get(&gateway) {
            Some(since) if now - since >= COLLECT_AFTER * 9 / 10 => Ok(()),
            since => Err(format!(
                "collection: a slice is collected {COLLECT_AFTER} ms after its gateway's key is gone, but `{key}` was collected at \
                 {now} ms, and the key has been gone since {since:?}"
            )),
        }
    }

    /// Which life of the gateway is the latest.
    pub(crate) fn epoch_of(&self, gateway: &str) -> Option<u64> {
        let text = String::from_utf8_lossy(&self.get(&keys::epoch(gateway))?.value).into_owned();
        text.split("\"epoch\":").nth(1)?.split([',', '}']).next()?.trim().parse().ok()
    }

    fn put(&mut self, entry: StoreEntry, now: u64) {
        match Key::parse(&entry.key) {
            Some(Key::Gateway(gateway)) => drop(self.gone.remove(&gateway)),
            // It writes before it has its key.
            Some(Key::Slice { gateway, .. }) if !self.entries.contains_key(&keys::gateway(&gateway)) => {
                self.gone.entry(gateway).or_insert(now);
            }
            _ => {}
        }
        self.history.push((entry.revision, Event::Put(entry.clone())));
        self.entries.insert(entry.key.clone(), entry);
    }

    fn delete(&mut self, key: &str, now: u64) {
        if self.entries.remove(key).is_some() {
            if let Some(Key::Gateway(gateway)) = Key::parse(key) {
                self.gone.insert(gateway, now);
            }
            self.history.push((self.revision, Event::Delete { key: key.to_owned(), revision: self.revision }));
        }
    }

    /// A lease that ends at `until`.
    pub(crate) fn grant(&mut self, until: u64) -> LeaseId {
        self.granted += 1;
        self.leases.insert(LeaseId(self.granted), until);
        LeaseId(self.granted)
    }

    /// Renews a lease; false if it has ended.
    pub(crate) fn renew(&mut self, lease: LeaseId, until: u64) -> bool {
        self.leases.get_mut(&lease).map(|end| *end = until).is_some()
    }

    /// Ends the leases whose time is over, with their keys. True if anything changed.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        self.end_leases(now, |until| until <= now)
    }

    /// Ends all leases, as a storm of elections among the store's members may.
    pub(crate) fn end_all_leases(&mut self, now: u64) {
        self.end_leases(now, |_| true);
    }

    fn end_leases(&mut self, now: u64, ends: impl Fn(u64) -> bool) -> bool {
        let before = self.leases.len();
        self.leases.retain(|_, until| !ends(*until));
        if self.leases.len() == before {
            return false;
        }
        let lost = |entry: &&StoreEntry| entry.lease.is_some_and(|lease| !self.leases.contains_key(&lease));
        for key in self.entries.values().filter(lost).map(|entry| entry.key.clone()).collect::<Vec<_>>() {
            self.revision += 1;
            self.delete(&key, now);
        }
        true
    }

    /// Forgets the history.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// Keeps a copy.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.entries.clone());
    }

    /// Goes back to the copy, if there is one: what was written since is lost, and all leases are.
    pub(crate) fn restore(&mut self, now: u64) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        self.entries = backup;
        self.leases.clear();
        self.entries.retain(|_, entry| entry.lease.is_none());
        self.revision += BUMP;
        self.compact();
        // Gateways whose keys the copy lacks have been gone since now, or longer.
        for (gateway, _) in self.slices().collect::<Vec<_>>() {
            self.gone.entry(gateway).or_insert(now);
        }
        true
    }

    /// An operator deletes all slices of a gateway.
    pub(crate) fn wipe(&mut self, gateway: &str, now: u64) {
        let theirs = |key: &&String| matches!(Key::parse(key), Some(Key::Slice { gateway: of, .. }) if of == gateway);
        for key in self.entries.keys().filter(theirs).cloned().collect::<Vec<_>>() {
            self.revision += 1;
            self.delete(&key, now);
        }
    }
}

fn read_slice(entry: &StoreEntry) -> Slice {
    serde_json::from_slice(&entry.value).unwrap_or_default()
}
