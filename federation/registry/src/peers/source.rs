//! One gateway of a peer, and what is held of its forgotten past.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eastway_core::{ServiceName, Timestamp, Version};

use super::{Exported, bounds};
use crate::mirror::Mirror;
use crate::options::Options;

/// What one gateway stated.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) mirror: Mirror<ServiceName, Exported>,
    /// When it was last heard.
    pub(super) heard: Timestamp,
    /// It has said nothing for a while, and others of its cluster have.
    pub(super) hearing: Hearing,
    /// How much is stated, in the entries of [`bounds::entries`].
    entries: usize,
    /// Services of which its new life knows half or less, as its last life stated them.
    held: BTreeMap<ServiceName, Held>,
}

/// Whether a gateway is heard, compared with the others of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It is.
    Heard,
    /// For 3 s it was not: who is heard knows better what it has.
    Unheard,
    /// For 30 s.
    Silent,
}

#[derive(Debug)]
struct Held {
    exported: Exported,
    until: Timestamp,
}

impl Source {
    pub(super) const fn new(limit: usize, now: Timestamp) -> Self {
        Self { mirror: Mirror::new(limit), heard: now, hearing: Hearing::Heard, entries: 0, held: BTreeMap::new() }
    }

    /// The gateway of a successor cluster starts from nothing, but what was known may be held.
    pub(super) fn restart(&mut self, limit: usize) {
        let past = std::mem::replace(&mut self.mirror, Mirror::new(limit));
        self.entries = 0;
        for (name, exported) in past.iter() {
            self.held
                .entry(name.clone())
                .or_insert_with(|| Held { exported: exported.clone(), until: Timestamp::ZERO });
        }
    }

    /// Takes a whole snapshot over. Within one life a gateway is believed, because it holds unexplained deletions
    /// itself; a new life may have forgotten.
    pub(super) fn snapshot(
        &mut self,
        version: Version,
        services: BTreeMap<ServiceName, Exported>,
        now: Timestamp,
        options: &Options,
    ) -> BTreeSet<ServiceName> {
        if self.mirror.complete().is_some_and(|complete| complete > version) {
            return BTreeSet::new();
        }
        self.heard = now;
        let known = self.mirror.complete();
        let new_life = known.is_none_or(|known| known.epoch < version.epoch);
        if new_life && known.is_some() {
            self.remember_past();
        }
        let mut touched = self.mirror.snapshot(version, services);
        self.entries = self.mirror.iter().map(|(_, exported)| bounds::entries(exported)).sum();
        if new_life {
            touched.extend(self.held.keys().cloned());
            for held in self.held.values_mut().filter(|held| held.until == Timestamp::ZERO) {
                held.until = now + options.hold;
            }
            self.release(now);
        }
        touched
    }

    /// Takes one statement over. True if that changed something.
    pub(super) fn change(&mut self, name: ServiceName, version: Version, exported: Option<Exported>) -> bool {
        let before = self.entries_of(&name);
        let changed = self.mirror.change(name.clone(), version, exported);
        self.entries = (self.entries + self.entries_of(&name)).saturating_sub(before);
        changed
    }

    fn entries_of(&self, name: &ServiceName) -> usize {
        self.mirror.get(name).map_or(0, bounds::entries)
    }

    /// How much is stated.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    /// What this gateway says of a service, or what is held in its place.
    pub(super) fn exported(&self, name: &ServiceName) -> Option<&Exported> {
        self.held.get(name).map(|held| &held.exported).or_else(|| self.mirror.get(name))
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.mirror.iter().map(|(name, _)| name).chain(self.held.keys())
    }

    /// Ends the holds that are over, or whose services are back. Returns the services.
    pub(super) fn end_holds(&mut self, now: Timestamp) -> BTreeSet<ServiceName> {
        if self.held.is_empty() { BTreeSet::new() } else { self.release(now) }
    }

    /// Lets go what is held of one zone; true if there was something.
    pub(super) fn let_go(&mut self, name: &ServiceName, zone: &Arc<str>) -> bool {
        let Some(held) = self.held.get_mut(name) else { return false };
        let current = self.mirror.get(name).and_then(|exported| exported.zones.get(zone));
        match current {
            Some(current) => drop(held.exported.zones.insert(Arc::clone(zone), current.clone())),
            None => drop(held.exported.zones.remove(zone)),
        }
        self.release(self.heard);
        true
    }

    fn remember_past(&mut self) {
        for (name, exported) in self.mirror.iter() {
            self.held
                .entry(name.clone())
                .or_insert_with(|| Held { exported: exported.clone(), until: Timestamp::ZERO });
        }
    }

    fn release(&mut self, now: Timestamp) -> BTreeSet<ServiceName> {
        let mut released = BTreeSet::new();
        self.held.retain(|name, held| {
            let current = self.mirror.get(name).map_or(0, Exported::total);
            let forgotten = current.saturating_mul(2) <= held.exported.total() && held.exported.total() > 0;
            let keep = now < held.until && forgotten;
            if !keep {
                released.insert(name.clone());
            }
            keep
        });
        released
    }
}
