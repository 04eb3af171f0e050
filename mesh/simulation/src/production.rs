//! The production driver: many callers, each with the decision object of a sidecar, fed by discovery.

use std::sync::Arc;
use std::time::Duration;

use eastway_balance::Policy;
use eastway_core::{EndpointId, LoadReport};
use eastway_request::{OutboundOptions, TrafficPolicy};
use eastway_resilience::attempts::RetryPolicy;

use crate::discovery::{Discovery, SILENT_NOTICE};
use crate::driver::{Arrival, Driver};
use crate::faults::Action;
use crate::flight::{End, Flight, FlightId};
use crate::gateway::{Gateways, seeded};
use crate::net::{Net, SEEDS};
use crate::queue::{Event, Own, Slots};
use crate::scenario::{Overrides, Scenario};
use crate::server::Life;
use crate::world::{millis, stream};

mod caller;
mod session;

use caller::{Active, Caller, Request};
use session::SimulatedOpening;

/// The domain of the mesh's names.
const SUFFIX: &str = "mesh.internal";
/// The name that every request is for.
const AUTHORITY: &str = "payments.shop.mesh.internal";
/// How often a control loop looks at ramps, decays and breakers.
const TICK: Duration = Duration::from_millis(100);

/// Callers, gateways, and what they have under way.
#[derive(Debug)]
pub(crate) struct Production {
    callers: Vec<Caller>,
    gateways: Gateways,
    options: Arc<OutboundOptions>,
    traffic_policy: TrafficPolicy,
    requests: Vec<Request>,
    openings: Vec<Option<SimulatedOpening>>,
    /// By the place of the flight.
    active: Vec<Option<Active>>,
    discovery: Discovery,
    free: Vec<usize>,
    /// Reports on their way.
    reports: Slots<Batch>,
}

/// What the endpoints of a cluster say of their load.
#[derive(Debug)]
struct Batch {
    cluster: usize,
    loads: Vec<(usize, EndpointId, LoadReport)>,
}

/// The gateway of the servers' cluster will notice after `wait` that they came or went.
fn notice(net: &mut Net<'_>, servers: &[usize], wait: Duration, ready: bool) {
    for server in servers {
        // One that another fault holds dead tells nobody that it is ready.
        if ready && net.servers[*server].life != Life::Up {
            continue;
        }
        let incarnation = net.servers[*server].incarnation;
        net.after(wait, Event::Own(Own::Noticed { server: *server, incarnation, ready }));
    }
}

impl Production {
    pub(crate) fn new(net: &mut Net<'_>) -> Self {
        let (world, seed) = (net.world, net.seed);
        let policy = policy(&net.scenario.policy);
        let traffic_policy = traffic_policy(net.scenario);
        let callers = world.callers.iter().enumerate().map(|(number, zone)| {
            let policy = seeded(&policy, stream(seed, SEEDS, number as u64, 0));
            Caller::new(world, *zone, policy, traffic_policy)
        });
        let mut production = Self {
            callers: callers.collect(),
            gateways: Gateways::new(world, &policy, seed, options),
            options: Arc::new(options("")),
            traffic_policy,
            requests: Vec::new(),
            openings: Vec::new(),
            active: Vec::new(),
            discovery: Discovery::new(world, &net.servers),
            free: Vec::new(),
            reports: Slots::default(),
        };
        production.start(net);
        production
    }

    fn start(&mut self, net: &mut Net<'_>) {
        (0..net.world.clusters.len()).for_each(|cluster| self.publish(net, cluster));
        for caller in 0..self.callers.len() {
            // Control loops of different processes do not run in step.
            let offset = TICK.mul_f64(net.choices.f64());
            net.after(offset, Event::Own(Own::Tick(caller)));
        }
        net.after(TICK / 2, Event::Own(Own::GatewayTicks));
        if net.scenario.report_ms > 0.0 {
            net.after(millis(net.scenario.report_ms), Event::Own(Own::Report));
        }
        self.discovery.start(net);
    }

