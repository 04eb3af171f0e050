//! `Peer`: another cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::ServiceName;

/// Another cluster that this one exchanges services with. `metadata.name` is the peer's cluster name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// The peer's gateways, `HOST:PORT` of their tunnels (`tunnel.listen`).
    pub gateways: Vec<String>,
    /// Whether gateways that the peer states are connected to as well, and in the place of these as soon as one of them answers. To be
    /// said where both clusters reach one another at the addresses at which they are reached within (`tunnel.advertise`), and
    /// not through translated ones. A peer that joined by a token is followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// The trust domain of the peer's identities; default `NAME.mesh.internal`.
    pub trust_domain: Option<String>,
    /// The peer's CA certificates in PEM, or the file with them, relative to this file. They are pinned: nothing else is
    /// believed.
    pub trust_bundle: String,
    /// What is accepted from the peer: `NAMESPACE/*`, `NAMESPACE/SERVICE`, or `*` for all. Default: nothing.
    #[serde(default)]
    pub imports: Vec<String>,
    /// The region that the peer lies in, whatever it says of itself. Default: what it says, but for this cluster's own
    /// region, which decides who is asked first and therefore must be declared.
    pub region: Option<String>,
    /// Requests at once that one endpoint of the peer counts for at most, where traffic is divided by capacity. Default:
    /// 10,000.
    #[schemars(range(min = 1))]
    pub endpoint_capacity: Option<u32>,
}

/// What one endpoint of a peer counts for at most, unless its `Peer` says otherwise.
const ENDPOINT_CAPACITY: u32 = 10_000;

impl Peer {
    /// Requests at once that one endpoint counts for at most.
    pub fn endpoint_capacity(&self) -> u32 {
        self.endpoint_capacity.unwrap_or(ENDPOINT_CAPACITY)
    }

    /// Whether the service `name` is accepted from this peer.
    pub fn imports_service(&self, name: &ServiceName) -> bool {
        self.imports.iter().any(|rule| matches(rule, name))
    }

    /// The rules of `imports` that accept none of `services`.
    pub fn unmatched_imports<'a>(&self, services: impl IntoIterator<Item = &'a ServiceName> + Clone) -> Vec<String> {
        let idle = |rule: &&String| !services.clone().into_iter().any(|name| matches(rule, name));
        self.imports.iter().filter(idle).cloned().collect()
    }
}

/// Whether a rule of `imports` accepts the service `name`.
fn matches(rule: &str, name: &ServiceName) -> bool {
    match rule.split_once('/') {
        None => rule == "*",
        Some((namespace, service)) => namespace == &*name.namespace && (service == "*" || service == &*name.service),
    }
}
