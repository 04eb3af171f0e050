//! SPIFFE identities: who a certificate speaks for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::is_label;

/// An identity of the mesh, as its certificate's only URI name states it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain, by default `CLUSTER.mesh.internal`.
    pub trust_domain: String,
    /// Whom within it.
    pub principal: Principal,
}

/// The kinds of identities that a cluster's CA issues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// `/ns/NAMESPACE/sa/ACCOUNT`: a workload.
    Workload {
        /// The workload's namespace.
        namespace: String,
        /// Its account within the namespace.
        account: String,
    },
    /// `/eastway/gateway/ID`: a gateway. Never issued to a workload.
    Gateway(String),
    /// `/eastway/operator/NAME`: a person or a pipeline.
    Operator(String),
}

impl SpiffeId {
    /// The identity of a workload's account.
    pub fn workload(trust_domain: &str, namespace: &str, account: &str) -> Self {
        let principal = Principal::Workload { namespace: namespace.to_owned(), account: account.to_owned() };
        Self { trust_domain: trust_domain.to_owned(), principal }
    }

    /// The identity of the gateway `id`.
    pub fn gateway(trust_domain: &str, id: &str) -> Self {
        Self { trust_domain: trust_domain.to_owned(), principal: Principal::Gateway(id.to_owned()) }
    }

    /// The identity of the operator `name`.
    pub fn operator_of(trust_domain: &str, name: &str) -> Self {
        Self { trust_domain: trust_domain.to_owned(), principal: Principal::Operator(name.to_owned()) }
    }

    /// The operator's name, if this is an operator's identity.
    pub fn operator(&self) -> Option<&str> {
        match &self.principal {
            Principal::Operator(name) => Some(name),
            Principal::Gateway(_) | Principal::Workload { .. } => None,
        }
    }

    /// Whether this is a gateway's identity.
    pub const fn is_gateway(&self) -> bool {
        matches!(self.principal, Principal::Gateway(_))
    }

    /// Whether this is a workload's identity.
    pub const fn is_workload(&self) -> bool {
        matches!(self.principal, Principal::Workload { .. })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        match &self.principal {
            Principal::Workload { namespace, account } => write!(f, "/ns/{namespace}/sa/{account}"),
            Principal::Gateway(id) => write!(f, "/eastway/gateway/{id}"),
            Principal::Operator(name) => write!(f, "/eastway/operator/{name}"),
        }
    }
}

/// Why a text is not an identity of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It does not start with `spiffe://`.
    #[error("`{0}` is not a SPIFFE id: it must start with spiffe://")]
    Scheme(String),
    /// The trust domain is empty or has characters that SPIFFE forbids.
    #[error("`{0}` has no valid trust domain (lower-case letters, digits, `.`, `-`, `_`)")]
    TrustDomain(String),
    /// The path is none that a mesh CA issues.
    #[error(
        "`{0}` names neither a workload (/ns/NAMESPACE/sa/ACCOUNT), a gateway (/eastway/gateway/ID) nor an operator"
    )]
    Path(String),
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| SpiffeError::Scheme(text.to_owned()))?;
        let (trust_domain, path) = rest.split_once('/').ok_or_else(|| SpiffeError::Path(text.to_owned()))?;
        if !is_trust_domain(trust_domain) {
            return Err(SpiffeError::TrustDomain(text.to_owned()));
        }
        let segments: Vec<&str> = path.split('/').collect();
        let principal = match segments[..] {
            ["ns", namespace, "sa", account] if is_label(namespace) && is_label(account) => {
                Principal::Workload { namespace: namespace.to_owned(), account: account.to_owned() }
            }
            ["eastway", "gateway", id] if is_label(id) => Principal::Gateway(id.to_owned()),
            ["eastway", "operator", name] if is_label(name) => Principal::Operator(name.to_owned()),
            _ => return Err(SpiffeError::Path(text.to_owned())),
        };
        Ok(Self { trust_domain: trust_domain.to_owned(), principal })
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether `text` may be a SPIFFE trust domain: at most 255 of `a-z`, `0-9`, `.`, `-`, `_`.
pub fn is_trust_domain(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_round_trip() {
        for text in [
            "spiffe://us-east.mesh.internal/ns/shop/sa/payments",
            "spiffe://us-east.mesh.internal/eastway/gateway/gw-1",
            "spiffe://td/eastway/operator/alice",
        ] {
            let id: SpiffeId = text.parse().expect(text);
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn a_workload_never_reads_as_a_gateway() {
        let id: SpiffeId = "spiffe://td/ns/eastway/sa/gateway".parse().expect("valid");
        assert!(id.is_workload() && !id.is_gateway());
    }

    #[test]
    fn what_no_mesh_ca_issues_is_refused() {
        for text in [
            "https://td/ns/a/sa/b",
            "spiffe://",
            "spiffe://td",
            "spiffe:///ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/eastway/gateway/",
            "spiffe://td/eastway/root/x",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
