//! From the gateway's updates to the kinds that they are of, and from what is kept on disk.
//!
//! Here it is seen that no update is missed. What the updates say, and what it means, is the kinds' own.

use std::collections::HashMap;
use std::sync::Arc;

use eastway_core::Timestamp;
use eastway_proto::discovery::v1::update::Change;
use eastway_proto::discovery::v1::{SubscribeRequest, Update};
use parking_lot::Mutex;

use super::cache::Kept;
use super::kind::{Common, Kind, Unreadable, topic};

/// Why an update cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpdateError {
    #[error("the update after {last:?} of {kind} `{name:.80}` has the number {found}")]
    Gap { kind: &'static str, name: String, last: Option<u64>, found: u64 },
    #[error("an update of {kind} `{name:.80}` cannot be read")]
    Unreadable {
        kind: &'static str,
        name: String,
        #[source]
        source: Unreadable,
    },
}

/// All kinds that this version knows.
pub(super) struct Dispatcher {
    common: Arc<Common>,
    kinds: Vec<Arc<dyn Kind>>,
    /// The number of the last update of the present stream, by kind and name.
    versions: Mutex<HashMap<(&'static str, String), u64>>,
    /// What is kept of kinds that this version does not know, for one that does.
    foreign: Mutex<Vec<Kept>>,
}

impl Dispatcher {
    pub(super) fn new(common: Arc<Common>, kinds: Vec<Arc<dyn Kind>>) -> Self {
        Self { common, kinds, versions: Mutex::default(), foreign: Mutex::default() }
    }

    fn kind(&self, word: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.iter().find(|kind| kind.word() == word)
    }

    /// Everything that a new stream is asked for.
    pub(super) fn everything(&self) -> SubscribeRequest {
        // What was still to be asked for is among it.
        drop(self.common.take_asks());
        let topics =
            self.kinds.iter().flat_map(|kind| kind.followed().into_iter().map(|name| topic(kind.word(), &name)));
        SubscribeRequest { start: topics.collect(), stop: Vec::new() }
    }

    /// What is to be asked for since the last time; `None` if nothing.
    pub(super) fn news(&self) -> Option<SubscribeRequest> {
        let request = self.common.take_asks();
        let mut versions = self.versions.lock();
        for topic in &request.stop {
            if let Some(kind) = self.kind(&topic.kind) {
                versions.remove(&(kind.word(), topic.name.clone()));
            }
        }
        (request != SubscribeRequest::default()).then_some(request)
    }

    /// Takes an update. What a later version says of kinds that are not known here is passed over.
    pub(super) fn take(&self, update: Update, now: Timestamp) -> Result<(), UpdateError> {
        let Update { kind, name, version, change: Some(change) } = update else { return Ok(()) };
        let Some(kind) = self.kind(&kind).filter(|kind| kind.follows(&name)) else { return Ok(()) };
        let key = (kind.word(), name);
        let mut versions = self.versions.lock();
        let last = versions.get(&key).copied();
        let taken = match change {
            Change::Snapshot(body) => kind.snapshot(&key.1, &body, now),
            Change::Delta(_) if last.is_none_or(|last| version != last + 1) => {
                return Err(UpdateError::Gap { kind: key.0, name: key.1, last, found: version });
            }
            Change::Delta(body) => kind.delta(&key.1, &body, now),
            Change::Removed(_) => {
                kind.removed(&key.1, now);
                versions.remove(&key);
                return Ok(());
            }
        };
        match taken {
            Ok(()) => {
                versions.insert(key, version);
                Ok(())
            }
            Err(source) => Err(UpdateError::Unreadable { kind: key.0, name: key.1, source }),
        }
    }

    pub(super) fn disconnected(&self) {
        self.versions.lock().clear();
        self.kinds.iter().for_each(|kind| kind.disconnected());
    }

    pub(super) fn tick(&self, now: Timestamp) {
        self.kinds.iter().for_each(|kind| kind.tick(now));
    }

    /// Takes over what was kept, kind by kind in their order.
    pub(super) fn restore(&self, kept: Vec<Kept>, now: Timestamp) {
        let (known, foreign): (Vec<_>, Vec<_>) = kept.into_iter().partition(|kept| self.kind(&kept.kind).is_some());
        *self.foreign.lock() = foreign;
        for kind in &self.kinds {
            for kept in known.iter().filter(|kept| kept.kind == kind.word()) {
                if let Err(error) = kind.restore(&kept.name, kept.body.clone(), now) {
                    tracing::warn!(kind = kept.kind, name = kept.name, error = %eastway_core::Chain(&error), "a part of the last view is not used");
                }
            }
        }
    }

    /// What is to be kept.
    pub(super) fn kept(&self, now: Timestamp) -> Vec<Kept> {
        let known = self.kinds.iter().flat_map(|kind| {
            let kept = kind.kept(now).into_iter();
            kept.map(|(name, body)| Kept { kind: kind.word().to_owned(), name, body })
        });
        known.chain(self.foreign.lock().iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
