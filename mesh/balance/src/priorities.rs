//! Which localities belong to which priority: topology first, then the operator's order, then distance.
//!
//! Priority by priority: the caller's own zone; the rest of its region; the clusters that the operator names, in that order;
//! all others by rings of distance. A cluster that the operator names leaves the region's priority, and with an order given,
//! clusters not named follow after those named, even those in the same region.
//!
//! Priorities are those that have a locality; their *levels* say how far they are also where nearer ones are missing.

use std::cmp::Ordering;
use std::sync::Arc;

use eastway_core::{Locality, ZoneId};

/// What the order of a locality depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Cluster and zone.
    pub zone: ZoneId,
    /// The cluster's region.
    pub region: Arc<str>,
    /// The ring of distance that it is held to be in.
    pub ring: usize,
    /// Its cost in ms, if known.
    pub cost_ms: Option<f64>,
    /// Requests that it could take more, were it used; orders the localities of a priority.
    pub headroom: f64,
}

/// Localities that share their traffic before a further priority gets any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority {
    /// The failover level: 0 is the caller's own zone and 1 its region, whether or not they have a locality; from 2 on, the
    /// priorities beyond are counted.
    pub level: usize,
    /// Indices of its places, best first.
    pub localities: Vec<usize>,
}

/// The rank of a priority; equal ranks are one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OwnZone,
    Region,
    Named(usize),
    RegionUnnamed,
    Ring(usize),
}

/// Arranges `places` in priorities, nearest priority first; none is empty. The order is total and deterministic: it does
/// not depend on the order of `places`.
pub fn arrange(caller: &Locality, places: &[Candidate], failover: &[String]) -> Vec<Priority> {
    let rank = |place: &Candidate| rank(caller, place, failover);
    let mut order: Vec<(Rank, usize)> = places.iter().enumerate().map(|(i, place)| (rank(place), i)).collect();
    order.sort_by(|(a, i), (b, j)| a.cmp(b).then_with(|| within(&places[*i], &places[*j])));
    let mut priorities: Vec<Priority> = Vec::new();
    for localities in order.chunk_by(|(a, _), (b, _)| a == b) {
        let level = match localities[0].0 {
            Rank::OwnZone => 0,
            Rank::Region => 1,
            Rank::Named(_) | Rank::RegionUnnamed | Rank::Ring(_) => {
                priorities.last().map_or(BEYOND, |nearer| BEYOND.max(nearer.level + 1))
            }
        };
        priorities.push(Priority { level, localities: localities.iter().map(|(_, index)| *index).collect() });
    }
    priorities
}

/// The level of the first priority that is neither the caller's zone nor its region.
const BEYOND: usize = 2;

fn rank(caller: &Locality, place: &Candidate, failover: &[String]) -> Rank {
    if place.zone == caller.zone {
        return Rank::OwnZone;
    }
    if place.zone.cluster == caller.zone.cluster {
        return Rank::Region;
    }
    if let Some(position) = failover.iter().position(|name| **name == *place.zone.cluster) {
        return Rank::Named(position);
    }
    match (place.region == caller.region, failover.is_empty()) {
        (true, true) => Rank::Region,
        (true, false) => Rank::RegionUnnamed,
        (false, _) => Rank::Ring(place.ring),
    }
}

/// Inside a priority: more headroom first, then nearer, then by name.
fn within(a: &Candidate, b: &Candidate) -> Ordering {
    let cost = |place: &Candidate| place.cost_ms.unwrap_or(f64::INFINITY);
    b.headroom.total_cmp(&a.headroom).then(cost(a).total_cmp(&cost(b))).then_with(|| a.zone.cmp(&b.zone))
}

#[cfg(test)]
mod tests;
