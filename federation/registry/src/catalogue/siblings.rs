//! The other gateways of this cluster: which are there, and what they state of the endpoints that they have.
//!
//! Which endpoints a sibling has is read from the store (`slices.rs`). How they do it says itself, over a stream of its
//! own, as peers do of their services. While it speaks nobody else probes its endpoints; when it falls silent everybody
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eastway_core::{EndpointId, ServiceName, Timestamp, Version};

use super::{Candidates, Catalogue, Key};
use crate::mirror::Mirror;
use crate::options::Options;
use crate::reader::Fact;
use crate::registration::{EndpointState, KnownEndpoint, StreamId};

/// The siblings, by their ids.
#[derive(Debug, Default)]
pub(super) struct Siblings(BTreeMap<Arc<str>, Sibling>);

/// How endpoints do now that did otherwise before; `None`: is no longer stated.
pub type StateChanges = Vec<(Key, Option<EndpointState>)>;

#[derive(Debug)]
struct Sibling {
    /// Its key is in the store since then.
    registered: Option<Timestamp>,
    stated: Mirror<Key, EndpointState>,
    /// The stream over which it speaks, and in which of its lives.
    speaks: Option<(StreamId, u64)>,
    /// The peers that it has a path to, as long as it speaks.
    reaches: BTreeSet<String>,
}

impl Sibling {
    fn new(options: &Options) -> Self {
        Self { registered: None, stated: Mirror::new(options.max_endpoints), speaks: None, reaches: BTreeSet::new() }
    }

    /// What it states of the registration, if it speaks.
    fn word(&self, key: &Key, version: (u64, u64)) -> Option<(Version, EndpointState)> {
        let (_, epoch) = self.speaks?;
        let (stated, state) = self.stated.with_version(key).filter(|(stated, _)| stated.epoch == epoch)?;
        ((state.incarnation, state.session) == version).then_some((stated, *state))
    }
}

impl Siblings {
    /// Whether one of them has a path to the peer `cluster`.
    pub(super) fn reach(&self, cluster: &str) -> bool {
        self.0.values().any(|sibling| sibling.reaches.contains(cluster))
    }

    /// Since when the gateway's key is in the store.
    pub(super) fn registered(&self, gateway: &str) -> Option<Timestamp> {
        self.0.get(gateway)?.registered
    }

    /// Whether the gateway speaks, and of the endpoint that is known here as `entry`, too.
    pub(super) fn vouches(&self, gateway: &str, key: &Key, entry: &KnownEndpoint) -> bool {
        self.0.get(gateway).is_some_and(|sibling| sibling.word(key, entry.registration.version()).is_some())
    }

    /// Whether the gateway has the endpoint that is known here as `entry` no more: it stated it, and speaks of it no more. One
    /// that never stated it may not have come to it yet, or may have forgotten it.
    pub(super) fn has_let_go(&self, gateway: &str, key: &Key, entry: &KnownEndpoint) -> bool {
        let speaks = |sibling: &&Sibling| sibling.speaks.is_some() && sibling.stated.get(key).is_none();
        entry.is_stated() && self.0.get(gateway).filter(speaks).is_some()
    }

    /// Whether a gateway that speaks has a later registration of the endpoint than `version`: it has moved there, whether the
    /// store says so already or not.
    pub(super) fn has_moved(&self, key: &Key, version: (u64, u64)) -> bool {
        let later = |state: &EndpointState| (state.incarnation, state.session) > version;
        self.0.values().any(|sibling| sibling.speaks.is_some() && sibling.stated.get(key).is_some_and(later))
    }
}

impl Catalogue {
    /// The sibling `gateway` is registered in the store. What it removes from its slices is believed after a hold.
    pub fn gateway_registered(&mut self, gateway: &str, now: Timestamp) {
        self.sibling(gateway).registered.get_or_insert(now);
    }

    /// The key of the sibling `gateway` is gone from the store: it has ended, or cannot reach the store. Endpoints that
    /// vanish from its slices now were taken away by others, and stay for as long as their probes are answered.
    pub fn gateway_unregistered(&mut self, gateway: &str) {
        if let Some(sibling) = self.siblings.0.get_mut(gateway) {
            sibling.registered = None;
        }
    }

