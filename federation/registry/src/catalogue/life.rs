//! The life of endpoints: registering, reporting, falling silent, being probed, leaving.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eastway_core::{EndpointId, Health, LoadReport, ServiceName, Timestamp};

use super::tombstones::MAX_BURIED;
use super::{Candidates, Catalogue, Ended, Key, Probe, ProbeOutcome, RegisterError};
use crate::hold;
use crate::registration::{Disconnected, KnownEndpoint, Registration, Source, StreamId};

/// The greatest incarnation of an endpoint that is not known yet: microseconds, until the year 2112.
const MAX_FIRST: u64 = 1 << 52;
/// The greatest incarnation at all, so that there are always some for the successors of whoever claims the greatest first
/// one.
const MAX_INCARNATION: u64 = 1 << 53;
/// How far the next incarnation of a known endpoint may lie ahead of the last: ten years of microseconds. Whoever could go
/// further would leave its successors no number.
const MAX_JUMP: u64 = 10 * 366 * 24 * 3_600 * 1_000_000;

/// The longest reason of a sidecar that is kept, in characters: an operator reads it in a line.
const MAX_WORDS: usize = 160;

impl Catalogue {
    /// A sidecar registers its workload over the stream `stream`, or changes its registration. Returns the stream that
    /// spoke for the endpoint until now, if another did: it no longer counts.
    ///
    /// # Errors
    /// Why it is not taken. Nothing changed then.
    pub fn register(
        &mut self,
        stream: StreamId,
        registration: Registration,
        health: Health,
        now: Timestamp,
    ) -> Result<Option<StreamId>, RegisterError> {
        self.admit(stream, &registration)?;
        let registration = self.sharing(registration);
        let key = (registration.service.clone(), registration.endpoint.clone());
        if let Some(previous) = self.streams.insert(stream, key.clone())
            && previous != key
        {
            self.drop_own(&previous, now);
        }
        let slice = self.slice_for(&key);
        let candidates = self.services.entry(key.0.clone()).or_default().endpoints.entry(key.1.clone()).or_default();
        if candidates.is_empty() {
            self.endpoints += 1;
        }
        (candidates.leaving, candidates.ended) = (None, (0, 0));
        let stored = candidates.own.as_ref().map(|entry| Arc::clone(&entry.registration));
        let replaced = candidates.own.as_ref().and_then(KnownEndpoint::stream).filter(|replaced| *replaced != stream);
        let same_life = |entry: &KnownEndpoint| entry.registration.incarnation == registration.incarnation;
        let load = candidates.own.take().filter(same_life).map(|entry| (entry.load, entry.load_seq));
        let moved = stored.as_deref() != Some(&registration);
        let mut entry = KnownEndpoint::attached(registration, health, stream, slice, now);
        (entry.load, entry.load_seq) = load.unwrap_or_default();
        candidates.own = Some(entry);
        if moved {
            self.changes.slices.insert((key.0.clone(), slice));
        }
        if let Some(replaced) = replaced {
            self.streams.remove(&replaced);
        }
        self.touched.insert(key.0);
        self.settle(now);
        Ok(replaced)
    }

    /// The same with the names of the service and the zone that are there already: endpoints are many.
    pub(super) fn sharing(&self, mut registration: Registration) -> Registration {
        if let Some((name, known)) = self.services.get_key_value(&registration.service) {
            registration.service = name.clone();
            registration.zone = known.zones.name(&registration.zone).unwrap_or(registration.zone);
        }
        registration
    }

    fn admit(&self, stream: StreamId, registration: &Registration) -> Result<(), RegisterError> {
        let Registration { service, endpoint, account, zone, incarnation, .. } = registration;
        let known = self.services.get(service).and_then(|known| known.endpoints.get(endpoint));
        if !self.resources.admits(service, account) {
            let listed = self.resources.spec(service).accounts.join(", ");
            return Err(RegisterError::Account { account: account.clone(), service: service.clone(), listed });
        }
        if !self.meta.zones.contains_key(&**zone) {
            let zones = self.meta.zones.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(RegisterError::Zone { zone: zone.to_string(), zones });
        }
        let mut entries = known.into_iter().flat_map(|candidates| candidates.entries());
        if let Some(bound) = entries.find(|entry| entry.is_bound_against(stream, registration)) {
            return Err(RegisterError::Taken { endpoint: endpoint.clone(), address: bound.registration.address });
        }
        let last = known.and_then(|candidates| candidates.best()).map(|best| best.registration.incarnation);
        if !is_plausible(*incarnation, last) {
            return Err(RegisterError::Incarnation { endpoint: endpoint.clone(), incarnation: *incarnation });
        }
        if let Some(highest) = self.highest(registration) {
            return Err(RegisterError::Stale { endpoint: endpoint.clone(), incarnation: *incarnation, highest });
        }
        if known.is_none() {
            self.check_quota(registration)?;
        }
        if known.is_none() && self.endpoints >= self.options.max_endpoints {
            return Err(RegisterError::Full(self.endpoints));
        }
        Ok(())
    }

