//! Who learns what of endpoints and peers, and when: the gateways' part of discovery, in the design's times.
//!
//! A lost endpoint is noticed when its registration stream breaks and the first probe is refused, or, if its host is silent,
//! after 3 s of silence and two probes. Clusters tell one another sums, at once when they change and every second with the
//! heartbeat; a cluster that hears nothing keeps what it knows and says how old it is.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::resource::{ClusterMeta, Protocol, ServicePort};
use eastway_core::view::{
    EndpointView, MeshView, PathState, PeerView, RemoteZone, ServiceSpec, ServiceView, Staleness, ZoneSummary,
};
use eastway_core::{Health, Timestamp};

use crate::net::Net;
use crate::queue::{Event, Own, Slots};
use crate::server::Server;
use crate::world::{START, World};

/// Silence, and two probes a second apart.
pub(crate) const SILENT_NOTICE: Duration = Duration::from_secs(5);
/// How long discovery gathers changes before it tells them.
const GATHER: Duration = Duration::from_millis(1);
/// A heartbeat, and the utilisation that goes with it.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A return from failure is told for so long.
const RETURNED_FOR: Duration = Duration::from_secs(60);

/// What discovery knows, cluster by cluster.
#[derive(Debug)]
pub(crate) struct Discovery {
    clusters: Vec<Known>,
    /// Of each endpoint, as its own cluster sees it.
    beliefs: Vec<Belief>,
    /// When each zone returned from failure.
    returned: Vec<Option<Timestamp>>,
    /// Summaries on their way.
    under_way: Slots<Import>,
}

#[derive(Clone, Copy, Debug)]
struct Belief {
    health: Health,
    incarnation: u64,
}

/// What one cluster knows of the others.
#[derive(Debug)]
struct Known {
    /// So many faults keep it from hearing its peers.
    deaf: u32,
    /// It will tell its sidecars soon.
    publishing: bool,
    peers: Vec<Option<Heard>>,
    staleness: Vec<Staleness>,
}

impl Known {
    /// What a cluster knows that heard of none of the `clusters` yet.
    fn nothing(clusters: usize) -> Self {
        Self { deaf: 0, publishing: false, peers: vec![None; clusters], staleness: vec![Staleness::Fresh; clusters] }
    }
}

/// What a cluster heard of a peer.
#[derive(Clone, Debug)]
struct Heard {
    at: Timestamp,
    zones: Vec<(usize, ZoneSummary, Option<Timestamp>)>,
}

#[derive(Clone, Debug)]
struct Import {
    from: usize,
    to: usize,
    heard: Heard,
}

impl Discovery {
    /// Everybody knows everything.
    pub(crate) fn new(world: &World, servers: &[Server]) -> Self {
        let count = world.clusters.len();
        let mut discovery = Self {
            clusters: (0..count).map(|_| Known::nothing(count)).collect(),
            beliefs: world.servers.iter().map(|_| Belief { health: Health::Ready, incarnation: 1 }).collect(),
            returned: vec![None; world.zones.len()],
            under_way: Slots::default(),
        };
        for from in 0..count {
            let heard = discovery.summary(world, servers, from, START);
            (0..count).filter(|to| *to != from).for_each(|to| discovery.clusters[to].peers[from] = Some(heard.clone()));
        }
        discovery
    }

    /// Starts the heartbeats, where there is somebody to hear them.
    pub(crate) fn start(&self, net: &mut Net<'_>) {
        if self.clusters.len() > 1 {
            net.after(HEARTBEAT, Event::Own(Own::Heartbeat));
        }
    }

    /// A cluster stops hearing its peers, or hears them again.
    pub(crate) fn set_deaf(&mut self, cluster: usize, deaf: bool) {
        let faults = &mut self.clusters[cluster].deaf;
        *faults = if deaf { *faults + 1 } else { faults.saturating_sub(1) };
    }

    /// Discovery learns that an endpoint is gone, or that a new life of it is ready.
    pub(crate) fn noticed(&mut self, net: &mut Net<'_>, server: usize, incarnation: u64, ready: bool) {
        let zone = net.world.servers[server];
        if incarnation < self.beliefs[server].incarnation {
            return;
        }
        let health = if ready { Health::Ready } else { Health::Down };
        let mut others = net.world.zones[zone].servers.clone();
        if ready && !others.any(|other| self.beliefs[other].health == Health::Ready) {
            self.returned[zone] = Some(net.now);
        }
        self.beliefs[server] = Belief { health, incarnation };
        let cluster = net.world.cluster_of(server);
        self.publish(net, cluster);
        self.export(net, cluster);
    }

    /// Sends sums to the peers.
    fn export(&mut self, net: &mut Net<'_>, from: usize) {
        let heard = self.summary(net.world, &net.servers, from, net.now);
        for to in (0..self.clusters.len()).filter(|to| *to != from) {
            let index = self.under_way.put(Import { from, to, heard: heard.clone() });
            let way = GATHER + net.world.between(from, to) / 2;
            net.after(way, Event::Own(Own::Import(index)));
        }
    }

    fn publish(&mut self, net: &mut Net<'_>, cluster: usize) {
        if !std::mem::replace(&mut self.clusters[cluster].publishing, true) {
            net.after(GATHER + net.world.inside() / 2, Event::Own(Own::Publish(cluster)));
        }
    }

