//! Endpoints that deregistered: that life of theirs never comes back, whoever lists or registers it later.
//!
//! A goodbye is heard by one gateway, which tells its siblings: a registration may still be under way to one of those, and
//! slices that list the endpoint are read later. Each gateway tells of the goodbyes that itself heard, and of no others, so
//! that every tombstone ends.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::Timestamp;

use super::{Catalogue, Key};
use crate::registration::EndpointState;

/// How many deregistrations are remembered; more than any fleet makes within the time they are remembered for.
pub(super) const MAX_BURIED: usize = 100_000;

/// What is remembered of deregistrations.
#[derive(Debug, Default)]
pub(super) struct Tombstones(BTreeMap<Key, Tombstone>);

#[derive(Debug)]
struct Tombstone {
    /// The highest that deregistered.
    incarnation: u64,
    since: Timestamp,
    /// This gateway heard the goodbye.
    is_own: bool,
}

impl Tombstones {
    /// The highest incarnation of the endpoint that deregistered.
    pub(super) fn incarnation(&self, key: &Key) -> Option<u64> {
        Some(self.0.get(key)?.incarnation)
    }

    /// Whether this life of the endpoint has ended.
    pub(super) fn cover(&self, key: &Key, incarnation: u64) -> bool {
        self.incarnation(key).is_some_and(|left| left >= incarnation)
    }

    /// What this gateway has to tell its siblings of the endpoint.
    pub(super) fn state(&self, key: &Key) -> Option<EndpointState> {
        self.0.get(key).filter(|tombstone| tombstone.is_own).map(|left| EndpointState::deregistered(left.incarnation))
    }

    /// Forgets those that nobody can contradict any more. Returns which of them were told.
    pub(super) fn forget(&mut self, limit: Duration, now: Timestamp) -> Vec<Key> {
        let mut told = Vec::new();
        self.0.retain(|key, tombstone| {
            let stays = now.since(tombstone.since) < limit;
            if !stays && tombstone.is_own {
                told.push(key.clone());
            }
            stays
        });
        told
    }

    fn insert(&mut self, key: &Key, tombstone: Tombstone) -> bool {
        if self.cover(key, tombstone.incarnation) || (self.0.len() >= MAX_BURIED && !self.0.contains_key(key)) {
            return false;
        }
        self.0.insert(key.clone(), tombstone);
        true
    }
}

impl Catalogue {
    /// The endpoint said goodbye in this life, to this gateway (`is_own`) or to a sibling: whatever says that it is there in
    /// that life no longer counts.
    pub(super) fn bury(&mut self, key: &Key, incarnation: u64, is_own: bool, now: Timestamp) {
        if !self.tombstones.insert(key, Tombstone { incarnation, since: now, is_own }) {
            return;
        }
        let known = self.services.get_mut(&key.0).and_then(|known| known.endpoints.get_mut(&key.1));
        if let Some(candidates) = known {
            candidates.end((incarnation, u64::MAX));
            candidates.leaving.take_if(|leaving| leaving.entry.registration.incarnation <= incarnation);
            let is_over = candidates.own.as_ref().is_some_and(|own| own.registration.incarnation <= incarnation);
            if is_over || candidates.is_empty() {
                self.drop_own(key, now);
            }
        }
        self.touched.insert(key.0.clone());
    }
}
