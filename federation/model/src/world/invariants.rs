//! What must hold after every step.

use std::collections::BTreeMap;
use std::fmt;

use eastway_core::{Health, Timestamp, Version};
use eastway_registry::Key;
use eastway_registry::peers::StoredExport;

use crate::options;
use crate::world::names;
use crate::world::{Stop, World};

/// An invariant was violated.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The schedule.
    pub seed: u64,
    /// After which of its events.
    pub step: u64,
    /// When, in simulated milliseconds.
    pub at_ms: u64,
    /// Which invariant, what was expected, and what was found.
    pub rule: String,
    /// What happened last.
    pub last: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, at_ms, rule, last } = self;
        write!(f, "seed {seed}, step {step}, {at_ms} ms: {rule}\nwhat happened last:\n  {}", last.join("\n  "))
    }
}

impl std::error::Error for Violation {}

/// What one process has shown so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The endpoints of its cluster, as it shows them now.
    endpoints: BTreeMap<Key, Shown>,
    /// The highest version that it ever showed of each.
    highest: BTreeMap<Key, (u64, u64)>,
    /// Those that it showed, and then removed after their goodbye.
    gone: BTreeMap<Key, u64>,
    /// Since when it shows those no more that it showed before.
    vanished: BTreeMap<Key, Timestamp>,
    /// How many endpoints of each of the other cluster's zones serve.
    serving: BTreeMap<(String, String), u32>,
    /// The version of each mirror of a gateway of the other cluster.
    mirrors: BTreeMap<String, Version>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Shown {
    version: (u64, u64),
    health: Health,
}

impl Seen {
    /// Forgets what it need not remember any more. Nobody remembers for ever what is gone: a copy of the store that is older, from
    /// which a gateway begins, may bring it back until a probe has failed.
    fn forget(&mut self, now: Timestamp) {
        let is_over = |since: Timestamp| now.since(since) >= options(None).forget_after;
        let over: Vec<Key> =
            self.vanished.iter().filter(|(_, since)| is_over(**since)).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.vanished.remove(&key);
            self.gone.remove(&key);
            self.highest.remove(&key);
        }
    }
}

impl World {
    /// Checks the views of the processes where something changed.
    pub(crate) fn check_views(&mut self) -> Result<(), Stop> {
        for process in std::mem::take(&mut self.touched) {
            self.check_endpoints(process)?;
            self.check_zones(process)?;
        }
        Ok(())
    }

    fn check_endpoints(&mut self, process: usize) -> Result<(), Stop> {
        let Some(core) = self.gateways[process].core.as_deref() else { return Ok(()) };
        let now = self.gateways[process].clock(self.now);
        let mut shown = BTreeMap::new();
        for service in names::services() {
            for report in core.catalogue.endpoints(&service, now) {
                let (view, version) = (&report.view, (report.view.incarnation, report.session));
                shown.insert((service.clone(), view.id.clone()), Shown { version, health: view.health });
            }
        }
        self.gateways[process].seen.forget(now);
        let seen = &self.gateways[process].seen;
        let id = &self.gateways[process].id;
        let is_replaced = self.is_replaced(process);
        for (key, before) in seen.endpoints.iter().filter(|_| !is_replaced) {
            self.check_endpoint(id, key, *before, shown.get(key).copied())?;
        }
        for (key, after) in &shown {
            let highest = seen.highest.get(key).copied().unwrap_or_default();
            if after.version < highest {
                let found = after.version;
                return Err(Stop(format!(
                    "13, a view never regresses: {id} shows {} at {found:?} after {highest:?}",
                    key.1
                )));
            }
            if seen.gone.get(key).is_some_and(|gone| after.version.0 <= *gone) {
                return Err(Stop(format!(
                    "13, a view never regresses: {id} shows {} again, which said goodbye in incarnation {}",
                    key.1, after.version.0
                )));
            }
        }
        let left = &self.left;
        let seen = &mut self.gateways[process].seen;
        for (key, before) in seen.endpoints.iter().filter(|(key, _)| !shown.contains_key(*key)) {
            seen.vanished.insert(key.clone(), now);
            if left.get(key).is_some_and(|left| before.version.0 <= *left) {
                seen.gone.insert(key.clone(), before.version.0);
            }
        }
        seen.vanished.retain(|key, _| !shown.contains_key(key));
        seen.highest.extend(shown.iter().map(|(key, shown)| (key.clone(), shown.version)));
        seen.endpoints = shown;
        Ok(())
    }

