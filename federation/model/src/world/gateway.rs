//! A process of a gateway: the production machines, driven by ticks, messages and answers of the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use eastway_core::{ServiceName, Timestamp, Version};
use eastway_registry::membership::{
    Collector, Found, GatewayReader, Life, SliceName, SliceReader, StoredAddress, Writer, is_plausible,
};
use eastway_registry::store::{Expect, Known, LeaseId, Revision, StoreEntry, keys};
use eastway_registry::{
    Catalogue, EndpointState, Exporter, Key, Probe, ProbeOutcome, Reader, Registration, ServiceFacts, StreamId,
};

use crate::sabotage::Sabotage;
use crate::world::invariants::Seen;
use crate::world::names::{self, Host};
use crate::world::network::{Actor, ConnectionId};
use crate::world::store_calls::Purpose;
use crate::world::{Event, Stop, World};

/// Between two ticks, in milliseconds.
const TICK: u64 = 250;

/// What a gateway watches.
pub(crate) const WATCHED: [&str; 2] = [keys::SERVICES, keys::GATEWAYS];

/// One process.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) place: usize,
    pub(crate) cluster: usize,
    pub(crate) id: String,
    pub(crate) paused_until: u64,
    pub(crate) waits_for: BTreeSet<Purpose>,
    /// It runs; `None` while it starts, and when it has ended.
    pub(crate) core: Option<Box<Core>>,
    pub(crate) starting: Option<Starting>,
    pub(crate) born: u64,
    /// What its clock shows when it is born, and by how much it goes too fast, in ten thousandths.
    pub(crate) clock: (u64, u64),
    pub(crate) seen: Seen,
}

#[derive(Debug)]
pub(crate) enum Starting {
    Meta,
    Life(Found),
    Claim(Box<Life>),
    Slices(Box<Life>),
    Gateways(Box<Life>, Vec<StoreEntry>),
    Pausing(u64),
}

/// What a running process has.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) catalogue: Catalogue,
    pub(crate) writer: Writer,
    pub(crate) changed: BTreeSet<SliceName>,
    pub(crate) writing: bool,
    pub(crate) write_after: u64,
    /// The session was gained: what waits to be written waits no longer.
    pub(crate) hurries: bool,
    pub(crate) slices: SliceReader,
    pub(crate) gateways: GatewayReader,
    pub(crate) known: [Known; 2],
    pub(crate) positions: [Option<Revision>; 2],
    pub(crate) watch_woken: [bool; 2],
    pub(crate) collector: Collector,
    /// Gateways that are gone for long.
    pub(crate) due: Vec<Arc<str>>,
    pub(crate) collecting: VecDeque<(Arc<str>, StoreEntry)>,
    pub(crate) lease: Option<(LeaseId, u64)>,
    pub(crate) renew_at: u64,
    pub(crate) own_key: Option<Expect>,
    pub(crate) leads: Option<(LeaseId, Revision)>,
    pub(crate) registrations: BTreeMap<ConnectionId, Registered>,
    /// Whom it listens to, by place.
    pub(crate) listening: BTreeMap<usize, Listening>,
    pub(crate) dial_after: BTreeMap<usize, u64>,
    pub(crate) publishing: BTreeMap<ConnectionId, Publishing>,
    pub(crate) streams: u64,
    pub(crate) settles_at: u64,
    pub(crate) is_settled: bool,
    pub(crate) heartbeat_at: u64,
}

/// A registration stream, and what its sidecar follows.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) stream: StreamId,
    pub(crate) follows: BTreeMap<ServiceName, (u64, Option<Arc<ServiceFacts>>)>,
}

/// A stream of another gateway's statements.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) connection: ConnectionId,
    pub(crate) heard: u64,
    pub(crate) speaker: Option<Speaker>,
}

/// Who speaks on it, once it said so.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) meta: eastway_core::resource::ClusterMeta,
    pub(crate) gateway: String,
    pub(crate) reader: StreamReader,
}

#[derive(Debug)]
pub(crate) enum StreamReader {
    Peer(Reader),
    Sibling(StreamId, Reader<Key, EndpointState>),
}

/// A stream of own statements.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) heard: u64,
    pub(crate) told: Told,
}

