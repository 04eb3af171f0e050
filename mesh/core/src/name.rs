//! Names of services, and the authorities (`Host`, `:authority`, CONNECT targets) that stand for them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The suffix of mesh names unless the configuration says another.
pub const DEFAULT_SUFFIX: &str = "mesh.internal";

/// The suffix of the Multi-Cluster Services API, an alias that forbids per-cluster names.
pub const CLUSTERSET_SUFFIX: &str = "svc.clusterset.local";

/// A service of the mesh, wherever its endpoints are. Written `NAMESPACE/SERVICE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The service's name within it.
    pub service: Arc<str>,
}

impl ServiceName {
    /// The service `service` of `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, service: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), service: service.into() }
    }

    /// The mesh-wide host name under `suffix`: `SERVICE.NAMESPACE.SUFFIX`.
    pub fn host(&self, suffix: &str) -> String {
        format!("{}.{}.{suffix}", self.service, self.namespace)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

/// Why a text is not a [`ServiceName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a service: write NAMESPACE/SERVICE, each of lower-case letters, digits and `-`")]
pub struct ServiceNameError(String);

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        match text.split_once('/') {
            Some((namespace, service)) if is_label(namespace) && is_label(service) => Ok(Self::new(namespace, service)),
            _ => Err(ServiceNameError(text.to_owned())),
        }
    }
}

impl Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A service by the name that callers use: wherever it is, or in one cluster only. What a virtual address stands for. Written
/// `NAMESPACE/SERVICE` or `NAMESPACE/SERVICE/CLUSTER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshHost {
    /// The service.
    pub service: ServiceName,
    /// Only that cluster's endpoints, if named.
    pub cluster: Option<Arc<str>>,
}

impl MeshHost {
    /// Reads what stands before the mesh's suffix: `SERVICE.NAMESPACE` or `SERVICE.NAMESPACE.CLUSTER`, in lower case.
    pub fn from_labels(labels: &[&str]) -> Option<Self> {
        if !labels.iter().all(|label| is_label(label)) {
            return None;
        }
        match *labels {
            [service, namespace] => Some(Self { service: ServiceName::new(namespace, service), cluster: None }),
            [service, namespace, cluster] => {
                Some(Self { service: ServiceName::new(namespace, service), cluster: Some(cluster.into()) })
            }
            _ => None,
        }
    }

    /// The host at the port `port`.
    pub fn at(self, port: u16) -> Authority {
        Authority { service: self.service, cluster: self.cluster, port: Some(port) }
    }
}

impl fmt::Display for MeshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "{}/{cluster}", self.service),
            None => self.service.fmt(f),
        }
    }
}

/// Why a text is not a [`MeshHost`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not NAMESPACE/SERVICE or NAMESPACE/SERVICE/CLUSTER")]
pub struct MeshHostError(String);

impl FromStr for MeshHost {
    type Err = MeshHostError;

    fn from_str(text: &str) -> Result<Self, MeshHostError> {
        let parts: Vec<&str> = text.split('/').collect();
        let labels: Option<&[&str]> = match parts[..] {
            [namespace, service] => Some(&[service, namespace]),
            [namespace, service, cluster] => Some(&[service, namespace, cluster]),
            _ => None,
        };
        labels.and_then(Self::from_labels).ok_or_else(|| MeshHostError(text.to_owned()))
    }
}

impl Serialize for MeshHost {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MeshHost {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an authority asks for: a service, perhaps of one cluster only, at a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The service.
    pub service: ServiceName,
    /// Only that cluster's endpoints, if named.
    pub cluster: Option<Arc<str>>,
    /// The service port, if written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `SERVICE.NAMESPACE[.CLUSTER].SUFFIX[:PORT]` or the clusterset alias. Case does not matter, one trailing dot is
    /// allowed.
    ///
    /// # Errors
    /// [`AuthorityError::Foreign`] if the host is no name of the mesh, [`AuthorityError::Malformed`] if it is one, but
    /// broken.
    pub fn parse(text: &str, suffix: &str) -> Result<Self, AuthorityError> {
        let malformed = || AuthorityError::Malformed(text.to_owned());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(parse_port(port).ok_or_else(malformed)?)),
            None => (text, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let (labels, clusterset) = match strip_domain(&host, suffix) {
            Some(labels) => (labels, false),
            None => match strip_domain(&host, CLUSTERSET_SUFFIX) {
                Some(labels) => (labels, true),
                None => return Err(AuthorityError::Foreign(text.to_owned())),
            },
        };
        let parts: Vec<&str> = labels.split('.').collect();
        let host = MeshHost::from_labels(&parts).filter(|host| !clusterset || host.cluster.is_none());
        let MeshHost { service, cluster } = host.ok_or_else(malformed)?;
        Ok(Self { service, cluster, port })
    }

