//! The control connections to one gateway of a peer: opened over each transport, watched, and opened again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::LinkOptions;
use eastway_client::link::Backoff;
use eastway_core::view::{PathState, Transport};
use eastway_core::{Reason, SpiffeId};
use eastway_registry::PathFacts;
use eastway_resilience::liveness::PathMonitor;
use eastway_transport::Tunnel;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::path::Path;
use super::{ping, subscribe};
use crate::dialer::{DialError, Dialer};
use crate::hub::Hub;

/// A connection that lasted this long was accepted. One that ends at once was refused: no reason to hurry.
const LASTED: Duration = Duration::from_secs(1);

/// Runs until it is dropped, or the peer is no longer declared.
pub(super) async fn run(hub: Arc<Hub>, dialer: Arc<dyn Dialer>, cluster: String, address: String) {
    let transports = dialer.transports();
    let path = Path::new(hub, cluster, address, transports);
    path.hub.change(|catalogue, _| catalogue.set_path(&path.cluster, &path.address, PathFacts::default()));
    path.hub.paths.send_modify(|version| *version += 1);
    let connections = transports.iter().map(|transport| connect(&path, &*dialer, *transport));
    tokio::select! {
        _ = join_all(connections) => {}
        () = listen(&path) => {}
    }
}

/// Hears the gateway over the transport in use.
async fn listen(path: &Path) {
    let mut carrying = path.carrying();
    loop {
        let tunnel = carrying.borrow_and_update().clone();
        let listening = async {
            match &tunnel {
                Some(tunnel) => subscribe::run(path, &**tunnel).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = listening => {}
            changed = carrying.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps a connection over `transport`, until the peer is no longer declared.
async fn connect(path: &Path, dialer: &dyn Dialer, transport: Transport) {
    let hub = &path.hub;
    let mut arrivals = hub.arrivals.subscribe();
    let mut monitor = PathMonitor::new(hub.options.peering.liveness, hub.clock.now());
    let mut backoff = Backoff::new();
    let from = (path.cluster.clone(), transport);
    while let Some(trust_domain) = trust_domain(path) {
        let seen = arrived(&arrivals.borrow_and_update(), &from);
        let dialling = dialer.dial(&path.address, &trust_domain, transport);
        let dialled = tokio::select! {
            dialled = timeout(hub.options.peering.dial_timeout, dialling) => dialled,
            // What was sent before the gateway came up is lost, and would be repeated late: dial anew.
            () = arrives(&mut arrivals, &from, seen) => continue,
        };
        let ended = match dialled {
            Ok(Ok(tunnel)) => {
                let opened = Instant::now();
                let reason = connected(path, &tunnel, &mut monitor).await;
                tunnel.close(reason);
                if opened.elapsed() >= LASTED {
                    backoff.reset();
                }
                let (cluster, address) = (&path.cluster, &path.address);
                tracing::info!(cluster, address, %transport, reason = %reason, "a control connection ended");
                Some(reason)
            }
            failed => {
                let error = failed.ok().and_then(Result::err);
                let reason = error.as_ref().map(|error| error.reason);
                note_failure(path, transport, error);
                reason
            }
        };
        monitor.on_lost(hub.clock.now());
        path.note_way(transport, |way| way.lost(ended == Some(Reason::IdentityRefused)));
        tokio::select! {
            () = sleep(backoff.pause(&pauses(path, transport))) => {}
            () = arrives(&mut arrivals, &from, seen) => {}
        }
    }
}

/// A transport that does not work while another does is not missed: it is tried again less and less often. So is a gateway that
/// refuses this cluster.
fn pauses(path: &Path, transport: Transport) -> LinkOptions {
    let peering = &path.hub.options.peering;
    let most = match () {
        () if path.works_without(transport) => peering.standby_backoff_max,
        // Who changes its mind connects here, which is noticed at once.
        () if path.refuses_over(transport) => peering.refused_backoff_max,
        () => peering.backoff_max,
    };
    LinkOptions { backoff_max: most, ..path.hub.options.link() }
}

/// How often gateways of each cluster have connected here over each transport.
type Arrivals = BTreeMap<(String, Transport), u64>;

fn arrived(arrivals: &Arrivals, from: &(String, Transport)) -> u64 {
    arrivals.get(from).copied().unwrap_or_default()
}

/// Waits until a gateway of the cluster connects here over the transport, after that has happened `seen` times.
async fn arrives(arrivals: &mut watch::Receiver<Arrivals>, from: &(String, Transport), seen: u64) {
    // Fails only if the hub is gone, and with it this task.
    let _ = arrivals.wait_for(|arrivals| arrived(arrivals, from) > seen).await;
}

/// The life of one connection.
async fn connected(path: &Path, tunnel: &Arc<dyn Tunnel>, monitor: &mut PathMonitor) -> Reason {
    let (cluster, address, transport) = (&path.cluster, &path.address, tunnel.transport());
    tracing::info!(cluster, address, %transport, peer = %tunnel.peer(), "a control connection is open");
    monitor.on_connected(path.hub.clock.now());
    path.note_way(transport, |way| way.connected(tunnel));
    tokio::select! {
        reason = tunnel.closed() => reason,
        reason = ping::send(path, &**tunnel, monitor) => reason,
        () = returns(path, transport, tunnel.peer()) => Reason::TunnelLost,
    }
}

/// Waits until the gateway `peer` has connected here anew, and the path to it over `transport` is down: it was started again, or
/// is reached again. What it had of the old connection is gone, and until that has noticed, seconds pass in which the other
/// gateways of its cluster may go too.
pub(super) async fn returns(path: &Path, transport: Transport, peer: &SpiffeId) {
    let (mut callers, mut paths) = (path.hub.callers(), path.hub.paths.subscribe());
    let peer = (peer.to_string(), transport);
    let mut known = None;
    loop {
        let latest = callers.borrow_and_update().get(&peer).copied();
        paths.mark_unchanged();
        // Both sides connect: that it does so for the first time is nothing new.
        known = known.or(latest);
        if latest > known && path.state_over(transport) == PathState::Down {
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

fn note_failure(path: &Path, transport: Transport, error: Option<DialError>) {
    let (cluster, address) = (&path.cluster, &path.address);
    let error = error.map_or_else(|| "the gateway does not answer".to_owned(), |error| error.to_string());
    if path.works_without(transport) {
        tracing::debug!(cluster, address, %transport, error, "a peer's gateway cannot be reached over this transport");
    } else {
        tracing::info!(cluster, address, %transport, error, "a peer's gateway cannot be reached");
    }
}
