//! Stored membership: own slices to write, and the slices of siblings as they are read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{EndpointId, Health, ServiceName, Timestamp};

use super::life::remember;
use super::{Catalogue, Key, Known, Leaving, Slice};
use crate::Registration;
use crate::registration::KnownEndpoint;

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
    /// The own ones are to be loaded once, at the start, or when a store that was away then answers: their endpoints are served at once, and probed until their
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
        let entries: Vec<KnownEndpoint> =
            endpoints.map(|registration| KnownEndpoint::stored(self.sharing(registration), index, now)).collect();
        if gateway == &*self.gateway {
            entries.into_iter().for_each(|entry| self.load_own(entry));
        } else {
            self.drop_vanished(gateway, service, index, &entries, now);
            entries.into_iter().for_each(|entry| self.load_sibling(gateway, entry, now));
            self.hear_sibling(gateway, service);
        }
        self.touched.insert(service.clone());
        self.settle(now);
    }

    /// The gateways whose slices hold endpoints, besides this one.
    pub fn siblings(&self) -> BTreeSet<Arc<str>> {
        let candidates = self.services.values().flat_map(|known| known.endpoints.values());
        candidates.flat_map(|candidates| candidates.siblings.keys().cloned()).collect()
    }

    /// Which own slices hold endpoints.
    pub fn own_slices(&self) -> BTreeSet<(ServiceName, u32)> {
        let mut slices = BTreeSet::new();
        for (name, known) in &self.services {
            let own = known.endpoints.values().filter_map(|candidates| candidates.own.as_ref());
            slices.extend(own.map(|entry| (name.clone(), entry.slice)));
        }
        slices
    }

    /// What is to stay in a slice of the sibling `gateway`, which is gone: all but the endpoints that do not answer, that
    /// registered elsewhere since, whose address is another's now, and whose accounts or zones are no longer allowed.
    pub fn remaining(&self, gateway: &str, service: &ServiceName, slice: &Slice) -> Slice {
        let stays = |registration: &&Registration| self.is_left(gateway, service, registration);
        Slice { endpoints: slice.endpoints.iter().filter(stays).cloned().collect() }
    }

    fn is_left(&self, gateway: &str, service: &ServiceName, registration: &Registration) -> bool {
        if registration.service != *service || !self.is_welcome(registration) {
            return false;
        }
        let key = (service.clone(), registration.endpoint.clone());
        if self.tombstones.cover(&key, registration.incarnation) {
            return false;
        }
        let Some(known) = self.services.get(service) else { return true };
        let Some(candidates) = known.endpoints.get(&registration.endpoint) else { return true };
        let version = registration.version();
        let later =
            candidates.ended >= version || candidates.best().is_some_and(|best| best.registration.version() > version);
        let same = |entry: &&KnownEndpoint| entry.registration.version() == version;
        let down = candidates.siblings.get(gateway).filter(same).is_some_and(|entry| entry.health() == Health::Down);
        !later && !down && !known.is_taken(registration)
    }

    fn is_welcome(&self, registration: &Registration) -> bool {
        self.resources.admits(&registration.service, &registration.account)
            && self.meta.zones.contains_key(&*registration.zone)
    }

    fn load_own(&mut self, entry: KnownEndpoint) {
        let (service, id) = (entry.registration.service.clone(), entry.registration.endpoint.clone());
        let key = (service.clone(), id.clone());
        if self.endpoints >= self.options.max_endpoints || self.tombstones.cover(&key, entry.registration.incarnation) {
            return;
        }
        let candidates = self.services.entry(service).or_default().endpoints.entry(id).or_default();
        self.endpoints += usize::from(candidates.is_empty());
        let newer = candidates.own.as_ref().is_none_or(|own| own.registration.version() < entry.registration.version());
        if newer {
            candidates.own = Some(entry);
        }
    }

    fn load_sibling(&mut self, gateway: &str, entry: KnownEndpoint, now: Timestamp) {
        let key = (entry.registration.service.clone(), entry.registration.endpoint.clone());
        let candidates = self.services.entry(key.0.clone()).or_default().endpoints.entry(key.1.clone()).or_default();
        self.endpoints += usize::from(candidates.is_empty());
        if let Some(ended) = self.ended.remove(&key) {
            candidates.end(ended.version);
        }
        // It does not show, but is known to be listed: of a gateway that is gone it is to be collected.
        if let Some(left) = self.tombstones.incarnation(&key) {
            candidates.end((left, u64::MAX));
        }
        let version = entry.registration.version();
        match candidates.siblings.get_mut(gateway) {
            // Listed as it was before, by a copy of the store that was restored: its gateway will write what it has.
            Some(known) if known.registration.version() > version => known.slice = entry.slice,
            Some(known) if known.registration == entry.registration => known.slice = entry.slice,
            Some(known) => {
                let former = std::mem::replace(known, entry);
                known.succeed(former);
            }
            None => {
                let returning = candidates.leaving.take_if(|leaving| leaving.entry.registration == entry.registration);
                candidates.siblings.insert(gateway.into(), returning.map_or(entry, |leaving| leaving.entry));
            }
        }
        candidates.leaving.take_if(|leaving| leaving.entry.registration.version() <= version);
        if candidates.own.as_ref().is_some_and(|own| candidates.is_outdated(own)) {
            self.drop_own(&key, now);
        }
    }

    /// Removes what the sibling's slice no longer lists.
    fn drop_vanished(
        &mut self,
        gateway: &str,
        service: &ServiceName,
        index: u32,
        listed: &[KnownEndpoint],
        now: Timestamp,
    ) {
        let Some(known) = self.services.get_mut(service) else { return };
        let is_listed = |id: &EndpointId| listed.iter().any(|entry| entry.registration.endpoint == *id);
        let before = known.endpoints.len();
        for (id, candidates) in &mut known.endpoints {
            let stored = candidates.siblings.get(gateway).is_some_and(|entry| entry.slice == index);
            if stored && !is_listed(id) {
                let Some(entry) = candidates.siblings.remove(gateway) else { continue };
                let version = entry.registration.version();
                let is_over = candidates.ended >= version;
                if !is_over && candidates.best().is_none_or(|best| best.registration.version() < version) {
                    candidates.leaving = Some(Box::new(Leaving { entry, gateway: gateway.into(), since: now }));
                    self.leaving.insert(service.clone());
                }
            }
        }
        known.endpoints.retain(|id, candidates| {
            if candidates.is_empty() {
                remember(&mut self.ended, (service.clone(), id.clone()), candidates, now);
            }
            !candidates.is_empty()
        });
        self.endpoints -= before - known.endpoints.len();
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

impl super::Candidates {
    /// Whether the sidecar of the own statement, which no stream renews, has registered at a sibling since.
    pub(super) fn is_outdated(&self, own: &KnownEndpoint) -> bool {
        let version = own.registration.version();
        !own.is_attached() && self.siblings.values().any(|entry| entry.registration.version() > version)
    }
}

impl Known {
    /// Whether the address of an endpoint now is another's of the service, whose sidecar speaks, here or to a sibling that says
    /// so. An answered probe then proves nothing. That the store lists another one there does not: it may have been restored.
    pub(super) fn is_taken(&self, registration: &Registration) -> bool {
        let others = self.endpoints.iter().filter(|(id, _)| **id != registration.endpoint);
        others.map(|(_, candidates)| candidates).any(|other| {
            let has_it = |entry: &KnownEndpoint| entry.registration.address == registration.address;
            let lives =
                |entry: &KnownEndpoint| entry.is_attached_anywhere() && entry.registration.version() > other.ended;
            other.entries().any(|entry| has_it(entry) && lives(entry))
        })
    }

    /// Whether another endpoint has the address of the own one, whose sidecar has not spoken for `silence`: that one is gone,
    /// though its probes are answered for ever.
    pub(super) fn is_replaced(&self, own: &KnownEndpoint, silence: Duration, now: Timestamp) -> bool {
        own.silent_since().is_some_and(|since| now.since(since) >= silence) && self.is_taken(&own.registration)
    }
}
