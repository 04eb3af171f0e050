//! Which life of a gateway this is, and whether it is still the latest: what its writes are conditional on.
//!
//! The epoch lives in the store under a key of its own, which outlives the gateway's lease. A write compares that key's
//! revision, so that a process that was suspended and replaced under the same id cannot write over its successor.

use std::time::Duration;

use eastway_core::resource::ClusterMeta;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{RETRY, StoredGateway, StoredMeta, to_json};
use crate::error::StartError;
use crate::options::ServerConfig;
use crate::store::keys;
use crate::store::{Expect, Revision, Store, StoreEntry, StoreError, Txn};

/// How far ahead of the wall clock an epoch may lie: more than clocks differ, and little enough that a mistaken one is
/// outlived soon. One that lies further ahead counts as none.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// A revision that no entry has.
const NOWHERE: Revision = i64::MAX as Revision;

/// Whether a gateway may be in its life `epoch` when the wall clock shows `now`.
pub(crate) const fn is_plausible(epoch: u64, now: u64) -> bool {
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

/// This life of the gateway.
#[derive(Debug)]
pub(crate) struct Life {
    gateway: String,
    stored: StoredLife,
    /// The cluster as this gateway claimed it, to be written again if the store has lost it.
    meta: StoredMeta,
    /// The revision at which the life is in the store; [`NOWHERE`] until it is.
    revision: Mutex<Revision>,
    wall_clock: fn() -> u64,
}

/// Why a life is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifeError {
    /// Another process runs under the same id, in the life `epoch`.
    #[error("another process has taken over the id of this gateway, in epoch {epoch}")]
    Replaced { epoch: u64 },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes part in the cluster: finds or makes its uid, and begins the gateway's next life. Waits for the store.
pub(crate) async fn claim(store: &dyn Store, config: &ServerConfig) -> Result<Life, StartError> {
    loop {
        match try_claim(store, config).await {
            Ok(Some(claimed)) => return Ok(claimed),
            Ok(None) => {}
            Err(StartError::Store(error)) if error.is_transient() => {
                tracing::warn!(error = %error, "waiting for the store");
                sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A life that is in no store yet, of a cluster as it was `last` known. Its first write finds out whether it is the latest.
///
/// # Errors
/// It was another cluster.
pub(crate) async fn unclaimed(last: &dyn Store, config: &ServerConfig) -> Result<Life, StartError> {
    Ok(next(last, config).await?.life)
}

/// `None`: somebody else changed the cluster's entry meanwhile.
async fn try_claim(store: &dyn Store, config: &ServerConfig) -> Result<Option<Life>, StartError> {
    let Next { life, entry, former } = next(store, config).await?;
    Ok(life.write(store, entry.as_ref(), former.as_ref(), &life.meta).await?.then_some(life))
}

/// The life that follows what a store holds.
struct Next {
    life: Life,
    /// The cluster's entry, as it was read.
    entry: Option<StoreEntry>,
    /// The gateway's former life, as it was read.
    former: Option<StoreEntry>,
}

async fn next(store: &dyn Store, config: &ServerConfig) -> Result<Next, StartError> {
    let entry = store.get(keys::META).await?;
    let known = entry.as_ref().map(|entry| serde_json::from_slice::<StoredMeta>(&entry.value)).transpose();
    let known = known.map_err(StartError::Damaged)?;
    if let Some(known) = known.as_ref().filter(|known| known.cluster != config.cluster) {
        return Err(StartError::OtherCluster { found: known.cluster.clone(), expected: config.cluster.clone() });
    }
    let former = store.get(&keys::epoch(&config.gateway)).await?;
    let mut gateways = known.as_ref().map(|known| known.gateways.clone()).unwrap_or_default();
    let counted = gateways.get(&config.gateway).map(|gateway| gateway.epoch);
    let now = (config.options.wall_clock)();
    let stored = counted.into_iter().chain(former.as_ref().and_then(read).map(|life| life.epoch));
    for epoch in stored.clone().filter(|epoch| !is_plausible(*epoch, now)) {
        tracing::error!(epoch, clock_ms = now, "the stored epoch lies far ahead of the clock, and is not continued");
    }
    let epoch = next_epoch(stored, now);
    gateways.insert(config.gateway.clone(), StoredGateway { epoch });
    let meta = StoredMeta {
        uid: known.map_or_else(random_id, |known| known.uid),
        cluster: config.cluster.clone(),
        region: config.region.clone(),
        trust_domain: config.trust_domain.clone(),
        zones: config.zones.clone(),
        gateways,
        trust_bundle: config.identity.bundle().iter().map(|certificate| certificate.to_vec()).collect(),
    };
    let stored = StoredLife { epoch, process: random_id() };
    let (gateway, wall_clock) = (config.gateway.clone(), config.options.wall_clock);
    let life = Life { gateway, stored, meta, revision: Mutex::new(NOWHERE), wall_clock };
    Ok(Next { life, entry, former })
}

fn random_id() -> String {
    let mut rng = fastrand::Rng::new();
    format!("{:032x}", rng.u128(..))
}

fn read(entry: &StoreEntry) -> Option<StoredLife> {
    serde_json::from_slice(&entry.value).ok()
}

fn unchanged(entry: Option<&StoreEntry>) -> Expect {
    entry.map_or(Expect::Absent, |entry| Expect::At(entry.revision))
}

impl Life {
    /// The number of this life.
    pub(crate) const fn epoch(&self) -> u64 {
        self.stored.epoch
    }

    /// Whether this life was ever in the store.
    pub(crate) fn is_claimed(&self) -> bool {
        *self.revision.lock() != NOWHERE
    }

    /// The cluster, as claimed.
    pub(crate) fn cluster(&self) -> ClusterMeta {
        let StoredMeta { uid, cluster: name, region, trust_domain, zones, .. } = self.meta.clone();
        ClusterMeta { name, uid, region, trust_domain, zones }
    }

    /// A transaction that is applied only while this is the gateway's latest life. Its first comparison is the life's.
    pub(crate) fn fenced(&self) -> Txn {
        Txn::new().when(keys::epoch(&self.gateway), Expect::At(*self.revision.lock()))
    }

    /// Makes sure that this life is the one in the store.
    ///
    /// # Errors
    /// If another one is, or the store fails.
    pub(crate) async fn check(&self, store: &dyn Store) -> Result<(), LifeError> {
        let found = store.get(&keys::epoch(&self.gateway)).await?;
        self.settle(store, found.as_ref()).await
    }

    /// The store was `found` to hold another revision of the life than the last known: a copy of it that was restored,
    /// an earlier one or none, which is made good; or a successor.
    pub(crate) async fn settle(&self, store: &dyn Store, found: Option<&StoreEntry>) -> Result<(), LifeError> {
        match found.and_then(|entry| Some((entry.revision, read(entry)?))) {
            Some((revision, life)) if life == self.stored => {
                *self.revision.lock() = revision;
                Ok(())
            }
            Some((_, life)) if life.epoch >= self.epoch() && is_plausible(life.epoch, (self.wall_clock)()) => {
                Err(LifeError::Replaced { epoch: life.epoch })
            }
            _ => self.restore(store, found).await,
        }
    }

    /// Writes the life into a store that has lost it, together with what is missing of the cluster's entry.
    async fn restore(&self, store: &dyn Store, former: Option<&StoreEntry>) -> Result<(), LifeError> {
        let entry = store.get(keys::META).await?;
        let known = entry.as_ref().and_then(|entry| serde_json::from_slice::<StoredMeta>(&entry.value).ok());
        let mut meta = known.unwrap_or_else(|| self.meta.clone());
        if meta.uid != self.meta.uid {
            tracing::error!(found = meta.uid, own = self.meta.uid, "the store now names another uid of the cluster");
        }
        meta.gateways.insert(self.gateway.clone(), StoredGateway { epoch: self.epoch() });
        if self.write(store, entry.as_ref(), former, &meta).await? {
            tracing::warn!(epoch = self.epoch(), "the store did not have this gateway's life, which is in it now");
            return Ok(());
        }
        let reason = "the cluster's entry changed meanwhile".to_owned();
        Err(StoreError::Unavailable { attempts: 1, reason }.into())
    }

    /// Writes the cluster's entry and the life, over what they were read as. False: one of them has changed.
    async fn write(
        &self,
        store: &dyn Store,
        meta_was: Option<&StoreEntry>,
        life_was: Option<&StoreEntry>,
        meta: &StoredMeta,
    ) -> Result<bool, StoreError> {
        let key = keys::epoch(&self.gateway);
        let txn = Txn::new().when(keys::META, unchanged(meta_was)).when(&key, unchanged(life_was));
        let commit = store.txn(txn.put(keys::META, to_json(meta)).put(&key, to_json(&self.stored))).await?;
        if let Some(revision) = commit.applied() {
            *self.revision.lock() = revision;
        }
        Ok(commit.applied().is_some())
    }
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
