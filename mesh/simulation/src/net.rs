//! The network and the endpoints: what happens to an attempt between its caller's decision and its end.
//!
//! It is the same for every driver. Service times and errors are drawn by the number of the request and of the attempt, so
//! that two drivers meet the same work.

use std::time::Duration;

use eastway_core::{LoadReport, Timestamp};

use crate::faults::{Action, silence};
use crate::flight::{End, Flight, FlightId, Stage, Trip};
use crate::queue::{Event, Queue};
use crate::record::Record;
use crate::scenario::Scenario;
use crate::server::{Admission, Life, Server};
use crate::world::{START, World, millis, stream};

/// What a caller waits for a connection within the region.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);

/// The network, the endpoints, and the time.
#[derive(Debug)]
pub(crate) struct Net<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) world: &'a World,
    pub(crate) seed: u64,
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue,
    pub(crate) servers: Vec<Server>,
    /// For what drivers decide by chance.
    pub(crate) choices: fastrand::Rng,
    pub(crate) record: Record,
    flights: Vec<(u32, Option<Flight>)>,
    free: Vec<u32>,
}

impl<'a> Net<'a> {
    pub(crate) fn new(scenario: &'a Scenario, world: &'a World, seed: u64) -> Self {
        let server = |_: &usize| Server::new(scenario.concurrency, scenario.queue_limit);
        Self {
            scenario,
            world,
            seed,
            now: START,
            queue: Queue::default(),
            servers: world.servers.iter().map(server).collect(),
            choices: stream(seed, CHOICES, 0, 0),
            record: Record::new(world.zones.len()),
            flights: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Something happens after `wait`.
    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    /// Sends an attempt over a connection that is there, after `wait`.
    pub(crate) fn send(&mut self, trip: &Trip, wait: Duration) -> FlightId {
        let id = self.launch(trip, false);
        self.after(wait + trip.one_way, Event::Reach(id));
        id
    }

    /// Opens a connection for an attempt. The driver is told when it is there, and calls [`Net::proceed`].
    pub(crate) fn connect(&mut self, trip: &Trip) -> FlightId {
        let id = self.launch(trip, true);
        self.after(trip.one_way, Event::Connect(id));
        id
    }

    /// Sends an attempt whose connection was just made, after the handshake's round trip.
    pub(crate) fn proceed(&mut self, id: FlightId) {
        let Some(flight) = self.flight_mut(id) else { return };
        let wait = flight.one_way * 3;
        self.after(wait, Event::Reach(id));
    }

    /// An attempt under way.
    pub(crate) fn flight(&self, id: FlightId) -> Option<&Flight> {
        let (generation, flight) = self.flights.get(id.index())?;
        flight.as_ref().filter(|_| *generation == id.generation)
    }

    fn flight_mut(&mut self, id: FlightId) -> Option<&mut Flight> {
        let (generation, flight) = self.flights.get_mut(id.index())?;
        flight.as_mut().filter(|_| *generation == id.generation)
    }

    fn launch(&mut self, trip: &Trip, fresh: bool) -> FlightId {
        let server = &mut self.servers[trip.server];
        server.coming += 1;
        let flight = Flight {
            request: trip.request,
            server: trip.server,
            fresh,
            incarnation: server.incarnation,
            one_way: trip.one_way,
            work: trip.work,
            stage: Stage::Coming,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push((0, None));
            self.flights.len() as u32 - 1
        });
        let place = &mut self.flights[index as usize];
        place.1 = Some(flight);
        let id = FlightId { index, generation: place.0 };
        self.queue.push(trip.deadline, Event::Deadline(id));
        id
    }

    /// Takes an attempt out: its caller knows how it ended, or has given it up.
    pub(crate) fn land(&mut self, id: FlightId) -> Option<Flight> {
        let (generation, place) = self.flights.get_mut(id.index())?;
        if *generation != id.generation {
            return None;
        }
        let flight = place.take()?;
        *generation += 1;
        self.free.push(id.index);
        if flight.stage == Stage::Coming {
            self.servers[flight.server].coming -= 1;
        }
        Some(flight)
    }

    /// A request for a connection arrives at the host.
    pub(crate) fn on_connect(&mut self, id: FlightId) {
        let Some(flight) = self.flight(id).copied() else { return };
        let (wait, event) = match self.servers[flight.server].life {
            Life::Up => (flight.one_way, Event::Connected(id)),
            Life::Refusing => (flight.one_way, Event::Ended(id, End::Refused)),
            Life::Silent => (CONNECT_LIMIT.saturating_sub(flight.one_way), Event::Ended(id, End::ConnectTimeout)),
        };
        let incarnation = self.servers[flight.server].incarnation;
        if let Some(flight) = self.flight_mut(id) {
            flight.incarnation = incarnation;
        }
        self.after(wait, event);
    }

    /// A request arrives at the endpoint.
    pub(crate) fn on_reach(&mut self, id: FlightId) {
        let now = self.now;
        let Some(flight) = self.flight_mut(id) else { return };
        flight.stage = Stage::There;
        let flight = *flight;
        let server = &mut self.servers[flight.server];
        server.coming -= 1;
        match server.life {
            Life::Silent => return self.after(silence(), Event::Ended(id, End::Unresponsive)),
            Life::Up if server.incarnation == flight.incarnation => {}
            Life::Up | Life::Refusing => return self.after(flight.one_way, Event::Ended(id, End::Reset)),
        }
        self.record.reached(now);
        server.account(now);
        match server.admit(id) {
            Admission::Serve => self.serve(id, &flight),
            Admission::Wait => {}
            Admission::Full => {
                server.answered(true);
                let load = server.report(now);
                self.answer(id, false, load);
            }
        }
    }

    /// The endpoint begins to work on a request.
    fn serve(&mut self, id: FlightId, flight: &Flight) {
        let mut rng = stream(self.seed, WORK, flight.work.0, flight.work.1);
        let server = &self.servers[flight.server];
        let time = millis(self.scenario.service.draw(&mut rng) * server.slowness(self.now));
        let event = Event::Served { server: flight.server, incarnation: server.incarnation, flight: id };
        self.after(time, event);
    }

    /// The endpoint has done its work, if it still lives.
    pub(crate) fn on_served(&mut self, server: usize, incarnation: u64, id: FlightId) {
        let (now, seed) = (self.now, self.seed);
        let flight = self.flight(id).copied();
        let state = &mut self.servers[server];
        if state.incarnation != incarnation || state.life != Life::Up {
            return;
        }
        state.account(now);
        // Whose caller has gone: it is only taken out.
        let ratio = state.errors.any();
        let failed = flight.is_some_and(|f| ratio > 0.0 && stream(seed, LUCK, f.work.0, f.work.1).f64() < ratio);
        state.answered(failed);
        let load = state.report(now);
        state.busy -= 1;
        if flight.is_some() {
            self.answer(id, !failed, load);
        }
        while let Some(next) = self.servers[server].waiting.pop_front() {
            if let Some(flight) = self.flight(next).copied() {
                self.servers[server].busy += 1;
                return self.serve(next, &flight);
            }
        }
    }

    fn answer(&mut self, id: FlightId, ok: bool, load: LoadReport) {
        let Some(flight) = self.flight_mut(id) else { return };
        flight.stage = Stage::Answered;
        let wait = flight.one_way;
        self.after(wait, Event::Ended(id, End::Answer { ok, load }));
    }

    /// Does to endpoints what a fault says.
    pub(crate) fn apply(&mut self, action: &Action) {
        match action {
            Action::Die { servers, silent } => servers.iter().for_each(|server| self.kill(*server, *silent)),
            Action::Rise { servers, silent, cold } => {
                let now = self.now;
                for index in servers.iter() {
                    let server = &mut self.servers[*index];
                    if server.rise(*silent, now) {
                        server.cold = cold.map(|(time, factor)| (now + Duration::from_secs_f64(time), factor));
                    }
                }
            }
            Action::Errors { servers, ratio, on } => {
                servers.iter().for_each(|server| self.servers[*server].errors.set(*ratio, *on));
            }
            Action::Slow { servers, factor, on } => {
                servers.iter().for_each(|server| self.servers[*server].slow.set(*factor, *on));
            }
            Action::Stale { .. } | Action::Load { .. } => {}
        }
    }

    fn kill(&mut self, server: usize, silent: bool) {
        if !self.servers[server].die(silent, self.now) {
            return;
        }
        for index in 0..self.flights.len() {
            let (generation, flight) = self.flights[index];
            let id = FlightId { index: index as u32, generation };
            match flight {
                Some(flight) if flight.server == server && flight.stage == Stage::There => {
                    let (wait, end) =
                        if silent { (silence(), End::Unresponsive) } else { (flight.one_way, End::Reset) };
                    self.after(wait, Event::Ended(id, end));
                }
                _ => {}
            }
        }
    }
}

/// The purposes of random streams.
const WORK: u64 = 1;
const LUCK: u64 = 2;
const CHOICES: u64 = 3;
/// When requests arrive, and from whom.
pub(crate) const ARRIVALS: u64 = 4;
/// The seeds of callers and gateways.
pub(crate) const SEEDS: u64 = 5;
