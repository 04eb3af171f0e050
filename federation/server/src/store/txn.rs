//! Checks of transactions, here once for both stores, so that what one accepts the other does too; and writes that win over
//! anything.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Commit, Expect, LeaseId, MAX_KEY, MAX_TXN_BYTES, MAX_TXN_OPS, MAX_VALUE, Op, Revision, Store, StoreEntry,
    StoreError, Txn, keys,
};

/// Checks the rules that hold for both stores.
pub(super) fn check(txn: &Txn) -> Result<(), StoreError> {
    if txn.ops.is_empty() || txn.ops.len() > MAX_TXN_OPS || txn.expects.len() > MAX_TXN_OPS {
        return invalid(format!(
            "{} comparisons and {} operations; allowed are up to {MAX_TXN_OPS} of each, and at least one operation",
            txn.expects.len(),
            txn.ops.len()
        ));
    }
    let mut changed = BTreeSet::new();
    let mut bytes = 0;
    for (key, expect) in &txn.expects {
        check_key(key)?;
        if *expect == Expect::At(0) {
            return invalid(format!("`{key}` is expected at revision 0, which none has; say that it is absent"));
        }
    }
    for op in &txn.ops {
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
            assert!(matches!(check(&txn), Err(StoreError::Invalid(_))), "{:?}", txn.ops.first());
        }
        assert!(check(&Txn::new().put_leased(keys::LEADER, "gw-1", lease)).is_ok());
    }
}
