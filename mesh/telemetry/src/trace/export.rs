//! From a finished span to the collector: a bounded queue, and one task that empties it in batches.
//!
//! The SDK's batch processor would block a thread of its own, block again on shutdown, and not tell how much it dropped;
//! so the queue is ours and only the protocol is the SDK's.

use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Compression, SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::{TraceError, TraceOptions, attribute};
use crate::TelemetryNode;
use crate::metrics::{DropCause, TraceMetrics};

/// Where finished spans go.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    orders: mpsc::Sender<Order>,
    scope: InstrumentationScope,
    metrics: TraceMetrics,
    task: Mutex<Option<AbortHandle>>,
}

/// What the task is asked to do besides its batches.
enum Order {
    Flush(oneshot::Sender<bool>),
    Shutdown(oneshot::Sender<bool>),
}

impl Queue {
    /// Takes a finished span, or drops it and counts.
    pub(super) fn push(&self, span: SpanData) {
        match self.spans.try_send(span) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.metrics.dropped(DropCause::QueueFull, 1),
            Err(mpsc::error::TrySendError::Closed(_)) => self.metrics.dropped(DropCause::Shutdown, 1),
        }
    }

    pub(super) const fn scope(&self) -> &InstrumentationScope {
        &self.scope
    }

    pub(super) async fn flush(&self, limit: Duration) -> bool {
        self.order(Order::Flush, limit).await
    }

    pub(super) async fn shutdown(&self, limit: Duration) -> bool {
        let flushed = self.order(Order::Shutdown, limit).await;
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        flushed
    }

    async fn order(&self, order: fn(oneshot::Sender<bool>) -> Order, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let (reply, answer) = oneshot::channel();
        match timeout_at(deadline, self.orders.send(order(reply))).await {
            Ok(Ok(())) => matches!(timeout_at(deadline, answer).await, Ok(Ok(true))),
            _ => false,
        }
    }
}

/// Starts the task on the current runtime.
pub(super) fn start(options: &TraceOptions, metrics: &TraceMetrics) -> Result<Queue, TraceError> {
    let mut exporter = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(options.endpoint.clone())
        .with_timeout(options.timeout)
        .with_compression(Compression::Gzip)
        .build()
        .map_err(|source| TraceError::Endpoint { endpoint: options.endpoint.clone(), source })?;
    exporter.set_resource(&resource(&options.node));
    let (spans, waiting) = mpsc::channel(options.queue.max(1));
    let (orders, received) = mpsc::channel(4);
    let task = Task {
        exporter,
        waiting,
        orders: received,
        batch: Vec::new(),
        size: options.batch.max(1),
        delay: options.delay,
        timeout: options.timeout,
        metrics: metrics.clone(),
        failing: false,
    };
    let scope = InstrumentationScope::builder("eastway").with_version(options.node.version).build();
    let task = Mutex::new(Some(tokio::spawn(task.run()).abort_handle()));
    Ok(Queue { spans, orders, scope, metrics: metrics.clone(), task })
}

/// Who exports, in OpenTelemetry's terms.
fn resource(node: &TelemetryNode) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", format!("eastway-{}", node.role)),
        KeyValue::new("service.instance.id", format!("{}/{}", node.cluster, node.name)),
        KeyValue::new("service.version", node.version),
        KeyValue::new(attribute::ROLE, node.role),
        KeyValue::new(attribute::CLUSTER, node.cluster.clone()),
    ];
    attributes.extend(node.zone.clone().map(|zone| KeyValue::new(attribute::ZONE, zone)));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// The one reader of the queue.
struct Task {
    exporter: OtlpExporter,
    waiting: mpsc::Receiver<SpanData>,
    orders: mpsc::Receiver<Order>,
    batch: Vec<SpanData>,
    size: usize,
    delay: Duration,
    timeout: Duration,
    metrics: TraceMetrics,
    /// Whether the last export failed, so that a collector that is away is one line in the log and not one a second.
    failing: bool,
}

impl Task {
    async fn run(mut self) {
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                open = collect(&mut self.waiting, &mut self.batch, self.size, self.delay) => {
                    self.export().await;
                    if open { continue } else { return }
                }
            };
            match order {
                Some(Order::Flush(reply)) => {
                    let flushed = self.drain().await;
                    let _ = reply.send(flushed);
                }
                Some(Order::Shutdown(reply)) => {
                    self.waiting.close();
                    let flushed = self.drain().await;
                    let _ = reply.send(flushed);
                    return;
                }
                // Nobody holds the queue any more.
                None => {
                    self.drain().await;
                    return;
                }
            }
        }
    }

    /// Exports everything that waits by now. Returns whether the collector took all of it.
    async fn drain(&mut self) -> bool {
        // What arrives meanwhile is left for later, so that a busy node cannot keep this going.
        let mut left = self.waiting.len();
        let mut taken = true;
        loop {
            while self.batch.len() < self.size && left > 0 {
                let Ok(span) = self.waiting.try_recv() else { break };
                self.batch.push(span);
                left -= 1;
            }
            if self.batch.is_empty() {
                return taken;
            }
            taken &= self.export().await;
        }
    }

    async fn export(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        let sending = Sending { spans: self.batch.len(), metrics: &self.metrics };
        let result = match timeout(self.timeout, self.exporter.export(std::mem::take(&mut self.batch))).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the collector did not answer in time".to_owned()),
        };
        let spans = sending.settle();
        match &result {
            Ok(()) => {
                self.metrics.exported(spans);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                self.metrics.dropped(DropCause::ExportFailed, spans);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(error, dropped = spans, "spans cannot be exported");
                }
            }
        }
        result.is_ok()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.metrics.dropped(DropCause::Shutdown, self.waiting.len() + self.batch.len());
    }
}

/// Spans on their way: counted as dropped if the task ends before the collector answers.
struct Sending<'a> {
    spans: usize,
    metrics: &'a TraceMetrics,
}

impl Sending<'_> {
    fn settle(mut self) -> usize {
        std::mem::take(&mut self.spans)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.metrics.dropped(DropCause::Shutdown, self.spans);
    }
}

/// Fills `batch` until it is full or its first span has waited for `delay`. Returns whether more can come.
///
/// May be dropped at any point: what was received is in `batch` already.
async fn collect(
    waiting: &mut mpsc::Receiver<SpanData>,
    batch: &mut Vec<SpanData>,
    size: usize,
    delay: Duration,
) -> bool {
    let room = size.saturating_sub(batch.len()).max(1);
    if batch.is_empty() && waiting.recv_many(batch, room).await == 0 {
        return false;
    }
    let deadline = Instant::now() + delay;
    while batch.len() < size {
        match timeout_at(deadline, waiting.recv_many(batch, size - batch.len())).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    true
}
