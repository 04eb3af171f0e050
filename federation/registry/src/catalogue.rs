//! The whole: own registrations, siblings' slices, peers' mirrors and the operator's resources, as views.
//!
//! One writer for each fact, and versions instead of merging: the view is a function of the facts, not of the order in
//! which they came. Every method takes effect at once; [`Catalogue::take_changes`] says what to publish afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::resource::ClusterMeta;
use eastway_core::view::{MeshView, PathState, ServiceView};
use eastway_core::{EndpointId, Health, LoadReport, ServiceName, Timestamp};
use litemap::LiteMap;
use serde::{Deserialize, Serialize};

use crate::facts::ServiceFacts;
use crate::options::Options;
use crate::peers::{PathFacts, Peers};
use crate::registration::{EndpointState, KnownEndpoint, Registration, StreamId};
use crate::resources::Resources;
use crate::statements::Statements;
use crate::zones::Zones;
use tombstones::Tombstones;

mod exports;
mod life;
mod provenance;
mod quotas;
mod remote;
mod siblings;
mod slices;
mod tombstones;
mod views;

#[cfg(test)]
mod tests;

pub use exports::Export;
pub use provenance::{EndpointReport, Speaker};
pub use siblings::StateChanges;

/// Everything that a gateway knows of services.
#[derive(Debug)]
pub struct Catalogue {
    meta: ClusterMeta,
    gateway: Arc<str>,
    options: Options,
    resources: Resources,
    services: BTreeMap<ServiceName, Known>,
    streams: HashMap<StreamId, Key>,
    tombstones: Tombstones,
    /// Endpoints of which nothing is left, by the versions that ended: copies of the store that are restored may list them again.
    ended: BTreeMap<Key, Ended>,
    /// Services of which endpoints vanished without explanation.
    leaving: BTreeSet<ServiceName>,
    /// The other gateways of this cluster.
    siblings: siblings::Siblings,
    /// What this gateway states to them.
    statements: Statements<Key, EndpointState>,
    peers: Peers,
    exports: exports::Exports,
    epoch: u64,
    endpoints: usize,
    load_seq: u64,
    /// When all endpoints were last gone over.
    swept: Timestamp,
    /// What was touched since the last publication, before its views are formed.
    touched: BTreeSet<ServiceName>,
    changes: Changes,
}

/// Between two passes over all endpoints.
const SWEEP: Duration = Duration::from_millis(250);

/// Removals of endpoints that are remembered for siblings that lag behind.
const MAX_REMOVALS: usize = 10_000;

/// Names an endpoint.
pub type Key = (ServiceName, EndpointId);

#[derive(Debug)]
struct Ended {
    version: (u64, u64),
    since: Timestamp,
}

/// One service, as far as this cluster has endpoints of it or callers asked for it.
#[derive(Debug, Default)]
struct Known {
    /// Boxed, because a tree keeps room for eleven in each node.
    endpoints: BTreeMap<EndpointId, Box<Candidates>>,
    zones: Zones,
    /// The count of load reports when one last came.
    load_seq: u64,
    facts: Option<Arc<ServiceFacts>>,
    /// When its last trace vanished; what its zones went through is forgotten some time after.
    vanished: Option<Timestamp>,
}

/// What the gateways say of one endpoint.
#[derive(Debug, Default)]
struct Candidates {
    own: Option<KnownEndpoint>,
    siblings: LiteMap<Arc<str>, KnownEndpoint>,
    /// It vanished from its sibling's slices without explanation.
    leaving: Option<Box<Leaving>>,
    /// The highest version of it that is known to have ended: what slices of gateways that are gone still list of it before
    /// that does not come back.
    ended: (u64, u64),
}

/// An endpoint that no slice lists any more, as it was last known.
#[derive(Debug)]
struct Leaving {
    entry: KnownEndpoint,
    /// The sibling that listed it.
    gateway: Arc<str>,
    /// Nobody has vouched for it since then.
    since: Timestamp,
}

/// What to publish.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// The mesh's view changed.
    pub mesh: bool,
    /// Services whose views changed, appeared or vanished.
    pub services: BTreeSet<ServiceName>,
    /// Services with new load reports.
    pub loads: BTreeSet<ServiceName>,
    /// Something that is exported changed.
    pub exports: bool,
    /// Something that siblings are told of own endpoints changed.
    pub statements: bool,
    /// Stored slices that are to be written.
    pub slices: BTreeSet<(ServiceName, u32)>,
    /// Peers whose stored mirror is out of date.
    pub mirrors: BTreeSet<String>,
    /// Gateways of peers are reached elsewhere.
    pub addresses: bool,
}

impl Changes {
    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One stored slice: endpoints of one service that one gateway has from the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The endpoints, by name.
    pub endpoints: Vec<Registration>,
}

