//! Two clusters and their control connections, in memory on paused time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_client::DiscoveryOptions;
use eastway_core::resource::Peer;
use eastway_core::view::{PathState, RemoteZone, Staleness, Transport};
use eastway_core::{Health, Reason, SpiffeId};
use eastway_registry::{PeerPolicy, ProbeOutcome, Resources};
use eastway_transport::tunnel::ConnectError;
use eastway_transport::{IncomingStream, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel, TunnelStats};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::time::{Instant, sleep};

use super::*;
use crate::dialer::DialError;
use crate::store::{Store, keys};
use crate::testing::{Gateway, eventually, exporting_payments, payments, piped};

mod epochs;
mod quic;
mod returns;
mod siblings;
mod told;
mod transports;

/// The network between the clusters: which gateway listens at which address, and whether bytes pass.
#[derive(Debug)]
struct Wan {
    gateways: Mutex<BTreeMap<String, Listener>>,
    /// For QUIC, which is all that most tests use.
    open: watch::Sender<bool>,
    /// For TCP.
    tcp: watch::Sender<bool>,
}

impl Wan {
    fn over(&self, transport: Transport) -> &watch::Sender<bool> {
        match transport {
            Transport::Quic => &self.open,
            Transport::Tcp => &self.tcp,
        }
    }
}

#[derive(Clone)]
struct Listener {
    identity: Arc<SpiffeId>,
    server: Arc<Mutex<Option<Arc<crate::Server>>>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener of {}", self.identity)
    }
}

impl Default for Wan {
    fn default() -> Self {
        Self { gateways: Mutex::default(), open: watch::Sender::new(true), tcp: watch::Sender::new(true) }
    }
}

/// One gateway's way onto the network.
#[derive(Debug)]
struct WanDialer {
    wan: Arc<Wan>,
    own: Arc<SpiffeId>,
    transports: &'static [Transport],
}

#[async_trait]
impl Dialer for WanDialer {
    async fn dial(
        &self,
        address: &str,
        trust_domain: &str,
        transport: Transport,
    ) -> Result<Arc<dyn Tunnel>, DialError> {
        let listener = self.wan.gateways.lock().get(address).cloned();
        let _ = self.wan.over(transport).subscribe().wait_for(|open| *open).await;
        let refused = |message: &str| DialError { reason: Reason::PathDown, message: message.to_owned() };
        let listener = listener.ok_or_else(|| refused("nobody listens"))?;
        let server = listener.server.lock().clone().ok_or_else(|| refused("the gateway does not run"))?;
        if listener.identity.trust_domain != trust_domain {
            return Err(refused("another identity"));
        }
        let (near, far) = tunnels(&self.wan, (&self.own, &listener.identity), transport);
        tokio::spawn(async move { server.on_control_connection(far).await });
        Ok(near)
    }

    fn transports(&self) -> &[Transport] {
        self.transports
    }
}

/// A control connection in memory.
struct MemoryTunnel {
    peer: Arc<SpiffeId>,
    transport: Transport,
    open: watch::Sender<bool>,
    to_peer: mpsc::Sender<Io>,
    from_peer: AsyncMutex<mpsc::Receiver<Io>>,
    ended: Arc<watch::Sender<Option<Reason>>>,
}

use eastway_transport::Io;

fn tunnels(
    wan: &Wan,
    ends: (&Arc<SpiffeId>, &Arc<SpiffeId>),
    transport: Transport,
) -> (Arc<dyn Tunnel>, Arc<dyn Tunnel>) {
    let (to_far, from_near) = mpsc::channel(8);
    let (to_near, from_far) = mpsc::channel(8);
    let ended = Arc::new(watch::Sender::new(None));
    let tunnel = |peer: &Arc<SpiffeId>, to_peer, from_peer| MemoryTunnel {
        peer: Arc::clone(peer),
        transport,
        open: wan.over(transport).clone(),
        to_peer,
        from_peer: AsyncMutex::new(from_peer),
        ended: Arc::clone(&ended),
    };
    (Arc::new(tunnel(ends.1, to_far, from_far)), Arc::new(tunnel(ends.0, to_near, from_near)))
}

impl std::fmt::Debug for MemoryTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryTunnel to {}", self.peer)
    }
}

