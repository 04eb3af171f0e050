//! What is decided about the membership in the store, without speaking to it.
//!
//! For: which life a gateway is in and whether it is still the latest ([`Life`]), which of its slices are to be written and
//! against what ([`Writer`]), what is believed of what is read ([`SliceReader`], [`GatewayReader`]), and what may be taken away of
//! gateways that are gone ([`Collector`]). Called by the gateway (`federation/server`), which asks the store, hands over the
//! answers and waits; by the simulation and the model checker (`federation/model`), which do the same with a store of their
//! own. Never: I/O, tasks or clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use eastway_core::{Coordinates, ServiceName};
use serde::{Deserialize, Serialize};

use crate::Slice;
use crate::catalogue::Catalogue;

mod collector;
mod gateways;
mod life;
mod slices;
mod stuck;
mod writer;

#[cfg(test)]
mod tests;

pub use collector::{Collection, Collector};
pub use gateways::{GatewayNews, GatewayReader};
pub use life::{Claim, ClaimError, Found, Life, is_plausible};
pub use slices::{SliceNews, SliceReader, UnreadableSlice};
pub use writer::{Answer, Failure, Noted, Request, RoundEnd, Writer};

/// A slice of a service, by its number.
pub type SliceName = (ServiceName, u32);

/// The pause before the store is tried again.
pub const RETRY: Duration = Duration::from_millis(500);
/// The longest pause; it doubles while the store fails.
pub const RETRY_MAX: Duration = Duration::from_secs(10);

/// What a gateway wants its slices in the store to hold.
pub trait Wanted {
    /// The content of a slice; `None` if its key is to be deleted.
    fn slice(&self, name: &SliceName) -> Option<Slice>;

    /// The slices that hold endpoints.
    fn slices(&self) -> BTreeSet<SliceName>;
}

impl Wanted for Catalogue {
    fn slice(&self, (service, index): &SliceName) -> Option<Slice> {
        Self::slice(self, service, *index)
    }

    fn slices(&self) -> BTreeSet<SliceName> {
        self.own_slices()
    }
}

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

/// What a gateway keeps in the store while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredAddress {
    /// Where siblings reach it.
    pub address: String,
    /// Which life of it this is.
    pub epoch: u64,
}

/// The JSON form of a stored value. Its types have string keys only and cannot fail to serialise.
pub fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
