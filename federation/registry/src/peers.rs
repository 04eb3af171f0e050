//! Mirrors of the peer clusters: what each of their gateways exports, how old that is, and how they are reached.
//!
//! For: the remote half of every view. A peer becomes visible when its first snapshot is whole; silence makes it stale
//! and never empties it; a gateway that comes back and has forgotten half of a service is not believed for 30 s.
//! Called by [`crate::Catalogue`] only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::resource::{ClusterMeta, ServicePort};
use eastway_core::view::{PathState, PeerView, RemoteZone, ServiceSpec, Staleness, Transport, ZoneSummary};
use eastway_core::{ServiceName, Timestamp, Version, ZoneId};
use litemap::LiteMap;
use serde::{Deserialize, Serialize};

use crate::facts::RemoteFacts;
use crate::options::Options;
use crate::resources::{PeerPolicy, Resources};

mod addresses;
mod beside;
mod bounds;
mod peer;
mod report;
mod source;

pub use beside::{Beside, Holders, Zones};
pub use bounds::Cut;
pub(crate) use bounds::Taking;
pub use report::{GatewayReport, PeerReport};

use peer::Peer;
use source::Source;

/// How a service is exported by one gateway, of the endpoints that this gateway has from the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exported {
    /// Its ports.
    pub ports: Arc<[ServicePort]>,
    /// The accounts that the callers must expect.
    pub accounts: Arc<[String]>,
    /// Its zones in sum.
    pub zones: LiteMap<Arc<str>, ZoneFacts>,
    /// What the siblings of that gateway have.
    pub beside: Beside,
}

/// A zone in sum, with an instant in the place of the age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZoneFacts {
    /// The sums; `returned_ago` is always `None`.
    pub summary: ZoneSummary,
    /// When the zone returned from failure.
    pub returned: Option<Timestamp>,
}

/// How one gateway of a peer is reached, as its pings say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathFacts {
    /// Whether it answers.
    pub state: PathState,
    /// Least round-trip time of the last minute; through an outage, of the minute before it.
    pub min_rtt: Option<Duration>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Share of the last pings that were not answered in time, 0 to 1.
    pub loss: Option<f64>,
    /// What carries what goes there; none before anything does.
    pub transport: Option<Transport>,
    /// Why that is not the preferred transport: `blocked`, `lossy` or `recovering`.
    pub transport_cause: Option<&'static str>,
    /// How often the path has gone over to another transport.
    pub transport_changes: u64,
    /// The gateway's id, once it said it.
    pub gateway: Option<String>,
    /// It announced its end: no new streams while another path exists.
    pub draining: bool,
    /// It answers, and does not take this cluster for its peer.
    pub refuses: bool,
}

/// One gateway's mirror, as it is stored for cold starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredMirror {
    /// The peer, as it described itself.
    pub cluster: ClusterMeta,
    /// The gateway that said it.
    pub gateway: String,
    /// Its version.
    pub version: Version,
    /// The exported services.
    pub services: BTreeMap<ServiceName, StoredExport>,
    /// Where the gateways of the peer are reached, as any of them stated it.
    pub addresses: Vec<String>,
}

/// A service within a [`StoredMirror`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredExport {
    /// How it is reached.
    pub spec: ServiceSpec,
    /// Its zones.
    pub zones: BTreeMap<Arc<str>, ZoneSummary>,
}

/// The rung of the ladder for statements of this age.
pub const fn staleness_at(age: Duration) -> Staleness {
    match age.as_millis() {
        0..3_000 => Staleness::Fresh,
        3_000..30_000 => Staleness::Stale1,
        30_000..900_000 => Staleness::Stale2,
        _ => Staleness::Stale3,
    }
}

/// How old a mirror from the store is taken to be: nobody knows, but it is evidence and not fresh.
const STORED_AGE: Duration = Duration::from_secs(30);

/// All peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<String, Peer>,
}

