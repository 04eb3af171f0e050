//! The Prometheus registry of a node, and every metric that it emits.
//!
//! Each part of a node has a struct with its metrics, made once and handed to that part. Label values are members of enums
//! or names from the configuration and the registry, never text of a request; beyond a limit they become `_other`.
//! `docs/metrics.md` lists everything and is generated from the tables beside the code.

mod exposition;
mod labels;
mod node;
mod peers;
mod plain;
mod traces;
mod traffic;
mod tunnel;

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::{Metric, Registry};

pub use self::labels::{AttemptKind, AttemptResult, Code, Direction, OTHER, Party, UNKNOWN};
pub use self::peers::PeerMetrics;
pub use self::plain::PlainMetrics;
pub use self::traces::{DropCause, TraceMetrics};
pub use self::traffic::{InFlight, Route, RouteCache, TrafficMetrics};
pub use self::tunnel::{OpenTunnels, StreamGuard, StreamSide, TunnelGuard, TunnelMetrics, TunnelPeer};
use crate::TelemetryNode;

/// A node's registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
}

impl Metrics {
    /// A registry that says who `node` is and what its process uses.
    pub fn new(node: &TelemetryNode) -> Arc<Self> {
        let metrics = Self { registry: Mutex::new(Registry::default()) };
        node::register(&metrics, node);
        Arc::new(metrics)
    }

    /// Every metric in OpenMetrics' text format.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a string cannot fail; an encoder of ours that did would leave the metrics before it.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        text
    }

    /// Every metric, with its media type, in the text format that a request's `Accept` prefers: Prometheus' own, unless it
    /// asks for OpenMetrics.
    pub fn expose(&self, accept: Option<&str>) -> (&'static str, String) {
        let format = exposition::Format::accepted(accept);
        (format.content_type(), format.convert(self.render()))
    }

    /// Registers `metric` under the name and help text of `described`, and returns it.
    fn register<M: Metric + Clone>(&self, described: &Described, metric: M) -> M {
        let name = described.name.strip_suffix("_total").unwrap_or(described.name);
        self.registry.lock().register(name, described.help, metric.clone());
        metric
    }
}

/// A line of `docs/metrics.md`.
#[derive(Clone, Copy, Debug)]
struct Described {
    /// The name as Prometheus shows it.
    name: &'static str,
    kind: &'static str,
    /// Without full stop: the encoder adds one.
    help: &'static str,
    labels: &'static [&'static str],
}

/// Every metric, in the order of the documentation.
fn described() -> impl Iterator<Item = &'static Described> {
    [traffic::TABLE, tunnel::TABLE, peers::TABLE, plain::TABLE, traces::TABLE, node::TABLE].into_iter().flatten()
}

/// The reference table, as Markdown, that `docs/metrics.md` holds.
pub fn table() -> String {
    let mut table = String::from("| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n");
    for Described { name, kind, help, labels } in described() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help}. |", labels.join(", "));
    }
    table
}

#[cfg(test)]
mod tests;
