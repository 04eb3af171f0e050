//! The slices: own ones written when they change and repaired when the store has others, those of siblings read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::ServiceName;
use eastway_registry::{Registration, Slice};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::life::{Life, LifeError};
use super::stuck::{SliceName, Stuck};
use super::{RETRY, RETRY_MAX, to_json};
use crate::error::StartError;
use crate::hub::Hub;
use crate::local::is_local;
use crate::store::keys::{self, Key};
use crate::store::{Change, Commit, Expect, Follower, SessionState, Store, StoreEntry, StoreError};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// How often a slice is tried against a store that turns out to hold something else.
const ATTEMPTS: u32 = 8;

/// The gateway's part of the membership in the store.
#[derive(Debug)]
pub(crate) struct Slices {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    life: Life,
    /// The own slices as the store holds them, as far as known: a write compares with it, and finds out if it is wrong.
    stored: Mutex<BTreeMap<String, StoreEntry>>,
    /// Those that the store refuses.
    stuck: Mutex<Stuck>,
    /// The store may hold anything: compare all.
    doubt: Notify,
    /// The epoch of the process that took over this gateway's id.
    replaced: watch::Sender<Option<u64>>,
}

impl Slices {
    pub(crate) fn new(hub: Arc<Hub>, store: Arc<dyn Store>, life: Life) -> Arc<Self> {
        let (stored, stuck) = (Mutex::default(), Mutex::default());
        let (doubt, replaced) = (Notify::new(), watch::Sender::new(None));
        Arc::new(Self { hub, store, life, stored, stuck, doubt, replaced })
    }

    /// The epoch of the process that took over this gateway's id, once one did: nothing is written any more.
    pub(crate) fn replaced(&self) -> watch::Receiver<Option<u64>> {
        self.replaced.subscribe()
    }

    /// The store may have lost or changed what this gateway wrote: compares all of it.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Whether the store has this gateway's life, so that it can be written.
    pub(crate) fn is_claimed(&self) -> bool {
        self.life.is_claimed()
    }

