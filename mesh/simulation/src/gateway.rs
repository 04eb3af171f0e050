//! The remote gateway's part in a session: it picks an endpoint once, in the place of a sidecar of the wanted zone.

use eastway_balance::{Outcome, Policy, Service, Tried};
use eastway_core::{EndpointId, LoadReport, Reason};

use crate::net::{Net, SEEDS};
use crate::server::Life;
use crate::world::{World, server_of, stream};

/// Endpoints tried for one session; nothing was sent to any of them.
const ATTEMPTS: usize = 4;

/// One decision object for each zone that can be wanted, and what endpoints last said of their load.
#[derive(Debug)]
pub(crate) struct Gateways {
    pub(crate) services: Vec<Service>,
    pub(crate) loads: Vec<Option<LoadReport>>,
}

/// What became of a request for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// The endpoint, and the life of it; `None` if there is none.
    pub(crate) server: Option<(usize, u64)>,
    /// What connecting took.
    pub(crate) took: std::time::Duration,
}

impl Gateways {
    pub(crate) fn new(world: &World, policy: &Policy, seed: u64) -> Self {
        let service = |zone: usize| {
            let seed = stream(seed, SEEDS, zone as u64, 1).u64(..);
            Service::new(world.service.clone(), world.locality(zone), Policy { seed, ..policy.clone() })
        };
        Self { services: (0..world.zones.len()).map(service).collect(), loads: vec![None; world.servers.len()] }
    }

    /// Picks and connects, as a session to `zone` wants it, avoiding `exclude`.
    pub(crate) fn admit(&self, net: &mut Net<'_>, zone: usize, exclude: &[EndpointId]) -> Admitted {
        let service = &self.services[zone];
        let cluster = &net.world.clusters[net.world.zones[zone].cluster];
        let mut tried = Tried::new();
        for zone in &cluster.zones {
            exclude.iter().for_each(|id| tried.push_endpoint_id(net.world.zones[*zone].id.clone(), id.clone()));
        }
        let mut took = std::time::Duration::ZERO;
        for _ in 0..ATTEMPTS {
            let picked = service.pick(&mut net.choices, net.now, &tried, Some(&cluster.name), true);
            let Ok(pick) = picked else { break };
            let Some(endpoint) = pick.endpoint() else { break };
            let server = server_of(&endpoint.id);
            let rtt = net.world.rtt(zone, net.world.servers[server]);
            match net.servers[server].life {
                Life::Up => {
                    service.revive(endpoint, net.now);
                    service.finish(&pick, Outcome::success(rtt), net.now);
                    let server = Some((server, net.servers[server].incarnation));
                    return Admitted { server, took: took + rtt };
                }
                life => {
                    let (reason, time) = match life {
                        Life::Silent => (Reason::ConnectTimeout, std::time::Duration::from_millis(250)),
                        _ => (Reason::ConnectFailed, rtt),
                    };
                    took += time;
                    tried.push_endpoint(endpoint);
                    service.finish(&pick, Outcome::down(reason), net.now);
                }
            }
        }
        Admitted { server: None, took }
    }
}
