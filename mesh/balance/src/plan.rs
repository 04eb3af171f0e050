//! The plan that a pick reads: lanes, their table, and what is waiting to be tried again. Immutable; replaced as a whole.

use std::sync::Arc;

use eastway_core::Timestamp;

use crate::endpoint::Endpoint;
use crate::lane::Lane;
use crate::policy::Rules;
use crate::shares::Shares;
use crate::table::LaneTable;

/// Everything that a pick needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In tier order.
    pub(crate) lanes: Arc<[Arc<Lane>]>,
    pub(crate) table: LaneTable,
    /// One for each lane.
    pub(crate) entries: Box<[Entry]>,
    pub(crate) probes: Box<[Probe]>,
    pub(crate) decision: Decision,
    pub(crate) rules: Arc<Rules>,
}

/// The shares behind the table, for those who explain them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// By the formulas alone.
    pub(crate) target: Shares,
    /// What each lane gets, held back and floored.
    pub(crate) shares: Vec<u32>,
}

/// What a pick that may not use the table knows of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    /// Weight that counts.
    pub(crate) total: f32,
    /// Weight that serves without any mark, held back as its ramp says.
    pub(crate) able: f32,
    /// Weight × capacity × availability.
    pub(crate) part: f32,
    /// Something in it has no hard mark, and there is a path, though it may fail as seen from here.
    pub(crate) reachable: bool,
    /// The path to it is down.
    pub(crate) path_down: bool,
}

/// Something half-open.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) lane: usize,
    pub(crate) what: Probing,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Probing {
    Endpoint(Arc<Endpoint>),
    Lane,
    Path,
}

impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.what, &other.what) {
            (Probing::Endpoint(a), Probing::Endpoint(b)) => Arc::ptr_eq(a, b),
            (Probing::Lane, Probing::Lane) | (Probing::Path, Probing::Path) => true,
            _ => false,
        };
        same && self.lane == other.lane && self.since == other.since
    }
}

impl Plan {
    /// Before the first facts: nothing can be picked.
    pub(crate) fn empty(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            lanes: Arc::new([]),
            table: LaneTable::new(&[]),
            entries: Box::new([]),
            probes: Box::new([]),
            decision: Decision::default(),
        }
    }
}

impl Plan {
    /// Draws a lane among those that are `allowed` and serve without marks, as the formulas would divide the traffic
    /// if there were no others. It allocates nothing.
    pub(crate) fn draw_among(
        &self,
        overprovisioning: f32,
        rng: &mut fastrand::Rng,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let ability = |tier: std::ops::Range<usize>| {
            let lanes = tier.filter(|i| allowed(*i)).map(|i| &self.entries[i]);
            let (able, total) = lanes.fold((0.0, 0.0), |(a, t), entry| (a + entry.able, t + entry.total));
            if total > 0.0 { (overprovisioning * able / total).min(1.0) } else { 0.0 }
        };
        let all: f32 = self.tiers().map(&ability).sum::<f32>().min(1.0);
        if all <= 0.0 {
            return None;
        }
        let mut point = rng.f32() * all;
        let mut last = None;
        for tier in self.tiers() {
            let load = ability(tier.clone());
            if load > 0.0 {
                last = Some(tier.clone());
                if point < load {
                    break;
                }
                point -= load;
            }
        }
        self.draw_in(last?, rng, allowed)
    }

    /// Draws a lane of one tier by its part.
    fn draw_in(
        &self,
        tier: std::ops::Range<usize>,
        rng: &mut fastrand::Rng,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let part = |i: usize| if allowed(i) && self.entries[i].able > 0.0 { self.entries[i].part } else { 0.0 };
        let sum: f32 = tier.clone().map(part).sum();
        let mut point = rng.f32() * sum;
        let mut last = None;
        for i in tier.clone() {
            if part(i) > 0.0 {
                last = Some(i);
                if point < part(i) {
                    break;
                }
                point -= part(i);
            }
        }
        last.or_else(|| tier.clone().find(|i| allowed(*i) && self.entries[*i].able > 0.0))
    }

    /// The tiers as ranges of lanes.
    fn tiers(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let mut start = 0;
        self.lanes.chunk_by(|a, b| a.tier == b.tier).map(move |lanes| {
            let range = start..start + lanes.len();
            start = range.end;
            range
        })
    }
}
