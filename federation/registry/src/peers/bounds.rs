//! What is taken of what a peer says: of itself no more than its `Peer` declares, of everything no more than fits.
//!
//! A peer is trusted with its own services. It is not trusted with this cluster's memory, and it may not make itself more
//! attractive than it was declared to be: a region decides who is asked first, a capacity how much they get. What exceeds
//! a bound is left out and counted, by name; the rest is taken, so that an honest peer that grew too large is not lost.

use std::collections::BTreeMap;

use eastway_core::resource::ClusterMeta;
use eastway_core::view::ZoneSummary;

use super::Exported;
use crate::options::PeerBounds;
use crate::resources::PeerPolicy;

/// How often something of a peer's was left out or replaced, by what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut(BTreeMap<&'static str, u64>);

impl Cut {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What was cut, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, count)| (*what, *count))
    }

    /// Whether all was taken as it was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes what a peer says, on its way into the catalogue of the cluster `own`.
#[derive(Debug)]
pub(crate) struct Taking<'a> {
    pub(crate) own: &'a ClusterMeta,
    pub(crate) policy: &'a PeerPolicy,
    pub(crate) bounds: &'a PeerBounds,
    pub(crate) cut: Cut,
}

impl Taking<'_> {
    /// What the peer says of itself.
    pub(crate) fn meta(&mut self, meta: &ClusterMeta) -> ClusterMeta {
        let mut meta = meta.clone();
        let region = match &self.policy.peer.region {
            Some(declared) => declared,
            // To be of this region is to be asked before all others: only an operator may say so.
            None if meta.region == self.own.region => &meta.name,
            None => &meta.region,
        };
        if *region != meta.region {
            self.cut.count("region");
            meta.region = region.clone();
        }
        if let Some(first) = meta.zones.keys().nth(self.bounds.zones).cloned() {
            self.cut.count("zones of the cluster");
            drop(meta.zones.split_off(&first));
        }
        meta
    }

    /// How a service is exported.
    pub(crate) fn exported(&mut self, exported: Exported) -> Exported {
        let Exported { mut ports, mut accounts, mut zones, beside } = exported;
        if zones.len() > self.bounds.zones {
            self.cut.count("zones");
            zones = zones.into_iter().take(self.bounds.zones).collect();
        }
        for (_, facts) in zones.iter_mut() {
            self.summary(&mut facts.summary);
        }
        if ports.len() > self.bounds.ports {
            self.cut.count("ports");
            ports = ports[..self.bounds.ports].into();
        }
        if accounts.len() > self.bounds.accounts {
            self.cut.count("accounts");
            accounts = accounts[..self.bounds.accounts].into();
        }
        let most = (self.bounds.gateways, self.bounds.zones);
        let (beside, whole) = beside.bounded(most, |summary| self.summary(summary));
        if !whole {
            self.cut.count("siblings");
        }
        Exported { ports, accounts, zones, beside }
    }

    fn summary(&mut self, summary: &mut ZoneSummary) {
        if summary.total > self.bounds.endpoints {
            self.cut.count("endpoints");
            summary.total = self.bounds.endpoints;
        }
        summary.ready = summary.ready.min(summary.total);
        summary.degraded = summary.degraded.min(summary.total - summary.ready);
        summary.draining = summary.draining.min(summary.total);
        let most = f64::from(summary.total) * f64::from(self.policy.peer.endpoint_capacity());
        if summary.capacity > most {
            self.cut.count("capacity");
            summary.capacity = most;
        }
    }
}