/// What a step changed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Touched {
    pub(crate) mesh: bool,
    pub(crate) services: BTreeSet<ServiceName>,
    /// Peers whose stored mirror is out of date.
    pub(crate) mirrors: BTreeSet<String>,
    /// Peers' gateways are reached elsewhere.
    pub(crate) addresses: bool,
}

impl Peers {
    /// Forgets the peers that are no longer declared. Returns the services they exported.
    pub(crate) fn retain(&mut self, resources: &Resources) -> BTreeSet<ServiceName> {
        let mut services = BTreeSet::new();
        self.peers.retain(|cluster, peer| {
            let kept = resources.peers.contains_key(cluster);
            if !kept {
                services.extend(peer.services());
            }
            kept
        });
        services
    }

    /// A gateway's whole snapshot.
    pub(crate) fn snapshot(
        &mut self,
        meta: ClusterMeta,
        gateway: &str,
        version: Version,
        services: BTreeMap<ServiceName, Exported>,
        now: Timestamp,
        options: &Options,
    ) -> Touched {
        let peer = self.peers.entry(meta.name.clone()).or_default();
        if peer.retired.contains(&meta.uid) {
            return Touched::default();
        }
        if !peer.sources.contains_key(gateway) && peer.sources.len() >= options.peer.gateways {
            peer.cut.count("gateways");
            return Touched::default();
        }
        let mut touched = Touched::default();
        let successor = peer.meta.as_ref().is_some_and(|known| known.uid != meta.uid);
        let mut source = peer.sources.remove(gateway).unwrap_or_else(|| Source::new(options.max_exported, now));
        if successor {
            touched.services.extend(peer.services());
            peer.retire();
            source.restart(options.max_exported);
        }
        let services = peer.fit(services, options.peer.entries);
        touched.services.extend(source.snapshot(version, services, now, options));
        peer.sources.insert(gateway.to_owned(), source);
        touched.services.extend(peer.notice_silence());
        touched.mesh = peer.meta.as_ref() != Some(&meta);
        peer.meta = Some(meta);
        touched.mesh |= peer.refresh_staleness(now);
        touched
    }

