//! What a request tried already, so that its next attempt goes elsewhere.
//!
//! Empty for a first attempt, and then free: it allocates only when something failed.

use std::sync::Arc;

use eastway_core::{EndpointId, ZoneId};

use crate::endpoint::Endpoint;

/// The endpoints, localities and paths that failed a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    endpoints: Vec<(ZoneId, EndpointId)>,
    /// Endpoints of which the zone is not known.
    named: Vec<EndpointId>,
    localities: Vec<ZoneId>,
    clusters: Vec<Arc<str>>,
}

impl Tried {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { endpoints: Vec::new(), named: Vec::new(), localities: Vec::new(), clusters: Vec::new() }
    }

    /// The endpoint failed, or may not be asked again.
    pub fn push_endpoint(&mut self, endpoint: &Endpoint) {
        self.push_endpoint_id(endpoint.zone.clone(), endpoint.id.clone());
    }

    /// The same, for an endpoint known by its zone and its name.
    pub fn push_endpoint_id(&mut self, zone: ZoneId, id: EndpointId) {
        if !self.endpoints.iter().any(|(z, e)| *e == id && *z == zone) {
            self.endpoints.push((zone, id));
        }
    }

    /// The same, for endpoints known by name only, whatever their zone: `ids` replace those that were named before. Every
    /// look at an endpoint goes through the list, so whoever takes it from outside must bound it.
    pub fn set_named(&mut self, ids: &[EndpointId]) {
        self.named = ids.to_vec();
    }

    /// A transport failure on the locality: leave it while another can serve.
    pub fn push_locality(&mut self, zone: &ZoneId) {
        if !self.has_locality(zone) {
            self.localities.push(zone.clone());
        }
    }

    /// The path to the cluster failed: leave its localities while another can serve.
    pub fn push_cluster(&mut self, cluster: &str) {
        if !self.has_cluster(cluster) {
            self.clusters.push(cluster.into());
        }
    }

    /// Whether nothing was tried.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.named.is_empty() && self.leaves_no_locality()
    }

    /// Whether no locality or path must be left: at most endpoints were tried.
    pub fn leaves_no_locality(&self) -> bool {
        self.localities.is_empty() && self.clusters.is_empty()
    }

    /// Whether the endpoint was tried.
    pub fn has_endpoint(&self, endpoint: &Endpoint) -> bool {
        self.named.contains(&endpoint.id)
            || self.endpoints.iter().any(|(zone, id)| *id == endpoint.id && *zone == endpoint.zone)
    }

    /// Whether the locality was left.
    pub fn has_locality(&self, zone: &ZoneId) -> bool {
        self.localities.contains(zone)
    }

    /// Whether the path was left.
    pub fn has_cluster(&self, cluster: &str) -> bool {
        self.clusters.iter().any(|c| **c == *cluster)
    }

    /// The endpoints tried in a zone, for the header `eastway-exclude`.
    pub fn endpoints_in<'a>(&'a self, zone: &'a ZoneId) -> impl Iterator<Item = &'a EndpointId> {
        self.endpoints.iter().filter(move |(z, _)| z == zone).map(|(_, id)| id)
    }

    /// All endpoints tried.
    pub fn endpoint_ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.endpoints.iter().map(|(_, id)| id).chain(&self.named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_kept_once() {
        let mut tried = Tried::new();
        assert!(tried.is_empty());
        let zone = ZoneId::new("eu", "a");
        for _ in 0..2 {
            tried.push_endpoint_id(zone.clone(), EndpointId::new("p-1"));
            tried.push_locality(&zone);
            tried.push_cluster("eu");
        }
        tried.push_endpoint_id(ZoneId::new("us", "a"), EndpointId::new("p-1"));
        tried.push_endpoint_id(zone.clone(), EndpointId::new("p-2"));
        let ids: Vec<&str> = tried.endpoints_in(&zone).map(EndpointId::as_str).collect();
        assert_eq!(ids, ["p-1", "p-2"]);
        assert_eq!((tried.endpoints.len(), tried.localities.len(), tried.clusters.len()), (3, 1, 1));
        assert_eq!((tried.endpoints_in(&zone).count(), tried.endpoint_ids().count()), (2, 3));
        assert!(tried.has_locality(&zone) && tried.has_cluster("eu") && !tried.is_empty());
    }

    #[test]
    fn an_endpoint_known_by_name_alone_is_avoided_in_every_zone() {
        let mut tried = Tried::new();
        tried.set_named(&[EndpointId::new("p-1")]);
        assert!(!tried.is_empty() && tried.leaves_no_locality());
        assert_eq!(tried.endpoint_ids().count(), 1);
    }
}
