//! What every workload calls, all the time: idempotent requests at a steady, modest rate, each with an id of its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::namespace::enter;
use super::network::Network;
use super::plan::{Host, Role, Target};
use crate::client::{self, Answer};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The application that says that it is this was asked for this path.
    Answered {
        /// The service that it plays.
        service: String,
        /// Its own name.
        name: String,
        /// The path that it was asked for.
        path: String,
    },
    /// None answered, in words.
    Failed(String),
}

/// A request, and when it was under way, from the begin of the run.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Who called.
    pub caller: Host,
    /// What.
    pub target: Target,
    /// The path, which no other request has.
    pub path: String,
    /// When it was sent.
    pub sent: Duration,
    /// When its outcome was known.
    pub done: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// Callers in the background. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    begin: Instant,
    ended: AtomicBool,
    ids: AtomicU64,
    done: Mutex<Vec<Request>>,
}

/// Threads of a workload: while one waits for a slow answer, the others go on.
const THREADS: u32 = 3;
/// The time between two requests of one thread. All together send 48 a second.
const PACE: Duration = Duration::from_millis(750);

impl Traffic {
    /// Starts the callers of every workload.
    pub(super) fn start(network: &Network, begin: Instant) -> Self {
        let (ended, ids, done) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { begin, ended, ids, done });
        let mut threads = Vec::new();
        let workloads = Host::of(Role::Workload);
        let all = THREADS * u32::try_from(workloads.len()).expect("a dozen");
        for (caller, number) in (0..THREADS).flat_map(|_| &workloads).zip(0..) {
            let (shared, file, caller) = (Arc::clone(&shared), network.at(*caller).file(), *caller);
            threads.push(std::thread::spawn(move || shared.call(caller, &file, PACE * number / all, number as usize)));
        }
        Self { shared, threads }
    }

    /// Stops calling, waits for what is under way, and answers all that was.
    pub(super) fn finish(mut self) -> Vec<Request> {
        self.end();
        std::mem::take(&mut *self.shared.lock())
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn call(&self, caller: Host, namespace: &Path, offset: Duration, first: usize) {
        enter(namespace);
        let mut next = Instant::now() + offset;
        for target in Target::all().iter().cycle().skip(first) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // Who was held up does not catch up: the rate stays modest.
            next = Instant::now().max(next) + PACE;
            let request = self.ask(caller, *target);
            self.lock().push(request);
        }
    }

    fn ask(&self, caller: Host, target: Target) -> Request {
        let path = format!("/{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let sent = self.begin.elapsed();
        let outcome = ask(target, &path);
        Request { caller, target, path, sent, done: self.begin.elapsed(), outcome }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the sidecar of the namespace that the calling thread is in.
pub(super) fn ask(target: Target, path: &str) -> Outcome {
    let proxy = ([127, 0, 0, 1], 15080).into();
    match client::get(proxy, &format!("http://{}{path}", target.host())) {
        Ok(answer) => outcome(&answer),
        Err(error) => Outcome::Failed(error),
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let text = |field: &str| body.as_ref().and_then(|body| body[field].as_str()).map(str::to_owned);
    match (answer.status, text("service"), text("name"), text("path")) {
        (200, Some(service), Some(name), Some(path)) => Outcome::Answered { service, name, path },
        _ => {
            let body = String::from_utf8_lossy(&answer.body);
            Outcome::Failed(format!("{} {:?} {}", answer.status, answer.reason(), body.trim()))
        }
    }
}