    /// One statement of a gateway of the cluster that is known by `uid`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn change(
        &mut self,
        cluster: &str,
        uid: &str,
        gateway: &str,
        version: Version,
        name: ServiceName,
        exported: Option<Exported>,
        now: Timestamp,
        options: &Options,
    ) -> Touched {
        let mut touched = self.alive(cluster, uid, gateway, version.epoch, now);
        let Some(peer) = self.peers.get_mut(cluster).filter(|peer| peer.is(uid)) else { return touched };
        let full = peer.entries() >= options.peer.entries;
        let Some(source) = peer.sources.get_mut(gateway) else { return touched };
        // Where there is no room, what is known already may still change or end.
        if full && exported.is_some() && source.mirror.get(&name).is_none() {
            peer.cut.count("services");
        } else if source.change(name.clone(), version, exported) {
            touched.services.insert(name);
        }
        touched
    }

    /// A sign of life of a gateway in its life `epoch`. Those of earlier lives prove nothing.
    pub(crate) fn alive(&mut self, cluster: &str, uid: &str, gateway: &str, epoch: u64, now: Timestamp) -> Touched {
        if let Some(source) = self.source(cluster, uid, gateway)
            && source.mirror.complete().is_some_and(|complete| complete.epoch == epoch)
        {
            source.heard = now;
        }
        let Some(peer) = self.peers.get_mut(cluster) else { return Touched::default() };
        // At once: after an outage, what the others said before it is older than what this one says.
        let services = peer.notice_silence();
        Touched { mesh: peer.refresh_staleness(now), services, ..Touched::default() }
    }

    fn source(&mut self, cluster: &str, uid: &str, gateway: &str) -> Option<&mut Source> {
        self.peers.get_mut(cluster).filter(|peer| peer.is(uid))?.sources.get_mut(gateway)
    }

    /// A mirror from the store, at a cold start. It never replaces what a gateway said itself.
    pub(crate) fn load(&mut self, stored: StoredMirror, now: Timestamp, options: &Options) -> Touched {
        let peer = self.peers.entry(stored.cluster.name.clone()).or_default();
        if peer.sources.contains_key(&stored.gateway) || peer.sources.len() >= options.peer.gateways {
            return Touched::default();
        }
        let heard = now.before(STORED_AGE);
        let mut source = Source::new(options.max_exported, heard);
        let services = stored.services.into_iter().map(|(name, export)| (name, export.into())).collect();
        let services = peer.fit(services, options.peer.entries);
        let services = source.snapshot(stored.version, services, heard, options);
        source.heard = heard;
        peer.sources.insert(stored.gateway, source);
        peer.addresses.state(&stored.addresses, heard, options.peer.gateways);
        peer.meta.get_or_insert(stored.cluster);
        peer.refresh_staleness(now);
        Touched { mesh: true, services, ..Touched::default() }
    }

    /// The mirrors of one peer, for the store.
    pub(crate) fn stored(&self, cluster: &str) -> Vec<StoredMirror> {
        let Some((peer, meta)) = self.peers.get(cluster).and_then(|peer| Some((peer, peer.meta.as_ref()?))) else {
            return Vec::new();
        };
        let addresses: Vec<String> = peer.addresses.stated().cloned().collect();
        let store = |(gateway, source): (&String, &Source)| {
            let services = source.mirror.iter().map(|(name, exported)| (name.clone(), exported.into())).collect();
            let version = source.mirror.version()?;
            let (cluster, gateway, addresses) = (meta.clone(), gateway.clone(), addresses.clone());
            Some(StoredMirror { cluster, gateway, version, services, addresses })
        };
        peer.sources.iter().filter_map(store).collect()
    }

    /// A gateway of a peer says where those of its cluster are reached.
    pub(crate) fn state_addresses(
        &mut self,
        cluster: &str,
        addresses: &[String],
        now: Timestamp,
        options: &Options,
    ) -> Touched {
        let peer = self.peers.entry(cluster.to_owned()).or_default();
        let (new, whole) = peer.addresses.state(addresses, now, options.peer.gateways);
        if !whole {
            peer.cut.count("addresses");
        }
        let mirrors = new.then(|| cluster.to_owned()).into_iter().collect();
        Touched { addresses: new, mirrors, ..Touched::default() }
    }

    /// The addresses to connect to of the peer `cluster`, which is declared by `policy`.
    pub(crate) fn addresses(&self, cluster: &str, policy: &PeerPolicy) -> BTreeSet<String> {
        let declared = &policy.peer.gateways;
        match self.peers.get(cluster).filter(|_| policy.peer.follow) {
            Some(peer) => peer.addresses.wanted(declared, |address| peer.answers(address)),
            None => declared.iter().cloned().collect(),
        }
    }

    /// What the pings to one gateway of a peer say. True if that changes the mesh's view noticeably.
    pub(crate) fn path(&mut self, cluster: &str, address: &str, facts: PathFacts) -> bool {
        let peer = self.peers.entry(cluster.to_owned()).or_default();
        let before = peer.path_state();
        peer.paths.insert(address.to_owned(), facts);
        peer.refresh_rtt() || before != peer.path_state()
    }

    /// Whether no path from here to the peer `cluster` works.
    pub(crate) fn is_cut(&self, cluster: &str) -> bool {
        self.peers.get(cluster).is_some_and(|peer| peer.path_state() == PathState::Down)
    }

    /// A gateway's address is no longer declared.
    pub(crate) fn remove_path(&mut self, cluster: &str, address: &str) -> bool {
        let Some(peer) = self.peers.get_mut(cluster) else { return false };
        let removed = peer.paths.remove(address).is_some();
        peer.refresh_rtt();
        removed
    }

    /// The paths to one peer, by address.
    pub(crate) fn paths(&self, cluster: &str) -> impl Iterator<Item = (&String, &PathFacts)> {
        self.peers.get(cluster).into_iter().flat_map(|peer| &peer.paths)
    }

    /// The data plane found a zone of a service gone: what was held of it is let go.
    pub(crate) fn confirm_gone(&mut self, name: &ServiceName, zone: &ZoneId) -> bool {
        let Some(peer) = self.peers.get_mut(&*zone.cluster) else { return false };
        peer.sources.values_mut().fold(false, |changed, source| changed | source.let_go(name, &zone.zone))
    }

    /// Time passes: mirrors age, holds end, gateways that are gone are forgotten.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Touched {
        let mut touched = Touched::default();
        for (cluster, peer) in &mut self.peers {
            let forgotten = peer.forget_gone();
            if !forgotten.is_empty() {
                touched.mirrors.insert(cluster.clone());
                touched.services.extend(forgotten);
            }
            if peer.addresses.forget() {
                touched.addresses = true;
                touched.mirrors.insert(cluster.clone());
            }
            touched.services.extend(peer.notice_silence());
            touched.mesh |= peer.refresh_staleness(now);
            touched.services.extend(peer.sources.values_mut().flat_map(|source| source.end_holds(now)));
        }
        touched
    }

    /// What a peer said was left out or replaced.
    pub(crate) fn note_cut(&mut self, cluster: &str, cut: Cut) {
        if let Some(peer) = self.peers.get_mut(cluster).filter(|_| !cut.is_empty()) {
            peer.cut.add(cut);
        }
    }

    /// What was left out of what the peer `cluster` said, since it was declared.
    pub(crate) fn cut(&self, cluster: &str) -> Cut {
        self.peers.get(cluster).map(|peer| peer.cut.clone()).unwrap_or_default()
    }

    /// The zones of other clusters that serve `name`, as far as the operator imports them, ordered by zone; and the
    /// ports that the first cluster has which offers it.
    pub(crate) fn remote(
        &self,
        name: &ServiceName,
        resources: &Resources,
    ) -> (Option<Arc<[ServicePort]>>, Vec<RemoteFacts>) {
        let mut ports = None;
        let mut zones = Vec::new();
        for (cluster, policy) in &resources.peers {
            let Some(peer) = self.peers.get(cluster).filter(|_| policy.peer.imports_service(name)) else { continue };
            let Some(exported) = peer.sum(name) else { continue };
            let Exported { ports: its_ports, accounts, zones: its_zones, .. } = exported;
            let name = peer.name(cluster);
            zones.extend(its_zones.into_iter().map(|(zone, facts)| RemoteFacts {
                zone: RemoteZone {
                    zone: ZoneId::new(Arc::clone(&name), zone),
                    accounts: Arc::clone(&accounts),
                    summary: facts.summary,
                },
                returned: facts.returned,
            }));
            ports.get_or_insert(its_ports);
        }
        (ports, zones)
    }

    /// Every service that some peer exports, imported or not.
    pub(crate) fn services(&self) -> BTreeSet<ServiceName> {
        self.peers.values().flat_map(Peer::services).collect()
    }

    /// Every service that the peer `cluster` exports, imported or not.
    pub(crate) fn exported_by(&self, cluster: &str) -> BTreeSet<ServiceName> {
        self.peers.get(cluster).map(Peer::services).unwrap_or_default()
    }

    /// The declared peers. One that has not been heard is among them, as one that serves nothing: its workloads may call
    /// this cluster although it cannot be reached from here, and are known by its declared bundle.
    pub(crate) fn views(&self, policies: &BTreeMap<String, PeerPolicy>) -> Vec<PeerView> {
        let unheard = Peer::default();
        let peer = |cluster| self.peers.get(cluster).unwrap_or(&unheard);
        policies.iter().map(|(cluster, policy)| peer(cluster).view(cluster, policy)).collect()
    }

    /// The latest life that is known of a gateway.
    pub(crate) fn epoch(&self, cluster: &str, uid: &str, gateway: &str) -> Option<u64> {
        let peer = self.peers.get(cluster).filter(|peer| peer.meta.as_ref().is_some_and(|meta| meta.uid == uid))?;
        Some(peer.sources.get(gateway)?.mirror.complete()?.epoch)
    }

    /// How old the statements of a peer are; `None` before the first were complete.
    pub(crate) fn staleness(&self, cluster: &str) -> Option<Staleness> {
        self.peers.get(cluster).filter(|peer| peer.meta.is_some()).map(|peer| peer.staleness)
    }
}