/// How many entries a service counts for.
pub(crate) fn entries(exported: &Exported) -> usize {
    1 + exported.zones.len() + exported.accounts.len() + exported.ports.len() + exported.beside.entries()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eastway_core::resource::{Peer, Protocol, ServicePort};

    use super::super::{Beside, ZoneFacts, Zones};
    use super::*;

    fn meta(name: &str, region: &str, zones: usize) -> ClusterMeta {
        let zones = (0..zones).map(|zone| (format!("z{zone:03}"), None)).collect();
        let (name, region) = (name.to_owned(), region.to_owned());
        ClusterMeta { name, uid: "1".to_owned(), region, trust_domain: "eu".to_owned(), zones }
    }

    /// What is taken of `said`, and what was cut, where the peer's `Peer` is `peer`.
    fn taken<T>(peer: Peer, take: impl FnOnce(&mut Taking<'_>) -> T) -> (T, Vec<(&'static str, u64)>) {
        let policy = PeerPolicy { peer, trust_domain: "eu".to_owned(), trust_bundle: Vec::new() };
        let (own, bounds) = (meta("us-east", "us", 1), PeerBounds::default());
        let mut taking = Taking { own: &own, policy: &policy, bounds: &bounds, cut: Cut::default() };
        let taken = take(&mut taking);
        (taken, taking.cut.iter().collect())
    }

    fn exported(summary: ZoneSummary) -> Exported {
        let facts = ZoneFacts { summary, returned: None };
        Exported { zones: [(Arc::from("a"), facts)].into_iter().collect(), ..Exported::default() }
    }

    #[test]
    fn a_peers_region_is_what_the_operator_declares_and_never_by_its_own_word_that_of_this_cluster() {
        let region = |declared: Option<&str>, said: &str| {
            let peer = Peer { region: declared.map(str::to_owned), ..Peer::default() };
            let (meta, cut) = taken(peer, |taking| taking.meta(&meta("eu-west", said, 1)));
            (meta.region, cut.len())
        };
        assert_eq!(region(None, "eu"), ("eu".to_owned(), 0));
        assert_eq!(region(None, "us"), ("eu-west".to_owned(), 1));
        assert_eq!(region(Some("us"), "us"), ("us".to_owned(), 0));
        assert_eq!(region(Some("eu"), "us"), ("eu".to_owned(), 1));
    }

    #[test]
    fn a_capacity_is_bounded_by_what_each_endpoint_may_have() {
        let capacity = |peer: Peer, capacity: f64| {
            let said = ZoneSummary { total: 4, ready: 4, capacity, ..ZoneSummary::default() };
            let (taken, cut) = taken(peer, |taking| taking.exported(exported(said)));
            (taken.zones[&Arc::from("a")].summary.capacity, cut)
        };
        assert_eq!(capacity(Peer::default(), 400.0), (400.0, vec![]));
        assert_eq!(capacity(Peer::default(), 1e300), (40_000.0, vec![("capacity", 1)]));
        let declared = Peer { endpoint_capacity: Some(50), ..Peer::default() };
        assert_eq!(capacity(declared, 400.0), (200.0, vec![("capacity", 1)]));
    }

    #[test]
    fn numbers_of_endpoints_stay_consistent_when_they_are_cut() {
        let said = ZoneSummary { total: u32::MAX, ready: u32::MAX - 1, degraded: 1, ..ZoneSummary::default() };
        let (taken, cut) = taken(Peer::default(), |taking| taking.exported(exported(said)));
        let summary = &taken.zones[&Arc::from("a")].summary;
        assert_eq!((summary.total, summary.ready, summary.degraded), (50_000, 50_000, 0));
        assert_eq!(cut, [("endpoints", 1)]);
    }

    #[test]
    fn what_is_said_of_siblings_is_bounded_as_what_is_said_of_oneself() {
        let said = ZoneSummary { total: 60_000, ready: 60_000, ..ZoneSummary::default() };
        let zones: Zones = (0..100).map(|n| (Arc::from(format!("z{n:03}")), said.clone())).collect();
        let holders = (0..20).map(|n| (Arc::from(format!("gw-{n:03}")), zones.clone())).collect();
        let exported = Exported { beside: Beside::told(holders), ..Exported::default() };
        let (bounded, cut) = taken(Peer::default(), |taking| taking.exported(exported));
        let kept: Vec<usize> = bounded.beside.holders().map(|(_, zones)| zones.len()).collect();
        assert_eq!(kept, [64; 16]);
        assert!(bounded.beside.holders().flat_map(|(_, zones)| zones.values()).all(|zone| zone.ready == 50_000));
        assert_eq!(cut, [("endpoints", 16 * 64), ("siblings", 1)]);
        assert_eq!(entries(&bounded), 1 + 16 * 65);
        let untold = Exported::default();
        let alone = Exported { beside: Beside::told(Default::default()), ..Exported::default() };
        for said in [untold, alone] {
            assert_eq!(taken(Peer::default(), |taking| taking.exported(said.clone())), (said, vec![]));
        }
    }

    #[test]
    fn zones_ports_and_accounts_beyond_the_bounds_are_left_out_and_named() {
        let many = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>();
        let ports = (1..=100).map(|port| ServicePort::new(port, Protocol::Http)).collect();
        let zones = (0..100).map(|n| (Arc::from(format!("z{n:03}")), ZoneFacts::default())).collect();
        let (taken, cut) = taken(Peer::default(), |taking| {
            assert_eq!(taking.meta(&meta("eu-west", "eu", 100)).zones.len(), 64);
            taking.exported(Exported { ports, accounts: many(100).into(), zones, beside: Beside::default() })
        });
        assert_eq!((taken.zones.len(), taken.ports.len(), taken.accounts.len()), (64, 64, 32));
        assert_eq!(entries(&taken), 1 + 64 + 64 + 32);
        assert_eq!(cut, [("accounts", 1), ("ports", 1), ("zones", 1), ("zones of the cluster", 1)]);
    }
}
