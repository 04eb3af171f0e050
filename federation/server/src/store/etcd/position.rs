//! Where a watch is in the server's history: no I/O.
//!
//! A revision can hold several changes, and the server may send them in several messages. If the connection breaks
//! between two of them, going on *after* the last revision seen would lose the rest. So a watch resumes *at* it, and
//! what was already delivered of it is dropped by its key: a key changes at most once in a revision.
//!
//! A store that was restored has another history, in which the same revisions stand for other changes. A watch remembers one
//! entry as it was written, to ask for when it resumes: only its own history has that one at that revision.

use std::collections::HashSet;

use super::super::{Listing, Revision};

/// The position of a watch.
#[derive(Debug)]
pub(super) struct Position {
    /// The revision to resume at: everything before it was delivered.
    next: Revision,
    /// Which keys were delivered of `next` itself.
    delivered: HashSet<String>,
    /// The key and the revision of the latest entry that was seen being there.
    landmark: Option<(String, Revision)>,
}

impl Position {
    /// Everything up to `revision` is known.
    pub(super) fn after(revision: Revision) -> Self {
        Self { next: revision + 1, delivered: HashSet::new(), landmark: None }
    }

    /// Everything is known as `listing` has it.
    pub(super) fn of(listing: &Listing) -> Self {
        let latest = listing.entries.iter().max_by_key(|entry| entry.revision);
        let landmark = latest.map(|entry| (entry.key.clone(), entry.revision));
        Self { landmark, ..Self::after(listing.revision) }
    }

    /// The key and the revision of an entry by which the history is known again.
    pub(super) fn landmark(&self) -> Option<(&str, Revision)> {
        self.landmark.as_ref().map(|(key, revision)| (key.as_str(), *revision))
    }

    /// The entry of `key` was written at `revision`.
    pub(super) fn saw(&mut self, key: &str, revision: Revision) {
        self.landmark = Some((key.to_owned(), revision));
    }

    /// The revision to resume at.
    pub(super) const fn next(&self) -> Revision {
        self.next
    }

    /// Takes note of a change; false if it was delivered before.
    pub(super) fn accept(&mut self, key: &str, revision: Revision) -> bool {
        if revision < self.next {
            return false;
        }
        if revision > self.next {
            self.next = revision;
            self.delivered.clear();
        }
        self.delivered.insert(key.to_owned())
    }

    /// The server says that everything up to `revision` was sent.
    pub(super) fn progressed(&mut self, revision: Revision) {
        if revision >= self.next {
            *self = Self { landmark: self.landmark.take(), ..Self::after(revision) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::StoreEntry;
    use super::*;

    #[test]
    fn a_revision_that_was_cut_in_two_is_completed() {
        let mut position = Position::after(4);
        assert!(position.accept("a", 5));
        assert!(position.accept("b", 7));
        // The connection breaks; the server sends revision 7 again, as a whole.
        assert_eq!(position.next(), 7);
        assert!(!position.accept("b", 7));
        assert!(position.accept("c", 7));
        assert!(!position.accept("a", 5), "a member that lags behind repeats old news");
        assert!(position.accept("b", 8));
    }

    #[test]
    fn the_latest_entry_that_was_there_is_the_landmark() {
        let entry = |key: &str, revision| StoreEntry { key: key.to_owned(), value: "".into(), revision, lease: None };
        let mut position =
            Position::of(&Listing { entries: vec![entry("a", 3), entry("b", 7), entry("c", 2)], revision: 9 });
        assert_eq!((position.next(), position.landmark()), (10, Some(("b", 7))));
        position.progressed(12);
        assert_eq!(position.landmark(), Some(("b", 7)), "whatever else happens");
        position.saw("c", 13);
        assert_eq!(position.landmark(), Some(("c", 13)));
        assert_eq!(Position::of(&Listing { entries: vec![], revision: 9 }).landmark(), None);
    }

    #[test]
    fn progress_moves_an_idle_watch_on() {
        let mut position = Position::after(4);
        position.progressed(9);
        assert_eq!(position.next(), 10);
        position.progressed(3);
        assert_eq!(position.next(), 10);
        assert!(position.accept("a", 10));
        position.progressed(10);
        assert_eq!(position.next(), 11);
    }
}
