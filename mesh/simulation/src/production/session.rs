//! Sessions of one caller with endpoints of a remote locality, as the sidecar keeps them: at least two, to distinct
//! endpoints, renewed before the remote gateway's choice grows old.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Endpoint, LocalityEndpoints, Pick};
use eastway_core::{EndpointId, Timestamp};

use super::Production;
use crate::net::Net;
use crate::queue::{Event, Own};
use crate::server::Life;
use crate::world::server_of;

/// Sessions kept for each locality in use.
const KEPT: usize = 2;
/// When a session is replaced: 60 s and up to as much again.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// How often a request waits for a further session before it is sent elsewhere.
const OPEN_ROUNDS: usize = 2;
/// Sessions of a locality at most.
const MAX_OPEN: usize = 8;

/// The sessions of one caller with one locality.
#[derive(Debug, Default)]
pub(super) struct LocalitySessions {
    open: Vec<Session>,
    opening: usize,
    failed: bool,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Session {
    endpoint: Arc<Endpoint>,
    server: usize,
    incarnation: u64,
    renew_at: Timestamp,
}

/// An attempt that waits for a session.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: usize,
    pub(super) pick: Pick,
    pub(super) started: Timestamp,
    round: usize,
}

/// A session being opened.
#[derive(Debug)]
pub(super) struct Opening {
    caller: usize,
    zone: usize,
    locality: Arc<LocalityEndpoints>,
    exclude: Vec<EndpointId>,
    server: Option<(usize, u64)>,
}

impl Waiting {
    pub(super) fn new(request: usize, pick: Pick, started: Timestamp) -> Self {
        Self { request, pick, started, round: 0 }
    }
}

impl Production {
    /// Sends an attempt in a remote locality over the best session, once there is one.
    pub(super) fn acquire(&mut self, net: &mut Net<'_>, mut waiting: Waiting) {
        let request = &self.requests[waiting.request];
        let (caller, zone) = (request.caller, net.world.zone(&waiting.pick.locality.zone));
        if let Some(server) = self.choose(net, &mut waiting, caller, zone) {
            self.replenish(net, caller, zone, &waiting.pick.locality);
            return self.send_over_session(net, waiting, server);
        }
        let total = waiting.pick.locality.total().max(1);
        let sessions = self.sessions(caller, zone);
        // A further session might lead to an endpoint that is better than those that are known.
        let known: BTreeSet<EndpointId> = sessions.open.iter().map(|session| session.endpoint.id.clone()).collect();
        let may_open = waiting.round < OPEN_ROUNDS && sessions.open.len() < MAX_OPEN;
        let in_vain = waiting.round > 0 && sessions.failed;
        if in_vain || !may_open || known.len() >= total {
            match self.choose_any(&mut waiting, caller, zone) {
                Some(server) => {
                    self.replenish(net, caller, zone, &waiting.pick.locality);
                    return self.send_over_session(net, waiting, server);
                }
                None if in_vain || !may_open => return self.no_session(net, waiting),
                None => {}
            }
        }
        if self.sessions(caller, zone).opening == 0 {
            let locality = Arc::clone(&waiting.pick.locality);
            let tried = self.requests[waiting.request].attempts.tried().endpoint_ids().cloned();
            let exclude: BTreeSet<EndpointId> = tried.chain(known).collect();
            let exclude = exclude.into_iter().collect();
            self.open(net, Opening { caller, zone, locality, exclude, server: None });
        }
        self.sessions(caller, zone).waiting.push(waiting);
    }

    fn sessions(&mut self, caller: usize, zone: usize) -> &mut LocalitySessions {
        self.callers[caller].localities.entry(zone).or_default()
    }

    /// The endpoint of the session that the production code chooses, bound to the pick.
    fn choose(&mut self, net: &mut Net<'_>, waiting: &mut Waiting, caller: usize, zone: usize) -> Option<usize> {
        let (servers, now, idempotent) = (&net.servers, net.now, net.scenario.idempotent);
        let sessions = self.callers[caller].localities.entry(zone).or_default();
        // One to a host that closed it is gone; one to a host that is silent looks alive.
        sessions.open.retain(|session| {
            let server = &servers[session.server];
            server.incarnation == session.incarnation && server.life != Life::Refusing
        });
        let mut usable: Vec<(Arc<Endpoint>, usize)> =
            sessions.open.iter().map(|session| (Arc::clone(&session.endpoint), session.server)).collect();
        let (service, tried) = (&self.callers[caller].service, self.requests[waiting.request].attempts.tried());
        while !usable.is_empty() {
            let endpoints: Vec<Arc<Endpoint>> = usable.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
            let chosen = service.choose(&mut net.choices, now, &endpoints, tried, idempotent)?;
            let (endpoint, server) = usable.swap_remove(chosen);
            if waiting.pick.bind(endpoint) {
                return Some(server);
            }
        }
        None
    }

