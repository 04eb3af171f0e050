//! The remote gateway's part in a session: it picks an endpoint once, in the place of a sidecar of the wanted zone.

use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Policy, Service};
use eastway_core::{EndpointId, LoadReport, Reason};
use eastway_request::{BodyState, Exit, Outbound, OutboundOptions, ServiceEntry, Step, TrafficPolicy};
use eastway_resilience::backoff::Backoff;
use eastway_resilience::{AttemptError, RetryPolicy};

use crate::net::{Net, SEEDS};
use crate::server::Life;
use crate::world::{World, server_of, stream};

/// One decision object for each zone that can be wanted, and what endpoints last said of their load.
#[derive(Debug)]
pub(crate) struct Gateways {
    pub(crate) entries: Vec<Arc<ServiceEntry>>,
    pub(crate) loads: Vec<Option<LoadReport>>,
    /// By cluster.
    options: Vec<Arc<OutboundOptions>>,
}

/// What became of a request for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// The endpoint, and the life of it; `None` if there is none.
    pub(crate) server: Option<(usize, u64)>,
    /// What connecting took.
    pub(crate) took: Duration,
}

/// The same policy, with a seed that `numbers` give.
pub(crate) fn seeded(policy: &Policy, mut numbers: fastrand::Rng) -> Policy {
    Policy { seed: numbers.u64(..), ..policy.clone() }
}

/// What decides about the requests of a caller in `zone`.
pub(crate) fn entry(world: &World, zone: usize, policy: Policy, traffic_policy: TrafficPolicy) -> Arc<ServiceEntry> {
    ServiceEntry::new(Service::new(world.service.clone(), world.locality(zone), policy), traffic_policy)
}

impl Gateways {
    pub(crate) fn new(world: &World, policy: &Policy, seed: u64, options: fn(&str) -> OutboundOptions) -> Self {
        let backoff = Backoff { base: Duration::ZERO, max: Duration::ZERO };
        let retries = RetryPolicy { backoff, ..RetryPolicy::default() };
        let traffic_policy = TrafficPolicy { retries, ..TrafficPolicy::default() };
        let entries = (0..world.zones.len()).map(|zone| {
            let policy = seeded(policy, stream(seed, SEEDS, zone as u64, 1));
            entry(world, zone, policy, traffic_policy)
        });
        Self {
            entries: entries.collect(),
            loads: vec![None; world.servers.len()],
            options: world.clusters.iter().map(|cluster| Arc::new(options(&cluster.name))).collect(),
        }
    }

    /// Picks and connects, as a session to `zone` wants it, avoiding `exclude`.
    pub(crate) fn admit(&self, net: &mut Net<'_>, zone: usize, exclude: &[EndpointId]) -> Admitted {
        let entry = &self.entries[zone];
        let exit = Exit { authority: "", entry, port: 80, exclude, parent: None };
        let options = &self.options[net.world.zones[zone].cluster];
        let mut ids = fastrand::Rng::with_seed(0);
        let mut session = Outbound::exit(&(), options, &exit, net.now, &mut ids);
        let mut took = Duration::ZERO;
        while let Step::Attempt(pick) = session.step(net.now, &mut net.choices) {
            let Some(endpoint) = pick.endpoint() else { break };
            let server = server_of(&endpoint.id);
            let rtt = net.world.rtt(zone, net.world.servers[server]);
            let (error, time) = match net.servers[server].life {
                Life::Up => {
                    entry.service().revive(endpoint, net.now);
                    drop(session.opened(pick, net.now));
                    let server = Some((server, net.servers[server].incarnation));
                    return Admitted { server, took: took + rtt };
                }
                Life::Silent => (AttemptError::gone(Reason::ConnectTimeout), Duration::from_millis(250)),
                Life::Refusing => (AttemptError::gone(Reason::ConnectFailed), rtt),
            };
            took += time;
            session.failed(&pick, error, &BodyState::NONE, net.now, &mut net.choices);
        }
        Admitted { server: None, took }
    }
}