    /// A place for a request.
    fn store(&mut self, request: Request) -> usize {
        if let Some(index) = self.free.pop() {
            self.requests[index] = request;
            return index;
        }
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// The request has its end.
    fn forget(&mut self, index: usize) {
        self.free.push(index);
    }

    fn publish(&mut self, net: &Net<'_>, cluster: usize) {
        let (mesh, view) = self.discovery.view(net, cluster);
        let here = |zone: usize| net.world.zones[zone].cluster == cluster;
        for caller in self.callers.iter().filter(|caller| here(caller.zone)) {
            caller.entry.follow(&view, self.traffic_policy);
            caller.entry.service().update(&mesh, &view, net.now);
        }
        for zone in &net.world.clusters[cluster].zones {
            self.gateways.entries[*zone].service().update(&mesh, &view, net.now);
        }
    }

    /// Endpoints tell their gateways what load they have; one batch for each cluster goes to all of its sidecars.
    fn report(&mut self, net: &mut Net<'_>) {
        net.after(millis(net.scenario.report_ms), Event::Own(Own::Report));
        let now = net.now;
        for cluster in 0..net.world.clusters.len() {
            let world = net.world;
            let servers = world.servers_of(cluster).filter(|server| net.servers[*server].life == Life::Up);
            let servers: Vec<usize> = servers.collect();
            let loads = servers.into_iter().map(|s| (s, world.id(s), net.servers[s].report(now))).collect();
            let index = self.reports.put(Batch { cluster, loads });
            net.after(world.inside(), Event::Own(Own::Loads(index)));
        }
    }

    fn loads(&mut self, net: &Net<'_>, index: usize) {
        let Some(Batch { cluster, loads }) = self.reports.take(index) else { return };
        let here = |zone: usize| net.world.zones[zone].cluster == cluster;
        for caller in self.callers.iter().filter(|caller| here(caller.zone)) {
            loads.iter().for_each(|(_, id, load)| caller.entry.service().apply_load(id, *load, net.now));
        }
        for zone in &net.world.clusters[cluster].zones {
            loads
                .iter()
                .for_each(|(_, id, load)| self.gateways.entries[*zone].service().apply_load(id, *load, net.now));
        }
        loads.iter().for_each(|(server, _, load)| self.gateways.loads[*server] = Some(*load));
    }

    /// Asynchronous probes: some endpoints of the cluster, at random, are asked with each request.
    fn ask_for_loads(&mut self, net: &mut Net<'_>, caller: usize) {
        if net.scenario.probes == 0 {
            return;
        }
        let zone = self.callers[caller].zone;
        let servers: Vec<usize> = net.world.servers_of(net.world.zones[zone].cluster).collect();
        for _ in 0..net.scenario.probes.min(servers.len() as u32) {
            let server = servers[net.choices.usize(..servers.len())];
            // The answer says what is so now; asking and answering are on their way for a round trip.
            let active_requests = net.servers[server].in_flight();
            let way = net.world.rtt(zone, net.world.servers[server]);
            if net.servers[server].life == Life::Up {
                net.after(way, Event::Own(Own::Probed { caller, server, active_requests }));
            }
        }
    }
}

impl Driver for Production {
    fn arrival(&mut self, net: &mut Net<'_>, arrival: Arrival) {
        self.begin(net, arrival);
    }

    fn ended(&mut self, net: &mut Net<'_>, id: FlightId, flight: Flight, end: End) {
        self.on_ended(net, id, flight, end);
    }

    fn connected(&mut self, net: &mut Net<'_>, id: FlightId) {
        self.on_connected(net, id);
    }

