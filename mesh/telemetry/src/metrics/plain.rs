//! Callers outside of the mesh.

use prometheus_client::metrics::counter::Counter;

use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[CONNECTIONS];

const CONNECTIONS: Described = Described {
    name: "eastway_plaintext_connections_total",
    kind: "counter",
    help: "Connections to the application's own ports that were let through in plain text (`capture.inbound.mode: permissive`)",
    labels: &[],
};

/// Counts connections that came around the mesh.
#[derive(Clone, Debug, Default)]
pub struct PlainMetrics {
    connections: Counter,
}

impl PlainMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self { connections: metrics.register(&CONNECTIONS, Counter::default()) }
    }

    /// One more came.
    pub fn connected(&self) {
        self.connections.inc();
    }
}
