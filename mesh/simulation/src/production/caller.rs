//! What a sidecar does with a request: it sends. Where to, what that comes to, and whether once more is production code.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_balance::{Attempts, Failed, Outcome, Pick, Service};
use eastway_core::{LoadReport, Reason, Timestamp};
use eastway_resilience::attempts::{AttemptEnd, Decision};
use eastway_resilience::deadline::Deadline;

use super::Production;
use super::session::{LocalitySessions, Waiting};
use crate::driver::Arrival;
use crate::flight::{End, Flight, FlightId, Trip};
use crate::net::Net;
use crate::queue::{Event, Own};
use crate::server::Life;
use crate::world::{millis, server_of};

/// One sidecar.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) zone: usize,
    pub(super) service: Service,
    /// The lives of endpoints that it has a connection to; 0 for none.
    pub(super) connections: Vec<u64>,
    /// Its sessions, by the zone of the locality.
    pub(super) localities: BTreeMap<usize, LocalitySessions>,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) caller: usize,
    pub(super) attempts: Attempts,
    number: u64,
    scheduled: Timestamp,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Active {
    pick: Pick,
    started: Timestamp,
}

impl Production {
    pub(super) fn begin(&mut self, net: &mut Net<'_>, arrival: Arrival) {
        let deadline = Deadline::after(millis(net.scenario.timeout_s * 1000.0), net.now);
        let request = Request {
            caller: arrival.caller,
            attempts: Attempts::new(net.scenario.idempotent, deadline),
            number: arrival.number,
            scheduled: net.now,
        };
        let index = self.store(request);
        self.attempt(net, index);
        self.ask_for_loads(net, arrival.caller);
    }

    /// One attempt, from the pick on.
    pub(super) fn attempt(&mut self, net: &mut Net<'_>, index: usize) {
        let request = &mut self.requests[index];
        let caller = &self.callers[request.caller];
        let now = net.now;
        let picked = request.attempts.pick(&caller.service, None, &mut net.choices, now);
        let Ok(pick) = picked else { return self.give_up(net, index) };
        if request.attempts.begun() == 1 && !pick.probe {
            net.record.first(now, net.world.zone(&pick.locality.zone));
        }
        match pick.endpoint().map(|endpoint| server_of(&endpoint.id)) {
            None => self.acquire(net, Waiting::new(index, pick, now)),
            Some(server) => self.send_nearby(net, index, pick, server),
        }
    }

    fn trip(&self, net: &Net<'_>, index: usize, server: usize) -> Trip {
        let request = &self.requests[index];
        let here = self.callers[request.caller].zone;
        Trip {
            request: index,
            server,
            one_way: net.world.rtt(here, net.world.servers[server]) / 2,
            work: (request.number, u64::from(request.attempts.begun())),
            deadline: request.attempts.deadline().at().unwrap_or(net.now),
        }
    }

    /// Within the cluster: over the connection that is there, or a new one.
    fn send_nearby(&mut self, net: &mut Net<'_>, index: usize, pick: Pick, server: usize) {
        let trip = self.trip(net, index, server);
        let state = &net.servers[server];
        let known = self.callers[self.requests[index].caller].connections[server];
        // A host that refuses has closed its connections; a silent one has not.
        let open = known == state.incarnation && state.life != Life::Refusing;
        let id = if open { net.send(&trip, Duration::ZERO) } else { net.connect(&trip) };
        self.activate(id, Active { pick, started: net.now });
    }

    pub(super) fn send_over_session(&mut self, net: &mut Net<'_>, waiting: Waiting, server: usize) {
        let trip = self.trip(net, waiting.request, server);
        let id = net.send(&trip, Duration::ZERO);
        self.activate(id, Active { pick: waiting.pick, started: waiting.started });
    }

    fn activate(&mut self, id: FlightId, active: Active) {
        if id.index() >= self.active.len() {
            self.active.resize_with(id.index() + 1, || None);
        }
        self.active[id.index()] = Some(active);
    }

    /// A connection for an attempt is there.
    pub(super) fn on_connected(&mut self, net: &mut Net<'_>, id: FlightId) {
        let Some(flight) = net.flight(id).copied() else { return };
        let caller = &mut self.callers[self.requests[flight.request].caller];
        caller.connections[flight.server] = net.servers[flight.server].incarnation;
        if let Some(endpoint) = self.active[id.index()].as_ref().and_then(|active| active.pick.endpoint()) {
            caller.service.revive(endpoint, net.now);
        }
        net.proceed(id);
    }

    /// The caller learns how an attempt ended.
    pub(super) fn on_ended(&mut self, net: &mut Net<'_>, id: FlightId, flight: Flight, end: End) {
        let Some(active) = self.active[id.index()].take() else { return };
        let failed = match end {
            End::Answer { ok, load } => return self.answered(net, flight.request, active, ok, load),
            End::Refused => Failed::gone(Reason::ConnectFailed),
            End::ConnectTimeout => Failed::gone(Reason::ConnectTimeout),
            End::Reset if flight.fresh => Failed { down: true, ..Failed::said(Reason::UpstreamReset) },
            End::Reset => Failed { blameless: true, ..Failed::said(Reason::UpstreamReset) },
            End::Unresponsive => Failed::silent(),
            End::Deadline => Failed::said(Reason::ResponseTimeout),
        };
        if matches!(end, End::Reset | End::Unresponsive) {
            self.callers[self.requests[flight.request].caller].connections[flight.server] = 0;
        }
        self.failed(net, flight.request, &active.pick, active.started, &failed);
    }

    fn answered(&mut self, net: &mut Net<'_>, index: usize, active: Active, ok: bool, load: LoadReport) {
        let now = net.now;
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        let status = if ok { 200 } else { 503 };
        let outcome = Outcome::status(status, now - active.started).with_load(Some(load));
        if let Some(end) = request.attempts.answered(service, &active.pick, status, outcome, now) {
            drop(active);
            return self.again(net, index, &end);
        }
        service.finish(&active.pick, outcome, now);
        if !ok {
            return self.give_up(net, index);
        }
        net.record.succeeded(request.scheduled, now);
        self.forget(index);
    }

    /// A remote locality had no session for the request.
    pub(super) fn no_session(&mut self, net: &mut Net<'_>, waiting: Waiting) {
        let failed = Failed::connecting(Reason::NoReadyEndpoint);
        self.failed(net, waiting.request, &waiting.pick, waiting.started, &failed);
    }

    fn failed(&mut self, net: &mut Net<'_>, index: usize, pick: &Pick, started: Timestamp, failed: &Failed) {
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        let end = request.attempts.failed(service, pick, failed, net.now - started, net.now);
        self.again(net, index, &end);
    }

    /// Another attempt, or none.
    fn again(&mut self, net: &mut Net<'_>, index: usize, end: &AttemptEnd) {
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        match request.attempts.next(service, &self.retry, end, &mut net.choices, net.now) {
            Decision::Retry { after } if after.is_zero() => self.attempt(net, index),
            Decision::Retry { after } => net.after(after, Event::Own(Own::Retry(index))),
            Decision::GiveUp(_) => self.give_up(net, index),
        }
    }

    fn give_up(&mut self, net: &mut Net<'_>, index: usize) {
        net.record.failed(self.requests[index].scheduled);
        self.forget(index);
    }
}
