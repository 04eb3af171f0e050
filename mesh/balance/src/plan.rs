//! The plan that a pick reads: lanes, their table, and what is waiting to be tried again. Immutable; replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use eastway_core::Timestamp;

use crate::census::{Census, Decision};
use crate::endpoint::Endpoint;
use crate::lane::Lane;
use crate::policy::{Policy, Rules};
use crate::table::{LaneTable, Mode};

/// Everything that a pick needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In tier order.
    pub(crate) lanes: Arc<[Arc<Lane>]>,
    pub(crate) table: LaneTable,
    pub(crate) census: Census,
    pub(crate) decision: Decision,
    pub(crate) probes: Box<[Probe]>,
    /// Tables of the lanes of one cluster, of clusters that were asked for by name.
    pinned: ArcSwap<Vec<Pinned>>,
}

/// The lanes of one cluster, as if there were no others.
#[derive(Clone, Debug)]
struct Pinned {
    cluster: Arc<str>,
    table: Arc<LaneTable>,
}

/// Something half-open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    pub(crate) lane: usize,
    pub(crate) what: Probing,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Probing {
    Endpoint(Arc<Endpoint>),
    Lane,
    Path,
}

impl Plan {
    /// The plan for `lanes`, of which `census` counts each.
    pub(crate) fn new(lanes: Arc<[Arc<Lane>]>, census: Census, probes: Box<[Probe]>) -> Self {
        let decision = census.divide(|_| true);
        let table = LaneTable::new(&decision.bins());
        Self { lanes, table, census, decision, probes, pinned: ArcSwap::default() }
    }

    /// Before the first facts: nothing can be picked.
    pub(crate) fn empty(rules: Arc<Rules>) -> Self {
        Self::new(Arc::new([]), Census::empty(rules), Box::default())
    }

    /// The numbers that it was made with.
    pub(crate) fn policy(&self) -> &Policy {
        &self.census.rules.policy
    }

    /// Whether picks by `other`, for the same lanes, would be the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.census == other.census && self.probes == other.probes
    }

    /// The lane and mode in the slot that `random` selects of the table for one cluster. The first pick for a cluster
    /// makes its table; two at once may both make it.
    pub(crate) fn draw_within(&self, cluster: &str, random: u32) -> Option<(usize, Mode)> {
        let known = self.pinned.load();
        if let Some(pinned) = known.iter().find(|pinned| *pinned.cluster == *cluster) {
            return pinned.table.get(random);
        }
        let its = |lane: &Arc<Lane>| *lane.zone.cluster == *cluster;
        let cluster = Arc::clone(&self.lanes.iter().find(|lane| its(lane))?.zone.cluster);
        let table = Arc::new(LaneTable::new(&self.census.divide(|i| its(&self.lanes[i])).bins()));
        let drawn = table.get(random);
        let pinned = Pinned { cluster, table };
        self.pinned.rcu(|known| known.iter().cloned().chain([pinned.clone()]).collect::<Vec<_>>());
        drawn
    }
}
