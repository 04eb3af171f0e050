//! What was not taken of what peers say.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[CUT];

const CUT: Described = Described {
    name: "eastway_peer_cut_total",
    kind: "counter",
    help: "Statements of a peer cluster that exceeded a bound and were left out or replaced, by what it was",
    labels: &["peer_cluster", "what"],
};

/// Counts what is cut.
#[derive(Clone, Debug)]
pub struct PeerMetrics(Family<[(&'static str, Arc<str>); 2], Counter>);

impl PeerMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self(metrics.register(&CUT, Family::default()))
    }

    /// Of the peer `cluster`, `what` has been cut `total` times by now. The clusters are those that are declared, and `what`
    /// is one of few.
    pub fn cut(&self, cluster: &str, what: &'static str, total: u64) {
        let counter = self.0.get_or_create_owned(&[("peer_cluster", Arc::from(cluster)), ("what", Arc::from(what))]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}