    /// A process that was replaced learns nothing of what its successor writes, until it finds out and ends: also when the
    /// successor has ended before, and its place's address leads to it again.
    fn is_replaced(&self, process: usize) -> bool {
        let gateway = &self.gateways[process];
        let latest = || self.stores[gateway.cluster].epoch_of(&gateway.id);
        self.running[gateway.place] != Some(process) || latest().is_some_and(|latest| latest > gateway.epoch())
    }

    /// What becomes of an endpoint that a gateway has shown.
    fn check_endpoint(&self, gateway: &str, key: &Key, before: Shown, after: Option<Shown>) -> Result<(), Stop> {
        let alive = self.sidecars.iter().find(|sidecar| sidecar.is_up && sidecar.key() == *key);
        let Some(alive) = alive.filter(|sidecar| sidecar.incarnation == before.version.0) else { return Ok(()) };
        if before.health == Health::Down {
            return Ok(());
        }
        match after {
            None => Err(Stop(format!(
                "13, silence removes nothing: {gateway} no longer shows {}, which lives and did not say goodbye",
                key.1
            ))),
            Some(Shown { health: Health::Down, .. }) if self.now > alive.disturbed_until => Err(Stop(format!(
                "13, silence removes nothing: {gateway} shows {} as down, which lives and answers every probe",
                key.1
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Zones of the other cluster, in which nothing happened for some time, go on serving: also for a gateway that is cut off from the
    /// only one there that has a zone's endpoints, after they moved to that one, because the others know of them (found by the nemesis).
    fn check_zones(&mut self, process: usize) -> Result<(), Stop> {
        let Some(core) = self.gateways[process].core.as_deref() else { return Ok(()) };
        let mut serving = BTreeMap::new();
        for service in names::services() {
            let facts = core.catalogue.facts(&service);
            for remote in facts.iter().flat_map(|facts| &facts.remote) {
                let summary = &remote.zone.summary;
                let place = (service.service.to_string(), remote.zone.zone.zone.to_string());
                serving.insert(place, summary.ready + summary.degraded);
            }
        }
        let (id, other) = (&self.gateways[process].id, 1 - self.gateways[process].cluster);
        let before = &self.gateways[process].seen.serving;
        for (place, _) in before.iter().filter(|(_, count)| **count > 0) {
            let is_there = serving.get(place).is_some_and(|count| *count > 0);
            let serves = self.sidecars.iter().any(|sidecar| {
                let here = (sidecar.service.service.to_string(), sidecar.zone.to_owned());
                sidecar.cluster == other && sidecar.is_up && sidecar.health == Health::Ready && here == *place
            });
            let quiet = self.unquiet_until[other].max(self.deaf_until[self.gateways[process].place]);
            if !is_there && serves && self.now > quiet {
                return Err(Stop(format!(
                    "13, silence removes no zone: {id} no longer shows {} in zone {} of the other cluster, where it serves",
                    place.0, place.1
                )));
            }
        }
        self.gateways[process].seen.serving = serving;
        Ok(())
    }

    /// A mirror never goes back, and of a new life shows a whole snapshot or nothing.
    pub(crate) fn check_mirrors(&mut self, process: usize, cluster: &str) -> Result<(), Stop> {
        let Some(core) = self.gateways[process].core.as_deref() else { return Ok(()) };
        let mirrors = core.catalogue.mirrors(cluster);
        let id = self.gateways[process].id.clone();
        for mirror in mirrors {
            let before = self.gateways[process].seen.mirrors.insert(mirror.gateway.clone(), mirror.version);
            if before.is_some_and(|before| mirror.version < before) {
                return Err(Stop(format!(
                    "13, a view never regresses: the mirror of {} at {id} is at {:?} after {before:?}",
                    mirror.gateway, mirror.version
                )));
            }
            if before.is_none_or(|before| before.epoch < mirror.version.epoch) {
                let stated = self.stated.get(&(mirror.gateway.clone(), mirror.version));
                let stated = stated.map(|stated| stated.iter().map(|(name, e)| (name.clone(), StoredExport::from(e))));
                let stated: Option<BTreeMap<_, _>> = stated.map(Iterator::collect);
                if stated.as_ref() != Some(&mirror.services) {
                    return Err(Stop(format!(
                        "13, a half-synced peer is invisible: {id} shows {:?} of {} at {:?}, which stated {stated:?}",
                        mirror.services, mirror.gateway, mirror.version
                    )));
                }
            }
        }
        Ok(())
    }
}
