//! The control connection to one gateway of a peer: opened, watched, and opened again.

use std::sync::Arc;

use eastway_client::link::Backoff;
use eastway_core::Reason;
use eastway_core::view::PathState;
use eastway_registry::PathFacts;
use eastway_resilience::liveness::PathMonitor;
use eastway_transport::Tunnel;
use tokio::time::{sleep, timeout};

use super::{Dialer, ping, subscribe};
use crate::hub::Hub;

/// What one task knows of its path, and the catalogue's copy of it.
pub(super) struct Path {
    pub(super) hub: Arc<Hub>,
    pub(super) cluster: String,
    pub(super) address: String,
    facts: parking_lot::Mutex<PathFacts>,
}

impl Path {
    /// Changes what is known of the path, and publishes it if it changed.
    pub(super) fn note(&self, change: impl FnOnce(&mut PathFacts)) {
        let facts = {
            let mut facts = self.facts.lock();
            let before = facts.clone();
            change(&mut facts);
            if *facts == before {
                return;
            }
            if facts.state != before.state {
                let (from, to) = (before.state, facts.state);
                tracing::info!(cluster = self.cluster, address = self.address, ?from, ?to, "a path changed");
            }
            facts.clone()
        };
        self.hub.change(|catalogue, _| catalogue.set_path(&self.cluster, &self.address, facts));
    }
}

/// Runs until it is dropped, or the peer is no longer declared.
pub(super) async fn run(hub: Arc<Hub>, dialer: Arc<dyn Dialer>, cluster: String, address: String) {
    let options = hub.options.link();
    let mut monitor = PathMonitor::new(hub.options.peering.liveness, hub.clock.now());
    let mut backoff = Backoff::new();
    let path = Path { hub, cluster, address, facts: parking_lot::Mutex::default() };
    path.hub.change(|catalogue, _| catalogue.set_path(&path.cluster, &path.address, PathFacts::default()));
    while let Some(trust_domain) = trust_domain(&path) {
        let dialling = dialer.dial(&path.address, &trust_domain);
        match timeout(path.hub.options.peering.dial_timeout, dialling).await {
            Ok(Ok(tunnel)) => {
                backoff.reset();
                let reason = connected(&path, &tunnel, &mut monitor).await;
                tunnel.close(reason);
                let (cluster, address) = (&path.cluster, &path.address);
                tracing::info!(cluster, address, reason = %reason, "a control connection ended");
            }
            Ok(Err(error)) => note_failure(&path, &error.to_string()),
            Err(_) => note_failure(&path, "the gateway does not answer"),
        }
        monitor.on_lost(path.hub.clock.now());
        path.note(|facts| (facts.state, facts.leaving) = (PathState::Down, false));
        sleep(backoff.pause(&options)).await;
    }
}

/// The life of one connection.
async fn connected(path: &Path, tunnel: &Arc<dyn Tunnel>, monitor: &mut PathMonitor) -> Reason {
    tracing::info!(cluster = path.cluster, address = path.address, peer = %tunnel.peer(), "a control connection is open");
    monitor.on_connected(path.hub.clock.now());
    path.note(|facts| facts.state = PathState::Unknown);
    tokio::select! {
        reason = tunnel.closed() => reason,
        reason = ping::send(path, &**tunnel, monitor) => reason,
        () = subscribe::run(path, &**tunnel) => Reason::IdentityRefused,
    }
}

fn trust_domain(path: &Path) -> Option<String> {
    path.hub.read(|catalogue, _| Some(catalogue.resources().peers.get(&path.cluster)?.trust_domain.clone()))
}

fn note_failure(path: &Path, error: &str) {
    tracing::info!(cluster = path.cluster, address = path.address, error, "a peer's gateway cannot be reached");
}
