//! The control connection to one gateway of a peer: opened, watched, and opened again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::LinkOptions;
use eastway_client::link::Backoff;
use eastway_core::view::PathState;
use eastway_core::{Reason, SpiffeId};
use eastway_registry::PathFacts;
use eastway_resilience::liveness::PathMonitor;
use eastway_transport::Tunnel;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::path::Path;
use super::{ping, subscribe};
use crate::dialer::Dialer;
use crate::hub::Hub;

/// A connection that lasted this long was accepted. One that ends at once was refused: no reason to hurry.
const LASTED: Duration = Duration::from_secs(1);

/// Runs until it is dropped, or the peer is no longer declared.
pub(super) async fn run(hub: Arc<Hub>, dialer: Arc<dyn Dialer>, cluster: String, address: String) {
    let options = LinkOptions { backoff_max: hub.options.peering.backoff_max, ..hub.options.link() };
    let mut arrivals = hub.arrivals.subscribe();
    let mut monitor = PathMonitor::new(hub.options.peering.liveness, hub.clock.now());
    let mut backoff = Backoff::new();
    let path = Path::new(hub, cluster, address);
    path.hub.change(|catalogue, _| catalogue.set_path(&path.cluster, &path.address, PathFacts::default()));
    while let Some(trust_domain) = trust_domain(&path) {
        let seen = arrived(&arrivals.borrow_and_update(), &path.cluster);
        let dialled = tokio::select! {
            dialled = timeout(path.hub.options.peering.dial_timeout, dialer.dial(&path.address, &trust_domain)) => dialled,
            // What was sent before the gateway came up is lost, and would be repeated late: dial anew.
            () = arrives(&mut arrivals, &path.cluster, seen) => continue,
        };
        match dialled {
            Ok(Ok(tunnel)) => {
                let opened = Instant::now();
                let reason = connected(&path, &tunnel, &mut monitor).await;
                tunnel.close(reason);
                if opened.elapsed() >= LASTED {
                    backoff.reset();
                }
                let (cluster, address) = (&path.cluster, &path.address);
                tracing::info!(cluster, address, reason = %reason, "a control connection ended");
            }
            Ok(Err(error)) => note_failure(&path, &error.to_string()),
            Err(_) => note_failure(&path, "the gateway does not answer"),
        }
        monitor.on_lost(path.hub.clock.now());
        path.note(|facts| {
            (facts.state, facts.draining) = (PathState::Down, false);
            (facts.loss, facts.transport) = (None, None);
        });
        tokio::select! {
            () = sleep(backoff.pause(&options)) => {}
            () = arrives(&mut arrivals, &path.cluster, seen) => {}
        }
    }
}

fn arrived(arrivals: &BTreeMap<String, u64>, cluster: &str) -> u64 {
    arrivals.get(cluster).copied().unwrap_or_default()
}

/// Waits until a gateway of the cluster connects here, after it has done so `seen` times.
async fn arrives(arrivals: &mut watch::Receiver<BTreeMap<String, u64>>, cluster: &str, seen: u64) {
    // Fails only if the hub is gone, and with it this task.
    let _ = arrivals.wait_for(|arrivals| arrived(arrivals, cluster) > seen).await;
}

/// The life of one connection.
async fn connected(path: &Path, tunnel: &Arc<dyn Tunnel>, monitor: &mut PathMonitor) -> Reason {
    tracing::info!(cluster = path.cluster, address = path.address, peer = %tunnel.peer(), "a control connection is open");
    monitor.on_connected(path.hub.clock.now());
    path.note(|facts| (facts.state, facts.transport) = (PathState::Unknown, Some(tunnel.protocol())));
    tokio::select! {
        reason = tunnel.closed() => reason,
        reason = ping::send(path, &**tunnel, monitor) => reason,
        () = subscribe::run(path, &**tunnel) => Reason::IdentityRefused,
        () = returns(path, tunnel.peer()) => Reason::TunnelLost,
    }
}

/// Waits until the gateway `peer` has connected here anew, and the path to it is down: it was started again, or is reached
/// again. What it had of the old connection is gone, and until that has noticed, seconds pass in which the other gateways of
/// its cluster may go too.
pub(super) async fn returns(path: &Path, peer: &SpiffeId) {
    let (mut callers, mut paths) = (path.hub.callers(), path.hub.paths.subscribe());
    let peer = peer.to_string();
    let mut known = None;
    loop {
        let latest = callers.borrow_and_update().get(&peer).copied();
        paths.mark_unchanged();
        // Both sides connect: that it does so for the first time is nothing new.
        known = known.or(latest);
        if latest > known && path.state() == PathState::Down {
            return;
        }
        let changed = tokio::select! {
            changed = callers.changed() => changed,
            changed = paths.changed() => changed,
        };
        if changed.is_err() {
            // The hub is gone, and with it this task.
            std::future::pending::<()>().await;
        }
    }
}

fn trust_domain(path: &Path) -> Option<String> {
    if path.leads_to_sibling() {
        return Some(path.hub.trust_domain.clone());
    }
    path.hub.read(|catalogue, _| Some(catalogue.resources().peers.get(&path.cluster)?.trust_domain.clone()))
}

fn note_failure(path: &Path, error: &str) {
    tracing::info!(cluster = path.cluster, address = path.address, error, "a peer's gateway cannot be reached");
}