    /// The name without the port.
    pub fn host(&self) -> MeshHost {
        MeshHost { service: self.service.clone(), cluster: self.cluster.clone() }
    }

    /// The authority as it goes over the wire, under `suffix`.
    pub fn to_text(&self, suffix: &str) -> String {
        let ServiceName { namespace, service } = &self.service;
        let cluster = self.cluster.as_ref().map(|c| format!(".{c}")).unwrap_or_default();
        let port = self.port.map(|p| format!(":{p}")).unwrap_or_default();
        format!("{service}.{namespace}{cluster}.{suffix}{port}")
    }
}

/// Why a text is not an [`Authority`] of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A host outside the mesh's suffixes.
    #[error("`{0}` is not a name of the mesh")]
    Foreign(String),
    /// Under a mesh suffix, but not SERVICE.NAMESPACE or SERVICE.NAMESPACE.CLUSTER, or with a bad port.
    #[error("`{0}` is not SERVICE.NAMESPACE[.CLUSTER].SUFFIX[:PORT]")]
    Malformed(String),
}

fn strip_domain<'a>(host: &'a str, suffix: &str) -> Option<&'a str> {
    host.strip_suffix(suffix)?.strip_suffix('.')
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Whether `text` is a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, no `-` at either end.
pub fn is_label(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(valid) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Authority, AuthorityError> {
        Authority::parse(text, DEFAULT_SUFFIX)
    }

    #[test]
    fn mesh_wide_and_per_cluster_names() {
        let wide = parse("payments.shop.mesh.internal:80").expect("valid");
        assert_eq!(wide.service, ServiceName::new("shop", "payments"));
        assert_eq!((wide.cluster, wide.port), (None, Some(80)));
        let one = parse("Payments.Shop.EU-West.mesh.internal.").expect("valid");
        assert_eq!(one.cluster.as_deref(), Some("eu-west"));
        assert_eq!(one.to_text(DEFAULT_SUFFIX), "payments.shop.eu-west.mesh.internal");
    }

    #[test]
    fn the_clusterset_alias_has_no_per_cluster_names() {
        assert_eq!(parse("payments.shop.svc.clusterset.local"), parse("payments.shop.mesh.internal"));
        assert!(matches!(parse("payments.shop.eu.svc.clusterset.local"), Err(AuthorityError::Malformed(_))));
    }

    #[test]
    fn foreign_hosts_are_told_from_broken_names() {
        for text in ["example.com", "mesh.internal", "127.0.0.1:80", "xmesh.internal"] {
            assert!(matches!(parse(text), Err(AuthorityError::Foreign(_))), "{text}");
        }
        for text in [
            "payments.mesh.internal",
            "a.b.c.d.mesh.internal",
            ".shop.mesh.internal",
            "pay_ments.shop.mesh.internal",
            "payments.shop.mesh.internal:0",
            "payments.shop.mesh.internal:+80",
            "payments.shop.mesh.internal:65536",
        ] {
            assert!(matches!(parse(text), Err(AuthorityError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn hosts_are_read_as_they_are_written() {
        for text in ["shop/payments", "shop/payments/eu-west"] {
            assert_eq!(text.parse::<MeshHost>().expect(text).to_string(), text);
        }
        for text in ["payments", "shop/payments/eu-west/x", "shop/", "shop/payments/", "Shop/payments", ""] {
            assert_eq!(text.parse::<MeshHost>(), Err(MeshHostError(text.to_owned())));
        }
        let authority = parse("payments.shop.eu-west.mesh.internal:8080").expect("valid");
        assert_eq!(authority.host().at(8080), authority);
    }

    #[test]
    fn a_configured_suffix_replaces_the_default() {
        assert!(Authority::parse("a.b.corp.example", "corp.example").is_ok());
        assert!(Authority::parse("a.b.mesh.internal", "corp.example").is_err());
    }
}