    /// The endpoint of any session, bound to the pick, where there is nothing better.
    fn choose_any(&mut self, waiting: &mut Waiting, caller: usize, zone: usize) -> Option<usize> {
        let sessions = &self.callers[caller].localities.get(&zone)?.open;
        let endpoints: Vec<Arc<Endpoint>> = sessions.iter().map(|session| Arc::clone(&session.endpoint)).collect();
        let tried = self.requests[waiting.request].attempts.tried();
        let chosen = self.callers[caller].service.choose_any(&waiting.pick.locality, &endpoints, tried)?;
        waiting.pick.bind_anyway(Arc::clone(&endpoints[chosen]));
        Some(sessions[chosen].server)
    }

    /// Opens a further session when there are too few, or when one grows old.
    fn replenish(&mut self, net: &mut Net<'_>, caller: usize, zone: usize, locality: &Arc<LocalityEndpoints>) {
        let now = net.now;
        let sessions = self.sessions(caller, zone);
        if sessions.opening > 0 {
            return;
        }
        let old = sessions.open.iter().position(|session| session.renew_at <= now);
        if let Some(old) = old.filter(|_| sessions.open.len() > KEPT) {
            sessions.open.swap_remove(old);
            return;
        }
        if sessions.open.len() >= KEPT && old.is_none() {
            return;
        }
        if sessions.open.len() == 1 && locality.total() <= 1 && old.is_none() {
            return;
        }
        // One that replaces another avoids those that stay.
        let stay = sessions.open.iter().enumerate().filter(|(place, _)| Some(*place) != old);
        let exclude = stay.map(|(_, session)| session.endpoint.id.clone()).collect();
        self.open(net, Opening { caller, zone, locality: Arc::clone(locality), exclude, server: None });
    }

    /// Asks the remote gateway for a session: connecting to the own gateway, and the way to the other.
    fn open(&mut self, net: &mut Net<'_>, opening: Opening) {
        self.sessions(opening.caller, opening.zone).opening += 1;
        let way = net.world.inside() * 2 + net.world.rtt(net.world.callers[opening.caller], opening.zone) / 2;
        self.openings.push(Some(opening));
        net.after(way, Event::Own(Own::Open(self.openings.len() - 1)));
    }

    /// The request for a session has reached the remote gateway.
    pub(super) fn on_open(&mut self, net: &mut Net<'_>, index: usize) {
        let Some(opening) = &mut self.openings[index] else { return };
        let admitted = self.gateways.admit(net, opening.zone, &opening.exclude);
        opening.server = admitted.server;
        // The answer, and the handshake of the sidecars within.
        let rtt = net.world.rtt(net.world.callers[opening.caller], opening.zone);
        let way = if admitted.server.is_some() { rtt / 2 + rtt } else { rtt / 2 };
        net.after(admitted.took + way, Event::Own(Own::Opened(index)));
    }

    /// The session is open, or there is none.
    pub(super) fn on_opened(&mut self, net: &mut Net<'_>, index: usize) {
        let Some(opening) = self.openings[index].take() else { return };
        if self.openings.iter().all(Option::is_none) {
            self.openings.clear();
        }
        let lives = |(server, incarnation): &(usize, u64)| {
            net.servers[*server].incarnation == *incarnation && net.servers[*server].life == Life::Up
        };
        let session = opening.server.filter(lives).map(|(server, incarnation)| {
            let service = &self.callers[opening.caller].service;
            let endpoint = service.session(&opening.locality, &net.world.id(server));
            if let Some(load) = self.gateways.loads[server] {
                service.report(&endpoint, load, net.now);
            }
            service.revive(&endpoint, net.now);
            let renew_at = net.now + RENEW_AFTER + RENEW_AFTER.mul_f64(net.choices.f64());
            Session { server: server_of(&endpoint.id), endpoint, incarnation, renew_at }
        });
        let sessions = self.sessions(opening.caller, opening.zone);
        sessions.opening -= 1;
        sessions.failed = session.is_none();
        sessions.open.extend(session);
        for mut waiting in std::mem::take(&mut sessions.waiting) {
            waiting.round += 1;
            self.acquire(net, waiting);
        }
    }
}