    /// Facts that the stream `stream` from the sibling `gateway` established ([`crate::Reader`]), in that gateway's life
    /// `epoch`. Facts of lower epochs change nothing.
    pub fn sibling_facts(
        &mut self,
        stream: StreamId,
        gateway: &str,
        epoch: u64,
        facts: impl IntoIterator<Item = Fact<Key, EndpointState>>,
        now: Timestamp,
    ) {
        for fact in facts {
            if let Fact::Change(_, key, Some(state)) = &fact
                && state.deregistered
            {
                self.bury(key, state.incarnation, false, now);
            }
            let sibling = self.sibling(gateway);
            match fact {
                Fact::Snapshot(version, states) => {
                    if sibling.stated.complete().is_some_and(|complete| complete.epoch > epoch) {
                        continue;
                    }
                    sibling.stated.snapshot(version, states);
                    sibling.speaks = Some((stream, epoch));
                    let services: Vec<ServiceName> = self.services.keys().cloned().collect();
                    for service in services {
                        self.hear_sibling(gateway, &service);
                    }
                }
                Fact::Change(version, key, state) => {
                    let state = state.filter(|state| !state.deregistered);
                    if sibling.stated.change(key.clone(), version, state) {
                        self.hear_of(gateway, &key);
                    }
                }
                Fact::Alive | Fact::GoAway => {}
            }
        }
        self.settle(now);
    }

    /// The sibling `gateway` says over `stream` that it has a path to the peers `reached`, and to no others.
    pub fn sibling_reaches(&mut self, stream: StreamId, gateway: &str, reached: BTreeSet<String>) {
        let Some(sibling) = self.siblings.0.get_mut(gateway) else { return };
        if sibling.speaks.is_some_and(|(speaking, _)| speaking == stream) {
            let before = std::mem::replace(&mut sibling.reaches, reached);
            self.changes.mesh |=
                before.symmetric_difference(&sibling.reaches).any(|cluster| self.peers.is_cut(cluster));
        }
    }

    /// The stream of the sibling's statements has ended. Unless another one has begun, its endpoints are probed from here.
    pub fn sibling_lost(&mut self, stream: StreamId, gateway: &str, now: Timestamp) {
        let speaks = self.siblings.0.get(gateway).and_then(|sibling| sibling.speaks);
        if speaks.is_none_or(|(speaking, _)| speaking != stream) {
            return;
        }
        // What it vouched for until now is held from now on.
        self.let_leave(now);
        let Some(sibling) = self.siblings.0.get_mut(gateway) else { return };
        sibling.speaks = None;
        let reached = std::mem::take(&mut sibling.reaches);
        self.changes.mesh |= reached.iter().any(|cluster| self.peers.is_cut(cluster));
        for (name, known) in &mut self.services {
            for candidates in known.endpoints.values_mut() {
                for entry in candidates.entries_of(gateway) {
                    entry.lose_gateway(now);
                    self.touched.insert(name.clone());
                }
            }
        }
        self.settle(now);
    }

    /// The latest life that is known of the sibling `gateway` by its own statements.
    pub fn sibling_epoch(&self, gateway: &str) -> Option<u64> {
        Some(self.siblings.0.get(gateway)?.stated.complete()?.epoch)
    }

    /// The siblings by their ids: whether each is registered in the store, and whether it speaks.
    pub fn sibling_states(&self) -> BTreeMap<String, (bool, bool)> {
        let state = |sibling: &Sibling| (sibling.registered.is_some(), sibling.speaks.is_some());
        self.siblings.0.iter().map(|(gateway, sibling)| (gateway.to_string(), state(sibling))).collect()
    }

    /// Forgets the siblings that are gone and of which nothing is left.
    pub(super) fn forget_siblings(&mut self) {
        let is_gone = |sibling: &Sibling| sibling.registered.is_none() && sibling.speaks.is_none();
        if self.siblings.0.values().any(is_gone) {
            let members = self.siblings();
            self.siblings.0.retain(|gateway, sibling| !is_gone(sibling) || members.contains(gateway));
        }
    }

