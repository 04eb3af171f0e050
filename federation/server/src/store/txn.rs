//! Transactions: several comparisons and changes that are applied together or not at all.
//!
//! Checked here once, for both stores, so that what one accepts the other does too.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::keys;
use super::{LeaseId, MAX_KEY, MAX_TXN_BYTES, MAX_TXN_OPS, MAX_VALUE, Revision, Store, StoreEntry, StoreError};

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

    /// Checks the rules that hold for both stores.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.ops.is_empty() || self.ops.len() > MAX_TXN_OPS || self.expects.len() > MAX_TXN_OPS {
            return invalid(format!(
                "{} comparisons and {} operations; allowed are up to {MAX_TXN_OPS} of each, and at least one operation",
                self.expects.len(),
                self.ops.len()
            ));
        }
        let mut changed = BTreeSet::new();
        let mut bytes = 0;
        for (key, expect) in &self.expects {
            check_key(key)?;
            if *expect == Expect::At(0) {
                return invalid(format!("`{key}` is expected at revision 0, which none has; say that it is absent"));
            }
        }
        for op in &self.ops {
            check_key(op.key())?;
            if !changed.insert(op.key()) {
                return invalid(format!("`{}` is changed twice", op.key()));
            }
            if let Op::Put { key, value, lease } = op {
                check_value(key, value)?;
                bytes += value.len();
                if lease.is_some() && !keys::may_hang_on_lease(key) {
                    return invalid(format!("`{key}` may not hang on a lease"));
                }
            }
        }
        if bytes > MAX_TXN_BYTES {
            return invalid(format!("{bytes} bytes of values; allowed are {MAX_TXN_BYTES}"));
        }
        Ok(())
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

/// How often a write that shall win over anything is tried against others that keep changing the key.
const OVERWRITE_ATTEMPTS: u32 = 32;

/// Writes `key` whatever it holds, by comparing and trying again: unlike a plain write, one that was delayed on its way
/// can then never undo a later one.
pub(super) async fn overwrite(
    store: &dyn Store,
    key: &str,
    value: Bytes,
    lease: Option<LeaseId>,
) -> Result<Revision, StoreError> {
    let mut expect = Expect::Absent;
    for _ in 0..OVERWRITE_ATTEMPTS {
        let op = Op::Put { key: key.to_owned(), value: value.clone(), lease };
        match store.txn(Txn { expects: vec![(key.to_owned(), expect)], ops: vec![op] }).await? {
            Commit::Applied(revision) => return Ok(revision),
            Commit::Conflict(current) => expect = expect_unchanged(&current),
        }
    }
    Err(StoreError::Unavailable { attempts: OVERWRITE_ATTEMPTS, reason: format!("`{key}` never stood still") })
}

/// Deletes `key` whatever it holds, in the same way; says whether there was anything.
pub(super) async fn remove(store: &dyn Store, key: &str) -> Result<bool, StoreError> {
    let mut expect = Expect::Absent;
    for _ in 0..OVERWRITE_ATTEMPTS {
        match store.txn(Txn::new().when(key, expect).delete(key)).await? {
            Commit::Applied(_) => return Ok(expect != Expect::Absent),
            Commit::Conflict(current) => expect = expect_unchanged(&current),
        }
    }
    Err(StoreError::Unavailable { attempts: OVERWRITE_ATTEMPTS, reason: format!("`{key}` never stood still") })
}

/// The expectation that the first of the compared keys stays as it was found.
fn expect_unchanged(current: &[Option<StoreEntry>]) -> Expect {
    current.iter().flatten().next().map_or(Expect::Absent, |entry| Expect::At(entry.revision))
}

/// Checks the rules for keys.
pub(super) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return invalid(format!("a key of {} bytes; allowed are 1 to {MAX_KEY}", key.len()));
    }
    Ok(())
}

/// Checks the rules for values.
pub(super) fn check_value(key: &str, value: &Bytes) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE {
        return invalid(format!("`{key}` would hold {} bytes; allowed are {MAX_VALUE}", value.len()));
    }
    Ok(())
}

fn invalid<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Invalid(why))
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

    #[test]
    fn rules_are_checked_before_anything_is_sent() {
        let lease = LeaseId(1);
        let broken = [
            Txn::new(),
            Txn::new().put("k", "1").delete("k"),
            Txn::new().put("", "1"),
            Txn::new().when("k", Expect::At(0)).put("k", "1"),
            Txn::new().put("x".repeat(MAX_KEY + 1), "1"),
            Txn::new().put("k", vec![0; MAX_VALUE + 1]),
            Txn::new().put("a", vec![0; MAX_VALUE]).put("b", vec![0; MAX_VALUE]),
            Txn::new().put_leased("/eastway/v1/self/svc/shop/payments/slice/gw-0", "1", lease),
            (0..=MAX_TXN_OPS).fold(Txn::new(), |txn, i| txn.put(format!("k{i}"), "1")),
        ];
        for txn in broken {
            assert!(matches!(txn.check(), Err(StoreError::Invalid(_))), "{:?}", txn.ops.first());
        }
        assert!(Txn::new().put_leased(keys::LEADER, "gw-1", lease).check().is_ok());
    }
}
