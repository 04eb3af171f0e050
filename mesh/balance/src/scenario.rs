//! A scenario: priorities and localities in counts of hosts, as an operator writes them down to ask how traffic would be
//! divided.
//!
//! The format is a contract: fields are only ever added. `explain --file` and `what-if --file` read it; a running node
//! answers the same questions about its own state ([`crate::Service::explain`], [`crate::Service::what_if`]).

use std::collections::BTreeSet;

use eastway_core::policy::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::allocation::LocalityStats;
use crate::envoy::Hosts;
use crate::shares::{LocalityInput, Options};
use crate::situation::{Situation, SituationLocality};

/// What an operator wants to know about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// How traffic is divided: `native`, or `envoy` (Envoy's integers). Default `native`.
    #[serde(default)]
    pub mode: Mode,
    /// A priority keeps all of its traffic while at least 1 / this of it is healthy. Default 1.4.
    #[serde(default = "overprovisioning")]
    #[schemars(range(min = 0.01, max = 1000.0))]
    pub overprovisioning: f64,
    /// In percent: below this availability of a priority its soft marks are ignored, if all priorities together lack
    /// capacity. Default 50.
    #[serde(default = "panic_threshold")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub panic_threshold: f64,
    /// In order of preference.
    #[schemars(length(min = 1, max = 1000), extend("x-formerly" = "tiers"))]
    pub priorities: Vec<ScenarioPriority>,
}

/// One priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioPriority {
    /// Its localities, nearest first.
    #[schemars(length(min = 1, max = 1000), extend("x-formerly" = "lanes"))]
    pub localities: Vec<ScenarioLocality>,
}

/// One locality: a zone of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioLocality {
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
        for (t, priority) in self.priorities.iter().enumerate() {
            for (l, locality) in priority.localities.iter().enumerate() {
                let path = format!("priorities[{t}].localities[{l}]");
                let parts = [locality.healthy, locality.degraded, locality.excluded, locality.soft];
                let parts: u64 = parts.into_iter().map(u64::from).sum();
                if parts > u64::from(locality.hosts) {
                    let message = format!(
                        "healthy + degraded + excluded + soft is {parts}, more than the {} hosts: they are parts of them",
                        locality.hosts
                    );
                    problems.push((format!("{path}.hosts"), message));
                }
                if locality.name.is_empty() {
                    problems.push((format!("{path}.name"), "a locality needs a name, such as us-east/a".to_owned()));
                } else if !names.insert(&locality.name) {
                    problems
                        .push((format!("{path}.name"), format!("`{}` is the name of another locality", locality.name)));
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
        let priorities =
            self.priorities.iter().map(|priority| priority.localities.iter().map(ScenarioLocality::situated).collect());
        Situation { mode: self.mode, options, priorities: priorities.collect() }
    }
}

impl ScenarioLocality {
    fn situated(&self) -> SituationLocality {
        let hosts =
            Hosts { hosts: self.hosts, healthy: self.healthy, degraded: self.degraded, excluded: self.excluded };
        let input = LocalityInput {
            total: f64::from(self.hosts.saturating_sub(self.excluded)),
            healthy: f64::from(self.healthy),
            degraded: f64::from(self.degraded),
            soft: f64::from(self.soft),
            weight: self.weight,
            capacity: self.capacity.unwrap_or_else(|| f64::from(self.hosts)),
            utilisation: self.utilisation,
        };
        // Envoy knows no hard marks: what a file calls unhealthy can be picked in its panic.
        let counted = LocalityStats { input, hosts, reachable_hosts: self.hosts, ..LocalityStats::default() };
        SituationLocality { name: self.name.clone(), region: None, counted }
    }
}

#[cfg(test)]
mod tests;
