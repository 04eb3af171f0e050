//! A copy of another node's map, kept equal to it by snapshots and changes, whatever order they come in.
//!
//! For: what a peer's gateway states. Every value carries the version of its last change, a snapshot the version at
//! which it was taken; the greater version wins, so that a late message never makes the copy regress. Never: ordering
//! by arrival. Called by [`crate::peers`].

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::Version;

/// A versioned copy of a source's map.
#[derive(Clone, Debug)]
pub struct Mirror<K, V> {
    /// The latest whole snapshot that was taken over; nothing is visible before the first.
    complete: Option<Version>,
    /// Values by key with the version of their last change. `None`: removed since `complete`.
    entries: BTreeMap<K, (Version, Option<V>)>,
    /// How many of them are removed. They are remembered against late messages, and take nobody's place.
    removed: usize,
    /// Changes of an epoch whose snapshot has not come yet: invisible until then.
    ahead: BTreeMap<K, (Version, Option<V>)>,
    limit: usize,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Mirror<K, V> {
    /// An empty copy that will hold at most `limit` keys; what exceeds it is ignored.
    pub const fn new(limit: usize) -> Self {
        Self { complete: None, entries: BTreeMap::new(), removed: 0, ahead: BTreeMap::new(), limit }
    }

    /// The version of the latest whole snapshot.
    pub const fn complete(&self) -> Option<Version> {
        self.complete
    }

    /// The latest version taken over.
    pub fn version(&self) -> Option<Version> {
        self.entries.values().map(|(version, _)| *version).chain(self.complete).max()
    }

    /// The value of `key` in the source, as far as known.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).and_then(|(_, value)| value.as_ref())
    }

    /// The same, with the version of its last change.
    pub fn with_version(&self, key: &K) -> Option<(Version, &V)> {
        self.entries.get(key).and_then(|(version, value)| Some((*version, value.as_ref()?)))
    }

