//! Transactions: several comparisons and changes that are applied together or not at all.

use bytes::Bytes;

use super::{LeaseId, Revision, StoreEntry};

/// What a key must be like for a transaction to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    At(Revision),
}

impl Expect {
    /// Whether a key whose last change is `revision` (none: it does not exist) is as expected.
    pub fn holds(self, revision: Option<Revision>) -> bool {
        match self {
            Self::Absent => revision.is_none(),
            Self::At(expected) => revision == Some(expected),
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease it hangs on, if any.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; nothing happens if it does not exist.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key that is changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A transaction under construction: `Txn::new().when(key, Expect::Absent).put(key, value)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub expects: Vec<(String, Expect)>,
    /// Applied together. No key may be changed twice.
    pub ops: Vec<Op>,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub const fn new() -> Self {
        Self { expects: Vec::new(), ops: Vec::new() }
    }

    /// Only if `key` is as expected.
    pub fn when(mut self, key: impl Into<String>, expect: Expect) -> Self {
        self.expects.push((key.into(), expect));
        self
    }

    /// Writes `key`.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Writes `key`, which vanishes with `lease`.
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Deletes `key`.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Whether applying it makes one of its own comparisons false, so that it can never be applied twice. Only such
    /// transactions are tried again when an answer was lost.
    pub fn is_guarded(&self) -> bool {
        self.expects.iter().any(|(key, expect)| {
            self.ops.iter().any(|op| match op {
                Op::Put { key: changed, .. } => changed == key,
                Op::Delete { key: deleted } => deleted == key && matches!(expect, Expect::At(_)),
            })
        })
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Applied, under this revision.
    Applied(Revision),
    /// Not applied, because a comparison did not hold: what the compared keys hold now, in their order, `None` where
    /// a key does not exist.
    Conflict(Vec<Option<StoreEntry>>),
}

impl Commit {
    /// The revision, if it was applied.
    pub const fn applied(&self) -> Option<Revision> {
        match self {
            Self::Applied(revision) => Some(*revision),
            Self::Conflict(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_means_that_it_cannot_be_applied_twice() {
        assert!(Txn::new().when("k", Expect::Absent).put("k", "v").is_guarded());
        assert!(Txn::new().when("k", Expect::At(3)).delete("k").is_guarded());
        assert!(!Txn::new().when("k", Expect::Absent).delete("k").is_guarded());
        assert!(!Txn::new().when("leader", Expect::At(3)).put("k", "v").is_guarded());
        assert!(!Txn::new().put("k", "v").is_guarded());
    }
}
