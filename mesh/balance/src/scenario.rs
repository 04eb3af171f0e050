//! A scenario: tiers and lanes in counts of hosts, as an operator writes them down to ask how traffic would be divided.
//!
//! The format is a contract: fields are only ever added. `explain --file` and `what-if --file` read it; a running node
//! answers the same questions about its own state ([`crate::Service::explain`], [`crate::Service::what_if`]).

use std::collections::BTreeSet;

use eastway_core::policy::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::census::Counted;
use crate::compat::Hosts;
use crate::shares::{LaneInput, Options};
use crate::situation::{Situated, Situation};

/// What an operator wants to know about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// How traffic is divided: `native`, or `compatible` (Envoy's integers). Default `native`.
    #[serde(default)]
    pub mode: Mode,
    /// A tier keeps all of its traffic while at least 1 / this of it is healthy. Default 1.4.
    #[serde(default = "overprovisioning")]
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub overprovisioning: f64,
    /// In percent: below this availability of a tier its soft marks are ignored, if all tiers together lack capacity. Default 50.
    #[serde(default = "panic_threshold")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub panic_threshold: f64,
    /// In order of preference.
    #[schemars(length(min = 1, max = 1000))]
    pub tiers: Vec<ScenarioTier>,
}

/// One tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioTier {
    /// Its lanes, nearest first.
    #[schemars(length(min = 1, max = 1000))]
    pub lanes: Vec<ScenarioLane>,
}

/// One lane: a zone of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioLane {
    /// `CLUSTER/ZONE`, or any other name that is not used twice.
    pub name: String,
    /// All hosts, whatever their state. 0 is valid.
    pub hosts: u32,
    /// Of them, healthy.
    pub healthy: u32,
    /// Of them, degraded: second choice. Default 0.
    #[serde(default)]
    pub degraded: u32,
    /// Of them, never warmed: they count nowhere. Default 0.
    #[serde(default)]
    pub excluded: u32,
    /// Of them, unhealthy only by soft marks (ejected by statistics): they count as healthy in a native panic. Default 0.
    #[serde(default)]
    pub soft: u32,
    /// The operator's weight of the locality. Default 1.
    #[serde(default = "weight")]
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub weight: f64,
    /// Requests that it serves at once, all hosts together. Default: as many as hosts.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub capacity: Option<f64>,
    /// Use of that capacity, 1 for all of it. Default: unknown.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub utilisation: Option<f64>,
}

fn overprovisioning() -> f64 {
    Options::default().overprovisioning
}

fn panic_threshold() -> f64 {
    Options::default().panic_threshold
}

fn weight() -> f64 {
    1.0
}

impl Scenario {
    /// What the shape alone does not say: each problem with the path of the field that has it.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        for (t, tier) in self.tiers.iter().enumerate() {
            for (l, lane) in tier.lanes.iter().enumerate() {
                let path = format!("tiers[{t}].lanes[{l}]");
                let parts = [lane.healthy, lane.degraded, lane.excluded, lane.soft];
                let parts: u64 = parts.into_iter().map(u64::from).sum();
                if parts > u64::from(lane.hosts) {
                    let message = format!(
                        "healthy + degraded + excluded + soft is {parts}, more than the {} hosts: they are parts of them",
                        lane.hosts
                    );
                    problems.push((format!("{path}.hosts"), message));
                }
                if lane.name.is_empty() {
                    problems.push((format!("{path}.name"), "a lane needs a name, such as us-east/a".to_owned()));
                } else if !names.insert(&lane.name) {
                    problems.push((format!("{path}.name"), format!("`{}` is the name of another lane", lane.name)));
                }
            }
        }
        problems
    }

    /// The facts behind the scenario.
    pub fn situation(&self) -> Situation {
        let options = Options {
            overprovisioning: self.overprovisioning,
            panic_threshold: self.panic_threshold,
            ..Options::default()
        };
        let tiers = self.tiers.iter().map(|tier| tier.lanes.iter().map(ScenarioLane::situated).collect());
        Situation { mode: self.mode, options, tiers: tiers.collect() }
    }
}

impl ScenarioLane {
    fn situated(&self) -> Situated {
        let hosts =
            Hosts { hosts: self.hosts, healthy: self.healthy, degraded: self.degraded, excluded: self.excluded };
        let input = LaneInput {
            total: f64::from(self.hosts.saturating_sub(self.excluded)),
            healthy: f64::from(self.healthy),
            degraded: f64::from(self.degraded),
            soft: f64::from(self.soft),
            weight: self.weight,
            capacity: self.capacity.unwrap_or_else(|| f64::from(self.hosts)),
            utilisation: self.utilisation,
        };
        // Envoy knows no hard marks: what a file calls unhealthy can be picked in its panic.
        let counted = Counted { input, hosts, reachable_hosts: self.hosts, ..Counted::default() };
        Situated { name: self.name.clone(), region: None, counted }
    }
}

#[cfg(test)]
mod tests;
