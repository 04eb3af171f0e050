//! The stream of changes that a watch yields.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Event;

/// How many events wait between a store and a slow reader, before the store waits with it.
pub(super) const WATCH_BUFFER: usize = 256;

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
