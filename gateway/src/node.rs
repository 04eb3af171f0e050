//! What all threads of a gateway share.

use std::sync::Arc;

use eastway_identity::Identity;
use eastway_runtime::drain::Draining;
use eastway_telemetry::metrics::{Metrics, PeerMetrics, TunnelMetrics};
use eastway_telemetry::trace::Tracer;
use eastway_transport::relay::Recorder;

use crate::config::Config;
use crate::federation::Federation;
use crate::services::Services;

/// A gateway, as its workers and its control tasks see it.
#[derive(Debug)]
pub(crate) struct GatewayNode {
    pub(crate) config: Config,
    /// In `Proxy-Status`: `eastway-gw-CLUSTER-ID`.
    pub(crate) name: String,
    pub(crate) identity: Arc<Identity>,
    pub(crate) services: Arc<Services>,
    pub(crate) federation: Federation,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tunnels: TunnelMetrics,
    pub(crate) peers: PeerMetrics,
    pub(crate) tracer: Tracer,
    pub(crate) draining: Draining,
    /// Records every relayed byte, for those who want proof that a gateway sees ciphertext.
    pub(crate) recorder: Option<Arc<Recorder>>,
}
