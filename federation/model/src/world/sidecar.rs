//! A sidecar: it registers its workload at a gateway of its cluster, and follows what that says of the services.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use eastway_core::{EndpointId, Health, ServiceName};
use eastway_registry::{Key, Registration, ServiceFacts};

use crate::world::names::{self, Host};
use crate::world::network::{Actor, ConnectionId};
use crate::world::statements::Said;
use crate::world::streams::{HEARTBEAT, SILENCE};
use crate::world::{Event, World};

/// Between two ticks, in milliseconds.
const TICK: u64 = 500;
/// Before a rejected registration is tried again.
const REJECTED_PAUSE: u64 = 5_000;

/// One sidecar, with whatever workload runs beside it.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) cluster: usize,
    pub(crate) service: ServiceName,
    pub(crate) zone: &'static str,
    pub(crate) address: SocketAddr,
    /// The instance's name: another one is another workload at the same address.
    pub(crate) endpoint: EndpointId,
    generation: u32,
    pub(crate) incarnation: u64,
    session: u64,
    pub(crate) health: Health,
    pub(crate) is_up: bool,
    pub(crate) paused_until: u64,
    was_accepted: bool,
    pub(crate) stream: Option<Stream>,
    try_at: u64,
    pub(crate) views: BTreeMap<ServiceName, (u64, ServiceFacts)>,
    /// Until when something between it and some gateway may fail, so that probes may.
    pub(crate) disturbed_until: u64,
}

/// Its stream to a gateway.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: ConnectionId,
    pub(crate) process: usize,
    pub(crate) heard: u64,
    spoke: u64,
    pub(crate) is_accepted: bool,
}

impl Sidecar {
    pub(crate) fn new(number: usize, cluster: usize, service: ServiceName, zone: &'static str) -> Self {
        Self {
            cluster,
            service,
            zone,
            address: names::address(number),
            endpoint: EndpointId::new(format!("pod-{number}")),
            generation: 0,
            incarnation: 0,
            session: 0,
            health: Health::Ready,
            is_up: false,
            paused_until: 0,
            was_accepted: false,
            stream: None,
            try_at: 0,
            views: BTreeMap::new(),
            disturbed_until: 0,
        }
    }

    /// Whether its inbound listener takes connections. That of a suspended process does: the kernel accepts for it.
    pub(crate) const fn listens(&self) -> bool {
        self.is_up
    }

    pub(crate) fn key(&self) -> Key {
        (self.service.clone(), self.endpoint.clone())
    }

    fn registration(&self) -> Registration {
        Registration {
            service: self.service.clone(),
            endpoint: self.endpoint.clone(),
            account: self.service.service.to_string(),
            zone: self.zone.into(),
            address: self.address,
            weight: 1.0,
            capacity: 0,
            labels: Default::default(),
            incarnation: self.incarnation,
            session: self.session,
        }
    }
}

impl World {
    /// A sidecar begins another life, by its clock but later than its last one.
    pub(crate) fn start_sidecar(&mut self, number: usize) {
        let place = self.places.len() + number;
        let clock = self.wall_clock_at(place) * 1_000;
        let sidecar = &mut self.sidecars[number];
        sidecar.incarnation = clock.max(sidecar.incarnation + 1);
        (sidecar.is_up, sidecar.session, sidecar.was_accepted) = (true, 0, false);
        (sidecar.health, sidecar.try_at) = (Health::Ready, 0);
        sidecar.views.clear();
        let (key, incarnation) = (sidecar.key(), sidecar.incarnation);
        self.note(|| format!("sidecar {number} starts as {} in incarnation {incarnation}", key.1));
    }

    /// Another workload takes the place of a sidecar that ended, with its address and another name.
    pub(crate) fn replace_workload(&mut self, number: usize) {
        let sidecar = &mut self.sidecars[number];
        sidecar.generation += 1;
        sidecar.endpoint = EndpointId::new(format!("pod-{number}-{}", sidecar.generation));
        sidecar.incarnation = 0;
        self.start_sidecar(number);
    }

    /// It ends; `in_order`: after saying so.
    pub(crate) fn stop_sidecar(&mut self, number: usize, in_order: bool) {
        let sidecar = &mut self.sidecars[number];
        if let Some(stream) = sidecar.stream.take() {
            // Only who is heard has said goodbye.
            if in_order && stream.is_accepted {
                let said = Said::Deregister(sidecar.key(), sidecar.incarnation);
                self.say(stream.connection, Actor::Sidecar(number), said);
            }
            self.close(stream.connection, Actor::Sidecar(number));
        }
        self.sidecars[number].is_up = false;
        self.note(|| format!("sidecar {number} ends; in order: {in_order}"));
    }

