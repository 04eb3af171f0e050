//! Which life of a gateway this is, and whether it is still the latest: what its writes are conditional on.
//!
//! The epoch lives in the store under a key of its own, which outlives the gateway's lease. A write compares that key's
//! revision, so that a process that was suspended and replaced under the same id cannot write over its successor.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::Coordinates;
use eastway_core::resource::ClusterMeta;
use serde::{Deserialize, Serialize};

use super::{StoredGateway, StoredMeta, to_json};
use crate::store::{Commit, Expect, Revision, StoreEntry, Txn, keys};

/// How far ahead of the wall clock an epoch may lie: more than clocks differ, and little enough that a mistaken one is
/// outlived soon. One that lies further ahead counts as none.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// A revision that no entry has.
const NOWHERE: Revision = i64::MAX as Revision;

/// Whether a gateway may be in its life `epoch` when the wall clock shows `now`, both in milliseconds since 1970.
pub const fn is_plausible(epoch: u64, now: u64) -> bool {
    epoch <= now.saturating_add(MAX_AHEAD.as_millis() as u64)
}

/// The epoch of the life after those that are `stored`: the wall clock, which goes on when a store is restored, but
/// more than any stored one that is plausible.
fn next_epoch(stored: impl IntoIterator<Item = u64>, now: u64) -> u64 {
    stored
        .into_iter()
        .filter(|epoch| is_plausible(*epoch, now))
        .map(|epoch| epoch.saturating_add(1))
        .fold(now, u64::max)
}

/// A gateway's life, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLife {
    epoch: u64,
    /// Tells two processes of one epoch apart: a restored store counts twice.
    process: String,
}

/// What a gateway says of itself and its cluster when it begins a life.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The gateway's id.
    pub gateway: String,
    /// The cluster's name, region, trust domain and zones, as configured.
    pub cluster: String,
    /// See `cluster`.
    pub region: String,
    /// See `cluster`.
    pub trust_domain: String,
    /// See `cluster`.
    pub zones: BTreeMap<String, Option<Coordinates>>,
    /// The CA certificates of the cluster's identities, in DER.
    pub trust_bundle: Vec<Vec<u8>>,
    /// Random: the uid of the cluster, if it has none yet.
    pub uid: String,
    /// Random: tells this process from every other.
    pub process: String,
}

/// What is known of a cluster and of a gateway's lives.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Under [`keys::META`] in the store.
    pub meta: Option<StoreEntry>,
    /// Under [`keys::epoch`] in the store.
    pub life: Option<StoreEntry>,
    /// The epoch of the last life that began on this host: no store may ever have heard of it.
    pub last: Option<u64>,
}

/// Why a life cannot begin in a store.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The cluster's entry cannot be read.
    #[error("the cluster's entry cannot be read")]
    Damaged(#[source] serde_json::Error),
    /// It is another cluster's store.
    #[error("the store belongs to the cluster `{found}`, not to `{expected}`")]
    OtherCluster {
        /// The cluster that the store names.
        found: String,
        /// The cluster that is configured.
        expected: String,
    },
}

/// This life of the gateway.
#[derive(Clone, Debug)]
pub struct Life {
    gateway: String,
    stored: StoredLife,
    /// The cluster as this gateway claimed it, to be written again if the store has lost it.
    meta: StoredMeta,
    /// The revision at which the life is in the store; [`NOWHERE`] until it is.
    revision: Revision,
}

/// What a store's entry of the gateway's life says to this one.
pub(super) enum Standing {
    /// It is this life.
    Current,
    /// It is a later one.
    Replaced { epoch: u64 },
    /// It is none, or an earlier one: a copy of the store was restored.
    Lost,
}

impl Life {
    /// The life that follows what is `found`, when the wall clock shows `now`, in milliseconds since 1970. It is in no store
    /// yet.
    ///
    /// # Errors
    /// Why it cannot be in this store.
    pub fn after(claim: Claim, found: &Found, now: u64) -> Result<Self, ClaimError> {
        let known = found.meta.as_ref().map(|entry| serde_json::from_slice::<StoredMeta>(&entry.value)).transpose();
        let known = known.map_err(ClaimError::Damaged)?;
        if let Some(known) = known.as_ref().filter(|known| known.cluster != claim.cluster) {
            return Err(ClaimError::OtherCluster { found: known.cluster.clone(), expected: claim.cluster });
        }
        let epoch = next_epoch(Self::former(&claim.gateway, found), now);
        let (uid, mut gateways) = known.map_or((claim.uid, BTreeMap::new()), |known| (known.uid, known.gateways));
        gateways.insert(claim.gateway.clone(), StoredGateway { epoch });
        let Claim { gateway, cluster, region, trust_domain, zones, trust_bundle, process, .. } = claim;
        let meta = StoredMeta { uid, cluster, region, trust_domain, zones, gateways, trust_bundle };
        Ok(Self { gateway, stored: StoredLife { epoch, process }, meta, revision: NOWHERE })
    }

