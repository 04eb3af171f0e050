//! What a gateway answers its operators with.

use std::net::TcpListener;
use std::sync::Arc;

use eastway_core::ServiceName;
use eastway_node::admin::{self, Admin, Unanswered};
use eastway_node::{NodeError, Process};
use eastway_request::ServiceEntry;

use crate::node::GatewayNode;

/// Serves both listeners until the tasks are stopped.
///
/// # Errors
/// If a bound socket cannot be used.
pub(crate) fn start(
    process: &Process,
    node: &Arc<GatewayNode>,
    sockets: (TcpListener, TcpListener),
) -> Result<(), NodeError> {
    let doubtful = Arc::clone(node);
    // It serves on from memory, so that it stays ready.
    process.readiness.doubt(move || {
        let store = doubtful.federation.server().status().store;
        (!store.healthy).then(|| format!("the store fails: {}", store.last_error.unwrap_or_default()))
    });
    admin::start(process, Arc::clone(node), sockets)
}

impl Admin for GatewayNode {
    fn status(&self) -> serde_json::Value {
        let server = self.federation.server();
        serde_json::json!({
            "gateway": self.config.gateway,
            "cluster": server.cluster(),
            "identity": self.identity.id().to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "draining": self.draining.started(),
            "federation": server.status(),
        })
    }

    fn services(&self) -> Vec<String> {
        self.federation.server().services().iter().map(ToString::to_string).collect()
    }

    fn service(&self, name: &ServiceName, from: Option<&str>) -> Result<Arc<ServiceEntry>, Unanswered> {
        let zone = self.services.zone(from).map_err(|_| {
            let zones = self.services.zones().join(", ");
            Unanswered::Elsewhere(format!("this gateway answers for the zones of its own cluster: {zones}"))
        })?;
        let unknown = Unanswered::Unknown("no cluster known here offers the service; see /services");
        self.services.service(name, zone).ok_or(unknown)
    }

    fn metrics(&self, accept: Option<&str>) -> (&'static str, String) {
        // Brings the metrics of peers up to what the server has counted.
        for peer in self.federation.server().peers() {
            for (what, count) in &peer.cut {
                self.peers.cut(&peer.cluster, what, *count);
            }
        }
        self.metrics.expose(accept)
    }
}