    pub(crate) fn tick_sidecar(&mut self, number: usize) {
        self.after(TICK, Event::Sidecar(number));
        let now = self.now;
        let sidecar = &mut self.sidecars[number];
        if !sidecar.is_up || sidecar.paused_until > now {
            return;
        }
        match &mut sidecar.stream {
            Some(stream) if now - stream.heard >= SILENCE => self.leave_gateway(number, 0),
            Some(stream) if now - stream.spoke >= HEARTBEAT => {
                stream.spoke = now;
                let connection = stream.connection;
                self.say(connection, Actor::Sidecar(number), Said::Alive);
            }
            Some(_) => {}
            None if now >= sidecar.try_at => self.register_somewhere(number),
            None => {}
        }
    }

    /// Gives its stream up, and tries again after a pause.
    pub(crate) fn leave_gateway(&mut self, number: usize, pause: u64) {
        let sidecar = &mut self.sidecars[number];
        sidecar.try_at = self.now + pause;
        if let Some(stream) = sidecar.stream.take() {
            self.close(stream.connection, Actor::Sidecar(number));
        }
    }

    fn register_somewhere(&mut self, number: usize) {
        let cluster = self.sidecars[number].cluster;
        let places: Vec<usize> =
            (0..self.places.len()).filter(|place| self.places[*place].cluster == cluster).collect();
        let gathered = self.gathered[cluster].filter(|(place, until)| {
            let runs = self.running[*place].is_some_and(|process| self.gateways[process].core.is_some());
            runs && self.now < *until
        });
        let place = gathered.map_or_else(|| places[self.rng.usize(..places.len())], |(place, _)| place);
        self.sidecars[number].try_at = self.now + self.rng.u64(100..700);
        let Some(process) = self.running[place].filter(|process| self.gateways[*process].core.is_some()) else {
            return;
        };
        let hosts = [Host::Sidecar(number), Host::Gateway(place)];
        if !self.network.reaches(hosts[0], hosts[1], self.now) {
            return;
        }
        let connection = self.network.open([Actor::Sidecar(number), Actor::Gateway(process)], hosts);
        let sidecar = &mut self.sidecars[number];
        sidecar.session += 1;
        sidecar.stream = Some(Stream { connection, process, heard: self.now, spoke: self.now, is_accepted: false });
        let said = Said::Register(Box::new(sidecar.registration()), sidecar.health);
        self.say(connection, Actor::Sidecar(number), said);
    }

    /// Its application does otherwise now.
    pub(crate) fn set_health(&mut self, number: usize, health: Health) {
        self.sidecars[number].health = health;
        if let Some(stream) = self.sidecars[number].stream.as_ref().filter(|stream| stream.is_accepted) {
            let connection = stream.connection;
            self.say(connection, Actor::Sidecar(number), Said::Health(health));
        }
    }

    /// A message from its gateway.
    pub(crate) fn sidecar_hears(&mut self, number: usize, connection: ConnectionId, said: Said) {
        let now = self.now;
        let sidecar = &mut self.sidecars[number];
        let Some(stream) = sidecar.stream.as_mut().filter(|stream| stream.connection == connection) else { return };
        stream.heard = now;
        match said {
            Said::Accepted => {
                stream.is_accepted = true;
                sidecar.was_accepted = true;
                let health = sidecar.health;
                for service in names::services() {
                    self.say(connection, Actor::Sidecar(number), Said::Follow(service));
                }
                // It may have changed since the registration was sent.
                self.say(connection, Actor::Sidecar(number), Said::Health(health));
            }
            Said::Rejected { highest } => {
                // A life that nobody ever accepted goes on from the highest known; another one was replaced, or waits.
                let renumbers = highest > 0 && !sidecar.was_accepted;
                if renumbers {
                    sidecar.incarnation = (highest + 1).max(sidecar.incarnation);
                }
                self.leave_gateway(number, if renumbers { 0 } else { REJECTED_PAUSE });
            }
            Said::Closed => self.leave_gateway(number, 200),
            said => self.sidecar_is_told(number, connection, said),
        }
    }

    /// A message from a sidecar.
    pub(crate) fn gateway_hears_sidecar(&mut self, process: usize, connection: ConnectionId, said: Said) {
        let now = self.gateways[process].clock(self.now);
        let stream =
            self.gateways[process].core_mut().and_then(|core| Some(core.registrations.get(&connection)?.stream));
        match (said, stream) {
            (Said::Register(registration, health), _) => {
                let said = match self.register(process, connection, *registration, health) {
                    Ok(()) => Said::Accepted,
                    Err(highest) => Said::Rejected { highest },
                };
                self.say(connection, Actor::Gateway(process), said);
            }
            (Said::Follow(service), _) => self.follow(process, connection, &service),
            (Said::Closed, _) => self.gateway_stream_closed(process, connection),
            (said, Some(stream)) => {
                let Some(core) = self.gateways[process].core_mut() else { return };
                match said {
                    Said::Health(health) => core.catalogue.report_health(stream, health, "", now),
                    Said::Deregister(key, incarnation) => {
                        core.catalogue.deregister(stream, now);
                        core.registrations.remove(&connection);
                        let left = self.left.entry(key).or_default();
                        *left = incarnation.max(*left);
                    }
                    _ => core.catalogue.heard(stream, now),
                }
                self.changed(process);
            }
            (_, None) => {}
        }
    }
}
