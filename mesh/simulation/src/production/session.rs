//! Sessions of one caller with endpoints of a remote locality, opened and used as the sidecar does: by the production code
//! that decides about them.

use std::sync::Arc;

use eastway_balance::{LocalityEndpoints, Pick};
use eastway_core::{EndpointId, Reason, Timestamp};
use eastway_request::gateways::TunnelPath;
use eastway_request::sessions::{Acquired, PooledSession, SessionPool};
use eastway_resilience::AttemptError;

use super::Production;
use crate::net::Net;
use crate::queue::{Event, Own};
use crate::server::Life;

/// The sessions of one caller with one locality.
#[derive(Debug, Default)]
pub(super) struct LocalitySessions {
    pool: SessionPool<To>,
    waiting: Vec<Waiting>,
}

/// What a session leads to: an endpoint, and the life of it.
#[derive(Clone, Copy, Debug)]
struct To {
    server: usize,
    incarnation: u64,
}

impl PooledSession for To {
    fn is_closed(&self) -> bool {
        // The network tells: see `acquire`.
        false
    }

    fn has_room(&self) -> bool {
        true
    }

    fn fell_silent(&self) -> bool {
        false
    }

    fn path(&self) -> Option<&TunnelPath> {
        // There is one to each cluster, and it does not fail.
        None
    }
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
pub(super) struct SimulatedOpening {
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
    /// Sends an attempt in a remote locality over the session that the production code chooses, once there is one.
    pub(super) fn acquire(&mut self, net: &mut Net<'_>, mut waiting: Waiting) {
        let request = &self.requests[waiting.request];
        let (caller, zone) = (request.caller, net.world.zone(&waiting.pick.locality.zone));
        let locality = Arc::clone(&waiting.pick.locality);
        let Some(call) = request.outbound.call() else { return };
        let sessions = self.callers[caller].localities.entry(zone).or_default();
        // One to a host that closed it is gone; one to a host that is silent looks alive.
        let servers = &net.servers;
        sessions.pool.retain(|to| {
            let server = &servers[to.server];
            server.incarnation == to.incarnation && server.life != Life::Refusing
        });
        let now = net.now;
        let acquired = sessions.pool.acquire(&call, &mut waiting.pick, waiting.round, now, &mut net.choices);
        let exclude = match &acquired {
            Acquired::Use(_) => sessions.pool.replenish(&locality, now),
            Acquired::Wait => sessions.pool.wanted_by(&call),
            Acquired::Fail(_) => None,
        };
        if let Some(exclude) = exclude {
            self.open(net, SimulatedOpening { caller, zone, locality, exclude, server: None });
        }
        match acquired {
            Acquired::Use(to) => self.send_over_session(net, waiting, to.server),
            Acquired::Wait => self.sessions(caller, zone).waiting.push(waiting),
            Acquired::Fail(error) => self.failed(net, waiting.request, &waiting.pick, error),
        }
    }

    fn sessions(&mut self, caller: usize, zone: usize) -> &mut LocalitySessions {
        self.callers[caller].localities.entry(zone).or_default()
    }

    /// Asks the remote gateway for a session: connecting to the own gateway, and the way to the other.
    fn open(&mut self, net: &mut Net<'_>, opening: SimulatedOpening) {
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
        let opened = opening.server.filter(lives).map(|(server, incarnation)| {
            let service = self.callers[opening.caller].entry.service();
            let endpoint = service.session(&opening.locality, &net.world.id(server));
            if let Some(load) = self.gateways.loads[server] {
                service.report(&endpoint, load, net.now);
            }
            service.revive(&endpoint, net.now);
            (endpoint, To { server, incarnation })
        });
        let opened = opened.ok_or(AttemptError::connecting(Reason::NoReadyEndpoint));
        let sessions = self.callers[opening.caller].localities.entry(opening.zone).or_default();
        sessions.pool.end(opened, net.now, &mut net.choices);
        for mut waiting in std::mem::take(&mut sessions.waiting) {
            waiting.round += 1;
            self.acquire(net, waiting);
        }
    }
}
