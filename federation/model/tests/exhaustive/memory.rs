//! A store that answers at once.

use std::collections::BTreeMap;

use eastway_registry::membership::{Answer, Request};
use eastway_registry::store::{Commit, Expect, Listing, Op, StoreEntry, Txn};

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) entries: BTreeMap<String, StoreEntry>,
    pub(crate) revision: u64,
}

impl Memory {
    pub(crate) fn apply(&mut self, txn: &Txn) -> Commit {
        let holds = |(key, expect): &(String, Expect)| expect.holds(self.entries.get(key).map(|entry| entry.revision));
        if !txn.expects.iter().all(holds) {
            return Commit::Conflict(txn.expects.iter().map(|(key, _)| self.entries.get(key).cloned()).collect());
        }
        self.revision += 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let entry =
                        StoreEntry { key: key.clone(), value: value.clone(), revision: self.revision, lease: *lease };
                    self.entries.insert(key.clone(), entry);
                }
                Op::Delete { key } => drop(self.entries.remove(key)),
            }
        }
        Commit::Applied(self.revision)
    }

    pub(crate) fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Get(key) => Answer::Entry(self.entries.get(key).cloned()),
            Request::List(prefix) => {
                let entries = self.entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect();
                Answer::Listing(Listing { entries, revision: self.revision })
            }
            Request::Commit(txn) => Answer::Commit(self.apply(txn)),
        }
    }
}
