//! Readiness: a process is ready once everything that it waits for has come, and no longer when it drains.
//!
//! What start-up waits for is a guard; dropping it is the signal, also when the part that held it dies. `/ready` and the
//! registration read the outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::drain::Draining;

/// Whether the process is ready. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<Pending>,
    doubts: Arc<Mutex<Vec<Doubt>>>,
    draining: Draining,
}

/// Says what is wrong, if anything is.
struct Doubt(Box<dyn Fn() -> Option<String> + Send + Sync>);

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Doubt").field(&(self.0)()).finish()
    }
}

#[derive(Debug)]
struct Pending {
    names: Mutex<BTreeMap<u64, &'static str>>,
    /// Counts changes, so that waiters look again.
    changes: watch::Sender<u64>,
}

/// Something that must happen before the process is ready. Dropped when it has.
#[derive(Debug)]
#[must_use = "dropped at once, it would make nothing wait"]
pub struct Requirement {
    id: u64,
    pending: Arc<Pending>,
}

impl Readiness {
    /// Ready until somebody requires something, and until draining begins.
    pub fn new(draining: Draining) -> Self {
        let pending = Pending { names: Mutex::default(), changes: watch::Sender::new(0) };
        Self { pending: Arc::new(pending), doubts: Arc::default(), draining }
    }

    /// Makes the process wait for `name` until the guard is dropped.
    pub fn require(&self, name: &'static str) -> Requirement {
        let mut id = 0;
        self.pending.changes.send_modify(|changes| {
            *changes += 1;
            id = *changes;
        });
        self.pending.names.lock().insert(id, name);
        Requirement { id, pending: Arc::clone(&self.pending) }
    }

    /// Whether everything required has come and draining has not begun.
    pub fn is_ready(&self) -> bool {
        !self.draining.started() && self.pending.names.lock().is_empty()
    }

    /// What is waited for, in the order of the requirements; `draining` alone once that has begun.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        if self.draining.started() {
            return vec!["draining"];
        }
        self.pending.names.lock().values().copied().collect()
    }

    /// Has `doubt` asked, whenever somebody asks for readiness, for something that may be wrong though the process can do
    /// its work. It must not block.
    pub fn doubt(&self, doubt: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.doubts.lock().push(Doubt(Box::new(doubt)));
    }

    /// What is wrong now and does not keep the process from being ready.
    pub fn doubts(&self) -> Vec<String> {
        self.doubts.lock().iter().filter_map(|doubt| (doubt.0)()).collect()
    }

    /// Completes when everything required has come. (Not when draining begins.)
    pub async fn ready(&self) {
        let mut changes = self.pending.changes.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = changes.wait_for(|_| self.pending.names.lock().is_empty()).await;
    }
}

impl Drop for Requirement {
    fn drop(&mut self) {
        self.pending.names.lock().remove(&self.id);
        self.pending.changes.send_modify(|changes| *changes += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drain::Drain;

    #[tokio::test(start_paused = true)]
    async fn ready_when_the_last_requirement_is_dropped() {
        let drain = Drain::new(Duration::ZERO);
        let readiness = Readiness::new(drain.draining());
        assert!(readiness.is_ready());
        let (identity, discovery) = (readiness.require("identity"), readiness.require("discovery"));
        assert_eq!(readiness.waiting_for(), ["identity", "discovery"]);
        drop(identity);
        assert!(!readiness.is_ready());
        let waiting = readiness.clone();
        let ((), ()) = tokio::join!(waiting.ready(), async move { drop(discovery) });
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn a_part_that_dies_with_its_guard_signals_too() {
        let readiness = Readiness::new(Drain::new(Duration::ZERO).draining());
        let requirement = readiness.require("store");
        let died = tokio::spawn(async move {
            let _requirement = requirement;
            panic!("on purpose");
        });
        assert!(died.await.is_err());
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_is_not_ready() {
        let drain = Drain::new(Duration::ZERO);
        let readiness = Readiness::new(drain.draining());
        drain.start();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting_for(), ["draining"]);
    }

    #[test]
    fn a_doubt_is_told_and_changes_nothing() {
        let readiness = Readiness::new(Drain::new(Duration::ZERO).draining());
        let wrong = Arc::new(Mutex::new(None));
        let told = Arc::clone(&wrong);
        readiness.doubt(move || told.lock().clone());
        assert_eq!(readiness.doubts(), [""; 0]);
        *wrong.lock() = Some("the store fails".to_owned());
        assert_eq!(readiness.clone().doubts(), ["the store fails"]);
        assert!(readiness.is_ready());
    }
}
