//! The peers' statements in the store, for cold starts: written by the leader, at most every ten seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::resource::ClusterMeta;
use eastway_core::{ServiceName, Version};
use eastway_registry::StoredMirror;
use eastway_registry::membership::{is_plausible, to_json};
use eastway_registry::peers::StoredExport;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::hub::Hub;
use crate::store::keys::{self, Key};
use crate::store::{Election, Expect, MAX_TXN_BYTES, MAX_TXN_OPS, Store, StoreError, Txn};

/// How long a gateway that does not lead waits before it looks again.
const NOT_LEADING: Duration = Duration::from_secs(1);

/// Who said it, under `GW/meta`; the services are under `GW/svc/NS/NAME`.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    cluster: ClusterMeta,
    version: Version,
    /// Where the peer's gateways are reached.
    #[serde(default)]
    addresses: Vec<String>,
}

/// Loads all mirrors. A store that fails is no reason not to start: the peers will say it again.
pub(crate) async fn load(store: &dyn Store, hub: &Hub) {
    let listing = match store.list(keys::PEERS).await {
        Ok(listing) => listing,
        Err(error) => {
            tracing::warn!(error = %error, "the peers' mirrors cannot be loaded");
            return;
        }
    };
    let mut heads: BTreeMap<(String, String), StoredMirror> = BTreeMap::new();
    let mut services = Vec::new();
    for entry in listing.entries {
        let Some(Key::Peer { cluster, rest }) = Key::parse(&entry.key) else { continue };
        match rest.split('/').collect::<Vec<_>>()[..] {
            [gateway, "meta"] => {
                let Ok(head) = serde_json::from_slice::<Head>(&entry.value) else { continue };
                if !is_plausible(head.version.epoch, (hub.options.wall_clock)()) {
                    continue;
                }
                let (gateway, services) = (gateway.to_owned(), BTreeMap::new());
                let Head { cluster: meta, version, addresses } = head;
                let mirror = StoredMirror { cluster: meta, gateway: gateway.clone(), version, services, addresses };
                heads.insert((cluster, gateway), mirror);
            }
            [gateway, "svc", namespace, name] => {
                let Ok(export) = serde_json::from_slice::<StoredExport>(&entry.value) else { continue };
                services.push(((cluster, gateway.to_owned()), ServiceName::new(namespace, name), export));
            }
            _ => {}
        }
    }
    for (key, name, export) in services {
        if let Some(mirror) = heads.get_mut(&key) {
            mirror.services.insert(name, export);
        }
    }
    for mirror in heads.into_values() {
        tracing::info!(cluster = mirror.cluster.name, gateway = mirror.gateway, "starting from a peer's mirror");
        hub.change(|catalogue, now| catalogue.load_mirror(mirror, now));
    }
}

/// Writes mirrors as they change. Runs until it is dropped.
pub(crate) async fn write(hub: Arc<Hub>, store: Arc<dyn Store>, election: Arc<Election>) {
    // What this gateway knows to be in the store; read once for each peer, because a former leader wrote it.
    let mut written: BTreeMap<String, BTreeMap<String, Bytes>> = BTreeMap::new();
    loop {
        hub.mirrors.added().await;
        match election.fence() {
            Some(fence) => {
                let mut left = BTreeSet::new();
                for cluster in hub.mirrors.take() {
                    if let Err(error) = write_peer(&hub, &*store, fence, &cluster, &mut written).await {
                        tracing::warn!(cluster, error = %error, "cannot write a peer's mirror");
                        written.remove(&cluster);
                        left.insert(cluster);
                    }
                }
                hub.mirrors.written(left);
            }
            None => {
                written.clear();
                sleep(hub.options.mirror_interval.min(NOT_LEADING)).await;
                continue;
            }
        }
        sleep(hub.options.mirror_interval).await;
    }
}

async fn write_peer(
    hub: &Hub,
    store: &dyn Store,
    fence: (&'static str, Expect),
    cluster: &str,
    written: &mut BTreeMap<String, BTreeMap<String, Bytes>>,
) -> Result<(), StoreError> {
    let wanted = wanted(hub, cluster);
    let known = match written.remove(cluster) {
        Some(known) => known,
        None => {
            let listing = store.list(&keys::peer_prefix(cluster)).await?;
            listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
        }
    };
    let fenced = || Txn::new().when(fence.0, fence.1);
    let (mut txn, mut bytes) = (fenced(), 0);
    let gone: BTreeSet<&String> = known.keys().filter(|key| !wanted.contains_key(*key)).collect();
    let deletes = gone.into_iter().map(|key| (key, None));
    let puts = wanted.iter().filter(|(key, value)| known.get(*key) != Some(value)).map(|(key, v)| (key, Some(v)));
    for (key, value) in deletes.chain(puts) {
        let size = value.map_or(0, Bytes::len);
        if txn.ops.len() >= MAX_TXN_OPS / 2 || bytes + size > MAX_TXN_BYTES / 2 {
            commit(store, std::mem::replace(&mut txn, fenced())).await?;
            bytes = 0;
        }
        bytes += size;
        txn = match value {
            Some(value) => txn.put(key, value.clone()),
            None => txn.delete(key),
        };
    }
    if !txn.ops.is_empty() {
        commit(store, txn).await?;
    }
    written.insert(cluster.to_owned(), wanted);
    Ok(())
}

async fn commit(store: &dyn Store, txn: Txn) -> Result<(), StoreError> {
    let lost = || StoreError::Unavailable { attempts: 1, reason: "another gateway leads".to_owned() };
    store.txn(txn).await?.applied().map(drop).ok_or_else(lost)
}

/// The keys and values that the peer's mirrors should have.
fn wanted(hub: &Hub, cluster: &str) -> BTreeMap<String, Bytes> {
    let mut wanted = BTreeMap::new();
    for mirror in hub.read(|catalogue, _| catalogue.mirrors(cluster)) {
        let gateway = &mirror.gateway;
        let head = Head { cluster: mirror.cluster, version: mirror.version, addresses: mirror.addresses };
        wanted.insert(keys::peer(cluster, &format!("{gateway}/meta")), to_json(&head));
        for (name, export) in &mirror.services {
            let rest = format!("{gateway}/svc/{}/{}", name.namespace, name.service);
            wanted.insert(keys::peer(cluster, &rest), to_json(export));
        }
    }
    wanted
}
