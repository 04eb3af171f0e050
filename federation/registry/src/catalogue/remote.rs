//! What peers say, on its way into the views.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::resource::ClusterMeta;
use eastway_core::view::Staleness;
use eastway_core::{ServiceName, Timestamp, Version, ZoneId};

use super::Catalogue;
use crate::peers::{Cut, Exported, PathFacts, PeerReport, StoredMirror, Taking, Touched};
use crate::reader::Fact;

impl Catalogue {
    /// A fact that a stream from `gateway` of the peer `meta` established ([`crate::Reader`]), in that gateway's life
    /// `epoch`. Facts of undeclared peers, of lower epochs and of replaced clusters change nothing.
    pub fn peer_fact(&mut self, meta: &ClusterMeta, gateway: &str, epoch: u64, fact: Fact, now: Timestamp) {
        let Some(policy) = self.resources.peers.get(&meta.name) else { return };
        let mut taking = Taking { own: &self.meta, policy, bounds: &self.options.peer, cut: Cut::default() };
        let meta = &taking.meta(meta);
        let fact = take(&mut taking, fact);
        let cut = taking.cut;
        let stored = !matches!(fact, Fact::Alive | Fact::GoAway);
        let touched = match fact {
            Fact::Snapshot(version, services) => self.peer_snapshot(meta, gateway, version, services, now),
            Fact::Change(version, name, exported) => {
                self.peers.change(&meta.name, &meta.uid, gateway, version, name, exported, now, &self.options)
            }
            Fact::Alive | Fact::GoAway => self.peers.alive(&meta.name, &meta.uid, gateway, epoch, now),
        };
        self.peers.note_cut(&meta.name, cut);
        if stored {
            self.changes.mirrors.insert(meta.name.clone());
        }
        self.take_touched(touched);
        self.settle(now);
    }

    fn peer_snapshot(
        &mut self,
        meta: &ClusterMeta,
        gateway: &str,
        version: Version,
        services: BTreeMap<ServiceName, Exported>,
        now: Timestamp,
    ) -> Touched {
        self.peers.snapshot(meta.clone(), gateway, version, services, now, &self.options)
    }

    /// A peer's mirror from the store, at a cold start: visible at once, as stale.
    pub fn load_mirror(&mut self, stored: StoredMirror, now: Timestamp) {
        let Some(policy) = self.resources.peers.get(&stored.cluster.name) else { return };
        let mut taking = Taking { own: &self.meta, policy, bounds: &self.options.peer, cut: Cut::default() };
        let mut stored = StoredMirror { cluster: taking.meta(&stored.cluster), ..stored };
        for export in stored.services.values_mut() {
            *export = (&taking.exported(export.clone().into())).into();
        }
        let touched = self.peers.load(stored, now, &self.options);
        self.take_touched(touched);
        self.settle(now);
    }

    /// What was left out or replaced of what the peer `cluster` said, since it was declared.
    pub fn cut(&self, cluster: &str) -> Cut {
        self.peers.cut(cluster)
    }

    /// Every service that the peer `cluster` offers to this one, imported or not.
    pub fn exported_by(&self, cluster: &str) -> BTreeSet<ServiceName> {
        self.peers.exported_by(cluster)
    }

    /// A peer's mirrors, for the store.
    pub fn mirrors(&self, cluster: &str) -> Vec<StoredMirror> {
        self.peers.stored(cluster)
    }

    /// What the pings to the gateway at `address` of the peer `cluster` say.
    pub fn set_path(&mut self, cluster: &str, address: &str, facts: PathFacts) {
        if self.resources.peers.contains_key(cluster) {
            self.changes.mesh |= self.peers.path(cluster, address, facts);
        }
    }

    /// The address is no longer one of the peer's.
    pub fn remove_path(&mut self, cluster: &str, address: &str) {
        self.changes.mesh |= self.peers.remove_path(cluster, address);
    }

    /// The latest life that is known of the gateway `gateway` of `meta`, a peer or this cluster, if it is later than `epoch`:
    /// what the earlier one says is ignored.
    pub fn later_life(&self, meta: &ClusterMeta, gateway: &str, epoch: u64) -> Option<u64> {
        let known = match meta.name == self.meta.name {
            true => self.sibling_epoch(gateway),
            false => self.peer_epoch(&meta.name, &meta.uid, gateway),
        };
        known.filter(|known| *known > epoch)
    }

    /// The latest life that is known of a gateway of the peer `cluster`, while that is the one with this uid.
    fn peer_epoch(&self, cluster: &str, uid: &str, gateway: &str) -> Option<u64> {
        self.peers.epoch(cluster, uid, gateway)
    }

    /// How old the statements of the peer `cluster` are; `None` before the first were complete.
    pub fn peer_staleness(&self, cluster: &str) -> Option<Staleness> {
        self.peers.staleness(cluster)
    }

    /// What is known of the peer `cluster`, for operators; `None` if it is not declared.
    pub fn peer_report(&self, cluster: &str, now: Timestamp) -> Option<PeerReport> {
        Some(self.peers.report(cluster, self.resources.peers.get(cluster)?, now))
    }

    /// A gateway of the peer `cluster`, which its certificate proves it to be, says where those of its cluster are reached.
    pub fn state_addresses(&mut self, cluster: &str, addresses: &[String], now: Timestamp) {
        if self.resources.peers.contains_key(cluster) {
            let touched = self.peers.state_addresses(cluster, addresses, now, &self.options);
            self.take_touched(touched);
        }
    }

    /// The addresses to connect to of each peer: those that are declared, and those that it states, if its `Peer` says so.
    pub fn addresses(&self) -> impl Iterator<Item = (&String, BTreeSet<String>)> {
        let peers = self.resources.peers.iter();
        peers.map(|(cluster, policy)| (cluster, self.peers.addresses(cluster, policy)))
    }

    /// The paths to a peer, by address.
    pub fn paths(&self, cluster: &str) -> Vec<(String, PathFacts)> {
        self.peers.paths(cluster).map(|(address, facts)| (address.clone(), facts.clone())).collect()
    }

    /// The data plane found that a peer's zone no longer serves the service: nothing of it is held any longer.
    pub fn confirm_gone(&mut self, name: &ServiceName, zone: &ZoneId, now: Timestamp) {
        if self.peers.confirm_gone(name, zone) {
            self.touched.insert(name.clone());
            self.settle(now);
        }
    }

    pub(super) fn take_touched(&mut self, touched: Touched) {
        self.changes.mesh |= touched.mesh;
        self.changes.mirrors.extend(touched.mirrors);
        self.changes.addresses |= touched.addresses;
        self.touched.extend(touched.services);
    }
}

/// What is taken of an established fact.
fn take(taking: &mut Taking<'_>, fact: Fact) -> Fact {
    match fact {
        Fact::Snapshot(version, services) => {
            let services = services.into_iter().map(|(name, exported)| (name, taking.exported(exported)));
            Fact::Snapshot(version, services.collect())
        }
        Fact::Change(version, name, exported) => {
            Fact::Change(version, name, exported.map(|exported| taking.exported(exported)))
        }
        Fact::Alive | Fact::GoAway => fact,
    }
}
