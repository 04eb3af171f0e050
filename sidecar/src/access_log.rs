//! The access log: one JSON line for each request, when it has ended, with every attempt that was made for it.
//!
//! Workers hand finished records over a bounded queue to a task that writes; when the disk is slower than the traffic,
//! records are dropped and counted, and requests never wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

/// Records that may wait for the disk.
const QUEUE: usize = 8_192;
/// How long a written record may wait to be visible in the file.
const FLUSH: Duration = Duration::from_millis(200);

/// A line of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// When the request came, in microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// `outbound` for the application's own requests, `inbound` for those to it.
    pub(crate) direction: &'static str,
    /// The caller's verified identity, of an inbound request.
    pub(crate) source: Option<String>,
    /// `NAMESPACE/SERVICE`; empty if none was recognised.
    pub(crate) service: String,
    pub(crate) method: String,
    /// Of the answer that was begun; 499 if there was none.
    pub(crate) status: u16,
    /// The reason's code, if it was refused, cancelled or broke off.
    pub(crate) reason: Option<&'static str>,
    /// Until the end of the answer, or of the stream.
    pub(crate) duration_us: u64,
    /// Bytes of the request's body, or of the stream towards the destination.
    pub(crate) sent_bytes: u64,
    /// Bytes of the answer's body, or of the stream from the destination.
    pub(crate) received_bytes: u64,
    pub(crate) trace_id: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
}

/// One attempt of a request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attempt {
    /// When it began, in microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// `first`, `retry` or `probe`.
    pub(crate) kind: &'static str,
    /// The zone that was picked, `CLUSTER/ZONE`.
    pub(crate) zone: String,
    /// The endpoint, once one was chosen.
    pub(crate) endpoint: Option<String>,
    /// The HTTP status or the reason's code.
    pub(crate) result: String,
}

/// The hand-over to the writing task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    queue: mpsc::Sender<Record>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens `path` for appending; the second value is the task that writes until the log and all its clones are gone.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) async fn open(path: &Path) -> std::io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let file = File::options().create(true).append(true).open(path).await?;
        let (queue, records) = mpsc::channel(QUEUE);
        let log = Self { queue, dropped: Arc::default() };
        Ok((log, write(BufWriter::new(file), records, path.to_owned())))
    }

    /// Hands a record over, or drops and counts it.
    pub(crate) fn write(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that were dropped because the disk was too slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn write(mut file: BufWriter<File>, mut records: mpsc::Receiver<Record>, path: PathBuf) {
    let mut ticks = tokio::time::interval(FLUSH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut line = Vec::new();
    let mut failing = false;
    loop {
        let outcome = tokio::select! {
            record = records.recv() => match record {
                Some(record) => {
                    line.clear();
                    // A record is plain data, so that writing it as JSON cannot fail.
                    let _ = serde_json::to_writer(&mut line, &record);
                    line.push(b'\n');
                    file.write_all(&line).await
                }
                None => break,
            },
            _ = ticks.tick() => file.flush().await,
        };
        match outcome {
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(path = %path.display(), %error, "the access log cannot be written; requests are not affected");
            }
            Err(_) => {}
            Ok(()) => failing = false,
        }
    }
    let _ = file.flush().await;
}

/// Microseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "a log line states the wall-clock time")]
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            at_us: 7,
            direction: "outbound",
            source: None,
            service: "shop/payments".to_owned(),
            method: "GET".to_owned(),
            status: 200,
            reason: None,
            duration_us: 3,
            sent_bytes: 0,
            received_bytes: 0,
            trace_id: None,
            attempts: vec![],
        }
    }

    #[tokio::test]
    async fn records_are_lines_and_survive_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.jsonl");
        let (log, writer) = AccessLog::open(&path).await.expect("writable");
        log.write(record());
        log.write(record());
        drop(log);
        writer.await;
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["service"], "shop/payments");
    }

    #[tokio::test]
    async fn a_slow_disk_costs_records_and_not_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _never_run) = AccessLog::open(&folder.path().join("access.jsonl")).await.expect("writable");
        for _ in 0..QUEUE + 5 {
            log.write(record());
        }
        assert_eq!(log.dropped(), 5);
    }
}