    /// The epochs of former lives of the gateway that are `found`.
    pub fn former(gateway: &str, found: &Found) -> Vec<u64> {
        let meta = found.meta.as_ref().and_then(|entry| serde_json::from_slice::<StoredMeta>(&entry.value).ok());
        let counted = meta.and_then(|meta| Some(meta.gateways.get(gateway)?.epoch));
        let stored = found.life.as_ref().and_then(read).map(|life| life.epoch);
        [counted, stored, found.last].into_iter().flatten().collect()
    }

    /// The transaction that begins the life, over what was `found`. Hand its end to [`Life::claimed`].
    pub fn claim(&self, found: &Found) -> Txn {
        self.write(found, &self.meta)
    }

    /// Takes note of how the claim, or another write of the life, ended. False: something has changed, look again.
    pub fn claimed(&mut self, commit: &Commit) -> bool {
        if let Some(revision) = commit.applied() {
            self.revision = revision;
        }
        commit.applied().is_some()
    }

    /// The number of this life.
    pub const fn epoch(&self) -> u64 {
        self.stored.epoch
    }

    /// Whether this life was ever in the store.
    pub const fn is_claimed(&self) -> bool {
        self.revision != NOWHERE
    }

    /// The cluster, as claimed.
    pub fn cluster(&self) -> ClusterMeta {
        let StoredMeta { uid, cluster: name, region, trust_domain, zones, .. } = self.meta.clone();
        ClusterMeta { name, uid, region, trust_domain, zones }
    }

    /// The key of the gateway's life.
    pub(super) fn key(&self) -> String {
        keys::epoch(&self.gateway)
    }

    /// A transaction that is applied only while this is the gateway's latest life. Its first comparison is the life's.
    pub(super) fn fenced(&self) -> Txn {
        Txn::new().when(self.key(), Expect::At(self.revision))
    }

    /// The store was `found` to hold this of the life: a copy of the store that was restored holds an earlier one or none,
    /// which is made good by [`Life::restore`]; or it is a successor.
    pub(super) fn judge(&mut self, found: Option<&StoreEntry>, now: u64) -> Standing {
        match found.and_then(|entry| Some((entry.revision, read(entry)?))) {
            Some((revision, life)) if life == self.stored => {
                self.revision = revision;
                Standing::Current
            }
            Some((_, life)) if life.epoch >= self.epoch() && is_plausible(life.epoch, now) => {
                Standing::Replaced { epoch: life.epoch }
            }
            _ => Standing::Lost,
        }
    }

    /// Writes the life into a store that has lost it, together with what is missing of the cluster's entry. With the uid
    /// that the store now gives the cluster, if that is another one.
    pub(super) fn restore(&self, found: &Found) -> (Txn, Option<String>) {
        let known = found.meta.as_ref().and_then(|entry| serde_json::from_slice::<StoredMeta>(&entry.value).ok());
        let mut meta = known.unwrap_or_else(|| self.meta.clone());
        meta.gateways.insert(self.gateway.clone(), StoredGateway { epoch: self.epoch() });
        (self.write(found, &meta), Some(meta.uid).filter(|uid| *uid != self.meta.uid))
    }

    /// Writes the cluster's entry and the life, over what they were read as.
    fn write(&self, found: &Found, meta: &StoredMeta) -> Txn {
        let unchanged = |entry: &Option<StoreEntry>| entry.as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision));
        let txn = Txn::new().when(keys::META, unchanged(&found.meta)).when(self.key(), unchanged(&found.life));
        txn.put(keys::META, to_json(meta)).put(self.key(), to_json(&self.stored))
    }
}

fn read(entry: &StoreEntry) -> Option<StoredLife> {
    serde_json::from_slice(&entry.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn an_epoch_follows_the_clock_and_every_epoch_before_it() {
        assert_eq!(next_epoch([], NOW), NOW);
        assert_eq!(next_epoch([7], NOW), NOW, "a store that was restored, or counted from one");
        assert_eq!(next_epoch([NOW + 5, NOW], NOW), NOW + 6, "a clock that was set back");
    }

    #[test]
    fn an_epoch_from_the_far_future_is_not_continued() {
        assert_eq!(next_epoch([u64::MAX, 9], NOW), NOW);
        let day = MAX_AHEAD.as_millis() as u64;
        assert!(is_plausible(NOW + day, NOW) && !is_plausible(NOW + day + 1, NOW) && !is_plausible(u64::MAX, NOW));
    }
}
