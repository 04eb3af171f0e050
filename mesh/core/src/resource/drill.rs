//! `Drill`: a failure that is tried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::DurationText;

/// A failover drill: a fault, where it acts, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drill {
    /// What is lost: `zone=CLUSTER/ZONE`, `region=NAME`, `cluster=NAME`, `service=NAMESPACE/SERVICE` or `gateway=NAME`.
    pub lose: String,
    /// How: `blackhole`, `refuse`, `slow=DURATION`, `errors=PERCENT` or `drain`.
    pub mode: String,
    /// For how long.
    #[serde(rename = "for")]
    pub duration: DurationText,
}