impl Exported {
    /// How it is reached, as far as other clusters are told.
    pub fn spec(&self) -> ServiceSpec {
        ServiceSpec { ports: self.ports.to_vec(), accounts: Arc::clone(&self.accounts), ..ServiceSpec::default() }
    }

    /// The same without a zone.
    fn nowhere(&self) -> Self {
        Self {
            ports: Arc::clone(&self.ports),
            accounts: Arc::clone(&self.accounts),
            zones: LiteMap::new(),
            beside: Beside::default(),
        }
    }

    /// Endpoints in all zones.
    pub(crate) fn total(&self) -> u64 {
        self.zones.values().map(|zone| u64::from(zone.summary.total)).sum()
    }

    fn add(&mut self, other: &Self) {
        other.zones.iter().for_each(|(zone, facts)| self.add_zone(zone, facts));
    }

    fn add_zone(&mut self, zone: &Arc<str>, facts: &ZoneFacts) {
        match self.zones.get_mut(zone) {
            Some(known) => known.add(facts),
            None => drop(self.zones.insert(Arc::clone(zone), facts.clone())),
        }
    }
}

impl ZoneFacts {
    /// What is known from old statements only serves where nothing better does, as all of a peer that is silent itself.
    const fn age(&mut self) {
        let summary = &mut self.summary;
        summary.degraded = summary.degraded.saturating_add(summary.ready);
        summary.ready = 0;
    }

