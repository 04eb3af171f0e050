//! Where things are: clusters, regions, zones and their coordinates.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A zone of a cluster, written `CLUSTER/ZONE`, for example `us-east/a`.
///
/// Zones of different clusters are never the same zone, whatever their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The zone's name within its cluster.
    pub zone: Arc<str>,
}

impl ZoneId {
    /// The zone `zone` of the cluster `cluster`.
    pub fn new(cluster: impl Into<Arc<str>>, zone: impl Into<Arc<str>>) -> Self {
        Self { cluster: cluster.into(), zone: zone.into() }
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.zone)
    }
}

/// Why a text is not a [`ZoneId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a zone: write CLUSTER/ZONE, for example us-east/a")]
pub struct ZoneIdError(String);

impl FromStr for ZoneId {
    type Err = ZoneIdError;

    fn from_str(text: &str) -> Result<Self, ZoneIdError> {
        match text.split_once('/') {
            Some((cluster, zone)) if !cluster.is_empty() && !zone.is_empty() && !zone.contains('/') => {
                Ok(Self::new(cluster, zone))
            }
            _ => Err(ZoneIdError(text.to_owned())),
        }
    }
}

impl Serialize for ZoneId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ZoneId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A place in the mesh: a zone, and the region that its cluster lies in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Cluster and zone.
    pub zone: ZoneId,
    /// The region; several clusters may share one.
    pub region: Arc<str>,
}

impl Locality {
    /// The zone `zone` of `cluster`, which lies in `region`.
    pub fn new(cluster: impl Into<Arc<str>>, region: impl Into<Arc<str>>, zone: impl Into<Arc<str>>) -> Self {
        Self { zone: ZoneId::new(cluster, zone), region: region.into() }
    }
}

/// A position on Earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coordinates {
    /// Latitude, -90 to 90, north positive.
    pub latitude: f64,
    /// Longitude, -180 to 180, east positive.
    pub longitude: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_round_trip() {
        let zone: ZoneId = "us-east/a".parse().expect("valid");
        assert_eq!(zone, ZoneId::new("us-east", "a"));
        assert_eq!(zone.to_string(), "us-east/a");
    }

    #[test]
    fn half_a_zone_id_is_refused_with_an_example() {
        for text in ["", "a", "/a", "us-east/", "us/east/a"] {
            let error = text.parse::<ZoneId>().expect_err(text).to_string();
            assert!(error.contains("CLUSTER/ZONE"), "{error}");
        }
    }
}
