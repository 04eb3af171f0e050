//! What a sidecar does with a request: pick, send, judge, and again elsewhere if the production rules allow.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_balance::{Lane, Outcome, Pick, Service, Tried};
use eastway_core::{Attribution, Reason, Timestamp};
use eastway_resilience::attempts::{AttemptEnd, Decision, Retries};
use eastway_resilience::deadline::Deadline;

use crate::engine::Arrival;
use crate::net::{End, Flight, FlightId, Net, Trip};
use crate::production::Production;
use crate::queue::{Event, Own};
use crate::server::Life;
use crate::session::{LaneSessions, Waiting};
use crate::world::{millis, server_of};

/// One sidecar.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) zone: usize,
    pub(crate) service: Service,
    /// The lives of endpoints that it has a connection to; 0 for none.
    pub(crate) connections: Vec<u64>,
    /// Its sessions, by the zone of the lane.
    pub(crate) lanes: BTreeMap<usize, LaneSessions>,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) caller: usize,
    pub(crate) tried: Tried,
    number: u64,
    scheduled: Timestamp,
    deadline: Deadline,
    retries: Retries,
    attempts: u64,
}

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct Active {
    pick: Pick,
    started: Timestamp,
}

/// An attempt without an answer, in the terms of the sidecar.
#[derive(Clone, Copy, Debug)]
struct Failed {
    reason: Reason,
    connect: bool,
    down: bool,
    /// Nothing comes back from the host.
    silent: bool,
    blameless: bool,
}

impl Failed {
    const fn said(reason: Reason) -> Self {
        Self { reason, connect: false, down: false, silent: false, blameless: false }
    }

    fn outcome(self) -> Outcome {
        match () {
            () if self.blameless => Outcome::cancelled(),
            () if self.down => Outcome::down(self.reason),
            () => Outcome::failed(self.reason),
        }
    }
}

impl Production {
    pub(crate) fn begin(&mut self, net: &mut Net<'_>, arrival: Arrival) {
        let request = Request {
            caller: arrival.caller,
            tried: Tried::new(),
            number: arrival.number,
            scheduled: net.now,
            deadline: Deadline::after(millis(net.scenario.timeout_s * 1000.0), net.now),
            retries: Retries::default(),
            attempts: 0,
        };
        let index = self.store(request);
        self.attempt(net, index);
        self.ask_for_loads(net, arrival.caller);
    }

