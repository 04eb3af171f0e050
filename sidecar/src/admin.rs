//! What a sidecar answers its operators with.

use std::net::TcpListener;
use std::sync::Arc;

use eastway_client::Registrar;
use eastway_core::ServiceName;
use eastway_node::admin::{self, Admin, Unanswered};
use eastway_node::listing::ServiceListing;
use eastway_node::problem::Certificate;
use eastway_node::{NodeError, Process};
use eastway_request::ServiceEntry;

use crate::access_log::AccessLog;
use crate::judge::{Facts, judge};
use crate::node::SidecarNode;
use crate::plaintext::Plaintext;
use crate::virtuals::Virtuals;

/// Serves both listeners until the tasks are stopped.
///
/// # Errors
/// If a bound socket cannot be used.
pub(crate) fn start(
    process: &Process,
    node: &Arc<SidecarNode>,
    (registrar, virtuals): (Option<Arc<Registrar>>, Option<Arc<Virtuals>>),
    sockets: (TcpListener, TcpListener),
) -> Result<(), NodeError> {
    admin::start(process, Arc::new(Administered { node: Arc::clone(node), registrar, virtuals }), sockets)
}

/// A sidecar, the registration of its workload if it serves anything, and the names that it answers for.
struct Administered {
    node: Arc<SidecarNode>,
    registrar: Option<Arc<Registrar>>,
    virtuals: Option<Arc<Virtuals>>,
}

impl Admin for Administered {
    fn status(&self) -> serde_json::Value {
        let node = &self.node;
        let identity = node.identity.id().to_string();
        let lifetime = node.identity.lifetime();
        let certificate = Certificate { days_left: lifetime.days_left(), days: lifetime.days() };
        let (discovery, draining) = (node.discovery.status(), node.draining.started());
        let registration = self.registrar.as_deref().map(Registrar::status);
        let unserved = self.virtuals.as_deref().map(Virtuals::unserved).unwrap_or_default();
        let plaintext = node.plaintext.as_ref().map(Plaintext::listing).unwrap_or_default();
        let problems = judge(&Facts {
            name: &node.config.workload.name,
            identity: &identity,
            draining,
            certificate,
            discovery: &discovery,
            registration: registration.as_ref(),
            unserved: &unserved,
            plaintext: &plaintext,
        });
        serde_json::json!({
            "role": "sidecar",
            "name": node.config.workload.name,
            "cluster": node.config.cluster,
            "zone": node.config.zone,
            "identity": identity,
            "certificate": certificate,
            "version": env!("CARGO_PKG_VERSION"),
            "draining": draining,
            "discovery": discovery,
            "registration": registration,
            "names": self.virtuals.as_deref().map(Virtuals::listing),
            "plaintext": node.plaintext.as_ref().map(|_| &plaintext),
            "access_log_dropped": node.access_log.as_ref().map(AccessLog::dropped),
            "problems": problems,
        })
    }

    fn services(&self) -> Vec<String> {
        self.node.services.all().iter().map(|entry| entry.service().name().to_string()).collect()
    }

    fn listings(&self) -> Vec<ServiceListing> {
        let listing = |entry: &Arc<ServiceEntry>| ServiceListing::new(&entry.view(), &self.node.config.cluster, None);
        let mut listings: Vec<_> = self.node.services.all().iter().map(listing).collect();
        listings.sort_by(|a, b| a.name.cmp(&b.name));
        listings
    }

    fn endpoints(&self, name: Option<&ServiceName>) -> Result<serde_json::Value, Unanswered> {
        let explain = name.map_or_else(|| "SERVICE".to_owned(), ToString::to_string);
        Err(Unanswered::Elsewhere(format!(
            "this is a sidecar, and does not know where what is known of endpoints comes from: ask a gateway of {} on its machine; \
             how this sidecar sees the endpoints that it calls is told by `eastway explain {explain}`",
            self.node.config.cluster
        )))
    }

    fn connections(&self) -> Result<serde_json::Value, Unanswered> {
        Ok(serde_json::json!(self.node.connections.listing()))
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
