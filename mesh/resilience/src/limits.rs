//! Limits on what happens at once, counted by guards.
//!
//! Used for `max_connections`, `max_pending` and `max_requests`. A limit never queues: who is refused is refused now.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sync::atomic::{AtomicU32, Ordering};

/// A number of places.
#[derive(Debug)]
pub struct Limit {
    max: AtomicU32,
    taken: AtomicU32,
}

/// One place of a [`Limit`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "the place is given back when the permit is dropped"]
pub struct Permit {
    limit: Arc<Limit>,
}

impl Limit {
    /// `max` places, all free.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max: AtomicU32::new(max), taken: AtomicU32::new(0) })
    }

    /// Takes a place, if one is free.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < self.max()).then(|| taken + 1))
            .ok()
            .map(|_| Permit { limit: Arc::clone(self) })
    }

    /// Places taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// All places.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Goes on with another number of places. Those taken beyond it are given back as they end.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same number of places for each key: for each address, peer or workload. A key without a taken place costs nothing.
#[derive(Debug)]
pub struct KeyedLimit<K> {
    max: u32,
    taken: Mutex<HashMap<K, u32>>,
}

/// One place of a key of a [`KeyedLimit`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "the place is given back when the permit is dropped"]
pub struct KeyedPermit<K: Clone + Eq + Hash> {
    key: K,
    limit: Arc<KeyedLimit<K>>,
}

impl<K: Clone + Eq + Hash> KeyedLimit<K> {
    /// `max` places for every key, all free.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes a place of `key`, if one is free.
    pub fn try_acquire(self: &Arc<Self>, key: &K) -> Option<KeyedPermit<K>> {
        let mut all = self.lock();
        let taken = all.get(key).copied().unwrap_or(0);
        if taken >= self.max {
            return None;
        }
        all.insert(key.clone(), taken + 1);
        drop(all);
        Some(KeyedPermit { key: key.clone(), limit: Arc::clone(self) })
    }

    /// Places taken, of all keys together.
    pub fn taken(&self) -> u32 {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        // Every change is one insertion or one removal: a panic leaves nothing halfway.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut all = self.limit.lock();
        match all.get_mut(&self.key) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(all.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places_and_leaves_nothing_behind() {
        let limit = KeyedLimit::new(2);
        let (first, second) = (limit.try_acquire(&"a"), limit.try_acquire(&"a"));
        assert!(first.is_some() && second.is_some() && limit.try_acquire(&"a").is_none());
        let other = limit.try_acquire(&"b");
        assert!(other.is_some());
        assert_eq!(limit.taken(), 3);
        drop(first);
        assert!(limit.try_acquire(&"a").is_some());
        drop((second, other));
        assert!(limit.lock().is_empty());
    }

    #[test]
    fn places_are_given_back_also_by_unwinding() {
        let limit = Limit::new(2);
        let first = limit.try_acquire();
        let second = limit.try_acquire();
        assert!(first.is_some() && second.is_some() && limit.try_acquire().is_none());
        drop(first);
        let again = limit.try_acquire().expect("a place is free");
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = again;
            std::panic::resume_unwind(Box::new("unwound"));
        }));
        assert!(unwound.is_err());
        assert_eq!((limit.taken(), limit.max()), (1, 2));
    }

    #[test]
    fn another_number_holds_for_what_comes() {
        let limit = Limit::new(2);
        let held: Vec<_> = (0..2).map_while(|_| limit.try_acquire()).collect();
        limit.set_max(1);
        assert_eq!((held.len(), limit.taken(), limit.max()), (2, 2, 1));
        drop(held);
        let _one = limit.try_acquire().expect("one place");
        assert!(limit.try_acquire().is_none());
        limit.set_max(2);
        assert!(limit.try_acquire().is_some());
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let limit = Limit::new(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let held: Vec<_> = (0..4).filter_map(|_| limit.try_acquire()).collect();
                        assert!(limit.taken() <= 8, "{} taken", limit.taken());
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(limit.taken(), 0);
    }
}
