//! What all threads of a sidecar share.

use std::sync::Arc;

use eastway_client::Discovery;
use eastway_core::ZoneId;
use eastway_identity::Identity;
use eastway_runtime::drain::Draining;
use eastway_telemetry::metrics::{Metrics, Party, TrafficMetrics};
use eastway_telemetry::trace::Tracer;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::connections::Connections;
use crate::load::OwnLoad;
use crate::plaintext::Plaintext;
use crate::services::Services;

/// A sidecar, as its workers and its control tasks see it.
#[derive(Debug)]
pub(crate) struct SidecarNode {
    pub(crate) config: Config,
    /// In `Proxy-Status`: `eastway-sidecar-NAME`.
    pub(crate) name: String,
    pub(crate) identity: Arc<Identity>,
    pub(crate) zone: ZoneId,
    /// The workload beside this sidecar: the service that it serves, else the account that it calls as.
    pub(crate) own: Party,
    pub(crate) services: Arc<Services>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) load: Arc<OwnLoad>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traffic: TrafficMetrics,
    pub(crate) tracer: Tracer,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) draining: Draining,
    /// The streams that are open.
    pub(crate) connections: Arc<Connections>,
    /// Who comes in plain text, where that is let through.
    pub(crate) plaintext: Option<Plaintext>,
}
