//! Resources: what an operator declares. One schema for files, API and Terraform.
//!
//! A kind is one file beside this one, which says what may be declared, and a line in `kinds!`. What is checked of it is in
//! `mesh/admission`.

mod access_policy;
mod drill;
mod idle;
mod mesh;
mod peer;
mod route;
mod service;
mod shift;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::locality::Coordinates;

pub use access_policy::{AccessPolicy, AccessRule};
pub use drill::Drill;
pub use idle::Idle;
pub use mesh::Mesh;
pub use peer::Peer;
pub use route::{Route, RouteDestination, RouteMatch, RouteRule};
pub use service::{OnFailback, Protocol, Service, ServicePort};
pub use shift::Shift;

pub(crate) use service::exports_to;

/// The only `apiVersion` so far.
pub const API_VERSION: &str = "eastway.dev/v1";

/// Declares [`Resource`], and [`Kind`], the names of what it may be.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// One declared resource.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        pub enum Resource {
            $($(#[$doc])* $kind(Box<Document<$kind>>),)+
        }

        /// What a resource may be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the variants of `Resource` say what they are")]
        pub enum Kind {
            $($kind,)+
        }

        impl Kind {
            /// Every kind, in the order in which they are listed.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The word in `kind`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)+
                }
            }
        }

        impl Resource {
            /// What it is.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                }
            }

            /// Its name and namespace.
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$kind(document) => &document.metadata,)+
                }
            }

            /// The `apiVersion` that it was written for.
            pub fn api_version(&self) -> &str {
                match self {
                    $(Self::$kind(document) => &document.api_version,)+
                }
            }
        }
    };
}

kinds! {
    /// Who may call a service. This version knows it and refuses it, because it does nothing with it yet.
    AccessPolicy,
    /// A failover drill. This version knows it and refuses it, because it does nothing with it yet.
    Drill,
    /// Defaults for the whole cluster.
    Mesh,
    /// A peer cluster.
    Peer,
    /// Which requests to a service go where. This version knows it and refuses it, because it does nothing with it yet.
    Route,
    /// A service that this cluster offers or calls.
    Service,
    /// An evacuation. This version knows it and refuses it, because it does nothing with it yet.
    Shift,
}

impl Kind {
    /// The kind called `text`, in any case, in the singular or in the plural.
    pub fn find(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::ALL.iter().copied().find(|kind| {
            let singular = kind.as_str().to_ascii_lowercase();
            let plural = match kind {
                Self::AccessPolicy => "accesspolicies".to_owned(),
                Self::Mesh => "meshes".to_owned(),
                _ => format!("{singular}s"),
            };
            text == singular || text == plural
        })
    }

    /// Whether resources of this kind lie in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Mesh | Self::Peer | Self::Shift | Self::Drill)
    }

    /// Whether this version acts on it.
    pub const fn has_effect(self) -> bool {
        matches!(self, Self::Mesh | Self::Peer | Self::Service)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tells a resource from all others: its kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceId {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; `default` for kinds that lie in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if kind.is_namespaced() { write!(f, "{kind} {namespace}/{name}") } else { write!(f, "{kind} {name}") }
    }
}

impl Resource {
    /// What tells it from all others.
    pub fn id(&self) -> ResourceId {
        let Metadata { name, namespace } = self.metadata();
        ResourceId { kind: self.kind(), namespace: namespace.clone(), name: name.clone() }
    }
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
    /// A DNS label; `default` where none is given. Mesh, Peer, Shift and Drill have none.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
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
    use crate::name::ServiceName;

    #[test]
    fn kinds_by_the_names_that_people_write() {
        for (text, kind) in [
            ("Service", Some(Kind::Service)),
            ("services", Some(Kind::Service)),
            ("accesspolicies", Some(Kind::AccessPolicy)),
            ("AccessPolicy", Some(Kind::AccessPolicy)),
            ("mesh", Some(Kind::Mesh)),
            ("servicess", None),
            ("", None),
        ] {
            assert_eq!(Kind::find(text), kind, "{text}");
        }
    }

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
