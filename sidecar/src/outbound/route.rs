//! Phase 2: the service's view, from the discovery cache; the first use of a name waits for it.

use std::rc::Rc;

use eastway_core::{Authority, Reason};

use super::Route;
use crate::worker::Worker;

/// The port of `https://`.
const HTTPS: u16 = 443;

/// Finds the service and its port.
///
/// # Errors
/// [`Reason::UnknownService`], [`Reason::DiscoveryTimeout`], [`Reason::UnknownPort`], [`Reason::PlainHttpOnly`] or
/// [`Reason::NotOffered`].
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
    // The port is what is wrong: nobody offers it, and whoever asks for it wants TLS.
    let unknown = if target.port == Some(HTTPS) { Reason::PlainHttpOnly } else { Reason::UnknownPort };
    let port = entry.port(target.port).ok_or(unknown)?.port;
    if target.cluster.as_deref().is_some_and(|cluster| !entry.is_offered_by(cluster, &node.zone.cluster)) {
        return Err(Reason::NotOffered);
    }
    Ok(Route { entry, cluster: target.cluster, port })
}
