//! The way to one gateway, as its control connection finds it.

use std::sync::Arc;

use eastway_core::view::PathState;
use eastway_registry::PathFacts;
use parking_lot::Mutex;

use crate::hub::Hub;

/// What one task knows of its path, and the catalogue's copy of it.
pub(super) struct Path {
    pub(super) hub: Arc<Hub>,
    pub(super) cluster: String,
    pub(super) address: String,
    facts: Mutex<PathFacts>,
}

impl Path {
    pub(super) fn new(hub: Arc<Hub>, cluster: String, address: String) -> Self {
        Self { hub, cluster, address, facts: Mutex::default() }
    }

    /// Whether it leads to a gateway of this cluster.
    pub(super) fn leads_to_sibling(&self) -> bool {
        self.hub.read(|catalogue, _| catalogue.meta().name == self.cluster)
    }

    /// Whether it answers, as far as known.
    pub(super) fn state(&self) -> PathState {
        self.facts.lock().state
    }

    /// Changes what is known of the path, and publishes it if it changed.
    pub(super) fn note(&self, change: impl FnOnce(&mut PathFacts)) {
        let (facts, moved) = {
            let mut facts = self.facts.lock();
            let before = facts.clone();
            change(&mut facts);
            if *facts == before {
                return;
            }
            if facts.state != before.state {
                let (from, to) = (before.state, facts.state);
                tracing::info!(cluster = self.cluster, address = self.address, ?from, ?to, "a path changed");
            }
            (facts.clone(), (facts.state, facts.draining) != (before.state, before.draining))
        };
        self.hub.change(|catalogue, _| catalogue.set_path(&self.cluster, &self.address, facts));
        if moved {
            self.hub.paths.send_modify(|version| *version += 1);
        }
    }
}