    fn event(&mut self, net: &mut Net<'_>, event: Own) {
        match event {
            Own::Tick(caller) => {
                self.callers[caller].entry.service().tick(net.now);
                net.after(TICK, Event::Own(event));
            }
            Own::GatewayTicks => {
                self.gateways.entries.iter().for_each(|entry| entry.service().tick(net.now));
                net.after(TICK, Event::Own(event));
            }
            Own::Report => self.report(net),
            Own::Loads(index) => self.loads(net, index),
            Own::Retry(request) => self.proceed(net, request),
            Own::Open(index) => self.on_open(net, index),
            Own::Opened(index) => self.on_opened(net, index),
            Own::Noticed { server, incarnation, ready } => self.discovery.noticed(net, server, incarnation, ready),
            Own::Publish(cluster) => self.publish(net, cluster),
            Own::Heartbeat => self.discovery.heartbeat(net),
            Own::Import(index) => self.discovery.import(net, index),
            Own::Probed { caller, server, active_requests } => {
                let load =
                    LoadReport { active_requests, utilisation: net.servers[server].utilisation(), error_rate: 0.0 };
                self.callers[caller].entry.service().apply_load(&net.world.id(server), load, net.now);
            }
        }
    }

    fn changed(&mut self, net: &mut Net<'_>, action: &Action) {
        let inside = net.world.inside();
        match action {
            Action::Die { servers, silent } => {
                notice(net, servers, if *silent { SILENT_NOTICE } else { inside * 3 / 2 }, false);
            }
            Action::Rise { servers, .. } => notice(net, servers, inside * 2, true),
            Action::Stale { clusters, on } => clusters.iter().for_each(|c| self.discovery.set_deaf(*c, *on)),
            Action::Errors { .. } | Action::Slow { .. } | Action::Load { .. } => {}
        }
    }

    fn shares(&self, net: &Net<'_>) -> Vec<f64> {
        let mut shares = vec![0.0; net.world.zones.len()];
        for caller in &self.callers {
            for (locality, share) in caller.entry.service().localities() {
                shares[net.world.zone(&locality.zone)] += f64::from(share);
            }
        }
        let all = self.callers.len() as f64 * 100.0;
        shares.iter_mut().for_each(|share| *share /= all);
        shares
    }
}

/// The production defaults, with what the scenario says otherwise.
fn policy(overrides: &Overrides) -> Policy {
    let mut policy = Policy::default();
    let set = |value: Option<f64>, number: &mut f64| *number = value.unwrap_or(*number);
    let time = |value: Option<f64>, number: &mut Duration| *number = value.map_or(*number, millis);
    set(overrides.overprovisioning, &mut policy.overprovisioning);
    set(overrides.panic_threshold, &mut policy.panic_threshold);
    set(overrides.target_utilisation, &mut policy.target_utilisation);
    set(overrides.ejection_cap, &mut policy.ejection_cap);
    set(overrides.retry_ratio, &mut policy.retry_ratio);
    time(overrides.ramp_s.map(|s| s * 1000.0), &mut policy.ramp);
    time(overrides.ramp_jitter_s.map(|s| s * 1000.0), &mut policy.ramp_jitter);
    time(overrides.load_decay_ms, &mut policy.load_decay);
    policy.latency_veto = overrides.latency_veto.unwrap_or(policy.latency_veto);
    policy.algorithm = overrides.algorithm.unwrap_or(policy.algorithm);
    policy
}

/// What decides about requests in the cluster `cluster`.
fn options(cluster: &str) -> OutboundOptions {
    OutboundOptions { suffix: SUFFIX.to_owned(), cluster: cluster.into(), via: false, idle: Duration::MAX }
}

/// The production defaults for requests, with what the scenario says otherwise. Nothing limits how many there are.
fn traffic_policy(scenario: &Scenario) -> TrafficPolicy {
    TrafficPolicy {
        retries: RetryPolicy { attempts: scenario.policy.attempts.unwrap_or(2), ..RetryPolicy::default() },
        request: millis(scenario.timeout_s * 1000.0),
        ..TrafficPolicy::default()
    }
}
