//! What may be taken away of gateways that are gone, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::Timestamp;

use super::to_json;
use crate::Slice;
use crate::catalogue::Catalogue;
use crate::store::keys::{self, Key};
use crate::store::{Change, Expect, Known, StoreEntry, Txn};

/// Knows since when each gateway with slices has been missing.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    missing: BTreeMap<Arc<str>, Timestamp>,
}

/// Endpoints to be taken out of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Applied only if this gateway still leads, the slice's gateway is still gone, and the slice is as it was.
    pub txn: Txn,
    /// How many endpoints it removes.
    pub removed: usize,
}

impl Collector {
    /// A gateway's key changed: it was there not long ago, however long the news took. After a position was lost, nobody
    /// knows what happened meanwhile.
    pub fn hear(&mut self, change: &Change) {
        match change {
            Change::Put(entry) | Change::Delete(entry) => {
                if let Some(Key::Gateway(gateway)) = Key::parse(&entry.key) {
                    self.missing.remove(&*gateway);
                }
            }
            Change::Ready(_) | Change::Relisted(_) => self.missing.clear(),
        }
    }

    /// Looks which gateways have slices and no key in the store. Returns those that have had none for `after`.
    pub fn due(&mut self, catalogue: &Catalogue, keys: &Known, now: Timestamp, after: Duration) -> Vec<Arc<str>> {
        let is_gone = |gateway: &Arc<str>| !keys.entries().contains_key(&keys::gateway(gateway));
        let gone = catalogue.siblings().into_iter().filter(is_gone);
        let since = |gateway: Arc<str>| {
            let since = self.missing.get(&gateway).copied().unwrap_or(now);
            (gateway, since)
        };
        self.missing = gone.map(since).collect();
        let due = self.missing.iter().filter(|(_, since)| now.since(**since) >= after);
        due.map(|(gateway, _)| Arc::clone(gateway)).collect()
    }

    /// What the leader takes out of the slice in `entry`, if it is one of `gateway`, which is gone: endpoints that do not
    /// answer, or that registered elsewhere since. What answers stays. `leader` is the condition under which it leads.
    pub fn collect(
        catalogue: &Catalogue,
        gateway: &str,
        entry: &StoreEntry,
        leader: (&'static str, Expect),
    ) -> Option<Collection> {
        let Key::Slice { service, gateway: writer, .. } = Key::parse(&entry.key)? else { return None };
        if writer != gateway {
            return None;
        }
        let slice: Slice = serde_json::from_slice(&entry.value).ok()?;
        let rest = catalogue.remaining(gateway, &service, &slice);
        let removed = slice.endpoints.len() - rest.endpoints.len();
        if removed == 0 && !slice.endpoints.is_empty() {
            return None;
        }
        let txn = Txn::new().when(leader.0, leader.1).when(keys::gateway(gateway), Expect::Absent);
        let txn = txn.when(&entry.key, Expect::At(entry.revision));
        let txn = match rest.endpoints.is_empty() {
            true => txn.delete(&entry.key),
            false => txn.put(&entry.key, to_json(&rest)),
        };
        Some(Collection { txn, removed })
    }
}
