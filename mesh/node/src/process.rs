//! The life of a node's process, from its first task to its last.

use std::io;
use std::time::Duration;

use eastway_runtime::control;
use eastway_runtime::drain::Drain;
use eastway_runtime::readiness::Readiness;
use eastway_runtime::signals::{self, Reloads};
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::workers::Workers;
use eastway_telemetry::trace::Tracer;

use crate::NodeError;

/// How long control tasks and workers may take to end once nothing is in flight.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Runs `life` on the control runtime, to its end.
///
/// # Errors
/// Its own, or [`NodeError::Threads`].
pub fn run<E: From<NodeError>>(life: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = control::runtime().map_err(NodeError::Threads)?;
    let outcome = runtime.block_on(life);
    runtime.shutdown_timeout(STOP_LIMIT);
    outcome
}

/// Starts a data worker for each of `sockets`, and lets it do `work` with its own.
///
/// # Errors
/// [`NodeError::Threads`].
pub fn workers<S, W, F>(sockets: Vec<S>, work: W) -> Result<Workers, NodeError>
where
    S: Send + 'static,
    W: Fn(usize, S) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    Workers::spawn(sockets, "data", move |index, own| logged(work(index, own))).map_err(NodeError::Threads)
}

/// Waits for a worker's `work`, and logs the error that ends it.
async fn logged(work: impl Future<Output = io::Result<()>>) {
    if let Err(error) = work.await {
        tracing::error!(%error, "a bound socket cannot be used");
    }
}

/// The process of a node. A role begins it, starts what it needs, serves, drains and ends.
#[derive(Debug)]
pub struct Process {
    /// The tasks of the control runtime.
    pub tasks: TaskGroup,
    /// What SIGTERM, SIGINT or the role itself starts.
    pub drain: Drain,
    /// What `/ready` says.
    pub readiness: Readiness,
    reloads: Reloads,
}

impl Process {
    /// Begins the process of a `role`, whose drain waits for at most `grace`. Call it on the control runtime.
    ///
    /// # Errors
    /// [`NodeError::Threads`] if the operating system refuses a signal handler.
    pub fn begin(role: &'static str, grace: Duration) -> Result<Self, NodeError> {
        let (tasks, drain) = (TaskGroup::new(role), Drain::new(grace));
        let reloads = signals::listen(&tasks, &drain).map_err(NodeError::Threads)?;
        Ok(Self { readiness: Readiness::new(drain.draining()), tasks, drain, reloads })
    }

    /// Waits until draining begins or a worker dies; on SIGHUP it lets the role `reload`.
    pub async fn serve(&mut self, workers: &Workers, mut reload: impl AsyncFnMut()) {
        let (draining, died) = (self.drain.draining().wait(), workers.any_ended());
        tokio::pin!(draining, died);
        loop {
            tokio::select! {
                () = &mut draining => return,
                () = &mut died => return,
                Some(()) = self.reloads.next() => reload().await,
            }
        }
    }

    /// Drains until nothing is in flight or the grace period is over, and waits for the workers' ends.
    ///
    /// # Errors
    /// [`NodeError::Worker`] if one has died, or does not end.
    pub async fn finish(&self, workers: Workers) -> Result<(), NodeError> {
        self.drain.start();
        let drained = self.drain.finished().await;
        tracing::info!(?drained, "drained");
        // What outlived the grace period is cut now: the workers wait for it no longer.
        self.drain.force();
        workers.join(STOP_LIMIT).await.map(drop).map_err(NodeError::Worker)
    }

    /// Exports the last spans and ends the tasks.
    pub async fn end(self, tracer: &Tracer) {
        tracer.shutdown(STOP_LIMIT).await;
        if let Err(left) = self.tasks.shutdown(STOP_LIMIT).await {
            tracing::warn!(%left, "control tasks had to be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn in_time<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(LIMIT, future).await.expect("in time")
    }

    #[test]
    fn a_life_reloads_drains_and_ends() {
        let life = async {
            let mut process = Process::begin("test", LIMIT)?;
            let (draining, drain) = (process.drain.draining(), process.drain.clone());
            let workers = workers(vec![(), ()], move |_, ()| {
                let draining = draining.clone();
                async move {
                    draining.wait().await;
                    Ok(())
                }
            })?;
            let reloads = Cell::new(0);
            raise(Signal::SIGHUP).expect("a signal");
            let reload = async || {
                reloads.set(reloads.get() + 1);
                drain.start();
            };
            in_time(process.serve(&workers, reload)).await;
            assert_eq!(reloads.get(), 1);
            in_time(process.finish(workers)).await?;
            in_time(process.end(&Tracer::disabled())).await;
            Ok::<(), NodeError>(())
        };
        run(life).expect("an orderly end");
    }

    #[tokio::test]
    async fn the_death_of_a_worker_ends_the_process_with_its_name() {
        let mut process = Process::begin("test", LIMIT).expect("signal handlers");
        let workers = workers(vec![false, true], |_, dies| async move {
            assert!(!dies, "on purpose");
            std::future::pending().await
        });
        let workers = workers.expect("threads");
        in_time(process.serve(&workers, async || {})).await;
        // The other one is stuck, which is not what the operator has to hear about.
        let error = in_time(process.finish(workers)).await.expect_err("one died");
        assert_eq!(eastway_core::Chain(&error).to_string(), "a data worker failed: panicked: data-1");
    }
}
