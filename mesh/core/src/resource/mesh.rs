//! `Mesh`: defaults for the whole cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Balancing, Breakers, RetryRules, ServiceLimits, ServicePolicy, ServiceTimeouts};
use crate::text::DurationText;

/// How callers in this cluster treat every service, declared or not, as far as its `Service` does not say otherwise. There is
/// one, named `mesh`. What it leaves out keeps Eastway's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mesh {
    /// Where requests go.
    #[serde(default)]
    pub balancing: Balancing<DurationText>,
    /// When an endpoint or a zone is left out, and for how long.
    #[serde(default)]
    pub breaker: Breakers<DurationText>,
    /// How much at once, from one sidecar, for each service.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// When an attempt is repeated.
    #[serde(default)]
    pub retries: RetryRules<DurationText>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: ServiceTimeouts<DurationText>,
}

impl Mesh {
    /// The only name that it may have.
    pub const NAME: &'static str = "mesh";

    /// How callers treat a service of which nothing else is said.
    pub fn policy(&self) -> ServicePolicy {
        let Self { balancing, breaker, limits, retries, timeouts } = self;
        ServicePolicy::parsed((balancing, breaker), *limits, (retries, timeouts))
    }
}