#[derive(Debug)]
pub(crate) enum Told {
    /// It waits until this gateway has settled.
    Waiting {
        is_sibling: bool,
    },
    Peer(Exporter),
    Sibling(Version),
}

impl Gateway {
    pub(crate) fn new(place: usize, names: &names::Place, born: u64, clock: (u64, u64)) -> Self {
        let (waits_for, starting, seen) = (BTreeSet::new(), Some(Starting::Pausing(0)), Seen::default());
        let (cluster, id) = (names.cluster, names.id.clone());
        Self { place, cluster, id, paused_until: 0, waits_for, core: None, starting, born, clock, seen }
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.core.is_some() || self.starting.is_some()
    }

    /// In which life it is; 0 before it has one.
    pub(crate) fn epoch(&self) -> u64 {
        match (&self.core, &self.starting) {
            (Some(core), _) => core.writer.life().epoch(),
            (None, Some(Starting::Claim(life) | Starting::Slices(life) | Starting::Gateways(life, _))) => life.epoch(),
            _ => 0,
        }
    }

    /// Its own time line.
    pub(crate) const fn clock(&self, now: u64) -> Timestamp {
        let (origin, rate) = self.clock;
        Timestamp::from_millis(origin + (now - self.born) * rate / 10_000)
    }

    pub(crate) fn core_mut(&mut self) -> Option<&mut Core> {
        self.core.as_deref_mut()
    }
}

impl Core {
    /// What a process has when it begins to run, and settles no later than `settles_at`.
    pub(crate) fn new(catalogue: Catalogue, life: Life, own: StoredAddress, settles_at: u64) -> Self {
        let id = own.address.clone();
        Self {
            catalogue,
            writer: Writer::new(id.clone(), life),
            changed: BTreeSet::new(),
            writing: false,
            write_after: 0,
            hurries: false,
            slices: SliceReader::new(id.clone()),
            gateways: GatewayReader::new(id, own),
            known: Default::default(),
            positions: [None; 2],
            watch_woken: [false; 2],
            collector: Collector::default(),
            due: Vec::new(),
            collecting: VecDeque::new(),
            lease: None,
            renew_at: 0,
            own_key: None,
            leads: None,
            registrations: BTreeMap::new(),
            listening: BTreeMap::new(),
            dial_after: BTreeMap::new(),
            publishing: BTreeMap::new(),
            streams: 0,
            settles_at,
            is_settled: false,
            heartbeat_at: 0,
        }
    }

    pub(crate) const fn name_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    /// The condition under which it leads, if it does.
    pub(crate) fn fence(&self, now: u64) -> Option<(&'static str, Expect)> {
        let (lease, revision) = self.leads?;
        self.lease.filter(|(held, until)| *held == lease && now < *until)?;
        Some((keys::LEADER, Expect::At(revision)))
    }
}

impl World {
    /// A new process at a place. It is where the place's address leads from now on.
    pub(crate) fn spawn_gateway(&mut self, place: usize) -> usize {
        let process = self.gateways.len();
        let clock = (self.rng.u64(100_000..10_000_000), self.rng.u64(9_950..10_051));
        self.gateways.push(Gateway::new(place, &self.places[place], self.now, clock));
        self.running[place] = Some(process);
        self.note(|| format!("gateway process {process} starts at place {place}"));
        self.after(1, Event::Gateway(process));
        process
    }

    /// A process ends at once.
    pub(crate) fn kill_gateway(&mut self, process: usize) {
        let gateway = &mut self.gateways[process];
        (gateway.core, gateway.starting) = (None, None);
        let place = gateway.place;
        if self.running[place] == Some(process) {
            // The address leads to whoever is left there.
            self.running[place] = self.gateways.iter().rposition(|other| other.place == place && other.is_alive());
        }
        self.note(|| format!("gateway process {process} ends"));
        self.close_all(Actor::Gateway(process));
    }