    /// One attempt, from the pick on.
    pub(crate) fn attempt(&mut self, net: &mut Net<'_>, index: usize) {
        let request = &mut self.requests[index];
        let caller = &self.callers[request.caller];
        let now = net.now;
        let picked = caller.service.pick(&mut net.choices, now, &request.tried, None, net.scenario.idempotent);
        let Ok(pick) = picked else { return self.give_up(net, index) };
        request.attempts += 1;
        if request.attempts == 1 {
            caller.service.retry_budget().record_first(now);
            if !pick.probe {
                net.record.first(now, net.world.zone(&pick.lane.zone));
            }
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
            work: (request.number, request.attempts),
            deadline: request.deadline.at().unwrap_or(net.now),
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

    pub(crate) fn send_over_session(&mut self, net: &mut Net<'_>, waiting: Waiting, server: usize) {
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
    pub(crate) fn on_connected(&mut self, net: &mut Net<'_>, id: FlightId) {
        let Some(flight) = net.flight(id).copied() else { return };
        let caller = &mut self.callers[self.requests[flight.request].caller];
        caller.connections[flight.server] = net.servers[flight.server].incarnation;
        if let Some(endpoint) = self.active[id.index()].as_ref().and_then(|active| active.pick.endpoint()) {
            caller.service.revive(endpoint, net.now);
        }
        net.proceed(id);
    }

    /// The caller learns how an attempt ended.
    pub(crate) fn on_ended(&mut self, net: &mut Net<'_>, id: FlightId, flight: Flight, end: End) {
        let Some(active) = self.active[id.index()].take() else { return };
        let failed = match end {
            End::Answer { ok, load } => return self.answered(net, flight.request, active, ok, load),
            End::Refused => Failed { connect: true, down: true, ..Failed::said(Reason::ConnectFailed) },
            End::ConnectTimeout => Failed { connect: true, down: true, ..Failed::said(Reason::ConnectTimeout) },
            End::Reset if flight.fresh => Failed { down: true, ..Failed::said(Reason::UpstreamReset) },
            End::Reset => Failed { blameless: true, ..Failed::said(Reason::UpstreamReset) },
            End::Unresponsive => Failed { down: true, silent: true, ..Failed::said(Reason::UpstreamReset) },
            End::Deadline => Failed::said(Reason::ResponseTimeout),
        };
        if matches!(end, End::Reset | End::Unresponsive) {
            self.callers[self.requests[flight.request].caller].connections[flight.server] = 0;
        }
        self.failed(net, flight.request, &active.pick, active.started, failed);
    }

    fn answered(&mut self, net: &mut Net<'_>, index: usize, active: Active, ok: bool, load: eastway_core::LoadReport) {
        let now = net.now;
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        let status = if ok { 200 } else { 503 };
        let outcome = Outcome::status(status, now - active.started).with_load(Some(load));
        service.retry_budget().record_end(!ok, now);
        service.finish(&active.pick, outcome, now);
        if ok {
            net.record.succeeded(request.scheduled, now);
            return self.forget(index);
        }
        if !net.scenario.idempotent {
            return self.give_up(net, index);
        }
        avoid(&mut request.tried, &active.pick, Attribution::Upstream5xx, false);
        let end = AttemptEnd { answered: true, ..attempt_end(net, &active.pick) };
        drop(active);
        self.again(net, index, &end);
    }

    /// A remote lane had no session for the request.
    pub(crate) fn no_session(&mut self, net: &mut Net<'_>, waiting: Waiting) {
        let failed = Failed { connect: true, ..Failed::said(Reason::NoReadyEndpoint) };
        self.failed(net, waiting.request, &waiting.pick, waiting.started, failed);
    }

    fn failed(&mut self, net: &mut Net<'_>, index: usize, pick: &Pick, started: Timestamp, failed: Failed) {
        let now = net.now;
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        service.retry_budget().record_end(!failed.blameless, now);
        service.finish(pick, failed.outcome().with_latency(now - started), now);
        avoid(&mut request.tried, pick, failed.reason.attribution(), failed.blameless);
        if failed.silent {
            request.tried.push_lane(&pick.lane.zone);
        }
        let end = AttemptEnd {
            nothing_sent: failed.connect,
            connect_failed: failed.connect,
            stale: failed.blameless,
            ..attempt_end(net, pick)
        };
        self.again(net, index, &end);
    }

    /// Another attempt, or none.
    fn again(&mut self, net: &mut Net<'_>, index: usize, end: &AttemptEnd) {
        let request = &mut self.requests[index];
        let service = &self.callers[request.caller].service;
        let own = [service.retry_budget()];
        let both = [service.retry_budget(), service.cross_region_budget()];
        let budgets = if leaves_region(service, &request.tried) { &both[..] } else { &own[..] };
        let (deadline, rng) = (request.deadline, &mut net.choices);
        match self.retry.decide(&mut request.retries, end, budgets, deadline, net.now, rng) {
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

fn attempt_end(net: &Net<'_>, pick: &Pick) -> AttemptEnd {
    AttemptEnd {
        idempotent: net.scenario.idempotent,
        body_kept: true,
        probe: pick.probe,
        other_lane: true,
        ..AttemptEnd::default()
    }
}

/// What the next attempt keeps away from, as the sidecar does.
fn avoid(tried: &mut Tried, pick: &Pick, attribution: Attribution, blameless: bool) {
    if let Some(endpoint) = pick.endpoint() {
        tried.push_endpoint(endpoint);
    }
    if blameless {
        return;
    }
    match attribution {
        Attribution::Tunnel | Attribution::GatewayOverload => tried.push_cluster(&pick.lane.zone.cluster),
        Attribution::NoEndpoint | Attribution::UpstreamConnect => tried.push_lane(&pick.lane.zone),
        _ => {}
    }
}

/// Whether no lane of the region is left that has a share and was not tried.
fn leaves_region(service: &Service, tried: &Tried) -> bool {
    let near = |lane: &Lane| lane.region == service.caller().region;
    !service.lanes().iter().any(|(lane, share)| near(lane) && *share > 0 && !tried.has_lane(&lane.zone))
}