/// Why a registration was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Its account may not serve the service.
    #[error("the account `{account}` may not serve {service}: its Service lists {listed}")]
    Account {
        /// The account that was proved.
        account: String,
        /// The service.
        service: ServiceName,
        /// The accounts that may.
        listed: String,
    },
    /// A later life of the endpoint is known, or this one deregistered.
    #[error("a later incarnation than {incarnation} of `{endpoint}` is known: {highest}")]
    Stale {
        /// Which endpoint.
        endpoint: EndpointId,
        /// The incarnation that was to be registered.
        incarnation: u64,
        /// The highest known.
        highest: u64,
    },
    /// The zone is none of this cluster's.
    #[error("`{zone}` is not a zone of this cluster: it has {zones}")]
    Zone {
        /// The zone named.
        zone: String,
        /// Those there are.
        zones: String,
    },
    /// The endpoint's name belongs to another workload that is alive.
    #[error("`{endpoint}` is the name of a workload at {address} that is alive: two replicas need two names")]
    Taken {
        /// Which endpoint.
        endpoint: EndpointId,
        /// Where the one is that has the name.
        address: SocketAddr,
    },
    /// The incarnation is beyond what any clock says.
    #[error("the incarnation {incarnation} of `{endpoint}` is out of range: incarnations are microseconds since 1970")]
    Incarnation {
        /// Which endpoint.
        endpoint: EndpointId,
        /// The incarnation that was to be registered.
        incarnation: u64,
    },
    /// Its account has as many endpoints here as it may have.
    #[error("the account `{account}` has {count} endpoints registered, which is its limit (`registration.perAccount`)")]
    Quota {
        /// Namespace and account.
        account: String,
        /// How many it has.
        count: usize,
    },
    /// The catalogue is full.
    #[error("{0} endpoints are registered, which is the limit")]
    Full(usize),
}

/// A probe to make: connect to the address, and report back what came of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The service.
    pub service: ServiceName,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The life of it that is probed: a result about an earlier one is void.
    pub incarnation: u64,
    /// Where its inbound listener is.
    pub address: SocketAddr,
    /// One was answered before, and the endpoint is still not heard of: that a connection is taken is not enough any more, because a
    /// kernel takes it for a process that stands still as well. It has to answer to a TLS handshake.
    pub thorough: bool,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The connection was accepted.
    Answered,
    /// The host refused the connection.
    Refused,
    /// Nothing came back in time, or there is no route.
    Silent,
}

impl Catalogue {
    /// An empty catalogue of the gateway `gateway`, in its life `epoch`.
    pub fn new(meta: ClusterMeta, gateway: impl Into<Arc<str>>, epoch: u64, options: Options) -> Self {
        Self {
            meta,
            gateway: gateway.into(),
            options,
            resources: Resources::default(),
            services: BTreeMap::new(),
            streams: HashMap::new(),
            tombstones: Tombstones::default(),
            ended: BTreeMap::new(),
            leaving: BTreeSet::new(),
            siblings: siblings::Siblings::default(),
            statements: Statements::new(MAX_REMOVALS),
            peers: Peers::default(),
            exports: exports::Exports::new(epoch),
            epoch,
            endpoints: 0,
            load_seq: 0,
            swept: Timestamp::ZERO,
            touched: BTreeSet::new(),
            changes: Changes { mesh: true, ..Changes::default() },
        }
    }

    /// The operator's resources changed: accounts, exports, imports and peers apply at once. Returns the streams whose
    /// registrations are no longer allowed; their endpoints are removed.
    pub fn set_resources(&mut self, resources: Resources, now: Timestamp) -> Vec<StreamId> {
        let declared = |r: &Resources| r.services.keys().cloned().collect::<BTreeSet<_>>();
        self.touched.extend(declared(&self.resources).into_iter().chain(declared(&resources)));
        self.touched.extend(self.peers.services());
        self.touched.extend(self.services.keys().cloned());
        self.resources = resources;
        self.touched.extend(self.peers.retain(&self.resources));
        self.changes.mesh = true;
        let revoked = self.revoke(now);
        self.settle(now);
        revoked
    }