    fn add(&mut self, other: &Self) {
        let serving = |s: &ZoneSummary| s.ready.saturating_add(s.degraded);
        let (mine, theirs) = (serving(&self.summary), serving(&other.summary));
        let weigh =
            |a: f32, b: f32| (a * mine as f32 + b * theirs as f32) / (mine.saturating_add(theirs)).max(1) as f32;
        // A zone ramps as a whole only if all that serves there came back.
        self.returned = match (self.returned.filter(|_| mine > 0), other.returned.filter(|_| theirs > 0)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (Some(a), None) if theirs == 0 => Some(a),
            (None, Some(b)) if mine == 0 => Some(b),
            _ => None,
        };
        let (sum, add) = (&mut self.summary, &other.summary);
        sum.utilisation = match (sum.utilisation, add.utilisation) {
            (Some(a), Some(b)) => Some(weigh(a, b)),
            (a, b) => a.or(b),
        };
        sum.error_rate = weigh(sum.error_rate, add.error_rate);
        sum.total = sum.total.saturating_add(add.total);
        sum.ready = sum.ready.saturating_add(add.ready);
        sum.degraded = sum.degraded.saturating_add(add.degraded);
        sum.draining = sum.draining.saturating_add(add.draining);
        sum.capacity += add.capacity;
    }
}

impl From<StoredExport> for Exported {
    fn from(stored: StoredExport) -> Self {
        let zone = |(zone, mut summary): (Arc<str>, ZoneSummary)| {
            summary.returned_ago = None;
            (zone, ZoneFacts { summary, returned: None })
        };
        let ServiceSpec { ports, accounts, .. } = stored.spec;
        Self {
            ports: ports.into(),
            accounts,
            zones: stored.zones.into_iter().map(zone).collect(),
            beside: Beside::default(),
        }
    }
}

impl From<&Exported> for StoredExport {
    fn from(exported: &Exported) -> Self {
        let zones = exported.zones.iter().map(|(zone, facts)| (Arc::clone(zone), facts.summary.clone())).collect();
        Self { spec: exported.spec(), zones }
    }
}
