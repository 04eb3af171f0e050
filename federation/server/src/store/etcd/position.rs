//! Where a watch is in the server's history: no I/O.
//!
//! A revision can hold several changes, and the server may send them in several messages. If the connection breaks
//! between two of them, going on *after* the last revision seen would lose the rest. So a watch resumes *at* it, and
//! what was already delivered of it is dropped by its key: a key changes at most once in a revision.

use std::collections::HashSet;

use super::super::Revision;

/// The position of a watch.
#[derive(Debug)]
pub(super) struct Position {
    /// The revision to resume at: everything before it was delivered.
    next: Revision,
    /// Which keys were delivered of `next` itself.
    delivered: HashSet<String>,
}

impl Position {
    /// Everything up to `revision` is known.
    pub(super) fn after(revision: Revision) -> Self {
        Self { next: revision + 1, delivered: HashSet::new() }
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
            *self = Self::after(revision);
        }
    }
}

#[cfg(test)]
mod tests {
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
