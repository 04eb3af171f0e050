//! Reloads an identity when its files change.
//!
//! The *folders* are watched, because renewals replace files (and Kubernetes swaps a symbolic link); in between the files
//! are compared at an interval, for file systems that tell nothing. A thread of its own, so that no runtime ever waits for a
//! disk, or for the signatures that a review of open connections checks.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::{Condvar, Mutex};

use super::Identity;
use crate::IdentityFiles;

impl Identity {
    /// Watches the files with default options, until the returned [`Watch`] is dropped.
    pub fn watch(self: &Arc<Self>) -> Watch {
        self.watch_with(WatchOptions::default())
    }

    /// The same with `options`. An identity without files is never reloaded, but its connections are reviewed.
    pub fn watch_with(self: &Arc<Self>, options: WatchOptions) -> Watch {
        let signals = Arc::new(Signals::default());
        let watcher = self.files().and_then(|files| {
            let watcher = watcher(files, &signals).inspect_err(|error| {
                tracing::warn!(%error, poll = ?options.poll, "cannot watch the identity's folders; reading at intervals");
            });
            watcher.ok()
        });
        let (identity, seen) = (Arc::clone(self), Arc::clone(&signals));
        let thread = std::thread::Builder::new()
            .name("identity-watch".to_owned())
            .spawn(move || run(&identity, &seen, options))
            .inspect_err(|error| tracing::error!(%error, "cannot watch the identity: renewals need a restart"))
            .ok();
        Watch { signals, watcher, thread }
    }
}

/// How the files are watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How often the files are compared even if nothing was told. Default 5 s.
    pub poll: Duration,
    /// How long to wait after a change, so that certificate and key are both there. Default 100 ms.
    pub settle: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(5), settle: Duration::from_millis(100) }
    }
}

/// The watching of one identity. Dropping it ends the thread, and waits for that.
pub struct Watch {
    signals: Arc<Signals>,
    watcher: Option<RecommendedWatcher>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watcher = None;
        self.signals.update(|state| state.stopped = true);
        if let Some(thread) = self.thread.take() {
            // An error means that the thread has panicked: it ended, which is all that is wanted here.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("notified", &self.watcher.is_some()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Signals {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    changed: bool,
    stopped: bool,
}

impl Signals {
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.wake.notify_all();
    }

    /// Waits for a signal, at most for `limit`; takes the change with it.
    fn wait(&self, limit: Duration) -> State {
        let mut state = self.state.lock();
        if !state.changed && !state.stopped {
            self.wake.wait_for(&mut state, limit);
        }
        let seen = *state;
        state.changed = false;
        seen
    }
}

fn run(identity: &Identity, signals: &Signals, options: WatchOptions) {
    let mut failure = None;
    let mut compared = Instant::now();
    loop {
        let seen = signals.wait(REVIEW.min(options.poll));
        if seen.stopped || (seen.changed && signals.wait(options.settle).stopped) {
            return;
        }
        if seen.changed || compared.elapsed() >= options.poll {
            failure = attempt(identity, failure);
            compared = Instant::now();
        }
        identity.review();
    }
}

/// How often open connections are reviewed.
const REVIEW: Duration = Duration::from_millis(500);

/// Reloads once. The same failure is logged once, not at every interval; it is handed on to the next attempt.
fn attempt(identity: &Identity, before: Option<String>) -> Option<String> {
    let failure = match identity.reload() {
        Ok(false) => return None,
        Ok(true) => {
            tracing::info!(id = %identity.id(), "the identity's files changed and are in use");
            return None;
        }
        Err(error) => chain(&error),
    };
    if before.as_ref() != Some(&failure) {
        tracing::warn!(error = failure, "the identity's files changed but cannot be used; the present ones stay");
    }
    Some(failure)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn watcher(files: &IdentityFiles, signals: &Arc<Signals>) -> notify::Result<RecommendedWatcher> {
    let signals = Arc::clone(signals);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is an event too: without this filter each reload would cause the next.
        let matters = match event {
            Ok(event) => match event.kind {
                EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                _ => true,
            },
            Err(_) => true,
        };
        if matters {
            signals.update(|state| state.changed = true);
        }
    })?;
    for folder in folders(files) {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

fn folders(files: &IdentityFiles) -> BTreeSet<PathBuf> {
    [&files.certificate, &files.key, &files.bundle]
        .into_iter()
        .map(|path| match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        })
        .collect()
}
