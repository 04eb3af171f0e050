//! The queue: what happens next, to whom, and the check after it.

use std::collections::BTreeMap;

use eastway_core::{ServiceName, Version};
use eastway_registry::store::StoreEntry;
use eastway_registry::{Exported, Key, Probe, ProbeOutcome};
use fastrand::Rng;

use crate::sabotage::Sabotage;
use crate::{Calls, FAULTS, Outcome, Plan, SETTLES, Schedule};
use gateway::Gateway;
use names::{Place, ZONES};
use nemesis::Fault;
use network::{Actor, ConnectionId, End, Network};
use sidecar::Sidecar;
use statements::Said;
use store::Store;
use store_calls::{Answered, Asked, Call};

mod gateway;
mod invariants;
mod isolation;
mod names;
mod nemesis;
mod network;
mod settled;
mod sidecar;
mod starting;
mod statements;
mod store;
mod store_calls;
mod storing;
mod streams;
mod views;

pub use invariants::Violation;

/// What every wall clock shows at the beginning, in milliseconds since 1970.
const WALL: u64 = 1_800_000_000_000;
/// When the faults begin.
const FAULTS_BEGIN: u64 = 5_000;
/// How many of the last events a violation shows.
const LAST: usize = 60;

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Event {
    Gateway(usize),
    Sidecar(usize),
    Arrives(ConnectionId, End),
    StoreAsked(Asked),
    StoreAnswers(u64, Answered),
    CallDue(u64, u32),
    Watch(usize, usize),
    Probed(usize, Box<Probe>, ProbeOutcome),
    Leases(usize),
    Fault(Fault),
    Heal,
    Call,
    Look,
}

/// A rule was broken.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) String);

impl Stop {
    pub(crate) const fn rule(text: String) -> Self {
        Self(text)
    }
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    schedule: Schedule,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    healed_at: u64,
    step: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(crate) network: Network,
    pub(crate) stores: [Store; 2],
    pub(crate) store_down_until: [u64; 2],
    pub(crate) places: Vec<Place>,
    /// The process that each place's address leads to.
    pub(crate) running: Vec<Option<usize>>,
    /// The latest life of each place's gateway that ever ran.
    pub(crate) latest_epochs: Vec<u64>,
    /// Places that nobody takes again.
    pub(crate) abandoned: Vec<usize>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) sidecars: Vec<Sidecar>,
    /// How far each host's wall clock is off, in milliseconds: gateways' places, then sidecars.
    pub(crate) wall_offsets: Vec<i64>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) last_call: u64,
    /// What each place keeps of the store, for a start without it.
    pub(crate) kept: Vec<Option<Vec<StoreEntry>>>,
    /// What gateways stated as a whole, by id and version.
    pub(crate) stated: BTreeMap<(String, Version), BTreeMap<ServiceName, Exported>>,
    /// The greatest incarnation of each endpoint whose goodbye was heard.
    pub(crate) left: BTreeMap<Key, u64>,
    /// Until when something within a cluster was or may be out of order.
    pub(crate) unquiet_until: [u64; 2],
    /// Until when the gateways of each cluster may write again what was deleted by hand.
    pub(crate) repairing_until: [u64; 2],
    /// Where all sidecars of each cluster go, and until when.
    pub(crate) gathered: [Option<(usize, u64)>; 2],
    /// Until when each place's gateway may not hear every gateway of the other cluster.
    pub(crate) deaf_until: Vec<u64>,
    /// Processes whose views changed.
    pub(crate) touched: Vec<usize>,
    faults: BTreeMap<&'static str, u64>,
    called: Calls,
    recovered_ms: Option<u64>,
    trace: Vec<String>,
}

