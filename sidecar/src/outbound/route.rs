//! Phase 2: the service's view, from the discovery cache; the first use of a name waits for it.

use std::rc::Rc;

use eastway_core::{Authority, Reason};

use super::Route;
use crate::worker::Worker;

/// Finds the service and its port.
///
/// # Errors
/// [`Reason::UnknownService`], [`Reason::DiscoveryTimeout`] or [`Reason::UnknownPort`].
pub(super) async fn route(worker: &Rc<Worker>, target: Authority) -> Result<Route, Reason> {
    let node = &worker.node;
    let entry = match node.services.entry(&target.service) {
        Some(entry) => {
            entry.touch();
            entry
        }
        None => {
            node.discovery.resolve(&target.service).await?;
            node.services.entry(&target.service).ok_or(Reason::UnknownService)?
        }
    };
    let port = entry.port(target.port).ok_or(Reason::UnknownPort)?.port;
    Ok(Route { entry, cluster: target.cluster, port })
}
