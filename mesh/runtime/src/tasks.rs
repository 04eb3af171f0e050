//! Tasks with names, that are tracked: shutting a process down can wait for them, and say which did not end.
//!
//! Everything that a role spawns for longer than a request is spawned here.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that belong together and end together. Clones share the group.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    tracker: TaskTracker,
    stopping: CancellationToken,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, RunningTask>>,
}

#[derive(Debug)]
struct RunningTask {
    name: String,
    abort: Option<AbortHandle>,
}

/// The tasks that did not end in time. They were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running in `{group}`: {}", .tasks.join(", "))]
pub struct StillRunning {
    /// The group's name.
    pub group: &'static str,
    /// The tasks' names.
    pub tasks: Vec<String>,
}

impl TaskGroup {
    /// An empty group.
    pub fn new(name: &'static str) -> Self {
        let inner = Inner {
            name,
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            next: AtomicU64::new(0),
            running: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a task on the current runtime that ends by itself, or soon after [`TaskGroup::stopping`].
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), name, future)
    }

    /// As [`TaskGroup::spawn`], on another runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, name: impl Into<String>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let future: Pin<Box<dyn Future<Output = F::Output> + Send>> = Box::pin(future);
        let (id, task) = self.listed(name.into(), future);
        let handle = runtime.spawn(task);
        self.started(id, handle.abort_handle());
        handle
    }

    /// Runs a task on the current runtime that never ends by itself: when the group stops it is dropped where it waits.
    pub fn spawn_loop<F>(&self, name: impl Into<String>, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopping = self.stopping();
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = stopping => {}
                () = future => {}
            }
        })
    }

    /// As [`TaskGroup::spawn`], for a task that stays on this thread's `LocalSet`.
    pub fn spawn_local<F>(&self, name: impl Into<String>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        let future: Pin<Box<dyn Future<Output = F::Output>>> = Box::pin(future);
        let (id, task) = self.listed(name.into(), future);
        let handle = tokio::task::spawn_local(task);
        self.started(id, handle.abort_handle());
        handle
    }

    /// Completes when the group is told to stop. Owned, so that a task may keep it.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inner.stopping.clone().cancelled_owned()
    }

    /// The names of the tasks that have not ended, in the order of their start.
    pub fn running(&self) -> Vec<String> {
        self.inner.running.lock().values().map(|entry| entry.name.clone()).collect()
    }

    /// Tells the tasks to stop, waits for them, and aborts those that are left after `limit`.
    ///
    /// # Errors
    /// [`StillRunning`] names those that had to be aborted.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), StillRunning> {
        self.inner.stopping.cancel();
        self.inner.tracker.close();
        if tokio::time::timeout(limit, self.inner.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let tasks = self.running();
        for entry in self.inner.running.lock().values() {
            if let Some(abort) = &entry.abort {
                abort.abort();
            }
        }
        if tasks.is_empty() { Ok(()) } else { Err(StillRunning { group: self.inner.name, tasks }) }
    }

    /// A future that is listed while it lives. It comes boxed, because the runtime's code for tasks is compiled once per
    /// type of them.
    fn listed<F: Future>(&self, name: String, future: F) -> (u64, impl Future<Output = F::Output> + use<F>) {
        let (id, ended) = self.enter(name);
        let task = self.inner.tracker.track_future(async move {
            let _ended = ended;
            future.await
        });
        (id, task)
    }

    fn enter(&self, name: String) -> (u64, Ended) {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.running.lock().insert(id, RunningTask { name, abort: None });
        (id, Ended { id, inner: Arc::clone(&self.inner) })
    }

    fn started(&self, id: u64, abort: AbortHandle) {
        // Gone already if the task was quicker than its spawner.
        if let Some(entry) = self.inner.running.lock().get_mut(&id) {
            entry.abort = Some(abort);
        }
    }
}

/// Lives as long as the task's future: removed from the list when it ends, is aborted or panics.
struct Ended {
    id: u64,
    inner: Arc<Inner>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let entry = self.inner.running.lock().remove(&self.id);
        if std::thread::panicking() {
            let task = entry.map(|entry| entry.name).unwrap_or_default();
            tracing::error!(task, group = self.inner.name, "a task panicked");
        }
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_tasks_that_end_and_drops_loops() {
        let tasks = TaskGroup::new("test");
        let stopping = tasks.stopping();
        tasks.spawn("finishes", async move {
            stopping.await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        tasks.spawn_loop("loop", std::future::pending());
        assert_eq!(tasks.running(), ["finishes", "loop"]);
        let begun = Instant::now();
        tasks.shutdown(LIMIT).await.expect("both end");
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(tasks.running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_hang_are_named_and_aborted() {
        let tasks = TaskGroup::new("test");
        let hanging = tasks.spawn("export to eu-west", std::future::pending::<()>());
        let left = tasks.shutdown(LIMIT).await.expect_err("one hangs");
        assert_eq!(left.to_string(), "still running in `test`: export to eu-west");
        assert!(hanging.await.expect_err("aborted").is_cancelled());
        assert!(tasks.running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_leaves_no_entry() {
        let tasks = TaskGroup::new("test");
        let task = tasks.spawn("breaks", async { panic!("on purpose") });
        assert!(task.await.expect_err("panicked").is_panic());
        assert!(tasks.running().is_empty());
        tasks.shutdown(LIMIT).await.expect("nothing runs");
    }

    #[tokio::test(start_paused = true)]
    async fn local_tasks_are_tracked_too() {
        let tasks = TaskGroup::new("test");
        let local = tokio::task::LocalSet::new();
        let value = std::rc::Rc::new(7);
        let answer = local.run_until(async { tasks.spawn_local("local", async move { *value + 1 }).await }).await;
        assert_eq!(answer.expect("ends"), 8);
        tasks.shutdown(LIMIT).await.expect("nothing runs");
    }
}
