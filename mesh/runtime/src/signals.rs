//! The signals that a process answers: SIGTERM and SIGINT drain it, the second of them ends the grace period, SIGHUP
//! reloads what can be reloaded.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;
use crate::tasks::TaskGroup;

/// The SIGHUPs. Several that come while one is handled count as one.
#[derive(Debug)]
pub struct Reloads {
    signal: Signal,
}

impl Reloads {
    /// Completes at the next SIGHUP; `None` when no more can come.
    pub async fn next(&mut self) -> Option<()> {
        self.signal.recv().await
    }
}

/// Installs the handlers and starts the task that turns the ending signals into `drain`. Call it on the control runtime.
///
/// # Errors
/// The operating system refuses a handler.
pub fn listen(tasks: &TaskGroup, drain: &Drain) -> io::Result<Reloads> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let reload = signal(SignalKind::hangup())?;
    let drain = drain.clone();
    tasks.spawn_loop("signals", async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if drain.draining().started() {
                tracing::warn!(signal = name, "told to end again: the grace period is over");
                drain.force();
            } else {
                tracing::info!(signal = name, grace = ?drain.grace(), "told to end: draining");
                drain.start();
            }
        }
    });
    Ok(Reloads { signal: reload })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal as Number, raise};
    use tokio::time::timeout;

    use super::*;
    use crate::drain::Drained;

    const LIMIT: Duration = Duration::from_secs(10);

    /// One test, because signals are the process's: two tests at once would hear each other's.
    #[tokio::test]
    async fn hangup_reloads_terminate_drains_twice_forces() {
        let tasks = TaskGroup::new("test");
        let drain = Drain::new(Duration::from_secs(600));
        let mut reloads = listen(&tasks, &drain).expect("handlers");

        raise(Number::SIGHUP).expect("raised");
        timeout(LIMIT, reloads.next()).await.expect("in time").expect("one");
        assert!(!drain.draining().started());

        let _stuck = drain.draining().guard();
        raise(Number::SIGTERM).expect("raised");
        timeout(LIMIT, drain.draining().wait()).await.expect("in time");
        raise(Number::SIGINT).expect("raised");
        assert_eq!(timeout(LIMIT, drain.finished()).await.expect("in time"), Drained::Forced(1));
        tasks.shutdown(LIMIT).await.expect("the task ends");
    }
}
