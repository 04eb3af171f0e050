//! The stream of changes that a watch yields.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Listing, Revision, StoreEntry};

/// How many events wait between a store and a slow reader, before the store waits with it.
pub(super) const WATCH_BUFFER: usize = 256;

/// One change under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(StoreEntry),
    /// A key was deleted.
    Delete {
        /// The key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// The position was lost (history compacted, server restored, or none was given): forget everything known under
    /// the prefix, this is what it holds. The events after it continue from the listing's revision.
    Reset(Listing),
}

impl Event {
    /// The store's revision of the change.
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete { revision, .. } => *revision,
            Self::Reset(listing) => listing.revision,
        }
    }
}

/// A watch of one prefix. It ends when it is dropped, or when an embedded store is.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    task: AbortHandle,
}

impl Watch {
    /// Starts `run` as the task that feeds the watch.
    pub(super) fn spawn<F>(run: impl FnOnce(mpsc::Sender<Event>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(WATCH_BUFFER);
        let task = tokio::spawn(run(sender)).abort_handle();
        Self { events, task }
    }

    /// The next change; `None` if the store was closed. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
