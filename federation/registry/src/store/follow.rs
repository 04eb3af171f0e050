//! What a reader of a prefix knows: a watch's events as differences.
//!
//! A reset of the watch becomes the differences between what was known and what is there now, so that a compaction or a
//! restored server looks like ordinary changes.

use std::collections::BTreeMap;

use super::{Listing, Revision, StoreEntry};

/// One change under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(StoreEntry),
    /// A key was deleted.
    Delete {
        /// The key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// The position was lost (history compacted, server restored, or none was given): forget everything known under
    /// the prefix, this is what it holds. The events after it continue from the listing's revision.
    Reset(Listing),
}

impl Event {
    /// The store's revision of the change.
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete { revision, .. } => *revision,
            Self::Reset(listing) => listing.revision,
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key is new or has another value.
    Put(StoreEntry),
    /// A key is gone; this is what it held.
    Delete(StoreEntry),
    /// The first listing is complete: what came before was already there when following began. Sent once.
    Ready(Revision),
    /// A later listing is complete: the position was lost, and the differences that came before make up for it.
    Relisted(Revision),
}

/// All entries under a prefix, as the events of its watch say.
#[derive(Clone, Debug, Default)]
pub struct Known {
    entries: BTreeMap<String, StoreEntry>,
    ready: bool,
}

impl Known {
    /// The entries, by key.
    pub const fn entries(&self) -> &BTreeMap<String, StoreEntry> {
        &self.entries
    }

    /// Whether the first listing arrived.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Takes the next event; returns the differences that it makes.
    pub fn apply(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Put(entry) => {
                self.entries.insert(entry.key.clone(), entry.clone());
                vec![Change::Put(entry)]
            }
            Event::Delete { key, .. } => self.entries.remove(&key).map(Change::Delete).into_iter().collect(),
            Event::Reset(listing) => self.reset(listing),
        }
    }

    fn reset(&mut self, listing: Listing) -> Vec<Change> {
        let fresh: BTreeMap<String, StoreEntry> = listing.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        let old = std::mem::replace(&mut self.entries, fresh);
        let mut changes: Vec<Change> =
            old.values().filter(|e| !self.entries.contains_key(&e.key)).cloned().map(Change::Delete).collect();
        let is_news = |e: &&StoreEntry| old.get(&e.key).is_none_or(|o| o.revision != e.revision || o.value != e.value);
        changes.extend(self.entries.values().filter(is_news).cloned().map(Change::Put));
        changes.push(match std::mem::replace(&mut self.ready, true) {
            false => Change::Ready(listing.revision),
            true => Change::Relisted(listing.revision),
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, revision: Revision) -> StoreEntry {
        StoreEntry { key: key.to_owned(), value: value.to_owned().into(), revision, lease: None }
    }

    #[test]
    fn a_reset_becomes_the_differences() {
        let mut known = Known::default();
        let first = vec![entry("a", "1", 2), entry("b", "1", 3), entry("c", "1", 4)];
        let changes = known.apply(Event::Reset(Listing { entries: first.clone(), revision: 5 }));
        assert_eq!(changes.len(), 4);
        assert_eq!(changes.last(), Some(&Change::Ready(5)));

        let second = vec![entry("a", "1", 2), entry("c", "2", 8), entry("d", "1", 9)];
        let changes = known.apply(Event::Reset(Listing { entries: second, revision: 9 }));
        let expected = [
            Change::Delete(entry("b", "1", 3)),
            Change::Put(entry("c", "2", 8)),
            Change::Put(entry("d", "1", 9)),
            Change::Relisted(9),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn deleting_the_unknown_is_no_change() {
        let mut known = Known::default();
        assert_eq!(known.apply(Event::Delete { key: "a".to_owned(), revision: 1 }), []);
        assert_eq!(known.apply(Event::Put(entry("a", "1", 2))), [Change::Put(entry("a", "1", 2))]);
        let deleted = known.apply(Event::Delete { key: "a".to_owned(), revision: 3 });
        assert_eq!(deleted, [Change::Delete(entry("a", "1", 2))]);
    }
}
