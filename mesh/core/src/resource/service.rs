//! `Service`: what this cluster offers or calls.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Idle, Mesh};
use crate::name::ServiceName;
use crate::policy::{Balancing, Breakers, RetryRules, ServiceLimits, ServicePolicy, ServiceTimeouts};
use crate::text::DurationText;

/// A service: how it is reached, who may serve it, and where it is offered. The resource is optional for a service
/// that is used within one cluster only: a registration under the account of the same name suffices.
///
/// What it says of calls (`balancing` and what follows) holds for the callers in this cluster; a peer that the service
/// is offered to decides for its own callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// The ports that callers name. Default: 80, HTTP.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// The accounts whose workloads may serve it. Default: the account named like the service.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// To which peer clusters it is offered: names, or `*` for all. Default: to none.
    #[serde(default)]
    pub export: Vec<String>,
    /// Weights of localities, `CLUSTER/ZONE` to a number ≥ 0; they shift the shares within a priority and still fail over.
    /// Default: 1 each.
    #[serde(default)]
    pub locality_weights: BTreeMap<String, f64>,
    /// The order in which other clusters are tried; clusters not named follow by distance. Default: by distance alone.
    #[serde(default)]
    pub failover: Vec<String>,
    /// Where requests go.
    #[serde(default)]
    pub balancing: Balancing<DurationText>,
    /// When an endpoint or a zone is left out, and for how long.
    #[serde(default)]
    pub breaker: Breakers<DurationText>,
    /// How much at once, from one sidecar.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// When an attempt is repeated.
    #[serde(default)]
    pub retries: RetryRules<DurationText>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: ServiceTimeouts<DurationText>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// The number that callers use.
    pub port: u16,
    /// What is spoken on it. Default `http`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How long a connection, a WebSocket or another stream of bytes to it may carry nothing, or `off`, as databases want it.
    /// Default: what each sidecar says (`timeouts.idle`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// What becomes of connections and other streams of bytes that were made to farther endpoints, once nearer ones serve
    /// again. Default `keep`.
    #[serde(default, rename = "onFailback", skip_serializing_if = "OnFailback::is_default")]
    pub on_failback: OnFailback,
}

/// What becomes of streams to farther endpoints once nearer ones serve again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailback {
    /// They last for as long as both ends want.
    #[default]
    Keep,
    /// They are ended, so that their clients connect anew: once nothing new goes where they go, and not all at once
    /// (`timeouts.failback` of the caller's sidecar).
    Drain,
}

impl OnFailback {
    /// Whether it is what holds where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl ServicePort {
    /// A port of which nothing else is said.
    pub const fn new(port: u16, protocol: Protocol) -> Self {
        Self { port, protocol, idle: None, on_failback: OnFailback::Keep }
    }
}

/// The protocol of a service's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2: balanced, retried and measured per request.
    #[default]
    Http,
    /// gRPC: as HTTP, and refusals carry a gRPC status.
    Grpc,
    /// Bytes: balanced per connection.
    Tcp,
    /// What the first bytes of a connection show: HTTP as `http`, all else as `tcp`. TLS leads by the name that it asks for (SNI) if
    /// that is one of the mesh.
    Auto,
}

impl Service {
    /// The accounts that may serve the service `name`: those declared, else the one named like it.
    pub fn accounts_for(&self, name: &ServiceName) -> Vec<String> {
        if self.accounts.is_empty() { vec![name.service.to_string()] } else { self.accounts.clone() }
    }

    /// The declared ports, or port 80 with HTTP.
    pub fn ports_or_default(&self) -> Vec<ServicePort> {
        if self.ports.is_empty() { vec![ServicePort::new(80, Protocol::Http)] } else { self.ports.clone() }
    }

    /// How callers treat it: as it says, else as `mesh` says of all services.
    pub fn policy(&self, mesh: &Mesh) -> ServicePolicy {
        let Self { balancing, breaker, limits, retries, timeouts, .. } = self;
        ServicePolicy::parsed((balancing, breaker), *limits, (retries, timeouts)).or(mesh.policy())
    }

    /// Whether the service is offered to the peer cluster `cluster`.
    pub fn exports_to(&self, cluster: &str) -> bool {
        exports_to(&self.export, cluster)
    }
}

/// Whether the list `export` of a service names the peer cluster `cluster`, or all.
pub(crate) fn exports_to(export: &[String], cluster: &str) -> bool {
    export.iter().any(|to| to == "*" || to == cluster)
}