    pub(crate) fn tick_gateway(&mut self, process: usize) -> Result<(), Stop> {
        if !self.gateways[process].is_alive() {
            return Ok(());
        }
        let every = if self.is_faulty() { TICK } else { TICK * 2 };
        self.after(every, Event::Gateway(process));
        if self.gateways[process].paused_until > self.now {
            return Ok(());
        }
        if self.gateways[process].starting.is_some() {
            self.start_step(process);
            return Ok(());
        }
        let now = self.gateways[process].clock(self.now);
        self.keep(process);
        let Some(core) = self.gateways[process].core_mut() else { return Ok(()) };
        core.catalogue.tick(now);
        // As often as it gives signs of life.
        if self.now >= core.heartbeat_at {
            core.catalogue.refresh_statements(now);
        }
        let probes = core.catalogue.due_probes(now);
        core.is_settled |= self.now >= core.settles_at || core.catalogue.is_probed();
        for probe in probes {
            self.send_probe(process, probe);
        }
        self.changed(process);
        self.tick_streams(process);
        self.tick_session(process);
        self.tick_collection(process);
        self.pump_writer(process);
        Ok(())
    }

    fn send_probe(&mut self, process: usize, probe: Probe) {
        let place = self.gateways[process].place;
        let target = self.sidecars.iter().position(|sidecar| sidecar.address == probe.address);
        let reached =
            target.filter(|target| self.network.reaches(Host::Gateway(place), Host::Sidecar(*target), self.now));
        let (outcome, after) = match reached {
            None => (ProbeOutcome::Silent, 500),
            Some(target) if self.sidecars[target].listens() => (ProbeOutcome::Answered, self.rng.u64(1..10)),
            Some(_) => (ProbeOutcome::Refused, self.rng.u64(1..10)),
        };
        let outcome = match (self.sabotage(), outcome) {
            (Some(Sabotage::Probing), ProbeOutcome::Answered) => ProbeOutcome::Silent,
            (_, outcome) => outcome,
        };
        self.after(after, Event::Probed(process, Box::new(probe), outcome));
    }

    pub(crate) fn probed(&mut self, process: usize, probe: &Probe, outcome: ProbeOutcome) {
        let now = self.gateways[process].clock(self.now);
        if let Some(core) = self.gateways[process].core_mut() {
            core.catalogue.probed(probe, outcome, now);
            self.changed(process);
        }
    }

    /// Makes known what changed in the catalogue.
    pub(crate) fn changed(&mut self, process: usize) {
        let Some(core) = self.gateways[process].core_mut() else { return };
        let changes = core.catalogue.take_changes();
        let is_dirty = !changes.slices.is_empty();
        core.changed.extend(changes.slices.iter().cloned());
        if !changes.services.is_empty() {
            self.touched.push(process);
        }
        self.publish(process, &changes);
        if is_dirty {
            self.pump_writer(process);
        }
    }

    /// Whether the epoch of a gateway that says so can be.
    pub(crate) fn believes_epoch(&self, process: usize, epoch: u64) -> bool {
        is_plausible(epoch, self.wall_clock(process))
    }

    /// What a process would register, if it may.
    pub(crate) fn register(
        &mut self,
        process: usize,
        connection: ConnectionId,
        registration: Registration,
        health: eastway_core::Health,
    ) -> Result<(), u64> {
        let now = self.gateways[process].clock(self.now);
        let Some(core) = self.gateways[process].core_mut() else { return Err(0) };
        let stream = match core.registrations.get(&connection) {
            Some(registered) => registered.stream,
            None => core.name_stream(),
        };
        let (endpoint, version) = (registration.endpoint.clone(), registration.version());
        let replaced = core.catalogue.register(stream, registration, health, now).map_err(|error| match error {
            eastway_registry::RegisterError::Stale { highest, .. } => highest,
            _ => 0,
        })?;
        core.registrations.entry(connection).or_insert_with(|| Registered { stream, follows: BTreeMap::new() });
        self.note(|| format!("gateway process {process} takes {endpoint} {version:?}"));
        let Some(core) = self.gateways[process].core_mut() else { return Ok(()) };
        let old = core.registrations.iter().find(|(_, registered)| Some(registered.stream) == replaced);
        let old = old.map(|(connection, _)| *connection);
        if let Some(old) = old {
            core.registrations.remove(&old);
            self.close(old, Actor::Gateway(process));
        }
        self.changed(process);
        Ok(())
    }
}
