//! A prefix of the store kept in memory, with the differences as a stream.
//!
//! For: readers that want a map and its changes, and do not care how the map was kept whole. A reset of the watch
//! becomes the differences between what was known and what is there now, so that a compaction or a restored server
//! looks like ordinary changes. Called by discovery and peering.

use std::collections::VecDeque;

use super::{Change, Known, Store, Watch};

/// Keeps all entries under a prefix.
#[derive(Debug)]
pub struct Follower {
    watch: Watch,
    known: Known,
    pending: VecDeque<Change>,
}

impl Follower {
    /// Follows `prefix`. It needs no answer to start: while the store is away, [`Follower::next`] waits.
    pub fn new(store: &dyn Store, prefix: &str) -> Self {
        Self { watch: store.watch(prefix, None), known: Known::default(), pending: VecDeque::new() }
    }

    /// The next difference; `None` if the store was closed. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            let event = self.watch.next().await?;
            self.pending.extend(self.known.apply(event));
        }
    }

    /// All entries, as of the last event that arrived: differences not yet taken by [`Follower::next`] are included.
    pub const fn known(&self) -> &Known {
        &self.known
    }
}
