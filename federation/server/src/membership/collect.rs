//! The gateways in the store: which are there, and what is left of those that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eastway_registry::Slice;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval};

use super::slices::Slices;
use super::to_json;
use crate::hub::Hub;
use crate::store::keys::{self, Key};
use crate::store::{Change, Commit, Election, Expect, Follower, Listing, Store, StoreEntry, StoreSession, Txn};

/// The longest time between two looks of the leader at its siblings.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

/// What a gateway keeps in the store while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredAddress {
    /// Where siblings reach it.
    pub(crate) address: String,
    /// Which life of it this is.
    pub(crate) epoch: u64,
}

/// The siblings that a store lists, whose addresses are known then. What fails here is told when the store is followed.
pub(crate) async fn load(hub: &Hub, from: &dyn Store) -> BTreeSet<String> {
    let listing = from.list(keys::GATEWAYS).await.unwrap_or_default();
    let mut loaded = BTreeSet::new();
    for entry in listing.entries {
        let Some(Key::Gateway(gateway)) = Key::parse(&entry.key) else { continue };
        if *gateway != *hub.gateway {
            note_address(hub, &gateway, Some(&entry));
            hub.change(|catalogue, now| catalogue.gateway_registered(&gateway, now));
            loaded.insert(gateway);
        }
    }
    loaded
}

/// Keeps the own key in the store, however it is lost. Follows those of siblings, after those that were `loaded`, and tells the
/// catalogue which are there. Runs until it is dropped.
pub(crate) async fn follow(
    hub: Arc<Hub>,
    session: Arc<StoreSession>,
    own: StoredAddress,
    slices: Arc<Slices>,
    mut loaded: BTreeSet<String>,
) {
    let mut gateways = Follower::new(&**session.store(), keys::GATEWAYS);
    while let Some(change) = gateways.next().await {
        let (entry, present) = match change {
            Change::Put(entry) => (entry, true),
            Change::Delete(entry) => (entry, false),
            Change::Ready(_) => {
                let loaded = std::mem::take(&mut loaded);
                let gone = loaded.iter().filter(|gateway| !gateways.entries().contains_key(&keys::gateway(gateway)));
                for gateway in gone {
                    hub.change(|catalogue, _| catalogue.gateway_unregistered(gateway));
                    note_address(&hub, gateway, None);
                }
                continue;
            }
            Change::Relisted(_) => continue,
        };
        let Some(Key::Gateway(gateway)) = Key::parse(&entry.key) else { continue };
        note_address(&hub, &gateway, present.then_some(&entry));
        if *gateway == *hub.gateway {
            keep_own(&session, &own, &entry.key, present.then_some(&entry), &slices);
        } else if present {
            hub.change(|catalogue, now| catalogue.gateway_registered(&gateway, now));
        } else {
            hub.change(|catalogue, _| catalogue.gateway_unregistered(&gateway));
        }
    }
}

/// Takes note of where a sibling is reached. One whose key is gone may merely be cut off from the store: its address is
/// kept for as long as it has endpoints.
fn note_address(hub: &Hub, gateway: &str, found: Option<&StoreEntry>) {
    let stored = found.and_then(|entry| serde_json::from_slice::<StoredAddress>(&entry.value).ok());
    let members = hub.read(|catalogue, _| catalogue.siblings());
    hub.siblings.send_if_modified(|siblings| {
        let before = siblings.clone();
        match stored {
            Some(stored) if *gateway != *hub.gateway => drop(siblings.insert(gateway.to_owned(), stored.address)),
            _ if !members.contains(gateway) => drop(siblings.remove(gateway)),
            _ => {}
        }
        *siblings != before
    });
}

/// The own key holds `found`. It is written again if it is not as it should be, unless a later life wrote it: then it is
/// found out whether this one was replaced.
fn keep_own(session: &StoreSession, own: &StoredAddress, key: &str, found: Option<&StoreEntry>, slices: &Slices) {
    let stored = found.and_then(|entry| serde_json::from_slice::<StoredAddress>(&entry.value).ok());
    if stored.as_ref() == Some(own) || slices.replaced().borrow().is_some() {
        return;
    }
    if stored.is_some_and(|stored| stored.epoch > own.epoch) {
        slices.doubt();
    } else if session.lease().is_some()
        && let Err(error) = session.keep(key, to_json(own))
    {
        tracing::warn!(error = %error, "cannot keep this gateway's key");
    }
}

/// As the leader, removes what is left of gateways that have been gone for long: endpoints that do not answer, or that
/// registered elsewhere since. What answers stays. Runs until it is dropped.
pub(crate) async fn collect(hub: Arc<Hub>, store: Arc<dyn Store>, election: Arc<Election>) {
    let mut gateways = Follower::new(&*store, keys::GATEWAYS);
    let mut missing: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut rounds = interval((hub.options.collect_after / 4).clamp(Duration::from_millis(100), COLLECT_INTERVAL));
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
                    } else {
                        missing.entry(gateway).or_insert_with(Instant::now);
                    }
                }
                let due = missing.iter().filter(|(_, since)| since.elapsed() >= hub.options.collect_after);
                let due: Vec<Arc<str>> = due.map(|(gateway, _)| Arc::clone(gateway)).collect();
                if !due.is_empty() && let Ok(listing) = store.list(keys::SERVICES).await {
                    for gateway in due {
                        collect_gateway(&hub, &*store, &election, &gateway, &listing).await;
                    }
                }
            }
        }
    }
}

async fn collect_gateway(hub: &Hub, store: &dyn Store, election: &Election, gateway: &str, listing: &Listing) {
    for entry in &listing.entries {
        let Some(Key::Slice { service, gateway: writer, .. }) = Key::parse(&entry.key) else { continue };
        let Some((leader, fence)) = election.fence() else { return };
        if writer != gateway {
            continue;
        }
        let Ok(slice) = serde_json::from_slice::<Slice>(&entry.value) else { continue };
        let rest = hub.read(|catalogue, _| catalogue.remaining(gateway, &service, &slice));
        let removed = slice.endpoints.len() - rest.endpoints.len();
        if removed == 0 && !slice.endpoints.is_empty() {
            continue;
        }
        let txn = Txn::new().when(leader, fence).when(keys::gateway(gateway), Expect::Absent);
        let txn = txn.when(&entry.key, Expect::At(entry.revision));
        let txn = match rest.endpoints.is_empty() {
            true => txn.delete(&entry.key),
            false => txn.put(&entry.key, to_json(&rest)),
        };
        match store.txn(txn).await {
            Ok(Commit::Applied(_)) => {
                tracing::info!(gateway, key = entry.key, removed, "collected endpoints of a gateway that is gone");
            }
            Ok(Commit::Conflict(_)) => tracing::debug!(gateway, key = entry.key, "not collected: it is not as it was"),
            Err(error) => tracing::warn!(gateway, error = %error, "cannot collect a slice"),
        }
    }
}