    /// Loads all slices: the own ones are served and probed at once, those of siblings too. Returns the keys of those.
    pub(crate) async fn load(&self, from: &dyn Store) -> Result<BTreeSet<String>, StartError> {
        let listing = loop {
            match from.list(keys::SERVICES).await {
                Ok(listing) => break listing,
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = %error, "waiting for the store");
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        for entry in &listing.entries {
            self.take(entry);
        }
        tracing::info!(slices = listing.entries.len(), "membership loaded");
        Ok(listing.entries.into_iter().map(|entry| entry.key).filter(|key| self.own(key).is_none()).collect())
    }

    /// Writes own slices as they change, and compares all of them whenever the session was gained or there is doubt. Runs
    /// until it is dropped, or the gateway was replaced.
    pub(crate) async fn write(self: Arc<Self>, mut session: watch::Receiver<SessionState>) {
        let mut pause = RETRY;
        let mut compare = false;
        while self.replaced.borrow().is_none() {
            if !compare {
                tokio::select! {
                    () = self.hub.slices.added() => sleep(GATHER).await,
                    due = self.stuck_are_due() => self.hub.slices.add(due),
                    () = self.doubt.notified() => compare = true,
                    Ok(()) = session.changed() => compare = matches!(*session.borrow_and_update(), SessionState::Held(_)),
                }
            }
            if compare && let Err(error) = self.compare().await {
                self.note(&error, "cannot compare the own slices with the store");
            } else if self.write_dirty().await {
                (compare, pause) = (false, RETRY);
                continue;
            } else {
                compare = false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Reads all own slices; those that differ, are missing or should not be there are written next.
    async fn compare(&self) -> Result<(), LifeError> {
        self.life.check(&*self.store).await?;
        let listing = self.store.list(keys::SERVICES).await?;
        let found: Vec<_> =
            listing.entries.into_iter().filter_map(|entry| Some((self.own(&entry.key)?, entry))).collect();
        let mut suspects = self.hub.read(|catalogue, _| catalogue.own_slices());
        suspects.extend(found.iter().map(|(slice, _)| slice.clone()));
        *self.stored.lock() = found.into_iter().map(|(_, entry)| (entry.key.clone(), entry)).collect();
        let differing = suspects.into_iter().filter(|(service, index)| self.differs(service, *index));
        let differing: Vec<_> = differing.collect();
        if !differing.is_empty() {
            tracing::info!(
                slices = differing.len(),
                "the store holds other slices than this gateway has: writing them"
            );
            self.hub.slices.add(differing);
        }
        Ok(())
    }

    /// Waits until slices that the store refused are to be tried again.
    async fn stuck_are_due(&self) -> Vec<SliceName> {
        loop {
            let next = self.stuck.lock().next();
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
            let due = self.stuck.lock().due(Instant::now());
            if !due.is_empty() {
                return due;
            }
        }
    }

    /// Writes what changed. False: the store does not answer, and what was not written waits. What it refuses waits by
    /// itself.
    pub(crate) async fn write_dirty(&self) -> bool {
        let dirty = self.hub.slices.take();
        let mut left = BTreeSet::new();
        for (service, index) in dirty {
            match self.write_slice(&service, index).await {
                Ok(()) => self.stuck.lock().written(&(service, index)),
                Err(error) => {
                    self.note(&error, "cannot write a slice");
                    match error {
                        LifeError::Store(StoreError::Refused(_) | StoreError::Invalid(_)) => {
                            self.stuck.lock().refused((service, index), Instant::now());
                        }
                        _ => drop(left.insert((service, index))),
                    }
                }
            }
        }
        let done = left.is_empty();
        self.hub.slices.written(left);
        done
    }

    async fn write_slice(&self, service: &ServiceName, index: u32) -> Result<(), LifeError> {
        let key = keys::slice(service, &self.hub.gateway, index);
        for _ in 0..ATTEMPTS {
            let wanted = self.hub.read(|catalogue, _| catalogue.slice(service, index)).map(|slice| to_json(&slice));
            let known = self.stored.lock().get(&key).cloned();
            if wanted.as_ref() == known.as_ref().map(|entry| &entry.value) {
                return Ok(());
            }
            let expect = known.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
            let txn = self.life.fenced().when(&key, expect);
            let txn = match &wanted {
                Some(value) => txn.put(&key, value.clone()),
                None => txn.delete(&key),
            };
            match self.store.txn(txn).await? {
                Commit::Applied(revision) => {
                    let entry = wanted.map(|value| StoreEntry { key: key.clone(), value, revision, lease: None });
                    self.know(&key, entry);
                    return Ok(());
                }
                Commit::Conflict(found) => {
                    let mut found = found.into_iter();
                    let life = found.next().flatten();
                    self.know(&key, found.next().flatten());
                    self.life.settle(&*self.store, life.as_ref()).await?;
                }
            }
        }
        Err(StoreError::Unavailable { attempts: ATTEMPTS, reason: format!("`{key}` never stood still") }.into())
    }

    /// Follows all slices, after those of siblings that were `loaded`. Runs until it is dropped.
    pub(crate) async fn follow(self: Arc<Self>, mut loaded: BTreeSet<String>) {
        let mut follower = Follower::new(&*self.store, keys::SERVICES);
        while let Some(change) = follower.next().await {
            match change {
                Change::Put(entry) => match self.own(&entry.key) {
                    Some(slice) => self.suspect(slice, &entry.key.clone(), Some(entry)),
                    None => self.take(&entry),
                },
                Change::Delete(entry) => match self.own(&entry.key) {
                    Some(slice) => self.suspect(slice, &entry.key, None),
                    None => self.take_deletion(&entry.key),
                },
                // What went before following began was told by nobody.
                Change::Ready(_) => {
                    for key in std::mem::take(&mut loaded) {
                        if !follower.entries().contains_key(&key) {
                            self.take_deletion(&key);
                        }
                    }
                }
                Change::Relisted(_) => self.doubt(),
            }
        }
    }

    /// Takes note of what the store holds under `key`, an own slice's. Whoever wrote it, this gateway is its writer: what
    /// is not as it should be is written.
    fn suspect(&self, (service, index): (ServiceName, u32), key: &str, found: Option<StoreEntry>) {
        self.know(key, found);
        if self.differs(&service, index) {
            self.hub.slices.add([(service, index)]);
        }
    }

    fn know(&self, key: &str, entry: Option<StoreEntry>) {
        let mut stored = self.stored.lock();
        match entry {
            Some(entry) => drop(stored.insert(key.to_owned(), entry)),
            None => drop(stored.remove(key)),
        }
    }

    fn differs(&self, service: &ServiceName, index: u32) -> bool {
        let wanted = self.hub.read(|catalogue, _| catalogue.slice(service, index));
        let key = keys::slice(service, &self.hub.gateway, index);
        wanted.map(|slice| to_json(&slice)).as_ref() != self.stored.lock().get(&key).map(|entry| &entry.value)
    }

    /// The slice under `key`, if it is an own one.
    fn own(&self, key: &str) -> Option<(ServiceName, u32)> {
        match Key::parse(key)? {
            Key::Slice { service, gateway, index } if *gateway == *self.hub.gateway => Some((service, index)),
            _ => None,
        }
    }

    fn take(&self, entry: &StoreEntry) {
        let Some(Key::Slice { service, gateway, index }) = Key::parse(&entry.key) else { return };
        match serde_json::from_slice::<Slice>(&entry.value) {
            Ok(mut slice) => {
                let own = *gateway == *self.hub.gateway;
                slice.endpoints.retain(|registration| may_be_reached(&self.hub, registration, own));
                self.hub.change(|catalogue, now| catalogue.load_slice(&gateway, &service, index, Some(slice), now));
                self.hub.probe.notify_one();
            }
            Err(error) => tracing::warn!(key = entry.key, error = %error, "a slice cannot be read"),
        }
    }

    fn take_deletion(&self, key: &str) {
        let Some(Key::Slice { service, gateway, index }) = Key::parse(key) else { return };
        self.hub.change(|catalogue, now| catalogue.load_slice(&gateway, &service, index, None, now));
    }

    fn note(&self, error: &LifeError, what: &str) {
        match error {
            LifeError::Replaced { epoch } if self.replaced.borrow().is_none() => {
                tracing::error!(
                    own = self.life.epoch(),
                    theirs = epoch,
                    "another process runs as this gateway and has taken over its id: this one writes nothing any more and ends"
                );
                self.replaced.send_replace(Some(*epoch));
            }
            LifeError::Replaced { .. } => {}
            LifeError::Store(error) => tracing::warn!(error = %error, "{what}"),
        }
    }
}

/// Whether the address in a slice may be connected to: what the store says is checked like any other input.
fn may_be_reached(hub: &Hub, registration: &Registration, own: bool) -> bool {
    match hub.admission.check_stored(registration.address, own, is_local) {
        Ok(()) => true,
        Err(error) => {
            let (service, endpoint) = (&registration.service, &registration.endpoint);
            tracing::warn!(%service, %endpoint, error = %error, "a stored endpoint is left out");
            false
        }
    }
}
