//! Membership in the store: what is loaded at the start, written when it changes, and read from siblings.
//!
//! Writing never holds anything up: while the store is away, what changed waits as a set of slices, and the newest
//! content of each is written when it is back. Reading never takes anything away at once: the catalogue holds what
//! vanishes without explanation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::resource::ClusterMeta;
use eastway_core::{Coordinates, ServiceName};
use eastway_registry::Slice;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, sleep};

use crate::hub::Hub;
use crate::server::{ServerConfig, StartError};
use crate::store::keys::{self, Key};
use crate::store::{Change, Election, Entry, Expect, Follower, Store, StoreError, Txn};

/// The pause before the store is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest pause; it doubles while the store fails.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks of the leader at its siblings.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

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

/// Takes part in the cluster: finds or makes its uid, and begins the gateway's next life. Waits for the store.
pub(crate) async fn claim(store: &dyn Store, config: &ServerConfig) -> Result<(ClusterMeta, u64), StartError> {
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

/// `None`: somebody else changed the cluster's entry meanwhile.
async fn try_claim(store: &dyn Store, config: &ServerConfig) -> Result<Option<(ClusterMeta, u64)>, StartError> {
    let entry = store.get(keys::META).await?;
    let known = entry.as_ref().map(|entry| serde_json::from_slice::<StoredMeta>(&entry.value)).transpose();
    let known = known.map_err(StartError::Damaged)?;
    if let Some(known) = known.as_ref().filter(|known| known.cluster != config.cluster) {
        return Err(StartError::OtherCluster { found: known.cluster.clone(), expected: config.cluster.clone() });
    }
    let mut gateways = known.as_ref().map(|known| known.gateways.clone()).unwrap_or_default();
    let gateway = gateways.entry(config.gateway.clone()).or_default();
    gateway.epoch += 1;
    let epoch = gateway.epoch;
    let meta = StoredMeta {
        uid: known.map_or_else(new_uid, |known| known.uid),
        cluster: config.cluster.clone(),
        region: config.region.clone(),
        trust_domain: config.trust_domain.clone(),
        zones: config.zones.clone(),
        gateways,
        trust_bundle: config.identity.bundle().iter().map(|certificate| certificate.to_vec()).collect(),
    };
    let value = to_json(&meta);
    let expect = entry.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
    let applied = store.put_if(keys::META, expect, value).await?.applied();
    let StoredMeta { uid, cluster: name, region, trust_domain, zones, .. } = meta;
    Ok(applied.map(|_| (ClusterMeta { name, uid, region, trust_domain, zones }, epoch)))
}

fn new_uid() -> String {
    let mut rng = fastrand::Rng::new();
    format!("{:032x}", rng.u128(..))
}

/// Loads all slices: the own ones are served and probed at once, those of siblings too.
pub(crate) async fn load(store: &dyn Store, hub: &Hub) -> Result<(), StartError> {
    let listing = loop {
        match store.list(keys::SERVICES).await {
            Ok(listing) => break listing,
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %error, "waiting for the store");
                sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    for entry in &listing.entries {
        take_slice(hub, entry, true);
    }
    tracing::info!(slices = listing.entries.len(), "membership loaded");
    Ok(())
}

/// Writes own slices as they change. Runs until it is dropped.
pub(crate) async fn write(hub: Arc<Hub>, store: Arc<dyn Store>) {
    let mut pause = RETRY;
    loop {
        hub.slices.added().await;
        sleep(GATHER).await;
        if write_dirty(&hub, &*store).await {
            pause = RETRY;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// Writes what changed. False: the store failed, and what was not written waits.
pub(crate) async fn write_dirty(hub: &Hub, store: &dyn Store) -> bool {
    let dirty = hub.slices.take();
    let mut left = BTreeSet::new();
    for (service, index) in dirty {
        if let Err(error) = write_slice(hub, store, &service, index).await {
            tracing::warn!(%service, index, error = %error, "cannot write a slice");
            left.insert((service, index));
        }
    }
    let done = left.is_empty();
    hub.slices.written(left);
    done
}

async fn write_slice(hub: &Hub, store: &dyn Store, service: &ServiceName, index: u32) -> Result<(), StoreError> {
    let key = keys::slice(service, &hub.gateway, index);
    match hub.read(|catalogue, _| catalogue.slice(service, index)) {
        Some(slice) => store.put(&key, to_json(&slice)).await.map(drop),
        None => store.delete(&key).await.map(drop),
    }
}

/// Follows the slices of siblings. Runs until it is dropped.
pub(crate) async fn follow(hub: Arc<Hub>, store: Arc<dyn Store>) {
    let mut follower = Follower::new(&*store, keys::SERVICES);
    while let Some(change) = follower.next().await {
        match change {
            Change::Put(entry) => take_slice(&hub, &entry, false),
            Change::Delete(entry) => {
                if let Some(Key::Slice { service, gateway, index }) = Key::parse(&entry.key)
                    && *gateway != *hub.gateway
                {
                    hub.change(|catalogue, now| catalogue.load_slice(&gateway, &service, index, None, now));
                }
            }
            Change::Ready(_) => {}
        }
    }
}

/// Takes a stored slice over. The own ones count only at the start: afterwards this gateway is their writer.
fn take_slice(hub: &Hub, entry: &Entry, starting: bool) {
    let Some(Key::Slice { service, gateway, index }) = Key::parse(&entry.key) else { return };
    if *gateway == *hub.gateway && !starting {
        return;
    }
    match serde_json::from_slice::<Slice>(&entry.value) {
        Ok(slice) => {
            hub.change(|catalogue, now| catalogue.load_slice(&gateway, &service, index, Some(slice), now));
            hub.probe.notify_one();
        }
        Err(error) => tracing::warn!(key = entry.key, error = %error, "a slice cannot be read"),
    }
}

/// As the leader, deletes the slices of gateways that have been gone for long; their sidecars have registered elsewhere.
pub(crate) async fn collect(hub: Arc<Hub>, store: Arc<dyn Store>, election: Arc<Election>) {
    let mut gateways = Follower::new(&*store, keys::GATEWAYS);
    let mut missing: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut rounds = interval(COLLECT_INTERVAL);
    loop {
        tokio::select! {
            change = gateways.next() => if change.is_none() { return },
            _ = rounds.tick() => {
                if !gateways.is_ready() {
                    continue;
                }
                let siblings = hub.read(|catalogue, _| catalogue.siblings());
                missing.retain(|gateway, _| siblings.contains(gateway));
                for gateway in siblings {
                    if gateways.entries().contains_key(&keys::gateway(&gateway)) {
                        missing.remove(&gateway);
                        continue;
                    }
                    let since = *missing.entry(Arc::clone(&gateway)).or_insert_with(Instant::now);
                    if since.elapsed() >= hub.options.collect_after {
                        collect_gateway(&*store, &election, &gateway).await;
                    }
                }
            }
        }
    }
}

async fn collect_gateway(store: &dyn Store, election: &Election, gateway: &str) {
    let Some((leader, fence)) = election.fence() else { return };
    let Ok(listing) = store.list(keys::SERVICES).await else { return };
    let is_its = |key: &str| matches!(Key::parse(key), Some(Key::Slice { gateway: g, .. }) if g == gateway);
    for entry in listing.entries.iter().filter(|entry| is_its(&entry.key)) {
        let txn = Txn::new().when(leader, fence).when(&entry.key, Expect::At(entry.revision)).delete(&entry.key);
        match store.txn(txn).await {
            Ok(_) => tracing::info!(gateway, key = entry.key, "collected a slice of a gateway that is gone"),
            Err(error) => tracing::warn!(gateway, error = %error, "cannot collect a slice"),
        }
    }
}

/// The JSON form of a stored value. Its types have string keys only and cannot fail to serialise.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_else(|error| {
        tracing::error!(error = %error, "a value cannot be stored");
        Bytes::new()
    })
}
