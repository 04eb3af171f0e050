//! What a service's decision looks like to an operator: everything that a pick depends on, with a reason for each.

use std::net::SocketAddr;

use eastway_core::policy::Mode;
use eastway_core::view::{PathState, Staleness};
use eastway_core::{EndpointId, Health, ZoneId};
use serde::Serialize;

use crate::situation::Percent;

/// The decision of one service in one node. Shares are in percent of all of its traffic; in the Envoy mode
/// whole, as offline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// `NAMESPACE/SERVICE`.
    pub service: String,
    /// The zone that calls.
    pub from: ZoneId,
    /// Which formulas divide traffic.
    pub mode: Mode,
    /// The regions that traffic may go to; `null`: all. What is outside of them is no locality.
    pub residency: Option<Vec<String>>,
    /// What all priorities together can take, in percent.
    pub normalized_total_availability: Percent,
    /// Nearest first.
    pub priorities: Vec<PriorityExplanation>,
}

/// One priority.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriorityExplanation {
    /// The failover level: 0 is the caller's zone, 1 its region, 2 and up what lies beyond.
    pub level: usize,
    /// By its healthy endpoints, before anything is held back.
    pub healthy_load: Percent,
    /// By its degraded endpoints.
    pub degraded_load: Percent,
    /// Soft marks are ignored.
    pub panic: bool,
    /// The factor by which utilisation lowers what the priority keeps; `null` if utilisation is unknown.
    pub utilisation_factor: Option<f64>,
    /// Its localities.
    pub localities: Vec<LocalityExplanation>,
}

/// One locality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocalityExplanation {
    /// `CLUSTER/ZONE`.
    pub name: ZoneId,
    /// What it gets.
    pub share: Percent,
    /// What it would get if nothing were held back.
    pub target: Percent,
    /// The region of its cluster.
    pub region: String,
    /// Reached through gateways.
    pub remote: bool,
    /// Endpoints that count.
    pub hosts: u32,
    /// Weight that serves, of `total`.
    pub healthy: f64,
    /// Weight that serves as second choice.
    pub degraded: f64,
    /// Weight out by statistics or silence.
    pub soft: f64,
    /// Weight that counts.
    pub total: f64,
    /// The operator's weight.
    pub weight: f64,
    /// Requests at once.
    pub capacity: f64,
    /// Use of the capacity; `null` if unknown.
    pub utilisation: Option<f64>,
    /// Cost of reaching it, in ms; `null` within the own region or if unknown.
    pub distance_ms: Option<f64>,
    /// The path between the gateways.
    pub path: Option<PathState>,
    /// The age of what its cluster says.
    pub staleness: Option<Staleness>,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// The breaker's statistic over its threshold.
    pub pressure: f64,
    /// `serving`, `ramping`, `damped`, `failed` or `new`.
    pub stage: &'static str,
    /// The most that it may take now, while it ramps.
    pub cap: Option<Percent>,
    /// In one sentence.
    pub why: String,
    /// Its endpoints; of a remote locality, those that sessions led to.
    pub endpoints: Vec<EndpointExplanation>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointExplanation {
    /// Its name.
    pub id: EndpointId,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// What discovery says.
    pub health: Health,
    /// Which life of it.
    pub incarnation: u64,
    /// Relative to its peers.
    pub weight: f64,
    /// This node's requests in flight.
    pub active_requests: u32,
    /// Others' requests in flight, as reported and decayed, with penalties.
    pub others: f64,
    /// Smoothed time to the first byte; `null` while unknown.
    pub latency_ms: Option<f64>,
    /// Use of its capacity.
    pub utilisation: Option<f64>,
    /// Part of the draws that accept it.
    pub acceptance: f64,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// The breaker's statistic.
    pub statistic: f64,
    /// Whether picks use it.
    pub used: bool,
    /// Why, or why not.
    pub why: &'static str,
}