impl World {
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let mut rng = Rng::with_seed(schedule.seed);
        let mut places = Vec::new();
        for cluster in 0..2 {
            for number in 1..=rng.usize(2..4) {
                places.push(Place { cluster, id: format!("{}-gw-{number}", names::CLUSTERS[cluster]) });
            }
        }
        let (count, faults) = match schedule.plan {
            Plan::Faults => (rng.usize(6..11), FAULTS),
            Plan::Isolation(long) => (isolation::SIDECARS, long),
        };
        let sidecar = |number: usize| {
            let service = names::services()[number / 4 % 2].clone();
            Sidecar::new(number, number % 2, service, ZONES[number / 2 % 2])
        };
        let sidecars: Vec<Sidecar> = (0..count).map(sidecar).collect();
        let wall_offsets = (0..places.len() + count).map(|_| rng.i64(-2_000..2_000)).collect();
        let (running, kept) = (vec![None; places.len()], vec![None; places.len()]);
        let mut world = Self {
            schedule: schedule.clone(),
            rng,
            now: 0,
            healed_at: FAULTS_BEGIN + faults,
            step: 0,
            queue: BTreeMap::new(),
            queued: 0,
            network: Network::default(),
            stores: Default::default(),
            store_down_until: [0; 2],
            places,
            latest_epochs: vec![0; running.len()],
            deaf_until: vec![0; running.len()],
            running,
            abandoned: Vec::new(),
            gateways: Vec::new(),
            sidecars,
            wall_offsets,
            calls: BTreeMap::new(),
            last_call: 0,
            kept,
            stated: BTreeMap::new(),
            left: BTreeMap::new(),
            unquiet_until: [FAULTS_BEGIN; 2],
            repairing_until: [0; 2],
            gathered: [None; 2],
            touched: Vec::new(),
            faults: BTreeMap::new(),
            called: Calls::default(),
            recovered_ms: None,
            trace: Vec::new(),
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for place in 0..self.places.len() {
            self.spawn_gateway(place);
        }
        for number in 0..self.sidecars.len() {
            self.start_sidecar(number);
            let after = self.rng.u64(500..2_000);
            self.after(after, Event::Sidecar(number));
        }
        for cluster in 0..2 {
            self.after(100, Event::Leases(cluster));
        }
        match self.schedule.plan {
            Plan::Faults => {
                for (at, fault) in self.plan_faults(FAULTS_BEGIN, self.healed_at) {
                    self.after(at, Event::Fault(fault));
                }
            }
            Plan::Isolation(long) => self.plan_isolation(FAULTS_BEGIN, long),
        }
        self.after(self.healed_at, Event::Heal);
    }

