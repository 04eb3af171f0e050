//! Stored membership: own slices to write, and the slices of siblings as they are read.

use std::sync::Arc;

use eastway_core::{EndpointId, ServiceName, Timestamp};

use super::{Catalogue, Key, Slice};
use crate::registration::Entry;

impl Catalogue {
    /// The content of an own slice; `None` if it is empty, and its key is to be deleted.
    pub fn slice(&self, service: &ServiceName, index: u32) -> Option<Slice> {
        let known = self.services.get(service)?;
        let own = known.endpoints.values().filter_map(|candidates| candidates.own.as_ref());
        let endpoints: Vec<_> =
            own.filter(|entry| entry.slice == index).map(|entry| (*entry.registration).clone()).collect();
        (!endpoints.is_empty()).then_some(Slice { endpoints })
    }

    /// A slice of this gateway's former life, or of a sibling, as stored now; `None`: it was deleted.
    ///
    /// The own ones are to be loaded once, at the start: their endpoints are served at once, and probed until their
    /// sidecars register again. What vanishes from a sibling's slice is held, because a list proves nothing.
    pub fn load_slice(
        &mut self,
        gateway: &str,
        service: &ServiceName,
        index: u32,
        slice: Option<Slice>,
        now: Timestamp,
    ) {
        let slice = slice.unwrap_or_default();
        let endpoints = slice.endpoints.into_iter().filter(|r| r.service == *service && self.is_welcome(r));
        let entries: Vec<Entry> = endpoints.map(|registration| Entry::stored(registration, index, now)).collect();
        if gateway == &*self.gateway {
            entries.into_iter().for_each(|entry| self.load_own(entry));
        } else {
            self.drop_vanished(gateway, service, index, &entries, now);
            entries.into_iter().for_each(|entry| self.load_sibling(gateway, entry, now));
        }
        self.touched.insert(service.clone());
        self.settle(now);
    }

    /// The gateways whose slices hold endpoints, besides this one.
    pub fn siblings(&self) -> std::collections::BTreeSet<Arc<str>> {
        let candidates = self.services.values().flat_map(|known| known.endpoints.values());
        candidates.flat_map(|candidates| candidates.siblings.keys().cloned()).collect()
    }

    fn is_welcome(&self, registration: &crate::Registration) -> bool {
        self.resources.admits(&registration.service, &registration.account)
            && self.meta.zones.contains_key(&*registration.zone)
    }

    fn load_own(&mut self, entry: Entry) {
        let (service, id) = (entry.registration.service.clone(), entry.registration.endpoint.clone());
        if self.endpoints >= self.options.max_endpoints {
            return;
        }
        let candidates = self.services.entry(service).or_default().endpoints.entry(id).or_default();
        self.endpoints += usize::from(candidates.is_empty());
        let newer = candidates.own.as_ref().is_none_or(|own| own.registration.version() < entry.registration.version());
        if newer {
            candidates.own = Some(entry);
        }
    }

    fn load_sibling(&mut self, gateway: &str, entry: Entry, now: Timestamp) {
        let key = (entry.registration.service.clone(), entry.registration.endpoint.clone());
        if self.buried.get(&key).is_some_and(|buried| buried.incarnation >= entry.registration.incarnation) {
            return;
        }
        let candidates = self.services.entry(key.0.clone()).or_default().endpoints.entry(key.1.clone()).or_default();
        self.endpoints += usize::from(candidates.is_empty());
        let version = entry.registration.version();
        match candidates.siblings.get_mut(gateway) {
            Some(known) if known.registration == entry.registration => known.slice = entry.slice,
            Some(known) => *known = entry,
            None => {
                let returning = candidates.leaving.take().map(|(entry, _)| entry);
                let same = returning.filter(|leaving| leaving.registration == entry.registration);
                candidates.siblings.insert(gateway.into(), same.unwrap_or(entry));
            }
        }
        candidates.leaving = None;
        // The sidecar moved to the sibling: the own statement, which no stream renews, is outdated.
        let moved =
            candidates.own.as_ref().is_some_and(|own| !own.is_attached() && own.registration.version() < version);
        if moved {
            self.drop_own(&key, now);
        }
    }

    /// Removes what the sibling's slice no longer lists.
    fn drop_vanished(&mut self, gateway: &str, service: &ServiceName, index: u32, listed: &[Entry], now: Timestamp) {
        let Some(known) = self.services.get_mut(service) else { return };
        let is_listed = |id: &EndpointId| listed.iter().any(|entry| entry.registration.endpoint == *id);
        for (id, candidates) in &mut known.endpoints {
            let stored = candidates.siblings.get(gateway).is_some_and(|entry| entry.slice == index);
            if stored && !is_listed(id) {
                let entry = candidates.siblings.remove(gateway);
                if candidates.own.is_none() && candidates.siblings.is_empty() {
                    candidates.leaving = entry.map(|entry| (entry, now));
                    self.leaving.insert(service.clone());
                }
            }
        }
    }

    /// The slice for an own endpoint: the one it is in, else the first with room.
    pub(super) fn slice_for(&self, key: &Key) -> u32 {
        let Some(known) = self.services.get(&key.0) else { return 0 };
        if let Some(entry) = known.endpoints.get(&key.1).and_then(|candidates| candidates.own.as_ref()) {
            return entry.slice;
        }
        let mut used: Vec<usize> = Vec::new();
        for entry in known.endpoints.values().filter_map(|candidates| candidates.own.as_ref()) {
            let index = entry.slice as usize;
            if used.len() <= index {
                used.resize(index.min(self.options.max_endpoints) + 1, 0);
            }
            if let Some(count) = used.get_mut(index) {
                *count += 1;
            }
        }
        used.iter().position(|count| *count < self.options.slice_size).unwrap_or(used.len()) as u32
    }
}