    /// A second has passed: every cluster tells its peers, and sees how old their words are.
    pub(crate) fn heartbeat(&mut self, net: &mut Net<'_>) {
        net.after(HEARTBEAT, Event::Own(Own::Heartbeat));
        for cluster in 0..self.clusters.len() {
            self.export(net, cluster);
            let known = &mut self.clusters[cluster];
            let ages =
                known.peers.iter().map(|peer| peer.as_ref().map_or(Staleness::Fresh, |p| ladder(net.now - p.at)));
            let staleness: Vec<Staleness> = ages.collect();
            if std::mem::replace(&mut known.staleness, staleness.clone()) != staleness {
                self.publish(net, cluster);
            }
        }
    }

    /// A summary arrives.
    pub(crate) fn import(&mut self, net: &mut Net<'_>, index: usize) {
        let Some(Import { from, to, heard }) = self.under_way.take(index) else { return };
        if self.clusters[to].deaf > 0 {
            return;
        }
        let known = &mut self.clusters[to];
        let changed = known.peers[from].as_ref().is_none_or(|old| old.zones != heard.zones);
        known.peers[from] = Some(Heard { at: net.now, ..heard });
        let fresh = std::mem::replace(&mut known.staleness[from], Staleness::Fresh) != Staleness::Fresh;
        if changed || fresh {
            self.publish(net, to);
        }
    }

    fn summary(&self, world: &World, servers: &[Server], cluster: usize, now: Timestamp) -> Heard {
        let zones = world.clusters[cluster].zones.iter().filter(|zone| !world.zones[**zone].servers.is_empty());
        let zones = zones.map(|zone| (*zone, self.zone_summary(world, servers, *zone), self.returned[*zone])).collect();
        Heard { at: now, zones }
    }

    fn zone_summary(&self, world: &World, servers: &[Server], zone: usize) -> ZoneSummary {
        let all = world.zones[zone].servers.clone();
        let ready: Vec<usize> = all.clone().filter(|server| self.beliefs[*server].health == Health::Ready).collect();
        let known: Vec<f32> = ready.iter().filter_map(|server| servers[*server].utilisation()).collect();
        let capacity: u32 = all.clone().map(|server| servers[server].capacity()).sum();
        ZoneSummary {
            total: all.len() as u32,
            ready: ready.len() as u32,
            capacity: f64::from(capacity),
            utilisation: (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32),
            ..ZoneSummary::default()
        }
    }

    /// What the sidecars of a cluster are told now.
    pub(crate) fn view(&mut self, net: &Net<'_>, cluster: usize) -> (MeshView, Arc<ServiceView>) {
        let (world, now) = (net.world, net.now);
        let known = &mut self.clusters[cluster];
        known.publishing = false;
        let peers = known.peers.iter().enumerate().filter(|(_, heard)| heard.is_some()).map(|(peer, _)| PeerView {
            cluster: meta(world, peer),
            trust_bundle: Vec::new(),
            path: PathState::Up,
            min_rtt: Some(world.between(cluster, peer)),
            staleness: known.staleness[peer],
        });
        let mesh = MeshView { cluster: meta(world, cluster), peers: peers.collect() };
        let heard = known.peers.iter().flatten().flat_map(|heard| &heard.zones);
        let mut remote: Vec<RemoteZone> =
            heard.map(|(zone, summary, at)| remote(world, *zone, summary, *at, now)).collect();
        remote.sort_by(|a, b| a.zone.cmp(&b.zone));
        let mut endpoints: Vec<_> = world.servers_of(cluster).map(|s| self.endpoint(net, s)).map(Arc::new).collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        let zones = &world.clusters[cluster].zones;
        let returned =
            zones.iter().filter_map(|z| Some((Arc::clone(&world.zones[*z].id.zone), recent(self.returned[*z], now)?)));
        let view = ServiceView {
            name: world.service.clone(),
            spec: ServiceSpec {
                ports: vec![ServicePort::new(80, Protocol::Http)],
                accounts: ["payments".to_owned()].into(),
                ..ServiceSpec::default()
            },
            endpoints,
            remote,
            returned: returned.collect(),
        };
        (mesh, Arc::new(view))
    }

    fn endpoint(&self, net: &Net<'_>, server: usize) -> EndpointView {
        let Belief { health, incarnation } = self.beliefs[server];
        EndpointView {
            id: net.world.id(server),
            zone: Arc::clone(&net.world.zones[net.world.servers[server]].id.zone),
            address: ([127, 1, (server >> 8) as u8, server as u8], 15_008).into(),
            weight: 1.0,
            health,
            incarnation,
            capacity: net.servers[server].capacity(),
            labels: Default::default(),
            load: None,
        }
    }
}

fn remote(
    world: &World,
    zone: usize,
    summary: &ZoneSummary,
    returned: Option<Timestamp>,
    now: Timestamp,
) -> RemoteZone {
    RemoteZone {
        zone: world.zones[zone].id.clone(),
        accounts: ["payments".to_owned()].into(),
        summary: ZoneSummary { returned_ago: recent(returned, now), ..summary.clone() },
    }
}

fn recent(at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    at.map(|at| now - at).filter(|ago| *ago < RETURNED_FOR)
}

fn meta(world: &World, cluster: usize) -> ClusterMeta {
    let facts = &world.clusters[cluster];
    ClusterMeta {
        name: facts.name.to_string(),
        uid: facts.name.to_string(),
        region: facts.region.to_string(),
        trust_domain: format!("{}.mesh.internal", facts.name),
        zones: facts.zones.iter().map(|zone| (world.zones[*zone].id.zone.to_string(), None)).collect(),
    }
}

/// The staleness ladder.
fn ladder(age: Duration) -> Staleness {
    match age.as_secs() {
        0..3 => Staleness::Fresh,
        3..30 => Staleness::Stale1,
        30..900 => Staleness::Stale2,
        _ => Staleness::Stale3,
    }
}
