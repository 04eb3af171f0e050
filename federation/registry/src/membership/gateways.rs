//! What is believed of the gateways' own keys in the store: which siblings are there, and whether this one's is as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::StoredAddress;
use crate::store::keys::{self, Key};
use crate::store::{Change, Known, StoreEntry};

/// What to make of a change in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayNews {
    /// A sibling is there; its address if it can be read.
    Registered(String, Option<String>),
    /// A sibling's key is gone. It may merely be cut off from the store.
    Unregistered(String),
    /// The own key is gone or wrong: it is to be written again.
    OwnKeyLost,
    /// A later life wrote the own key: find out whether this one was replaced ([`super::Writer::doubt`]).
    OwnKeyTaken,
}

/// Reads the gateways' keys for one of them.
#[derive(Clone, Debug)]
pub struct GatewayReader {
    gateway: Arc<str>,
    own: StoredAddress,
    /// The siblings that were loaded before following began.
    loaded: BTreeSet<String>,
}

impl GatewayReader {
    /// A reader for `gateway`, which keeps `own` in the store.
    pub fn new(gateway: impl Into<Arc<str>>, own: StoredAddress) -> Self {
        Self { gateway: gateway.into(), own, loaded: BTreeSet::new() }
    }

    /// What this gateway keeps in the store.
    pub const fn own(&self) -> &StoredAddress {
        &self.own
    }

    /// An entry that is loaded at the start, before following begins.
    pub fn load(&mut self, entry: &StoreEntry) -> Option<GatewayNews> {
        let Key::Gateway(gateway) = Key::parse(&entry.key)? else { return None };
        if *gateway == *self.gateway {
            return None;
        }
        self.loaded.insert(gateway.clone());
        Some(GatewayNews::Registered(gateway, address(entry).map(|stored| stored.address)))
    }

    /// A change while the keys are followed, after which they are `known`.
    pub fn change(&mut self, change: &Change, known: &Known) -> Vec<GatewayNews> {
        let (entry, present) = match change {
            Change::Put(entry) => (entry, true),
            Change::Delete(entry) => (entry, false),
            Change::Ready(_) => {
                let gone = std::mem::take(&mut self.loaded).into_iter();
                let gone = gone.filter(|gateway| !known.entries().contains_key(&keys::gateway(gateway)));
                return gone.map(GatewayNews::Unregistered).collect();
            }
            Change::Relisted(_) => return Vec::new(),
        };
        let Some(Key::Gateway(gateway)) = Key::parse(&entry.key) else { return Vec::new() };
        let stored = address(entry).filter(|_| present);
        let news = match (*gateway == *self.gateway, present) {
            (true, _) => self.own_key(stored),
            (false, true) => Some(GatewayNews::Registered(gateway, stored.map(|stored| stored.address))),
            (false, false) => Some(GatewayNews::Unregistered(gateway)),
        };
        news.into_iter().collect()
    }

    fn own_key(&self, stored: Option<StoredAddress>) -> Option<GatewayNews> {
        match stored {
            Some(stored) if stored == self.own => None,
            Some(stored) if stored.epoch > self.own.epoch => Some(GatewayNews::OwnKeyTaken),
            _ => Some(GatewayNews::OwnKeyLost),
        }
    }
}

fn address(entry: &StoreEntry) -> Option<StoredAddress> {
    serde_json::from_slice(&entry.value).ok()
}