    /// The highest incarnation known, if it or a deregistration forbids the registration. One that was under way for long comes
    /// after later ones, which may even have ended.
    fn highest(&self, registration: &Registration) -> Option<u64> {
        let Registration { service, endpoint, incarnation, .. } = registration;
        let key = (service.clone(), endpoint.clone());
        let known = self.services.get(service).and_then(|known| known.endpoints.get(endpoint));
        let alive = known.and_then(|candidates| candidates.best()).map(|entry| entry.registration.version());
        let ended = known.map(|candidates| candidates.ended).max(self.ended.get(&key).map(|ended| ended.version));
        let later =
            alive.max(ended).filter(|later| *later > registration.version()).map(|(incarnation, _)| incarnation);
        later.max(self.tombstones.incarnation(&key).filter(|left| left >= incarnation))
    }

    /// The sidecar says how its application does, and why in `words`, which operators are told.
    pub fn report_health(&mut self, stream: StreamId, health: Health, words: &str, now: Timestamp) {
        if let Some(entry) = self.hear(stream, now) {
            entry.reported = Some(health);
            let words: String = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
            entry.words = if words.is_empty() { Arc::default() } else { words.into() };
            self.refresh_stream(stream, now);
        }
    }

    /// The sidecar reports its load.
    pub fn report_load(&mut self, stream: StreamId, load: LoadReport, now: Timestamp) {
        let seq = self.load_seq + 1;
        let Some(entry) = self.hear(stream, now) else { return };
        (entry.load, entry.load_seq) = (Some(load), seq);
        self.load_seq = seq;
        if let Some((service, _)) = self.streams.get(&stream) {
            if let Some(known) = self.services.get_mut(service) {
                known.load_seq = seq;
            }
            self.changes.loads.insert(service.clone());
        }
        if let Some(key) = self.streams.get(&stream).cloned() {
            self.state(&key);
        }
    }

    /// The stream spoke, whatever it said.
    pub fn heard(&mut self, stream: StreamId, now: Timestamp) {
        self.hear(stream, now);
    }

    /// The sidecar ends in good order: its endpoint is removed at once, and this life of it never comes back.
    pub fn deregister(&mut self, stream: StreamId, now: Timestamp) {
        let Some(key) = self.streams.remove(&stream) else { return };
        let own = self.services.get(&key.0).and_then(|known| known.endpoints.get(&key.1)?.own.as_ref());
        let Some(entry) = own.filter(|entry| entry.stream() == Some(stream)) else { return };
        self.bury(&key, entry.registration.incarnation, true, now);
        self.drop_own(&key, now);
    }

    /// The stream broke without deregistering: its endpoint is probed from now on.
    pub fn lost(&mut self, stream: StreamId, now: Timestamp) {
        let Some(key) = self.streams.remove(&stream) else { return };
        let Some(entry) = self.own_mut(&key).filter(|entry| entry.stream() == Some(stream)) else { return };
        match &mut entry.source {
            Source::Stream { .. } => entry.source = Source::Silent(Disconnected::since(now, None)),
            Source::Silent(disconnected) => disconnected.stream = None,
            Source::Gateway { .. } => {}
        }
        self.state(&key);
    }

    /// The probes that are due. Each must be reported by [`Catalogue::probed`].
    pub fn due_probes(&mut self, now: Timestamp) -> Vec<Probe> {
        let interval = self.options.probe_interval;
        let mut due = Vec::new();
        for candidates in self.services.values_mut().flat_map(|known| known.endpoints.values_mut()) {
            let best = candidates.best().map(|entry| entry.registration.version());
            for entry in candidates.entries_mut().filter(|entry| Some(entry.registration.version()) == best) {
                let Source::Silent(disconnected) = &mut entry.source else { continue };
                if disconnected.in_flight || disconnected.next_probe > now {
                    continue;
                }
                disconnected.in_flight = true;
                disconnected.next_probe = now + interval;
                let Registration { service, endpoint, incarnation, address, .. } = &*entry.registration;
                let (service, endpoint, thorough) = (service.clone(), endpoint.clone(), disconnected.probed);
                due.push(Probe { service, endpoint, incarnation: *incarnation, address: *address, thorough });
            }
        }
        due
    }

