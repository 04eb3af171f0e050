//! The gateway: one or more per cluster. It serves discovery to the sidecars, keeps the cluster's state, federates with
//! the gateways of other clusters, and tunnels the sidecars' encrypted streams to them.
//!
//! Reading path: this file is the life of the process; `entry.rs` takes streams from sidecars, `peers.rs` carries them to
//! other clusters, `exit.rs` connects those that arrive, `relay.rs` moves the bytes; `federation.rs` is the border to
//! discovery and peering; `view.rs` is what operators see, `judge.rs` what is wrong. A gateway never reads application bytes,
//! and never retries once bytes were sent.

pub mod config;

mod admin;
mod carriers;
mod entry;
mod exit;
mod federation;
mod joining;
mod judge;
mod node;
mod operators;
mod peers;
mod relay;
mod resets;
mod resolve;
mod resources;
mod services;
mod streams;
mod turns;
mod view;
mod worker;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use eastway_core::view::Transport;
use eastway_core::{Chain, SpiffeId};
use eastway_identity::{Expected, Identity, ServerTls, server_config};
use eastway_node::{NodeError, Process, STOP_LIMIT, identity, listen};
use eastway_runtime::descriptors;
use eastway_runtime::workers::Workers;
use eastway_telemetry::TelemetryNode;
use eastway_telemetry::logging::listening;
use eastway_telemetry::metrics::{PeerMetrics, TunnelMetrics};
use eastway_transport::quic::{self, Endpoint, QuicOptions};
use eastway_transport::relay::Recorder;
use eastway_transport::tcp_tunnel::{TcpArrivals, TcpCarrier, TcpOptions};
use eastway_transport::tunnel::Carrier;
use eastway_transport::{ALPN, tcp};

use carriers::{Arrivals, Carriers};
use config::Config;
use federation::Federation;
use node::GatewayNode;
use services::Services;
use worker::Worker;

/// One in so many handshakes may be with a QUIC client whose address may be forged.
const UNPROVEN_PART: u32 = 16;

