//! What a sidecar answers its operators with.

use std::net::TcpListener;
use std::sync::Arc;

use eastway_client::Registrar;
use eastway_core::ServiceName;
use eastway_node::admin::{self, Admin, Unanswered};
use eastway_node::{NodeError, Process};
use eastway_request::ServiceEntry;

use crate::access_log::AccessLog;
use crate::node::SidecarNode;

/// Serves both listeners until the tasks are stopped.
///
/// # Errors
/// If a bound socket cannot be used.
pub(crate) fn start(
    process: &Process,
    node: &Arc<SidecarNode>,
    registrar: Option<Arc<Registrar>>,
    sockets: (TcpListener, TcpListener),
) -> Result<(), NodeError> {
    admin::start(process, Arc::new(Administered { node: Arc::clone(node), registrar }), sockets)
}

/// A sidecar, and the registration of its workload if it serves anything.
struct Administered {
    node: Arc<SidecarNode>,
    registrar: Option<Arc<Registrar>>,
}

impl Admin for Administered {
    fn status(&self) -> serde_json::Value {
        let node = &self.node;
        serde_json::json!({
            "name": node.config.workload.name,
            "cluster": node.config.cluster,
            "zone": node.config.zone,
            "identity": node.identity.id().to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "draining": node.draining.started(),
            "discovery": node.discovery.status(),
            "registration": self.registrar.as_deref().map(Registrar::status),
            "access_log_dropped": node.access_log.as_ref().map(AccessLog::dropped),
        })
    }

    fn services(&self) -> Vec<String> {
        self.node.services.all().iter().map(|entry| entry.service().name().to_string()).collect()
    }

    fn service(&self, name: &ServiceName, from: Option<&str>) -> Result<Arc<ServiceEntry>, Unanswered> {
        let own = self.node.zone.to_string();
        if let Some(other) = from.filter(|from| *from != own) {
            let line = format!("this sidecar sees the mesh from {own} only: ask a sidecar in {other}, or a gateway");
            return Err(Unanswered::Elsewhere(line));
        }
        let unknown = "this sidecar does not follow the service: call it once, or see /services";
        self.node.services.entry(name).ok_or(Unanswered::Unknown(unknown))
    }

    fn metrics(&self, accept: Option<&str>) -> (&'static str, String) {
        self.node.metrics.expose(accept)
    }
}