    /// The operator's resources.
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }

    /// This cluster.
    pub const fn meta(&self) -> &ClusterMeta {
        &self.meta
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Time passes: silent streams are noticed, mirrors age, holds end, the long dead are removed. Call it every 100 ms.
    pub fn tick(&mut self, now: Timestamp) {
        self.let_leave(now);
        let touched = self.peers.tick(now);
        self.take_touched(touched);
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.notice_silence(now);
            self.forget_dead(now);
            self.forget_siblings();
            self.expire_returns(now);
        }
        self.settle(now);
    }

    /// Forms the views of what was touched, and notes the changes.
    fn settle(&mut self, now: Timestamp) {
        for name in std::mem::take(&mut self.touched) {
            self.reform(&name, now);
        }
    }

    /// The service's view; `None` if no cluster known here offers it.
    pub fn view(&self, name: &ServiceName, now: Timestamp) -> Option<Arc<ServiceView>> {
        self.facts(name).map(|facts| Arc::new(facts.at(now, self.options.returned_for)))
    }

    /// The service's view without ages.
    pub fn facts(&self, name: &ServiceName) -> Option<Arc<ServiceFacts>> {
        self.services.get(name).and_then(|known| known.facts.clone())
    }

    /// Every service that has a view.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().filter(|(_, known)| known.facts.is_some()).map(|(name, _)| name)
    }

    /// The mesh around the services. A peer that this gateway is cut off from is reached as long as one of its siblings reaches it:
    /// sidecars go by that one.
    pub fn mesh(&self) -> MeshView {
        let mut peers = self.peers.views(&self.resources.peers);
        for peer in peers.iter_mut().filter(|peer| peer.path == PathState::Down) {
            if self.siblings.reach(&peer.cluster.name) {
                peer.path = PathState::Suspect;
            }
        }
        MeshView { cluster: self.meta.clone(), peers }
    }

    /// The peers that this gateway has a path to, for its siblings.
    pub fn reached(&self) -> impl Iterator<Item = &String> {
        let works = |facts: &PathFacts| matches!(facts.state, PathState::Up | PathState::Suspect);
        self.resources.peers.keys().filter(move |cluster| self.peers.paths(cluster).any(|(_, facts)| works(facts)))
    }

    /// Grows with each load report.
    pub const fn load_seq(&self) -> u64 {
        self.load_seq
    }

    /// The loads of the service's endpoints that came after the count `since` (0: all), by endpoint.
    pub fn loads_since(&self, name: &ServiceName, since: u64) -> Vec<(EndpointId, LoadReport)> {
        let Some(known) = self.services.get(name).filter(|known| known.load_seq > since) else { return Vec::new() };
        let loads = known.endpoints.iter().filter_map(|(id, candidates)| {
            let entry = candidates.best().filter(|entry| entry.load_seq > since)?;
            Some((id.clone(), entry.load?))
        });
        loads.collect()
    }

    /// The load that an endpoint of the service reported last.
    pub fn load(&self, name: &ServiceName, endpoint: &EndpointId) -> Option<LoadReport> {
        self.services.get(name)?.endpoints.get(endpoint)?.best()?.load
    }

    /// How many endpoints there are by health, over all services: for metrics and the readiness report.
    pub fn census(&self) -> BTreeMap<&'static str, usize> {
        let mut census = BTreeMap::new();
        for candidates in self.services.values().flat_map(|known| known.endpoints.values()) {
            let Some(entry) = candidates.best() else { continue };
            let name = match entry.health() {
                Health::Warming => "warming",
                Health::Ready => "ready",
                Health::Degraded => "degraded",
                Health::Draining => "draining",
                Health::Unready => "unready",
                Health::Down => "down",
            };
            *census.entry(name).or_default() += 1;
        }
        census
    }
}

impl Candidates {
    /// The statement that counts: of the highest incarnation and session that has not ended; at a tie one for which somebody
    /// speaks, then the own.
    fn best(&self) -> Option<&KnownEndpoint> {
        let siblings = self.siblings.values().map(|entry| (entry, false));
        let known = self.own.iter().map(|entry| (entry, true)).chain(siblings);
        let known = self.leaving.iter().map(|leaving| (&leaving.entry, false)).chain(known);
        let rank = |(entry, own): &(&KnownEndpoint, bool)| (entry.registration.version(), entry.is_spoken_for(), *own);
        known.max_by_key(rank).map(|(entry, _)| entry).filter(|entry| entry.registration.version() > self.ended)
    }

    /// A version of it has ended.
    fn end(&mut self, version: (u64, u64)) {
        self.ended = self.ended.max(version);
    }

    fn is_empty(&self) -> bool {
        self.own.is_none() && self.siblings.is_empty() && self.leaving.is_none()
    }

    /// What this gateway and its siblings say.
    fn entries(&self) -> impl Iterator<Item = &KnownEndpoint> {
        self.own.iter().chain(self.siblings.values())
    }

    /// Every entry, to be changed.
    fn entries_mut(&mut self) -> impl Iterator<Item = &mut KnownEndpoint> {
        self.own
            .iter_mut()
            .chain(self.siblings.iter_mut().map(|(_, entry)| entry))
            .chain(self.leaving.iter_mut().map(|leaving| &mut leaving.entry))
    }
}
