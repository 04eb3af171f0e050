//! What a node tells the outside about itself: logs, traces and metrics.
//!
//! * [`logging`]: JSON lines on standard error.
//! * [`trace`]: one trace over all hops of a request, exported by OTLP.
//! * [`metrics`]: the Prometheus registry and every metric that a node emits.
//!
//! Nothing here decides anything about a request, and nothing here can hold one up: queues are bounded and drop, label
//! values come from enums and configured names, and a request that nobody samples costs a few instructions. There are no
//! globals except the process's one log subscriber, so two nodes in one test do not share a counter. Called by the roles.

pub mod logging;
pub mod metrics;
pub mod trace;

/// Who this process is: the resource of its spans and the labels of `eastway_build_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryNode {
    /// `sidecar` or `gateway`.
    pub role: &'static str,
    /// The workload's or the gateway's id.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Its zone; a gateway has none.
    pub zone: Option<String>,
    /// The version of the binary.
    pub version: &'static str,
}
