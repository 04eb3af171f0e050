//! Resources: what an operator declares. One schema for files, API and Terraform.
//!
//! The kinds listed here are those that have an effect in this version; any other kind is an error, not a comment.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::locality::Coordinates;
use crate::name::ServiceName;
use crate::policy::{Balancing, Breakers, RetryRules, ServiceLimits, ServicePolicy, ServiceTimeouts};
use crate::text::DurationText;

/// The only `apiVersion` so far.
pub const API_VERSION: &str = "eastway.dev/v1";

/// One declared resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum Resource {
    /// A peer cluster.
    Peer(Document<Peer>),
    /// A service that this cluster offers or calls.
    Service(Box<Document<Service>>),
}

/// What every resource has around its `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document<T> {
    /// Always `eastway.dev/v1`.
    pub api_version: String,
    /// Name and namespace.
    pub metadata: Metadata,
    /// What is declared.
    pub spec: T,
}

/// The name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label, unique for the kind within its namespace.
    pub name: String,
    /// A DNS label; `default` where none is given. Peers have none.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Another cluster that this one exchanges services with. `metadata.name` is the peer's cluster name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// The peer's gateways, `HOST:PORT` of their QUIC listeners.
    pub gateways: Vec<String>,
    /// The trust domain of the peer's identities; default `NAME.mesh.internal`.
    pub trust_domain: Option<String>,
    /// The file with the peer's CA certificates (PEM), relative to this file. They are pinned: nothing else is believed.
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
}

impl Service {
    /// The accounts that may serve the service `name`: those declared, else the one named like it.
    pub fn accounts_for(&self, name: &ServiceName) -> Vec<String> {
        if self.accounts.is_empty() { vec![name.service.to_string()] } else { self.accounts.clone() }
    }

    /// The declared ports, or port 80 with HTTP.
    pub fn ports_or_default(&self) -> Vec<ServicePort> {
        if self.ports.is_empty() {
            vec![ServicePort { port: 80, protocol: Protocol::Http }]
        } else {
            self.ports.clone()
        }
    }

    /// How callers treat it.
    pub fn policy(&self) -> ServicePolicy {
        ServicePolicy {
            balancing: self.balancing.parsed(),
            breaker: self.breaker.parsed(),
            limits: self.limits,
            retries: self.retries.parsed(),
            timeouts: self.timeouts.parsed(),
        }
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

/// A cluster as it describes itself to its sidecars and peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterMeta {
    /// The cluster's name.
    pub name: String,
    /// Made once, when the cluster's store is first used; tells a cluster from a successor of the same name.
    pub uid: String,
    /// The region it lies in.
    pub region: String,
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// Its zones, with their coordinates where known.
    pub zones: BTreeMap<String, Option<Coordinates>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        ServiceName::new("shop", "payments")
    }

    #[test]
    fn nothing_is_imported_or_exported_unless_said() {
        assert!(!Peer::default().imports_service(&service()));
        assert!(!Service::default().exports_to("eu-west"));
    }

    #[test]
    fn imports_by_namespace_by_service_and_all() {
        for (rule, accepted) in [
            ("*", true),
            ("shop/*", true),
            ("shop/payments", true),
            ("shop/cart", false),
            ("other/*", false),
            ("sho/*", false),
        ] {
            let peer = Peer { imports: vec![rule.to_owned()], ..Peer::default() };
            assert_eq!(peer.imports_service(&service()), accepted, "{rule}");
            assert_eq!(peer.unmatched_imports([&service()]).is_empty(), accepted, "{rule}");
            assert_eq!(peer.unmatched_imports([]), [rule], "nothing is offered");
        }
    }

    #[test]
    fn the_account_named_like_the_service_serves_by_default() {
        assert_eq!(Service::default().accounts_for(&service()), ["payments"]);
        let declared = Service { accounts: vec!["pay-v2".to_owned()], ..Service::default() };
        assert_eq!(declared.accounts_for(&service()), ["pay-v2"]);
    }

    #[test]
    fn unknown_fields_and_kinds_are_errors() {
        let unknown_field =
            r#"{"kind":"Service","apiVersion":"eastway.dev/v1","metadata":{"name":"a"},"spec":{"exprot":["*"]}}"#;
        let unknown_kind = r#"{"kind":"Widget","apiVersion":"eastway.dev/v1","metadata":{"name":"a"},"spec":{}}"#;
        for text in [unknown_field, unknown_kind] {
            assert!(serde_json::from_str::<Resource>(text).is_err(), "{text}");
        }
    }
}