    /// What this gateway states to its siblings of the endpoints that it has, and the version of that.
    pub fn statements(&self) -> (Version, BTreeMap<Key, EndpointState>) {
        let states = self.statements.iter().filter(|(_, state)| !state.deregistered);
        let states = states.map(|(key, state)| (key.clone(), *state)).collect();
        (Version::new(self.epoch, self.statements.seq()), states)
    }

    /// The goodbyes that this gateway heard lately, for a sibling that was told the statements. They belong to the same version.
    pub fn deregistrations(&self) -> StateChanges {
        let states = self.statements.iter().filter(|(_, state)| state.deregistered);
        states.map(|(key, state)| (key.clone(), Some(*state))).collect()
    }

    /// What changed of either after the number `seq`, and the version with these changes; `None` if that is not known any more.
    pub fn statements_since(&self, seq: u64) -> Option<(Version, StateChanges)> {
        let changes = self.statements.since(seq)?.map(|(key, state)| (key.clone(), state.copied())).collect();
        Some((Version::new(self.epoch, self.statements.seq()), changes))
    }

    /// States how an own endpoint does.
    pub(super) fn state(&mut self, key: &Key) {
        let state = self.services.get(&key.0).and_then(|known| known.endpoints.get(&key.1)?.state());
        self.say(key.clone(), state);
    }

    fn say(&mut self, key: Key, state: Option<EndpointState>) {
        let state = state.or_else(|| self.tombstones.state(&key));
        self.changes.statements |= self.statements.state(key, state);
    }

    /// States how the endpoints of a service do, in the order of their ids: those that are own ones, and that the others are
    /// not.
    pub(super) fn state_service(&mut self, name: &ServiceName, states: Vec<(EndpointId, Option<EndpointState>)>) {
        let first = (name.clone(), EndpointId::new(""));
        let gone = self.statements.keys_from(&first).take_while(|(service, _)| service == name);
        let gone: Vec<Key> =
            gone.filter(|(_, id)| states.binary_search_by(|(known, _)| known.cmp(id)).is_err()).cloned().collect();
        for key in gone {
            self.say(key, None);
        }
        for (id, state) in states {
            self.say((name.clone(), id), state);
        }
    }

    /// Brings what is known of the sibling's endpoints of a service in line with what it says, after either changed.
    pub(super) fn hear_sibling(&mut self, gateway: &str, service: &ServiceName) {
        let Some(known) = self.services.get(service) else { return };
        let ids: Vec<EndpointId> = known.endpoints.keys().cloned().collect();
        for id in ids {
            self.hear_of(gateway, &(service.clone(), id));
        }
    }

    fn hear_of(&mut self, gateway: &str, key: &Key) {
        let Some(sibling) = self.siblings.0.get(gateway) else { return };
        let Some(known) = self.services.get_mut(&key.0) else { return };
        let Some(candidates) = known.endpoints.get_mut(&key.1) else { return };
        for entry in candidates.entries_of(gateway) {
            let Some((version, state)) = sibling.word(key, entry.registration.version()) else { continue };
            if entry.hear_gateway(version, &state) {
                self.load_seq += 1;
                (entry.load_seq, known.load_seq) = (self.load_seq, self.load_seq);
                self.changes.loads.insert(key.0.clone());
            }
            if entry.refresh() {
                self.touched.insert(key.0.clone());
            }
        }
    }

    fn sibling(&mut self, gateway: &str) -> &mut Sibling {
        self.siblings.0.entry(gateway.into()).or_insert_with(|| Sibling::new(&self.options))
    }
}

impl Candidates {
    /// The state of the own statement, if there is one.
    pub(super) fn state(&self) -> Option<EndpointState> {
        self.own.as_ref().map(KnownEndpoint::state)
    }

    /// What is known of the endpoint because the sibling `gateway` lists it, or did until now.
    fn entries_of(&mut self, gateway: &str) -> impl Iterator<Item = &mut KnownEndpoint> {
        let leaving = self.leaving.iter_mut().filter(|leaving| *leaving.gateway == *gateway);
        self.siblings.get_mut(gateway).into_iter().chain(leaving.map(|leaving| &mut leaving.entry))
    }
}