    /// What became of a probe.
    pub fn probed(&mut self, probe: &Probe, outcome: ProbeOutcome, now: Timestamp) {
        let options = self.options.clone();
        let known = self.services.get_mut(&probe.service);
        let Some(candidates) = known.and_then(|known| known.endpoints.get_mut(&probe.endpoint)) else { return };
        let same = |entry: &&mut KnownEndpoint| {
            entry.registration.incarnation == probe.incarnation && entry.registration.address == probe.address
        };
        let mut changed = false;
        for entry in candidates.entries_mut().filter(same) {
            let Source::Silent(disconnected) = &mut entry.source else { continue };
            match outcome {
                ProbeOutcome::Answered => disconnected.answered(),
                ProbeOutcome::Refused => disconnected.failed(true, now, &options),
                ProbeOutcome::Silent => disconnected.failed(false, now, &options),
            }
            changed |= entry.refresh();
        }
        if changed {
            self.touched.insert(probe.service.clone());
            self.let_leave(now);
            self.settle(now);
        }
    }

    /// Whether every endpoint that is disconnected was probed at least once: until then, what a restarted gateway loaded is
    /// less than its callers know.
    pub fn is_probed(&self) -> bool {
        let mut entries = self.services.values().flat_map(|known| known.endpoints.values()).filter_map(|c| c.best());
        entries.all(|entry| match &entry.source {
            Source::Silent(disconnected) => disconnected.probed,
            Source::Stream { .. } | Source::Gateway { .. } => true,
        })
    }

    /// Streams that were silent for too long are as good as lost, until they speak again.
    pub(super) fn notice_silence(&mut self, now: Timestamp) {
        let silence = self.options.silence;
        let mut silent = Vec::new();
        for (name, known) in &mut self.services {
            for (id, candidates) in &mut known.endpoints {
                if let Some(entry) = &mut candidates.own
                    && let Source::Stream { stream, heard } = entry.source
                    && now.since(heard) >= silence
                {
                    entry.source = Source::Silent(Disconnected::since(now, Some(stream)));
                    silent.push((name.clone(), id.clone()));
                }
            }
        }
        silent.iter().for_each(|key| self.state(key));
    }

    /// Ends the holds of what vanished without explanation: those that are due, and those that a probe found down. What
    /// vanished from the slices of a gateway that is gone itself has no end but evidence.
    pub(super) fn let_leave(&mut self, now: Timestamp) {
        for name in self.leaving.clone() {
            let gone = self.gone(&name, now);
            let Some(known) = self.services.get_mut(&name) else { continue };
            for id in gone {
                let Some(candidates) = known.endpoints.get_mut(&id) else { continue };
                if let Some(leaving) = candidates.leaving.take() {
                    candidates.end(leaving.entry.registration.version());
                }
                if candidates.is_empty() {
                    self.endpoints -= 1;
                    remember(&mut self.ended, (name.clone(), id.clone()), candidates, now);
                    known.endpoints.remove(&id);
                }
                self.touched.insert(name.clone());
            }
            if known.endpoints.values().all(|candidates| candidates.leaving.is_none()) {
                self.leaving.remove(&name);
            }
        }
    }

    /// Which endpoints of the service that vanished without explanation are let go now.
    fn gone(&mut self, name: &ServiceName, now: Timestamp) -> BTreeSet<EndpointId> {
        let (mut gone, mut held, mut left) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        let Some(known) = self.services.get_mut(name) else { return gone };
        for (id, candidates) in &mut known.endpoints {
            let Some(leaving) = &mut candidates.leaving else { continue };
            let key = (name.clone(), id.clone());
            if self.siblings.has_let_go(&leaving.gateway, &key, &leaving.entry) {
                // It ended there, or moved to where nobody has heard of yet: a probe tells.
                leaving.entry.lose_gateway(now);
            }
            let has_moved = self.siblings.has_moved(&key, leaving.entry.registration.version());
            if has_moved || self.siblings.vouches(&leaving.gateway, &key, &leaving.entry) {
                // The store was restored or edited, or is read late: who has it will write it, or has. The hold counts from when
                // that one is heard no more.
                leaving.since = now;
                continue;
            }
            let registration = &leaving.entry.registration;
            if leaving.entry.health() == Health::Down || !self.resources.admits(name, &registration.account) {
                gone.insert(id.clone());
            }
            match self.siblings.registered(&leaving.gateway) {
                // A gateway that returned first has to compare its slices with the store.
                Some(back) => drop(held.insert(id.clone(), leaving.since.max(back))),
                None => left.push((id.clone(), Arc::clone(registration))),
            }
        }
        let taken = left.into_iter().filter(|(_, registration)| known.is_taken(registration));
        gone.extend(taken.map(|(id, _)| id));
        let shown = known.endpoints.values().filter(|candidates| candidates.best().is_some()).count();
        gone.extend(hold::due(&held, shown.saturating_sub(held.len()), now, &self.options));
        gone
    }

