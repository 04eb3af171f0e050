//! `Shift`: an evacuation, with an end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What gets no traffic until a moment that is fixed beforehand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shift {
    /// What is evacuated: `zone=CLUSTER/ZONE`, `region=NAME`, `cluster=NAME`, `service=NAMESPACE/SERVICE` or `gateway=NAME`.
    pub away: String,
    /// When it ends, whatever happens: a time such as `2026-03-01T09:30:00Z`, at most 24 hours ahead.
    pub until: String,
}
