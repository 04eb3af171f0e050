//! What a gateway answers its operators with.

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use eastway_core::ServiceName;
use eastway_core::view::{PathState, Transport};
use eastway_node::admin::{self, Admin, Unanswered};
use eastway_node::listing::ServiceListing;
use eastway_node::{NodeError, Process};
use eastway_request::ServiceEntry;
use eastway_server::PeerPath;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use crate::node::GatewayNode;
use crate::{joining, resources, view};

/// Asked about a service that nobody offers.
const UNKNOWN: Unanswered =
    Unanswered::Unknown("no cluster known here offers the service; see /services, or `eastway services`");

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
        let store = doubtful.federation.server().store();
        (!store.healthy).then(|| format!("the store fails: {}", store.last_error.unwrap_or_default()))
    });
    admin::start(process, Arc::clone(node), sockets)
}

impl Admin for GatewayNode {
    fn status(&self) -> serde_json::Value {
        view::status(self)
    }

    fn services(&self) -> Vec<String> {
        self.federation.server().services().iter().map(ToString::to_string).collect()
    }

    fn listings(&self) -> Vec<ServiceListing> {
        view::listings(self)
    }

    fn endpoints(&self, name: Option<&ServiceName>) -> Result<serde_json::Value, Unanswered> {
        view::endpoints(self, name).ok_or(UNKNOWN)
    }

    fn service(&self, name: &ServiceName, from: Option<&str>) -> Result<Arc<ServiceEntry>, Unanswered> {
        let zone = self.services.zone(from).map_err(|_| {
            let zones = self.services.zones().join(", ");
            Unanswered::Elsewhere(format!("this gateway answers for the zones of its own cluster: {zones}"))
        })?;
        self.services.service(name, zone).ok_or(UNKNOWN)
    }

    fn act(self: &Arc<Self>, request: &Request<Bytes>) -> Option<BoxFuture<'static, Response<Bytes>>> {
        joining::act(self, request).or_else(|| resources::act(self, request))
    }

    fn metrics(&self, accept: Option<&str>) -> (&'static str, String) {
        // Brings the metrics of peers up to what the server has counted.
        for (cluster, cut) in self.federation.server().cut() {
            for (what, count) in cut {
                self.peers.cut(&cluster, what, count);
            }
        }
        for peer in self.federation.server().peers() {
            for transport in [Transport::Quic, Transport::Tcp] {
                let up = |path: &&PeerPath| path.state == PathState::Up && path.transport == Some(transport);
                self.peers.paths(&peer.cluster, transport.as_str(), peer.paths.iter().filter(up).count());
            }
            self.peers.changes(&peer.cluster, peer.paths.iter().map(|path| path.transport_changes).sum());
        }
        self.metrics.expose(accept)
    }
}