    /// Removes own endpoints that are down for long, outdated or replaced, deregistrations that nobody can contradict any more, and services of which
    /// nothing is left.
    pub(super) fn forget_dead(&mut self, now: Timestamp) {
        let (limit, silence) = (self.options.forget_after, self.options.silence);
        let is_over = |known: &super::Known| known.vanished.is_some_and(|since| now.since(since) >= limit);
        self.services.retain(|_, known| !known.endpoints.is_empty() || !is_over(known));
        let told = self.tombstones.forget(limit, now);
        told.iter().for_each(|key| self.state(key));
        self.ended.retain(|_, ended| now.since(ended.since) < limit);
        let mut dead = Vec::new();
        for (name, known) in &self.services {
            for (id, candidates) in &known.endpoints {
                let Some(own) = &candidates.own else { continue };
                let is_down_for_long = own.down_since().is_some_and(|since| now.since(since) >= limit);
                if is_down_for_long || candidates.is_outdated(own) || known.is_replaced(own, silence, now) {
                    dead.push((name.clone(), id.clone()));
                }
            }
        }
        for key in dead {
            self.drop_own(&key, now);
        }
    }

    /// Removes the own registrations that the resources no longer allow.
    pub(super) fn revoke(&mut self, now: Timestamp) -> Vec<StreamId> {
        let mut revoked = Vec::new();
        for (name, known) in &self.services {
            for (id, candidates) in &known.endpoints {
                let own = candidates.own.as_ref();
                if own.is_some_and(|entry| !self.resources.admits(name, &entry.registration.account)) {
                    revoked.push(((name.clone(), id.clone()), own.and_then(KnownEndpoint::stream)));
                }
            }
        }
        for (key, _) in &revoked {
            self.drop_own(key, now);
        }
        revoked.into_iter().filter_map(|(_, stream)| stream).collect()
    }

    /// Takes note that a stream spoke; its entry, if the stream is the endpoint's current one.
    fn hear(&mut self, stream: StreamId, now: Timestamp) -> Option<&mut KnownEndpoint> {
        let key = self.streams.get(&stream)?.clone();
        let entry = self.own_mut(&key).filter(|entry| entry.stream() == Some(stream))?;
        let returned = !entry.is_attached();
        entry.source = Source::Stream { stream, heard: now };
        if returned {
            self.refresh_stream(stream, now);
            self.state(&key);
        }
        self.own_mut(&key)
    }

    fn refresh_stream(&mut self, stream: StreamId, now: Timestamp) {
        let Some(key) = self.streams.get(&stream).cloned() else { return };
        if self.own_mut(&key).is_some_and(KnownEndpoint::refresh) {
            self.touched.insert(key.0);
            self.settle(now);
        }
    }

    fn own_mut(&mut self, key: &Key) -> Option<&mut KnownEndpoint> {
        self.services.get_mut(&key.0)?.endpoints.get_mut(&key.1)?.own.as_mut()
    }

    /// Removes the own statement on an endpoint, and the endpoint if no sibling has it.
    pub(super) fn drop_own(&mut self, key: &Key, now: Timestamp) {
        let Some(known) = self.services.get_mut(&key.0) else { return };
        let Some(candidates) = known.endpoints.get_mut(&key.1) else { return };
        if let Some(entry) = candidates.own.take() {
            candidates.end(entry.registration.version());
            self.changes.slices.insert((key.0.clone(), entry.slice));
            self.streams.retain(|stream, registered| Some(*stream) != entry.stream() || registered != key);
        }
        if candidates.is_empty() {
            self.endpoints -= 1;
            remember(&mut self.ended, key.clone(), candidates, now);
            known.endpoints.remove(&key.1);
        }
        self.touched.insert(key.0.clone());
        self.settle(now);
    }
}

/// Remembers which version of an endpoint ended, when nothing else is left of it.
pub(super) fn remember(ended: &mut BTreeMap<Key, Ended>, key: Key, candidates: &Candidates, now: Timestamp) {
    if candidates.ended > (0, 0) && ended.len() < MAX_BURIED {
        ended.insert(key, Ended { version: candidates.ended, since: now });
    }
}

/// Whether a sidecar's clock can have said `incarnation`, where the endpoint's `last` one is known.
fn is_plausible(incarnation: u64, last: Option<u64>) -> bool {
    let most = last.map_or(MAX_FIRST, |last| last.saturating_add(MAX_JUMP));
    incarnation <= most.min(MAX_INCARNATION)
}
