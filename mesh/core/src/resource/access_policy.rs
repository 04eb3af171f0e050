//! `AccessPolicy`: who may call a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may call a service, and what of it. Whoever no rule lets in is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessPolicy {
    /// The service that is protected, `NAMESPACE/SERVICE`.
    pub service: String,
    /// Whoever fits one of these may call.
    pub allow: Vec<AccessRule>,
}

/// Callers and calls that fit everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// The clusters that callers run in. Default: any.
    #[serde(default)]
    pub clusters: Vec<String>,
    /// The accounts of callers, `NAMESPACE/ACCOUNT` or `NAMESPACE/*`. Default: any.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The methods of HTTP. Default: any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The beginnings of paths, in whole segments. Default: any.
    #[serde(default)]
    pub path_prefixes: Vec<String>,
}