    /// Runs until everything must be settled.
    pub(crate) fn run(mut self) -> Result<Outcome, Box<Violation>> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > self.healed_at + SETTLES {
                break;
            }
            self.now = at;
            self.step += 1;
            let done = self.handle(event).and_then(|()| self.check_views());
            done.map_err(|stop| self.violation(stop))?;
        }
        self.check_settled().map_err(|stop| self.violation(stop))?;
        let Self { step: steps, faults, called: calls, recovered_ms, trace, .. } = self;
        Ok(Outcome { steps, faults, calls, recovered_ms, trace })
    }

    fn violation(&self, Stop(rule): Stop) -> Box<Violation> {
        let last = self.trace[self.trace.len().saturating_sub(LAST)..].to_vec();
        Box::new(Violation { seed: self.schedule.seed, step: self.step, at_ms: self.now, rule, last })
    }

    fn handle(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Gateway(process) => self.tick_gateway(process)?,
            Event::Sidecar(number) => self.tick_sidecar(number),
            Event::Arrives(connection, end) => self.arrives(connection, end)?,
            Event::StoreAsked(asked) => self.store_asked(asked)?,
            Event::StoreAnswers(id, answer) => self.call_ends(id, Ok(answer))?,
            Event::CallDue(id, attempt) => self.call_due(id, attempt)?,
            Event::Watch(process, which) => self.watch(process, which),
            Event::Probed(process, probe, outcome) => self.probed(process, &probe, outcome),
            Event::Leases(cluster) => {
                self.after(100, Event::Leases(cluster));
                if self.stores[cluster].expire(self.now) {
                    self.note(|| format!("store {cluster}: a lease ends"));
                    self.store_changed(cluster);
                }
            }
            Event::Fault(fault) => self.make(fault),
            Event::Heal => self.heal(),
            Event::Call => self.call(),
            Event::Look => self.look(),
        }
        Ok(())
    }

    /// Something happens some milliseconds from now.
    pub(crate) fn after(&mut self, after: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), event);
    }

    /// An actor says something on a stream.
    pub(crate) fn say(&mut self, connection: ConnectionId, from: Actor, said: Said) {
        let across = self.rng.u64(1..12);
        let Some(stream) = self.network.connections.get_mut(&connection).filter(|stream| !stream.is_closed) else {
            return;
        };
        let end = if stream.actor(End::Opener) == from { End::Acceptor } else { End::Opener };
        if end == End::Opener && said.is_news() {
            stream.has_hole |= std::mem::take(&mut stream.loses_one);
            if stream.has_hole {
                return;
            }
        }
        let waiting = &mut stream.waiting[end as usize];
        let earliest = self.now + across;
        let at = waiting.back().map_or(earliest, |(last, _)| earliest.max(*last));
        waiting.push_back((at, said));
        let after = at - self.now;
        self.after(after, Event::Arrives(connection, end));
    }

    fn arrives(&mut self, connection: ConnectionId, end: End) -> Result<(), Stop> {
        let now = self.now;
        let Some(stream) = self.network.connections.get_mut(&connection) else { return Ok(()) };
        let (from, to) = (stream.host(end.other()), stream.host(end));
        let (actor, other) = (stream.actor(end), stream.actor(end.other()));
        let is_paused = match actor {
            Actor::Gateway(process) => self.gateways[process].paused_until > now,
            Actor::Sidecar(number) => self.sidecars[number].paused_until > now,
        };
        if is_paused || !self.network.passes(from, to, now) {
            // Sent again until it comes through; what follows waits behind it.
            self.after(200, Event::Arrives(connection, end));
            return Ok(());
        }
        let Some(stream) = self.network.connections.get_mut(&connection) else { return Ok(()) };
        let Some((_, said)) = stream.waiting[end as usize].pop_front() else { return Ok(()) };
        if stream.is_closed && stream.waiting.iter().all(|waiting| waiting.is_empty()) {
            self.network.connections.remove(&connection);
        }
        match (actor, other) {
            (Actor::Sidecar(number), _) => self.sidecar_hears(number, connection, said),
            (Actor::Gateway(process), Actor::Sidecar(_)) => self.gateway_hears_sidecar(process, connection, said),
            (Actor::Gateway(process), Actor::Gateway(_)) => return self.gateway_hears(process, connection, said),
        }
        Ok(())
    }

    /// An actor closes a stream: what is on its way to it is lost, the other end hears of it after what was said before.
    pub(crate) fn close(&mut self, connection: ConnectionId, by: Actor) {
        self.say(connection, by, Said::Closed);
        let Some(stream) = self.network.connections.get_mut(&connection) else { return };
        stream.is_closed = true;
        let own = if stream.actor(End::Opener) == by { End::Opener } else { End::Acceptor };
        stream.waiting[own as usize].clear();
    }

    /// All streams of an actor that ends are closed by its host.
    pub(crate) fn close_all(&mut self, actor: Actor) {
        let theirs =
            self.network.connections.iter().filter(|(_, stream)| stream.ends.contains(&actor) && !stream.is_closed);
        for connection in theirs.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(connection, actor);
        }
    }

    pub(crate) const fn sabotage(&self) -> Option<Sabotage> {
        self.schedule.sabotage
    }

    /// Whether it is the time of faults.
    pub(crate) const fn is_faulty(&self) -> bool {
        self.now >= FAULTS_BEGIN && self.now < self.healed_at
    }

    /// What a process's wall clock shows, in milliseconds since 1970.
    pub(crate) fn wall_clock(&self, process: usize) -> u64 {
        self.wall_clock_at(self.gateways[process].place)
    }

    pub(crate) fn wall_clock_at(&self, host: usize) -> u64 {
        (WALL + self.now).saturating_add_signed(self.wall_offsets[host])
    }

    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Keeps a line for a reader, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.schedule.trace {
            self.trace.push(format!("{:>6} ms  {}", self.now, line()));
        }
    }
}
