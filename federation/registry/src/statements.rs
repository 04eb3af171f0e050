//! What this gateway states to others: a map whose every value carries the number of its last change.
//!
//! For: snapshots and differences of one thing. Who was told everything up to a number is told what changed since, each key
//! once however often it changed; who lags so far behind that a removal was forgotten begins with a snapshot again. Its
//! counterpart at the other end is [`crate::Mirror`]. Called by [`crate::Catalogue`].

use std::collections::BTreeMap;

/// A map with the history of its last changes.
#[derive(Clone, Debug)]
pub struct Statements<K, V> {
    seq: u64,
    /// `None`: removed.
    values: BTreeMap<K, (u64, Option<V>)>,
    changes: BTreeMap<u64, K>,
    removed: usize,
    /// Removals up to this number are forgotten.
    floor: u64,
    /// Removals that are remembered.
    limit: usize,
}

impl<K: Ord + Clone, V: PartialEq> Statements<K, V> {
    /// Nothing is stated yet. At most `limit` removals will be remembered.
    pub const fn new(limit: usize) -> Self {
        Self { seq: 0, values: BTreeMap::new(), changes: BTreeMap::new(), removed: 0, floor: 0, limit }
    }

    /// The number of the last change.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// From now on `key` has `value` (`None`: is removed). True if that is a change.
    pub fn state(&mut self, key: K, value: Option<V>) -> bool {
        let known = self.values.get(&key);
        if known.and_then(|(_, known)| known.as_ref()) == value.as_ref() {
            return false;
        }
        let former = known.map(|(seq, known)| (*seq, known.is_none()));
        if let Some((seq, was_removed)) = former {
            self.changes.remove(&seq);
            self.removed -= usize::from(was_removed);
        }
        self.seq += 1;
        self.removed += usize::from(value.is_none());
        self.changes.insert(self.seq, key.clone());
        self.values.insert(key, (self.seq, value));
        self.forget();
        true
    }

    /// What is stated now, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values.iter().filter_map(|(key, (_, value))| Some((key, value.as_ref()?)))
    }

    /// The keys that are or were stated, from `first` on, in their order.
    pub fn keys_from(&self, first: &K) -> impl Iterator<Item = &K> {
        self.values.range(first..).map(|(key, _)| key)
    }

    /// What changed after `seq`, in that order; `None` if that is not known any more.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = (&K, Option<&V>)>> {
        if seq < self.floor {
            return None;
        }
        let changed = self.changes.range(seq.saturating_add(1)..).map(|(_, key)| key);
        Some(changed.filter_map(|key| Some((key, self.values.get(key)?.1.as_ref()))))
    }

    fn forget(&mut self) {
        while self.removed > self.limit {
            let is_removal = |(_, key): &(&u64, &K)| self.values.get(*key).is_some_and(|(_, value)| value.is_none());
            let Some((seq, key)) = self.changes.iter().find(is_removal).map(|(seq, key)| (*seq, key.clone())) else {
                return;
            };
            self.changes.remove(&seq);
            self.values.remove(&key);
            self.removed -= 1;
            self.floor = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_changed_is_told_once_and_in_order() {
        let mut statements = Statements::new(10);
        for (key, value) in [("a", Some(1)), ("b", Some(1)), ("a", Some(2)), ("b", None), ("b", None)] {
            statements.state(key, value);
        }
        let since = |seq| statements.since(seq).expect("remembered").map(|(k, v)| (*k, v.copied())).collect::<Vec<_>>();
        assert_eq!(since(0), [("a", Some(2)), ("b", None)]);
        assert_eq!(since(3), [("b", None)]);
        assert_eq!((since(4), statements.seq()), (vec![], 4));
    }

    #[test]
    fn forgotten_removals_are_admitted() {
        let mut statements = Statements::new(1);
        for key in ["a", "b"] {
            statements.state(key, Some(1));
        }
        for key in ["a", "b"] {
            statements.state(key, None);
        }
        assert!(statements.since(2).is_none(), "that `a` was removed is not known any more");
        assert_eq!(statements.since(3).expect("remembered").count(), 1);
        assert_eq!(statements.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn who_is_told_the_differences_ends_at_what_is_stated(
            changes in prop::collection::vec((0u8..5, prop::option::of(0u8..3), any::<bool>()), 0..60)
        ) {
            let mut statements = Statements::new(2);
            let (mut copy, mut told) = (BTreeMap::new(), 0);
            for (key, value, tell) in changes {
                statements.state(key, value);
                if !tell {
                    continue;
                }
                match statements.since(told) {
                    Some(changes) => for (key, value) in changes {
                        match value {
                            Some(value) => drop(copy.insert(*key, *value)),
                            None => drop(copy.remove(key)),
                        }
                    },
                    None => copy = statements.iter().map(|(key, value)| (*key, *value)).collect(),
                }
                told = statements.seq();
                let stated: BTreeMap<u8, u8> = statements.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(&copy, &stated);
            }
        }
    }
}
