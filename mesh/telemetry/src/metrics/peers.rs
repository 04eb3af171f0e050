//! What was not taken of what peers say, and how they are reached.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[CUT, PATHS, CHANGES];

const CUT: Described = Described {
    name: "eastway_peer_cut_total",
    kind: "counter",
    help: "Statements of a peer cluster that exceeded a bound and were left out or replaced, by what it was",
    labels: &["peer_cluster", "what"],
};
const PATHS: Described = Described {
    name: "eastway_peer_paths",
    kind: "gauge",
    help: "Paths to gateways of a peer cluster that are up, by what carries the tunnel",
    labels: &["peer_cluster", "protocol"],
};
const CHANGES: Described = Described {
    name: "eastway_peer_transport_changes_total",
    kind: "counter",
    help: "How often the paths to a peer cluster went over from one transport to another",
    labels: &["peer_cluster"],
};

type Labels<const N: usize> = [(&'static str, Arc<str>); N];

/// Counts what is cut, and paths. The clusters are those that are declared.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    cut: Family<Labels<2>, Counter>,
    paths: Family<Labels<2>, Gauge>,
    changes: Family<Labels<1>, Counter>,
}

impl PeerMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            cut: metrics.register(&CUT, Family::default()),
            paths: metrics.register(&PATHS, Family::default()),
            changes: metrics.register(&CHANGES, Family::default()),
        }
    }

    /// Of the peer `cluster`, `what` has been cut `total` times by now; it is one of few.
    pub fn cut(&self, cluster: &str, what: &'static str, total: u64) {
        let counter = self.cut.get_or_create_owned(&[("peer_cluster", Arc::from(cluster)), ("what", Arc::from(what))]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// So many paths to the peer `cluster` are up over `protocol`.
    pub fn paths(&self, cluster: &str, protocol: &'static str, up: usize) {
        let labels = [("peer_cluster", Arc::from(cluster)), ("protocol", Arc::from(protocol))];
        self.paths.get_or_create_owned(&labels).set(i64::try_from(up).unwrap_or(i64::MAX));
    }

    /// The paths to the peer `cluster` have gone over to another transport `total` times by now.
    pub fn changes(&self, cluster: &str, total: u64) {
        let counter = self.changes.get_or_create_owned(&[("peer_cluster", Arc::from(cluster))]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}
