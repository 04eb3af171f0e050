//! A caller that never stops calling: what it counts shows whether a fault cost anybody a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{check, client, eventually};

/// Threads of a caller: while one waits for a slow answer, the others go on.
const THREADS: u32 = 5;
/// The time between two requests of one thread; all together send 50 a second.
const PACE: Duration = Duration::from_millis(100);

/// A steady caller in the background.
#[derive(Debug)]
pub struct Caller {
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a caller counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered with 200.
    pub answered: u64,
    /// All others, in words.
    pub failures: Vec<String>,
    /// Answers by the zone that the application says it is in.
    pub zones: BTreeMap<String, u64>,
}

impl Caller {
    /// Calls `url` by GET through the proxy at `proxy`, 50 times a second.
    pub fn start(proxy: SocketAddr, url: &str) -> Self {
        Self::sending(proxy, "GET", url)
    }

    /// The same by POST, which may not be repeated.
    pub fn posting(proxy: SocketAddr, url: &str) -> Self {
        Self::sending(proxy, "POST", url)
    }

    fn sending(proxy: SocketAddr, method: &'static str, url: &str) -> Self {
        let (tally, ended) = (Arc::new(Mutex::new(Tally::default())), Arc::new(AtomicBool::new(false)));
        let begin = Instant::now();
        let thread = |index| {
            let (tally, ended, url) = (Arc::clone(&tally), Arc::clone(&ended), url.to_owned());
            std::thread::spawn(move || {
                let mut next = begin + PACE * index / THREADS;
                while !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += PACE;
                    let sent = begin.elapsed();
                    let answer = client::send(proxy, method, &url, &[], b"");
                    let span = sent..begin.elapsed();
                    tally.lock().unwrap_or_else(PoisonError::into_inner).count(&span, answer);
                }
            })
        };
        let threads = (0..THREADS).map(thread).collect();
        Self { tally, ended, threads }
    }

    /// Waits until `more` further requests were answered, whatever else happened.
    pub fn answers(&self, more: u64) {
        let goal = self.tally().answered + more;
        eventually(&format!("{more} more answers"), || {
            let tally = self.tally();
            check(tally.answered >= goal, || format!("{tally:?}"))
        });
    }

    /// Waits until `more` further requests failed.
    pub fn fails(&self, more: usize) {
        let goal = self.tally().failures.len() + more;
        eventually(&format!("{more} more failures"), || {
            let failures = self.tally().failures.len();
            check(failures >= goal, || format!("{failures}"))
        });
    }

    /// What it counted so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops calling, and waits for what is under way.
    pub fn finish(mut self) -> Tally {
        self.end();
        self.tally()
    }

    /// Stops calling; not one request may have failed.
    ///
    /// # Panics
    /// If one did.
    pub fn finish_without_failure(self) -> Tally {
        let tally = self.finish();
        assert!(
            tally.failures.is_empty(),
            "{} of {} requests failed: {tally:#?}",
            tally.failures.len(),
            tally.answered
        );
        tally
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.end();
    }
}

impl Tally {
    fn count(&mut self, span: &Range<Duration>, answer: Result<client::Answer, String>) {
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.answered += 1;
                let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
                if let Some(zone) = body.as_ref().and_then(|body| body["zone"].as_str()) {
                    *self.zones.entry(zone.to_owned()).or_default() += 1;
                }
            }
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                self.failures.push(format!("{span:.2?}: {} {:?} {}", answer.status, answer.reason(), body.trim()));
            }
            Err(error) => self.failures.push(format!("{span:.2?}: {error}")),
        }
    }
}
