//! What a sidecar does with a request: it sends. Where to, what that comes to, and whether once more is production code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Outcome, Pick, Policy};
use eastway_core::head::{HttpVersion, RequestHead};
use eastway_core::{LoadReport, Reason, Timestamp};
use eastway_request::{AnswerEnd, BodyState, Judged, Outbound, ServiceEntry, Step, TrafficPolicy};
use eastway_resilience::{AttemptError, Fault};

use super::session::{LocalitySessions, Waiting};
use super::{AUTHORITY, Production};
use crate::driver::Arrival;
use crate::flight::{End, Flight, FlightId, Trip};
use crate::gateway::entry;
use crate::net::Net;
use crate::queue::{Event, Own};
use crate::server::Life;
use crate::world::{World, server_of};

/// One sidecar.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) zone: usize,
    pub(super) entry: Arc<ServiceEntry>,
    /// The lives of endpoints that it has a connection to; 0 for none.
    pub(super) connections: Vec<u64>,
    /// Its sessions, by the zone of the locality.
    pub(super) localities: BTreeMap<usize, LocalitySessions>,
}

impl Caller {
    /// A sidecar in `zone` that has no connection yet.
    pub(super) fn new(world: &World, zone: usize, policy: Policy, traffic_policy: TrafficPolicy) -> Self {
        Self {
            zone,
            entry: entry(world, zone, policy, traffic_policy),
            connections: vec![0; world.servers.len()],
            localities: BTreeMap::new(),
        }
    }
}

/// What a request looks like.
fn head(idempotent: bool) -> RequestHead<'static> {
    RequestHead {
        method: if idempotent { "GET" } else { "POST" },
        target: "/",
        authority: AUTHORITY,
        version: HttpVersion::Http11,
        upgrade: false,
        fields: &(),
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) caller: usize,
    pub(super) outbound: Outbound<()>,
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
        // What is drawn for traces is not taken from what decides.
        let mut ids = fastrand::Rng::with_seed(arrival.number);
        let request = Request {
            caller: arrival.caller,
            outbound: Outbound::begin(&(), &self.options, &head(net.scenario.idempotent), net.now, &mut ids),
            number: arrival.number,
            scheduled: net.now,
        };
        let index = self.store(request);
        self.proceed(net, index);
        self.ask_for_loads(net, arrival.caller);
    }

    /// Does what comes next for a request.
    pub(super) fn proceed(&mut self, net: &mut Net<'_>, index: usize) {
        let request = &mut self.requests[index];
        match request.outbound.step(net.now, &mut net.choices) {
            Step::Resolve(_) => {
                let found = Ok(Arc::clone(&self.callers[request.caller].entry));
                let head = head(net.scenario.idempotent);
                request.outbound.resolved(found, &head, net.now, &mut net.choices);
                self.proceed(net, index);
            }
            Step::Attempt(pick) => self.attempt(net, index, pick),
            Step::Wait(wait) => net.after(wait, Event::Own(Own::Retry(index))),
            Step::Refuse(_) | Step::FallBack => self.give_up(net, index),
        }
    }

    fn attempt(&mut self, net: &mut Net<'_>, index: usize, pick: Pick) {
        let now = net.now;
        if self.number_of_attempt(index) == 1 && !pick.probe {
            net.record.first(now, net.world.zone(&pick.locality.zone));
        }
        match pick.endpoint().map(|endpoint| server_of(&endpoint.id)) {
            None => self.acquire(net, Waiting::new(index, pick, now)),
            Some(server) => self.send_nearby(net, index, pick, server),
        }
    }

    fn number_of_attempt(&self, index: usize) -> u32 {
        self.requests[index].outbound.call().map_or(0, |call| call.attempt)
    }

    fn trip(&self, net: &Net<'_>, index: usize, server: usize) -> Trip {
        let request = &self.requests[index];
        let here = self.callers[request.caller].zone;
        Trip {
            request: index,
            server,
            one_way: net.world.rtt(here, net.world.servers[server]) / 2,
            work: (request.number, u64::from(self.number_of_attempt(index))),
            deadline: net.now + request.outbound.patience(&BodyState::NONE, net.now).unwrap_or(Duration::ZERO),
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
            caller.entry.service().revive(endpoint, net.now);
        }
        net.proceed(id);
    }

    /// The caller learns how an attempt ended.
    pub(super) fn on_ended(&mut self, net: &mut Net<'_>, id: FlightId, flight: Flight, end: End) {
        let Some(active) = self.active[id.index()].take() else { return };
        let error = match end {
            End::Answer { ok, load } => return self.answered(net, flight.request, active, ok, load),
            End::Refused => AttemptError::gone(Reason::ConnectFailed),
            End::ConnectTimeout => AttemptError::gone(Reason::ConnectTimeout),
            End::Reset if flight.fresh => {
                AttemptError { fault: Fault::Down, ..AttemptError::said(Reason::UpstreamReset) }
            }
            End::Reset => AttemptError::said(Reason::UpstreamReset).blameless(),
            End::Unresponsive => AttemptError::silent(),
            End::Deadline => AttemptError::said(Reason::ResponseTimeout),
        };
        if matches!(end, End::Reset | End::Unresponsive) {
            self.callers[self.requests[flight.request].caller].connections[flight.server] = 0;
        }
        self.failed(net, flight.request, &active.pick, error);
    }

    fn answered(&mut self, net: &mut Net<'_>, index: usize, active: Active, ok: bool, load: LoadReport) {
        let (now, request) = (net.now, &mut self.requests[index]);
        let status = if ok { 200 } else { 503 };
        let outcome = Outcome::status(status, now - active.started).with_load(Some(load));
        let judged = Judged { status, grpc: None, outcome, hold: None, retry_after: None };
        let passes = request.outbound.answered(active.pick, &judged, &BodyState::NONE, now, &mut net.choices);
        let Some((_, mut answer)) = passes else { return self.proceed(net, index) };
        answer.end(AnswerEnd::Complete, now);
        if !ok {
            return self.give_up(net, index);
        }
        net.record.succeeded(request.scheduled, now);
        self.forget(index);
    }

    pub(super) fn failed(&mut self, net: &mut Net<'_>, index: usize, pick: &Pick, error: AttemptError) {
        self.requests[index].outbound.failed(pick, error, &BodyState::NONE, net.now, &mut net.choices);
        self.proceed(net, index);
    }

    fn give_up(&mut self, net: &mut Net<'_>, index: usize) {
        net.record.failed(self.requests[index].scheduled);
        self.forget(index);
    }
}
