//! The data workers: threads with a current-thread runtime each, whose state need not be `Send`.
//!
//! A worker runs one future, made on its thread, inside a `LocalSet`; when that future ends, what it spawned locally is
//! dropped and the thread ends. Nothing moves between workers.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Running workers whose futures end with a `T`.
#[derive(Debug)]
pub struct Workers<T = ()> {
    threads: Vec<Worker<T>>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Worker<T> {
    name: String,
    result: oneshot::Receiver<T>,
    thread: thread::JoinHandle<()>,
}

/// Why the workers did not end as they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkersError {
    /// They panicked.
    #[error("panicked: {}", .0.join(", "))]
    Panicked(Vec<String>),
    /// They did not end in time; their threads are left to the end of the process.
    #[error("did not end in time: {}", .0.join(", "))]
    Stuck(Vec<String>),
}

impl<T: Send + 'static> Workers<T> {
    /// Starts a thread named `NAME-INDEX` for each of `owned`, and runs `start` there with the index and what is its own.
    ///
    /// # Errors
    /// A thread or its I/O driver cannot be created; those already started are told nothing, so treat it as fatal.
    pub fn spawn<O, S, F>(owned: Vec<O>, name: &str, start: S) -> io::Result<Self>
    where
        O: Send + 'static,
        S: Fn(usize, O) -> F + Clone + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let ended = CancellationToken::new();
        let mut threads = Vec::with_capacity(owned.len());
        for (index, own) in owned.into_iter().enumerate() {
            let name = format!("{name}-{index}");
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (sender, result) = oneshot::channel();
            let (start, guard) = (start.clone(), ended.clone().drop_guard());
            let thread = thread::Builder::new().name(name.clone()).spawn(move || {
                // The guard goes last: whoever hears that a worker ended can read its result, also after a panic.
                let _guard: DropGuard = guard;
                let sender = sender;
                let outcome = LocalSet::new().block_on(&runtime, async move { start(index, own).await });
                // Nobody listens if the workers were dropped instead of joined.
                let _ = sender.send(outcome);
            })?;
            threads.push(Worker { name, result, thread });
        }
        Ok(Self { threads, ended })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Completes when the first worker ends, by its own or by a panic. Owned, so that a task may keep it.
    pub fn any_ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }

    /// Waits at most `limit` for all of them. The results are in the order of the workers.
    ///
    /// # Errors
    /// [`WorkersError`] names those that panicked or, if none did, those that are stuck.
    pub async fn join(self, limit: Duration) -> Result<Vec<T>, WorkersError> {
        let deadline = Instant::now() + limit;
        let (mut results, mut panicked, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
        for Worker { name, result, thread } in self.threads {
            match tokio::time::timeout_at(deadline, result).await {
                Ok(Ok(value)) => {
                    results.push(value);
                    // Its last act was to send: what is left is the end of its runtime, which must not block ours.
                    drop(thread);
                }
                Ok(Err(_)) => panicked.push(name),
                Err(_) => stuck.push(name),
            }
        }
        if !panicked.is_empty() {
            return Err(WorkersError::Panicked(panicked));
        }
        if !stuck.is_empty() {
            return Err(WorkersError::Stuck(stuck));
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn each_worker_has_its_own_thread_and_local_state() {
        let workers = Workers::spawn(vec!["a", "b", "c"], "data", |index, own| async move {
            let state = Rc::new(RefCell::new(vec![format!("{own}{index}")]));
            let copy = Rc::clone(&state);
            tokio::task::spawn_local(async move { copy.borrow_mut().push(own.to_owned()) }).await.expect("local task");
            let name = thread::current().name().map(str::to_owned);
            (name, state.take())
        })
        .expect("threads");
        assert_eq!(workers.count(), 3);
        let results = workers.join(LIMIT).await.expect("all end");
        let expected =
            |index: usize, own: &str| (Some(format!("data-{index}")), vec![format!("{own}{index}"), own.to_owned()]);
        assert_eq!(results, [expected(0, "a"), expected(1, "b"), expected(2, "c")]);
    }

    #[tokio::test]
    async fn the_end_of_a_worker_drops_its_local_tasks() {
        let alive = CancellationToken::new();
        let guard = alive.clone();
        let workers = Workers::spawn(vec![()], "data", move |_, ()| {
            let guard = guard.clone().drop_guard();
            async move {
                tokio::task::spawn_local(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                });
                tokio::task::yield_now().await;
            }
        })
        .expect("thread");
        workers.join(LIMIT).await.expect("it ends");
        tokio::time::timeout(LIMIT, alive.cancelled()).await.expect("the local task was dropped");
    }

    #[tokio::test]
    async fn a_panic_is_heard_and_named() {
        let workers = Workers::spawn(vec![(), ()], "data", |index, ()| async move {
            assert!(index != 1, "on purpose");
            std::future::pending::<()>().await;
        })
        .expect("threads");
        tokio::time::timeout(LIMIT, workers.any_ended()).await.expect("heard");
        let error = workers.join(Duration::from_millis(1)).await.expect_err("one panicked");
        assert_eq!(error, WorkersError::Panicked(vec!["data-1".to_owned()]));
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_named() {
        let workers = Workers::spawn(vec![()], "data", |_, ()| std::future::pending::<()>()).expect("thread");
        let error = workers.join(Duration::from_millis(1)).await.expect_err("stuck");
        assert_eq!(error.to_string(), "did not end in time: data-0");
    }
}
