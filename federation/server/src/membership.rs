//! Membership in the store: what is loaded at the start, written when it changes, and read from siblings.
//!
//! Writing never holds anything up: while the store is away, what changed waits as a set of slices, and the newest
//! content of each is written when it is back. Reading never takes anything away at once: the catalogue holds what
//! vanishes without explanation. A store that was restored or edited is made to hold again what the gateway has.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Coordinates;
use serde::{Deserialize, Serialize};

mod begin;
mod collect;
mod life;
mod slices;
mod stuck;

pub(crate) use begin::{Beginning, begin};
pub(crate) use collect::{StoredAddress, collect, follow as follow_gateways, load as load_gateways};
pub(crate) use life::is_plausible;
pub(crate) use slices::Slices;

/// The pause before the store is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(500);
/// The longest pause; it doubles while the store fails.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The cluster as stored: who it is, and which life each gateway is in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMeta {
    uid: String,
    cluster: String,
    region: String,
    trust_domain: String,
    zones: BTreeMap<String, Option<Coordinates>>,
    gateways: BTreeMap<String, StoredGateway>,
    /// The CA certificates of the cluster's identities, in DER.
    trust_bundle: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct StoredGateway {
    /// Kept here rather than under the gateway's own key, which vanishes with its lease.
    epoch: u64,
}

/// The JSON form of a stored value. Its types have string keys only and cannot fail to serialise.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_else(|error| {
        tracing::error!(error = %error, "a value cannot be stored");
        Bytes::new()
    })
}
