//! `Route`: which requests to a service go where, and what is done to them on the way.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::DurationText;

/// Rules for the requests to one service. The first that matches decides; without one, the request goes to the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The service that is called, `NAMESPACE/SERVICE`.
    pub service: String,
    /// The rules, in order.
    #[schemars(length(min = 1))]
    pub rules: Vec<RouteRule>,
}

/// What happens to the requests that match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    /// The requests that are meant: those that fit one of these. Default: all.
    #[serde(default)]
    pub matches: Vec<RouteMatch>,
    /// Where they go, by weight. Default: to the service itself.
    #[serde(default)]
    pub destinations: Vec<RouteDestination>,
    /// From the end of a request to the first byte of its response. Default: the service's.
    pub timeout: Option<DurationText>,
}

/// Requests that fit everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The beginning of the path, in whole segments.
    pub path_prefix: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// Headers and the values that they must have.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Where a part of the requests goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteDestination {
    /// The service, `NAMESPACE/SERVICE`.
    pub service: String,
    /// Its part, relative to the others. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}
