//! The plan that a pick reads: localities, their table, and what is waiting to be tried again. Immutable; replaced as a
//! whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use eastway_core::Timestamp;

use crate::allocation::{Allocation, ServiceStats};
use crate::endpoint::Endpoint;
use crate::locality::LocalityEndpoints;
use crate::policy::{Policy, Rules};
use crate::shares::S;
use crate::table::{HealthBand, LocalityTable};

/// Everything that a pick needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In priority order.
    pub(crate) localities: Arc<[Arc<LocalityEndpoints>]>,
    pub(crate) table: LocalityTable,
    pub(crate) stats: ServiceStats,
    pub(crate) allocation: Allocation,
    pub(crate) probes: Box<[Probe]>,
    /// Tables of the localities of one cluster, of clusters that were asked for by name.
    pinned: ArcSwap<Vec<Pinned>>,
}

/// The localities of one cluster, as if there were no others.
#[derive(Clone, Debug)]
struct Pinned {
    cluster: Arc<str>,
    table: Arc<LocalityTable>,
}

/// Something half-open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    pub(crate) locality: usize,
    pub(crate) what: Probing,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Probing {
    Endpoint(Arc<Endpoint>),
    Locality,
    Path,
}

impl Plan {
    /// The plan for `localities`, of which `stats` counts each.
    pub(crate) fn new(localities: Arc<[Arc<LocalityEndpoints>]>, stats: ServiceStats, probes: Box<[Probe]>) -> Self {
        let allocation = stats.divide(|_| true);
        let table = LocalityTable::new(&allocation.bins());
        Self { localities, table, stats, allocation, probes, pinned: ArcSwap::default() }
    }

    /// Before the first facts: nothing can be picked.
    pub(crate) fn empty(rules: Arc<Rules>) -> Self {
        Self::new(Arc::new([]), ServiceStats::empty(rules), Box::default())
    }

    /// The numbers that it was made with.
    pub(crate) fn policy(&self) -> &Policy {
        &self.stats.rules.policy
    }

    /// Whether all localities together have too little for the traffic.
    pub(crate) fn lacks_room(&self) -> bool {
        self.allocation.target.normalized_total_availability < S
    }

    /// Whether picks by `other`, for the same localities, would be the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.stats == other.stats && self.probes == other.probes
    }

    /// The locality and mode in the slot that `random` selects of the table for one cluster. The first pick for a cluster
    /// makes its table; two at once may both make it.
    pub(crate) fn draw_within(&self, cluster: &str, random: u32) -> Option<(usize, HealthBand)> {
        let known = self.pinned.load();
        if let Some(pinned) = known.iter().find(|pinned| *pinned.cluster == *cluster) {
            return pinned.table.get(random);
        }
        let its = |locality: &Arc<LocalityEndpoints>| *locality.zone.cluster == *cluster;
        let cluster = Arc::clone(&self.localities.iter().find(|locality| its(locality))?.zone.cluster);
        let table = Arc::new(LocalityTable::new(&self.stats.divide(|i| its(&self.localities[i])).bins()));
        let drawn = table.get(random);
        let pinned = Pinned { cluster, table };
        self.pinned.rcu(|known| known.iter().cloned().chain([pinned.clone()]).collect::<Vec<_>>());
        drawn
    }
}