#[async_trait]
impl Tunnel for MemoryTunnel {
    async fn open(&self, _: &StreamOpen, _: Bytes) -> Result<(StreamAccepted, Io), OpenError> {
        Err(OpenError::Timeout)
    }

    async fn accept(&self) -> Option<IncomingStream> {
        None
    }

    async fn open_raw(&self) -> Result<Io, OpenError> {
        let (near, far) = piped(self.open.subscribe());
        self.to_peer.send(far).await.map_err(|_| OpenError::Timeout)?;
        Ok(near)
    }

    async fn accept_raw(&self) -> Option<Io> {
        let mut from_peer = self.from_peer.lock().await;
        tokio::select! {
            io = from_peer.recv() => io,
            _ = self.closed() => None,
        }
    }

    async fn confirmed(&self) -> Result<(), ConnectError> {
        Ok(())
    }

    async fn closed(&self) -> Reason {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|reason| *reason).unwrap_or(Reason::TunnelLost)
    }

    fn is_closed(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn close(&self, reason: Reason) {
        self.ended.send_replace(Some(reason));
    }

    fn stats(&self) -> TunnelStats {
        TunnelStats::default()
    }

    fn peer(&self) -> &Arc<SpiffeId> {
        &self.peer
    }

    fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &[]
    }

    fn remote_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 15443).into()
    }

    fn kind(&self) -> Kind {
        Kind::Control
    }

    fn transport(&self) -> Transport {
        self.transport
    }
}

fn policy(cluster: &str, imports: &[&str]) -> PeerPolicy {
    PeerPolicy {
        peer: Peer {
            gateways: vec![format!("gw-1.{cluster}:15443")],
            imports: imports.iter().map(|&rule| rule.to_owned()).collect(),
            ..Peer::default()
        },
        trust_domain: format!("{cluster}.mesh.internal"),
        trust_bundle: vec![vec![1]],
    }
}

/// `us-east` and `eu-west`, which are peers; both run.
async fn two_clusters() -> (Arc<Wan>, Gateway, Gateway) {
    let wan = Arc::new(Wan::default());
    let us = cluster(&wan, "us-east", "eu-west").await;
    let eu = cluster(&wan, "eu-west", "us-east").await;
    us.run().await;
    eu.run().await;
    (wan, us, eu)
}

async fn cluster(wan: &Arc<Wan>, name: &'static str, peer: &str) -> Gateway {
    cluster_over(&[Transport::Quic], wan, name, peer).await
}

async fn cluster_over(transports: &'static [Transport], wan: &Arc<Wan>, name: &'static str, peer: &str) -> Gateway {
    let mut resources = exporting_payments();
    resources.peers.insert(peer.to_owned(), policy(peer, &["shop/*"]));
    let own = Arc::new(SpiffeId::gateway(&format!("{name}.mesh.internal"), "gw-1"));
    let dialer = WanDialer { wan: Arc::clone(wan), own: Arc::clone(&own), transports };
    let gateway = Gateway::new(name, Arc::new(dialer), resources).await;
    let listener = Listener { identity: own, server: Arc::clone(&gateway.server) };
    wan.gateways.lock().insert(format!("gw-1.{name}:15443"), listener);
    gateway
}

/// The zones of other clusters that `gateway` sees.
fn remote(gateway: &Gateway) -> Vec<RemoteZone> {
    gateway.running().view(&payments()).map(|view| view.remote.clone()).unwrap_or_default()
}

fn ready(gateway: &Gateway) -> Option<u32> {
    remote(gateway).first().map(|zone| zone.summary.ready)
}

fn staleness(gateway: &Gateway) -> Option<Staleness> {
    gateway.running().peers()[0].staleness
}

fn path(gateway: &Gateway) -> Option<PeerPath> {
    gateway.running().peers()[0].paths.first().cloned()
}