/// Why a gateway cannot run. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What keeps a node of any role from running.
    #[error(transparent)]
    GatewayNode(#[from] NodeError),
    /// The store cannot be opened.
    #[error("the store cannot be opened; see `store` in the configuration")]
    Store(#[source] eastway_server::store::StoreError),
    /// Discovery and peering cannot be started.
    #[error("discovery cannot be started")]
    Federation(#[source] eastway_server::StartError),
    /// A resource file cannot be used.
    #[error("the resources cannot be used")]
    Resources(#[source] eastway_documents::Problems),
    /// A peer's trust bundle cannot be used.
    #[error("the resources cannot be used")]
    Bundle(#[source] eastway_server::BundleError),
    /// Resources that the files declare were applied, too.
    #[error("applied, and declared in files, too; `eastway delete` them, or remove them from the files: {}", list(.0))]
    Contested(Vec<eastway_server::resources::Contested>),
    /// A file with what etcd wants to see cannot be read.
    #[error("what `store.etcd` names cannot be used")]
    EtcdFile(#[source] io::Error),
    /// A file that the configuration names cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The folder for recorded bytes cannot be used.
    #[error("relayed bytes cannot be recorded; see `tunnel.record` in the configuration")]
    Recorder(#[source] io::Error),
    /// Another process runs under the same id, on the same store: two cannot.
    #[error(
        "another process has taken over the id `{gateway}` in the store, in epoch {epoch}; give each gateway its own \
         `gateway` in the configuration, or end the other process"
    )]
    Replaced {
        /// The id of both.
        gateway: String,
        /// Which life of the gateway the other one is.
        epoch: u64,
    },
}

/// Runs a gateway until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// [`RunError`] if it cannot start, or if a worker dies.
pub fn run(config: Config) -> Result<(), RunError> {
    eastway_node::run(life(config))
}

async fn life(config: Config) -> Result<(), RunError> {
    let mut process = Process::begin("gateway", config.timeouts.drain)?;
    let starting = process.readiness.require("listeners");
    let settling = process.readiness.require("probes of what was loaded from the store");

    let (identity, _watch) = identity::load(&config.identity, "gateway", SpiffeId::is_gateway)?;
    let needed = needed_descriptors(&config.limits, eastway_server::ServerOptions::default().max_connections);
    descriptors::prepare(needed, "`limits.connections`, `limits.streams` and `limits.handshakes` of all workers");
    let quic = quic_options(&config)?;
    let listeners = bind(&config, &quic)?;
    let server = server_config(&identity, Expected::AnyGateway, &[ALPN]);
    let tunnels = Tunnels { transports: config.tunnel.transports.clone(), server, quic, tcp: tcp_options(&config) };
    let (control, arrivals) =
        tunnels.carriers(listeners.control, 0).map_err(NodeError::listen("tunnel.listen", config.tunnel.listen))?;

    let node = build(config, &process, identity, control.clone(), listeners.discovery).await?;
    let workers = start_workers(&node, listeners.workers, tunnels, arrivals)?;
    admin::start(&process, &node, (listeners.admin, listeners.metrics))?;
    if let Some(listener) = listeners.operators {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(NodeError::Threads)?;
        process.tasks.spawn_loop("operators", operators::listen(Arc::clone(&node), listener, process.tasks.clone()));
    }
    drop(starting);
    let settled = Arc::clone(&node);
    process.tasks.spawn("settling", async move {
        settled.federation.settled().await;
        drop(settling);
    });

    let replaced = tokio::select! {
        () = process.serve(&workers, async || reload(&node).await) => None,
        epoch = node.federation.replaced() => Some(epoch),
    };
    process.drain.start();
    node.federation.leave();
    let ended = process.finish(workers).await;
    control.close(eastway_core::Reason::Draining);
    node.federation.stop(STOP_LIMIT).await;
    process.end(&node.tracer).await;
    ended?;
    match replaced {
        Some(epoch) => Err(RunError::Replaced { gateway: node.config.gateway.clone(), epoch }),
        None => Ok(()),
    }
}

async fn build(
    config: Config,
    process: &Process,
    identity: Arc<Identity>,
    control: Carriers,
    discovery: TcpListener,
) -> Result<Arc<GatewayNode>, RunError> {
    let telemetry = TelemetryNode {
        role: "gateway",
        name: config.gateway.clone(),
        cluster: config.cluster.clone(),
        zone: None,
        version: env!("CARGO_PKG_VERSION"),
    };
    let (metrics, tracer) = eastway_node::telemetry(telemetry, config.telemetry.otlp.as_ref())?;
    let tasks = &process.tasks;
    let services = Services::new(&config.cluster, &config.region, config.zones.keys().cloned().collect());
    let federation =
        Federation::start(&config, tasks, Arc::clone(&identity), Arc::clone(&services), control, discovery).await?;
    let recorder = config.tunnel.record.clone().map(Recorder::new).transpose().map_err(RunError::Recorder)?;
    tasks.spawn_loop("services", Arc::clone(&services).tick());
    Ok(Arc::new(GatewayNode {
        name: format!("eastway-gw-{}-{}", config.cluster, config.gateway),
        tunnels: TunnelMetrics::new(&metrics, config.limits.metric_series),
        peers: PeerMetrics::new(&metrics),
        identity,
        services,
        federation,
        metrics,
        tracer,
        draining: process.drain.draining(),
        recorder: recorder.map(Arc::new),
        config,
    }))
}

/// What the carriers of every runtime are made of.
#[derive(Clone)]
struct Tunnels {
    /// The preferred one first. Never empty.
    transports: Vec<Transport>,
    server: ServerTls,
    quic: QuicOptions,
    tcp: TcpOptions,
}

impl Tunnels {
    /// The carriers of the calling runtime, which has the UDP socket number `shard`; and where tunnels over TCP are left for them.
    fn carriers(&self, udp: UdpSocket, shard: u8) -> io::Result<(Carriers, Option<TcpArrivals>)> {
        let (mut carriers, mut arrivals, mut udp) = (Vec::<Arc<dyn Carrier>>::new(), None, Some(udp));
        for transport in &self.transports {
            match transport {
                Transport::Quic => {
                    if let Some(udp) = udp.take() {
                        carriers.push(Arc::new(Endpoint::new(udp, shard, self.server.clone(), &self.quic)?));
                    }
                }
                Transport::Tcp => {
                    let tcp = TcpCarrier::new(&self.tcp);
                    arrivals = Some(tcp.arrivals());
                    carriers.push(Arc::new(tcp));
                }
            }
        }
        Ok((Carriers::new(carriers), arrivals))
    }
}

fn tcp_options(config: &Config) -> TcpOptions {
    let (timeouts, limits) = (&config.timeouts, &config.limits);
    TcpOptions {
        open_timeout: timeouts.stream_open,
        handshake_timeout: timeouts.handshake,
        max_streams: limits.streams,
        max_connections: limits.tunnel_connections,
        max_domain_connections: limits.peer_connections,
        ..TcpOptions::default()
    }
}

fn quic_options(config: &Config) -> Result<QuicOptions, RunError> {
    let (timeouts, limits) = (&config.timeouts, &config.limits);
    Ok(QuicOptions {
        open_timeout: timeouts.stream_open,
        handshake_timeout: timeouts.handshake,
        max_streams: limits.streams,
        max_unproven_handshakes: limits.handshakes / UNPROVEN_PART,
        max_handshakes: limits.handshakes,
        max_address_handshakes: limits.address_handshakes,
        max_connections: limits.tunnel_connections,
        max_domain_connections: limits.peer_connections,
        reset_secret: Some(resets::secret(config)?),
        ..QuicOptions::default()
    })
}

/// The open files that the configured bounds add up to: a connection or a stream from one side leads to one on the other.
fn needed_descriptors(limits: &config::Limits, discovery: u32) -> u64 {
    let each = 2 * u64::from(limits.connections) + u64::from(limits.streams) + u64::from(limits.handshakes);
    let tunnels = u64::from(limits.tunnel_connections);
    limits.workers as u64 * (each + tunnels) + tunnels + u64::from(discovery)
}

/// The bound sockets, before anything runs.
struct Listeners {
    /// The control connections'.
    control: UdpSocket,
    /// Those of the data workers.
    workers: Vec<(TcpListener, UdpSocket)>,
    discovery: TcpListener,
    admin: TcpListener,
    operators: Option<TcpListener>,
    metrics: TcpListener,
}

/// Binds everything first: a gateway that cannot have all of its addresses does not begin.
fn bind(config: &Config, quic: &QuicOptions) -> Result<Listeners, NodeError> {
    let (what, tunnel, workers) = ("tunnel.listen", config.tunnel.listen, config.limits.workers);
    let tcps = tcp::bind_reuseport(tunnel, workers).map_err(NodeError::listen(what, tunnel))?;
    // Port 0 means any, but the same for TCP and UDP.
    let bound = tcps.first().map_or(Ok(tunnel), TcpListener::local_addr).map_err(NodeError::listen(what, tunnel))?;
    let mut udps = quic::bind(bound, workers, quic).map_err(NodeError::listen(what, bound))?.into_iter();
    listening(what, bound);
    let control = udps.next().ok_or_else(|| NodeError::listen(what, bound)(io::ErrorKind::NotFound.into()))?;
    Ok(Listeners {
        control,
        workers: tcps.into_iter().zip(udps).collect(),
        discovery: listen::single("discovery.listen", config.discovery)?,
        admin: listen::single("admin.listen", config.admin)?,
        operators: config.operators.map(|address| listen::single("operators.listen", address)).transpose()?,
        metrics: listen::single("metrics.listen", config.metrics)?,
    })
}

fn start_workers(
    node: &Arc<GatewayNode>,
    sockets: Vec<(TcpListener, UdpSocket)>,
    tunnels: Tunnels,
    control: Option<TcpArrivals>,
) -> Result<Workers, NodeError> {
    let node = Arc::clone(node);
    eastway_node::workers(sockets, move |index, sockets| {
        work(Arc::clone(&node), index, sockets, tunnels.clone(), control.clone())
    })
}

/// The life of a data worker: it listens until draining begins, and ends when nothing is in flight any more.
async fn work(
    node: Arc<GatewayNode>,
    index: usize,
    (tcp, udp): (TcpListener, UdpSocket),
    tunnels: Tunnels,
    control: Option<TcpArrivals>,
) -> io::Result<()> {
    // Socket 0 is the control connection's.
    let shard = u8::try_from(index + 1).map_err(io::Error::other)?;
    let (carriers, data) = tunnels.carriers(udp, shard)?;
    let arrivals = control.zip(data).map(|(control, data)| Arrivals { control, data });
    let worker = Worker::new(node, carriers.clone(), arrivals, fastrand::Rng::new().u64(..));
    let listener = tokio::net::TcpListener::from_std(tcp)?;
    tokio::join!(
        entry::listen(std::rc::Rc::clone(&worker), listener),
        exit::listen(std::rc::Rc::clone(&worker), carriers)
    );
    worker.finish().await;
    Ok(())
}

async fn reload(node: &GatewayNode) {
    identity::reload(&node.identity);
    match node.federation.reload(&node.config).await {
        Ok(count) => tracing::info!(resources = count, "SIGHUP: the resources were read again"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "SIGHUP: the resources cannot be used; the old ones stay");
        }
    }
}

fn list(contested: &[eastway_server::resources::Contested]) -> String {
    contested.iter().map(|one| format!("{} ({})", one.id, one.file)).collect::<Vec<_>>().join(", ")
}
