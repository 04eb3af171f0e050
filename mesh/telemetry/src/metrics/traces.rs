//! What became of the spans.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::labels::values;
use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[EXPORTED, DROPPED];

const EXPORTED: Described = Described {
    name: "eastway_spans_exported_total",
    kind: "counter",
    help: "Spans that the collector took",
    labels: &[],
};
const DROPPED: Described = Described {
    name: "eastway_spans_dropped_total",
    kind: "counter",
    help: "Spans that were recorded but not exported, by cause: `queue_full`, `export_failed` or `shutdown`",
    labels: &["cause"],
};

/// Why a span was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// More spans ended than could be exported.
    QueueFull,
    /// The collector refused them or did not answer.
    ExportFailed,
    /// The node ended first.
    Shutdown,
}

values! { DropCause { QueueFull = "queue_full", ExportFailed = "export_failed", Shutdown = "shutdown" } }

/// Counts spans.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: [Counter; 3],
}

impl TraceMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let dropped: Family<[(&'static str, &'static str); 1], Counter> = metrics.register(&DROPPED, Family::default());
        let cause = |cause: DropCause| dropped.get_or_create_owned(&[("cause", cause.as_str())]);
        Self {
            exported: metrics.register(&EXPORTED, Counter::default()),
            dropped: [DropCause::QueueFull, DropCause::ExportFailed, DropCause::Shutdown].map(cause),
        }
    }

    /// `count` spans were taken by the collector.
    pub(crate) fn exported(&self, count: usize) {
        self.exported.inc_by(count as u64);
    }

    /// `count` spans were lost.
    pub(crate) fn dropped(&self, cause: DropCause, count: usize) {
        self.dropped[cause as usize].inc_by(count as u64);
    }
}