#[tokio::test(start_paused = true)]
async fn what_one_cluster_exports_the_other_sees_in_sum_and_so_do_its_callers() {
    let (_wan, us, eu) = two_clusters().await;
    let one = eu.sidecar("p1", "a", 1);
    let two = eu.sidecar("p2", "a", 1);
    one.registrar.registered().await;
    two.registrar.registered().await;
    eventually("both", || (ready(&us) == Some(2)).then_some(())).await;
    let zones = remote(&us);
    assert_eq!((zones.len(), zones[0].zone.to_string()), (1, "eu-west/a".to_owned()));
    assert_eq!(*zones[0].accounts, ["payments"]);

    let (discovery, notes, _task) = us.caller(DiscoveryOptions::new("us-east"));
    let view = discovery.resolve(&payments()).await.expect("known");
    assert_eq!((view.endpoints.len(), view.remote[0].summary.ready), (0, 2));
    two.registrar.set_health(Health::Unready, "");
    let seen = || Some(notes.services.lock().get(&payments())?.remote[0].summary.clone());
    eventually("a flip crosses both clusters", || seen().filter(|s| (s.total, s.ready) == (2, 1))).await;
    assert!(remote(&eu).is_empty(), "us-east has none");
}

#[tokio::test(start_paused = true)]
async fn a_path_is_up_with_its_first_answer_and_measured_after_twenty() {
    let (_wan, us, _eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let measured = eventually("measured", || path(&us).filter(|path| path.min_rtt_ms.is_some())).await;
    assert_eq!(measured.gateway.as_deref(), Some("gw-1"));
    assert_eq!(us.running().best_path("eu-west").map(|path| path.address), Some("gw-1.eu-west:15443".to_owned()));
    let mesh = us.running().mesh();
    assert_eq!((mesh.peers[0].path, mesh.peers[0].staleness), (PathState::Up, Staleness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_was_down_is_as_long_as_before() {
    let (wan, us, _eu) = two_clusters().await;
    let measured = eventually("measured", || path(&us).filter(|path| path.min_rtt_ms.is_some())).await.min_rtt_ms;
    let told = us.running().mesh().peers[0].min_rtt;
    assert!(told.is_some());
    for outage in [12, 300] {
        wan.open.send_replace(false);
        eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
        sleep(Duration::from_secs(outage)).await;
        assert_eq!(path(&us).expect("declared").min_rtt_ms, measured);
        wan.open.send_replace(true);
        let up = eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
        assert_eq!(up.min_rtt_ms, measured, "by another connection");
        assert_eq!(us.running().mesh().peers[0].min_rtt, told);
        sleep(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_line_takes_the_path_down_at_once_and_ages_the_statements_without_losing_them() {
    let (wan, us, eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sleep(Duration::from_secs(10)).await;

    wan.open.send_replace(false);
    let cut = Instant::now();
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
    assert_eq!(us.running().best_path("eu-west"), None);
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Fresh), Some(1)), "path and peer are separate facts");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(staleness(&us), Some(Staleness::Stale1));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Stale2), Some(1)));
    sleep(Duration::from_secs(900)).await;
    assert_eq!((staleness(&us), ready(&us)), (Some(Staleness::Stale3), Some(1)));

    wan.open.send_replace(true);
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    eventually("fresh", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_on_a_path_hears_at_once_that_it_is_down() {
    const ADDRESS: &str = "gw-1.eu-west:15443";
    let (wan, us, eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    let server = us.running();
    let (down, draining) = (Arc::clone(&server), Arc::clone(&server));
    let down = tokio::spawn(async move { down.path_down("eu-west", ADDRESS).await });
    let draining = tokio::spawn(async move { draining.path_draining("eu-west", ADDRESS).await });
    sleep(Duration::from_secs(10)).await;
    assert!(!down.is_finished() && !draining.is_finished());
    eu.running().drain();
    draining.await.expect("no panic");
    assert!(!down.is_finished(), "it still answers");

    wan.open.send_replace(false);
    let cut = Instant::now();
    down.await.expect("no panic");
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
    // Who asks later need not wait, nor who asks for a way that is none.
    server.path_down("eu-west", ADDRESS).await;
    server.path_down("eu-west", "nobody:15443").await;
    server.path_draining("mars", ADDRESS).await;
    assert!(cut.elapsed() < Duration::from_millis(700), "{:?}", cut.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_peer_is_down_and_its_next_life_is_believed_from_its_first_snapshot() {
    let (_wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(5)).await;
    eu.kill().await;
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    assert_eq!(ready(&us), Some(1));
    eu.run().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sidecar.registrar.set_health(Health::Degraded, "");
    let degraded = || remote(&us).first().map(|zone| zone.summary.degraded);
    eventually("news of the next life", || (degraded() == Some(1)).then_some(())).await;
    assert_eq!(staleness(&us), Some(Staleness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn the_return_of_a_zone_reaches_the_other_clusters_callers_with_its_age() {
    let (_wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    eu.fates.set(sidecar.address, ProbeOutcome::Refused);
    sidecar.kill();
    eventually("down", || (ready(&us) == Some(0)).then_some(())).await;
    assert_eq!(remote(&us)[0].summary.total, 1, "down stays in the denominator");
    eu.sidecar("p1", "a", 2).registrar.registered().await;
    eventually("back", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(10)).await;
    let age = remote(&us)[0].summary.returned_ago.expect("published");
    assert!(age >= Duration::from_secs(10) && age < Duration::from_secs(12), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn exports_imports_and_peers_apply_while_running() {
    let (_wan, us, eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;

    let imports = us.resources.lock().clone();
    let mut closed = imports.clone();
    closed.peers.insert("eu-west".to_owned(), policy("eu-west", &[]));
    us.running().set_resources(closed);
    assert!(remote(&us).is_empty(), "nothing is imported unless said");
    us.running().set_resources(imports.clone());
    assert_eq!(ready(&us), Some(1));

    assert!(eu.running().exports(&payments(), "us-east"));
    let exports = eu.resources.lock().clone();
    let mut silent = exports.clone();
    silent.services.clear();
    eu.running().set_resources(silent);
    assert!(!eu.running().exports(&payments(), "us-east"));
    eventually("no longer exported", || remote(&us).is_empty().then_some(())).await;
    eu.running().set_resources(exports.clone());
    eventually("exported", || (ready(&us) == Some(1)).then_some(())).await;

    us.running().set_resources(Resources { peers: BTreeMap::new(), ..imports });
    assert!(remote(&us).is_empty() && us.running().mesh().peers.is_empty());
    assert!(us.running().peers().is_empty() && us.running().paths("eu-west").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_says_so_before_it_goes() {
    let (_wan, us, eu) = two_clusters().await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;
    eventually("listening", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
    eu.running().drain();
    let draining = eventually("draining", || path(&us).filter(|path| path.draining)).await;
    assert_eq!(draining.state, PathState::Up, "it still answers");
}

#[tokio::test(start_paused = true)]
async fn nobodys_peer_and_no_other_gateway_is_listened_to() {
    let wan = Arc::new(Wan::default());
    let us = cluster(&wan, "us-east", "eu-west").await;
    // It declares us-east as its peer, but us-east has never heard of it.
    let mars = cluster(&wan, "mars", "us-east").await;
    us.run().await;
    mars.run().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(mars.running().peers()[0].staleness, None, "no statements for strangers");

    // A gateway that shows one certificate and says to be another.
    let eu = cluster(&wan, "eu-west", "us-east").await;
    let other = Arc::new(SpiffeId::gateway("eu-west.mesh.internal", "gw-7"));
    let impostor = Listener { identity: other, server: Arc::clone(&eu.server) };
    wan.gateways.lock().insert("gw-1.eu-west:15443".to_owned(), impostor);
    eu.run().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    sleep(Duration::from_secs(20)).await;
    assert!(remote(&us).is_empty() && us.running().peers().iter().all(|peer| peer.staleness.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_cold_gateway_starts_from_the_stored_mirror_as_stale() {
    let (wan, us, eu) = two_clusters().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    sleep(Duration::from_secs(25)).await;
    let stored = us.store.list(&keys::peer_prefix("eu-west")).await.expect("the store answers");
    let stored: Vec<_> =
        stored.entries.iter().map(|entry| entry.key.rsplit_once("eu-west/").expect("a peer's").1).collect();
    assert_eq!(stored, ["gw-1/meta", "gw-1/svc/shop/payments"]);

    wan.open.send_replace(false);
    us.kill().await;
    us.run().await;
    assert_eq!((ready(&us), staleness(&us)), (Some(1), Some(Staleness::Stale2)));
    wan.open.send_replace(true);
    eventually("fresh", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
    assert_eq!(ready(&us), Some(1));
}