    /// All values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, (_, value))| value.as_ref().map(|value| (key, value)))
    }

    /// The source says that `key` has had `value` since `version` (`None`: was removed). True if that changed the copy.
    pub fn change(&mut self, key: K, version: Version, value: Option<V>) -> bool {
        let Some(complete) = self.complete.filter(|complete| complete.epoch >= version.epoch) else {
            self.stash(key, version, value);
            return false;
        };
        if version <= complete {
            return false;
        }
        let known = self.entries.get(&key);
        let present = known.is_some_and(|(_, old)| old.is_some());
        let full = self.entries.len() - self.removed >= self.limit;
        if known.is_some_and(|(v, _)| *v >= version) || (value.is_some() && !present && full) {
            return false;
        }
        let changed = known.and_then(|(_, old)| old.as_ref()) != value.as_ref();
        self.removed -= usize::from(known.is_some() && !present);
        self.removed += usize::from(value.is_none());
        self.entries.insert(key, (version, value));
        self.forget();
        changed
    }

    /// Keeps no more removals than values may be there: the oldest are forgotten.
    fn forget(&mut self) {
        while self.removed > self.limit {
            let removals = self.entries.iter().filter(|(_, (_, value))| value.is_none());
            let Some(oldest) = removals.min_by_key(|(_, (version, _))| *version).map(|(key, _)| key.clone()) else {
                return;
            };
            self.entries.remove(&oldest);
            self.removed -= 1;
        }
    }

    /// The source's whole map was `values` at `version`. Returns the keys that changed.
    pub fn snapshot(&mut self, version: Version, values: BTreeMap<K, V>) -> BTreeSet<K> {
        if self.complete.is_some_and(|complete| complete >= version) {
            return BTreeSet::new();
        }
        let same_epoch = self.complete.is_some_and(|complete| complete.epoch == version.epoch);
        let mut fresh: BTreeMap<K, (Version, Option<V>)> =
            values.into_iter().take(self.limit).map(|(key, value)| (key, (version, Some(value)))).collect();
        let old = std::mem::take(&mut self.entries);
        let stashed = std::mem::take(&mut self.ahead);
        let later = if same_epoch { old.clone() } else { stashed.clone() };
        fresh.extend(later.into_iter().filter(|(_, (v, _))| v.epoch == version.epoch && *v > version));
        self.ahead = stashed.into_iter().filter(|(_, (v, _))| v.epoch > version.epoch).collect();
        self.removed = fresh.values().filter(|(_, value)| value.is_none()).count();
        self.entries = fresh;
        self.complete = Some(version);
        self.differences(&old)
    }

    fn stash(&mut self, key: K, version: Version, value: Option<V>) {
        let epoch = self.ahead.values().next().map(|(v, _)| v.epoch);
        if epoch.is_some_and(|epoch| epoch > version.epoch) {
            return;
        }
        if epoch.is_some_and(|epoch| epoch < version.epoch) {
            self.ahead.clear();
        }
        let known = self.ahead.get(&key);
        if known.is_none_or(|(v, _)| *v < version) && (known.is_some() || self.ahead.len() < self.limit) {
            self.ahead.insert(key, (version, value));
        }
    }

    fn differences(&self, old: &BTreeMap<K, (Version, Option<V>)>) -> BTreeSet<K> {
        let visible = |map: &BTreeMap<K, (Version, Option<V>)>, key: &K| map.get(key).and_then(|(_, v)| v.clone());
        old.keys()
            .chain(self.entries.keys())
            .filter(|k| visible(old, k) != visible(&self.entries, k))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(epoch: u64, seq: u64) -> Version {
        Version::new(epoch, seq)
    }

    fn visible(mirror: &Mirror<u8, u64>) -> BTreeMap<u8, u64> {
        mirror.iter().map(|(k, v)| (*k, *v)).collect()
    }

    #[test]
    fn nothing_is_visible_before_a_whole_snapshot() {
        let mut mirror = Mirror::new(10);
        assert!(!mirror.change(1, at(1, 5), Some(50)));
        assert!(visible(&mirror).is_empty());
        let changed = mirror.snapshot(at(1, 3), BTreeMap::from([(2, 20)]));
        assert_eq!(changed, BTreeSet::from([1, 2]));
        assert_eq!(visible(&mirror), BTreeMap::from([(1, 50), (2, 20)]));
    }

    #[test]
    fn a_lower_epoch_is_dropped_and_a_higher_one_replaces_all() {
        let mut mirror = Mirror::new(10);
        mirror.snapshot(at(2, 0), BTreeMap::from([(1, 10), (2, 20)]));
        assert!(mirror.snapshot(at(1, 900), BTreeMap::from([(9, 90)])).is_empty());
        assert!(!mirror.change(1, at(1, 901), None));
        assert_eq!(visible(&mirror), BTreeMap::from([(1, 10), (2, 20)]));
        assert_eq!(mirror.snapshot(at(3, 0), BTreeMap::from([(2, 20)])), BTreeSet::from([1]));
        assert_eq!(mirror.version(), Some(at(3, 0)));
    }

    #[test]
    fn a_late_snapshot_does_not_undo_later_changes() {
        let mut mirror = Mirror::new(10);
        mirror.snapshot(at(1, 1), BTreeMap::from([(1, 10), (2, 20)]));
        assert!(mirror.change(1, at(1, 7), None));
        assert!(mirror.snapshot(at(1, 5), BTreeMap::from([(1, 11), (2, 20)])).is_empty());
        assert_eq!(visible(&mirror), BTreeMap::from([(2, 20)]));
    }

    #[test]
    fn a_flood_of_keys_is_cut_at_the_limit() {
        let mut mirror = Mirror::new(3);
        mirror.snapshot(at(1, 0), (0u8..9).map(|k| (k, 1)).collect());
        for key in 10u8..20 {
            mirror.change(key, at(1, u64::from(key)), Some(2));
        }
        assert_eq!(mirror.iter().count(), 3);
    }

    #[test]
    fn what_was_removed_takes_nobodys_place() {
        let mut mirror = Mirror::new(3);
        mirror.snapshot(at(1, 0), BTreeMap::new());
        for seq in 1..100u8 {
            assert!(mirror.change(seq, at(1, u64::from(seq) * 2), Some(1)), "{seq}");
            assert!(mirror.change(seq, at(1, u64::from(seq) * 2 + 1), None), "{seq}");
        }
        assert!(!mirror.change(99, at(1, 198), Some(1)), "late");
        assert!(mirror.entries.len() <= 4, "and is not remembered without bound");
    }

    /// One life of a source: what it held at each of its versions.
    #[derive(Clone, Debug)]
    struct Life(Vec<BTreeMap<u8, u64>>);

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let change = (0u8..6, prop::option::weighted(0.7, 0u64..1000));
        let life = prop::collection::vec(change, 1..12).prop_map(|changes| {
            let mut states = vec![BTreeMap::new()];
            for (key, value) in changes {
                let mut next = states.last().cloned().unwrap_or_default();
                match value {
                    Some(value) => next.insert(key, value),
                    None => next.remove(&key),
                };
                states.push(next);
            }
            Life(states)
        });
        prop::collection::vec(life, 1..4)
    }

    #[derive(Clone, Debug)]
    enum Message {
        Snapshot(Version, BTreeMap<u8, u64>),
        Change(u8, Version, Option<u64>),
    }

    /// Everything that the source could say of its lives: a snapshot at every version, and every change.
    fn messages(lives: &[Life]) -> Vec<Message> {
        let mut all = Vec::new();
        for (life, epoch) in lives.iter().zip(1..) {
            for (seq, state) in life.0.iter().enumerate() {
                let version = at(epoch, seq as u64);
                all.push(Message::Snapshot(version, state.clone()));
                if let Some(before) = seq.checked_sub(1).map(|i| &life.0[i]) {
                    let keys: BTreeSet<u8> = before.keys().chain(state.keys()).copied().collect();
                    let moved = keys.into_iter().filter(|k| before.get(k) != state.get(k));
                    all.extend(moved.map(|k| Message::Change(k, version, state.get(&k).copied())));
                }
            }
        }
        all
    }

    fn feed(mirror: &mut Mirror<u8, u64>, message: &Message) {
        match message.clone() {
            Message::Snapshot(version, values) => drop(mirror.snapshot(version, values)),
            Message::Change(key, version, value) => drop(mirror.change(key, version, value)),
        }
    }

    proptest! {
        /// Invariants 14 and 16: any order, any repetition, ends equal to the source. Invariant 13: on the way nothing is
        /// seen of a life whose snapshot has not come, and each value is one that the source had since then.
        #[test]
        fn any_interleaving_ends_equal_to_the_source(lives in lives(), seed in any::<u64>()) {
            let mut order = messages(&lives);
            order.extend(order.clone());
            let mut state = seed;
            for i in (1..order.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                order.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut mirror = Mirror::new(100);
            let mut last = None;
            for message in &order {
                feed(&mut mirror, message);
                prop_assert!(mirror.complete() >= last, "the copy regressed");
                last = mirror.complete();
                let since = last.map(|at| &lives[at.epoch as usize - 1].0[at.seq as usize..]);
                for (key, value) in visible(&mirror) {
                    let had = since.is_some_and(|states| states.iter().any(|state| state.get(&key) == Some(&value)));
                    prop_assert!(had, "{key} is {value} before its snapshot, or after it was something else");
                }
            }
            let source = lives.last().and_then(|life| life.0.last()).cloned().unwrap_or_default();
            prop_assert_eq!(visible(&mirror), source);
        }

        /// Invariant 16: lost messages and disconnects are repaired by the snapshot that opens the next stream.
        #[test]
        fn lost_changes_are_repaired_by_the_next_snapshot(lives in lives(), kept in prop::collection::vec(any::<bool>(), 200)) {
            let mut mirror = Mirror::new(100);
            for (message, kept) in messages(&lives).iter().zip(kept) {
                if kept {
                    feed(&mut mirror, message);
                }
            }
            let source = lives.last().and_then(|life| life.0.last()).cloned().unwrap_or_default();
            let last = lives.last().map_or(0, |life| life.0.len() as u64 - 1);
            mirror.snapshot(at(lives.len() as u64, last), source.clone());
            prop_assert_eq!(visible(&mirror), source);
        }
    }
}
