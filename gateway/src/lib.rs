//! The gateway: one or more per cluster. It serves discovery to the sidecars, keeps the cluster's state, federates with
//! the gateways of other clusters, and tunnels the sidecars' encrypted streams to them.
//!
//! Reading path: this file is the life of the process; `entry.rs` takes streams from sidecars, `peers.rs` carries them to
//! other clusters, `exit.rs` connects those that arrive, `relay.rs` moves the bytes; `federation.rs` is the border to
//! discovery and peering. A gateway never reads application bytes, and never retries once bytes were sent.

pub mod config;

mod admin;
mod entry;
mod exit;
mod federation;
mod node;
mod peers;
mod relay;
mod resets;
mod services;
mod streams;
mod worker;

use eastway_core::Chain;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use eastway_identity::{Expected, Identity, ServerTls, server_config};
use eastway_runtime::drain::Drain;
use eastway_runtime::readiness::Readiness;
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::workers::Workers;
use eastway_runtime::{clock, control, descriptors, signals};
use eastway_telemetry::Node as TelemetryNode;
use eastway_telemetry::logging::listening;
use eastway_telemetry::metrics::{Metrics, PeerMetrics, TraceMetrics, TunnelMetrics};
use eastway_telemetry::trace::{TraceOptions, Tracer};
use eastway_transport::quic::{self, Endpoint, QuicOptions};
use eastway_transport::relay::Recorder;
use eastway_transport::{ALPN, tcp};

use config::Config;
use federation::Federation;
use node::Node;
use services::Services;
use worker::Worker;

/// One in so many handshakes may be with a QUIC client whose address may be forged.
const UNPROVEN_PART: u32 = 16;

/// How long control tasks and workers may take to end once nothing is in flight.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why a gateway cannot run. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The certificate files cannot be used.
    #[error("the identity cannot be loaded; see `identity` in the configuration")]
    Identity(#[source] eastway_identity::LoadError),
    /// The certificate is genuine, but for another role: nobody would talk to this node.
    #[error("`{0}` is not the identity of a gateway; see `identity` in the configuration")]
    Role(Arc<eastway_core::SpiffeId>),
    /// An address cannot be bound.
    #[error("cannot listen on {address} (`{what}` in the configuration)")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Traces cannot be exported.
    #[error("the trace exporter cannot be started; see `telemetry.otlp` in the configuration")]
    Tracing(#[source] eastway_telemetry::trace::TraceError),
    /// The store cannot be opened.
    #[error("the store cannot be opened; see `store` in the configuration")]
    Store(#[source] eastway_server::store::StoreError),
    /// Discovery and peering cannot be started.
    #[error("discovery cannot be started")]
    Federation(#[source] eastway_server::StartError),
    /// A resource file cannot be used.
    #[error("the resources cannot be used")]
    Resources(#[source] eastway_runtime::config::Problems),
    /// A peer's trust bundle cannot be used.
    #[error("the resources cannot be used: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bundles(Vec<eastway_server::ResourcesError>),
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
    /// A thread or a runtime cannot be created.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
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
    /// A worker died.
    #[error("a data worker failed")]
    Worker(#[source] eastway_runtime::workers::WorkersError),
}

/// Runs a gateway until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// [`RunError`] if it cannot start, or if a worker dies.
pub fn run(config: Config) -> Result<(), RunError> {
    let runtime = control::runtime().map_err(RunError::Threads)?;
    let outcome = runtime.block_on(life(config));
    runtime.shutdown_timeout(STOP_LIMIT);
    outcome
}

async fn life(config: Config) -> Result<(), RunError> {
    let tasks = TaskGroup::new("gateway");
    let drain = Drain::new(config.timeouts.drain);
    let mut reloads = signals::listen(&tasks, &drain).map_err(RunError::Threads)?;
    let readiness = Readiness::new(drain.draining());
    let starting = readiness.require("listeners");

    let identity = Identity::load(&config.identity).map_err(RunError::Identity)?;
    if !identity.id().is_gateway() {
        return Err(RunError::Role(identity.id()));
    }
    let _identity_watch = identity.watch();
    let needed = needed_descriptors(&config.limits, eastway_server::ServerOptions::default().max_connections);
    descriptors::prepare(needed, "`limits.connections`, `limits.streams` and `limits.handshakes` of all workers");
    let quic = quic_options(&config)?;
    let listeners = bind(&config, &quic)?;
    let (control_socket, data) = listeners.split();
    let server = server_config(&identity, Expected::AnyGateway, &[ALPN]);
    let endpoint = Endpoint::new(control_socket, 0, server.clone(), &quic).map_err(|source| RunError::Listen {
        what: "tunnel.listen",
        address: config.tunnel.listen,
        source,
    })?;

    let node = build(config, &tasks, &drain, Arc::clone(&identity), endpoint.clone(), data.discovery).await?;
    let workers = start_workers(&node, data.workers, &server, &Arc::new(quic))?;
    admin::start(&tasks, &node, readiness.clone(), (data.admin, data.metrics))?;
    drop(starting);

    let died = workers.any_ended();
    tokio::pin!(died);
    let draining = node.draining.wait();
    tokio::pin!(draining);
    let replaced = loop {
        tokio::select! {
            () = &mut draining => break None,
            () = &mut died => break None,
            epoch = node.federation.replaced() => break Some(epoch),
            Some(()) = reloads.next() => reload(&node).await,
        }
    };
    drain.start();
    node.federation.leave();
    let drained = drain.finished().await;
    tracing::info!(?drained, "drained");
    // What outlived the grace period is cut now: the workers wait for it no longer.
    drain.force();
    let ended = workers.join(STOP_LIMIT).await.map(drop).map_err(RunError::Worker);
    endpoint.close(eastway_core::Reason::Draining);
    node.federation.stop(STOP_LIMIT).await;
    node.tracer.shutdown(STOP_LIMIT).await;
    if let Err(left) = tasks.shutdown(STOP_LIMIT).await {
        tracing::warn!(%left, "control tasks had to be ended");
    }
    match replaced {
        Some(epoch) => ended.and(Err(RunError::Replaced { gateway: node.config.gateway.clone(), epoch })),
        None => ended,
    }
}

async fn build(
    config: Config,
    tasks: &TaskGroup,
    drain: &Drain,
    identity: Arc<Identity>,
    endpoint: Endpoint,
    discovery: TcpListener,
) -> Result<Arc<Node>, RunError> {
    let telemetry = TelemetryNode {
        role: "gateway",
        name: config.gateway.clone(),
        cluster: config.cluster.clone(),
        zone: None,
        version: env!("CARGO_PKG_VERSION"),
    };
    let metrics = Metrics::new(&telemetry);
    let tracer = tracer(&config, telemetry, &metrics)?;
    let services = Services::new(&config.cluster, &config.region, config.zones.keys().cloned().collect());
    let federation =
        Federation::start(&config, tasks, Arc::clone(&identity), Arc::clone(&services), endpoint, discovery).await?;
    let recorder = config.tunnel.record.clone().map(Recorder::new).transpose().map_err(RunError::Recorder)?;
    tasks.spawn_loop("services", Arc::clone(&services).tick());
    Ok(Arc::new(Node {
        name: format!("eastway-gw-{}-{}", config.cluster, config.gateway),
        tunnels: TunnelMetrics::new(&metrics, config.limits.metric_series),
        peers: PeerMetrics::new(&metrics),
        identity,
        services,
        federation,
        metrics,
        tracer,
        draining: drain.draining(),
        recorder: recorder.map(Arc::new),
        config,
    }))
}

fn tracer(config: &Config, node: TelemetryNode, metrics: &Metrics) -> Result<Tracer, RunError> {
    let Some(otlp) = &config.telemetry.otlp else { return Ok(Tracer::disabled()) };
    let mut options = TraceOptions::new(&otlp.endpoint, node, clock::now);
    options.sampling = otlp.sampling;
    options.queue = otlp.queue;
    options.timeout = otlp.timeout;
    Tracer::start(options, &TraceMetrics::new(metrics)).map_err(RunError::Tracing)
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
    limits.workers as u64 * each + u64::from(discovery)
}

/// The bound sockets, before anything runs.
struct Listeners {
    control: UdpSocket,
    rest: Data,
}

/// Those that are not the control connection's.
struct Data {
    workers: Vec<(TcpListener, UdpSocket)>,
    discovery: TcpListener,
    admin: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    fn split(self) -> (UdpSocket, Data) {
        (self.control, self.rest)
    }
}

/// Binds everything first: a gateway that cannot have all of its addresses does not begin.
fn bind(config: &Config, quic: &QuicOptions) -> Result<Listeners, RunError> {
    let failed = |what, address| move |source| RunError::Listen { what, address, source };
    let workers = config.limits.workers;
    let tunnel = config.tunnel.listen;
    let tcps = tcp::bind_reuseport(tunnel, workers).map_err(failed("tunnel.listen", tunnel))?;
    // Port 0 means any, but the same for TCP and UDP.
    let bound = tcps.first().map_or(Ok(tunnel), TcpListener::local_addr).map_err(RunError::Threads)?;
    let udps = quic::bind(bound, workers, quic).map_err(failed("tunnel.listen", bound))?;
    listening("tunnel.listen", bound);
    let single = |what, address| {
        let listener = tcp::bind(address).map_err(failed(what, address))?;
        listening(what, listener.local_addr().unwrap_or(address));
        Ok(listener)
    };
    let mut udps = udps.into_iter();
    let control = udps.next().ok_or_else(|| RunError::Threads(io::ErrorKind::NotFound.into()))?;
    Ok(Listeners {
        control,
        rest: Data {
            workers: tcps.into_iter().zip(udps).collect(),
            discovery: single("discovery.listen", config.discovery)?,
            admin: single("admin.listen", config.admin)?,
            metrics: single("metrics.listen", config.metrics)?,
        },
    })
}

fn start_workers(
    node: &Arc<Node>,
    sockets: Vec<(TcpListener, UdpSocket)>,
    server: &ServerTls,
    quic: &Arc<QuicOptions>,
) -> Result<Workers, RunError> {
    let count = sockets.len();
    let slots: Vec<_> = sockets.into_iter().map(|pair| parking_lot::Mutex::new(Some(pair))).collect();
    let (slots, node, server, quic) = (Arc::new(slots), Arc::clone(node), server.clone(), Arc::clone(quic));
    Workers::spawn(count, "data", move |index| {
        let taken = slots.get(index).and_then(|slot| slot.lock().take());
        let (node, server, quic) = (Arc::clone(&node), server.clone(), Arc::clone(&quic));
        async move {
            let Some((tcp, udp)) = taken else { return };
            if let Err(error) = work(node, index, tcp, udp, server, &quic).await {
                tracing::error!(%error, "a bound socket cannot be used");
            }
        }
    })
    .map_err(RunError::Threads)
}

/// The life of a data worker: it listens until draining begins, and ends when nothing is in flight any more.
async fn work(
    node: Arc<Node>,
    index: usize,
    tcp: TcpListener,
    udp: UdpSocket,
    server: ServerTls,
    quic: &QuicOptions,
) -> io::Result<()> {
    // Socket 0 is the control connection's.
    let shard = u8::try_from(index + 1).map_err(io::Error::other)?;
    let endpoint = Endpoint::new(udp, shard, server, quic)?;
    let worker = Worker::new(node, endpoint.clone(), fastrand::Rng::new().u64(..));
    let listener = tokio::net::TcpListener::from_std(tcp)?;
    tokio::join!(
        entry::listen(std::rc::Rc::clone(&worker), listener),
        exit::listen(std::rc::Rc::clone(&worker), endpoint)
    );
    worker.finish().await;
    Ok(())
}

async fn reload(node: &Node) {
    match node.identity.reload() {
        Ok(changed) => tracing::info!(changed, "SIGHUP: the identity's files were read again"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "SIGHUP: the identity's files cannot be used; the old ones stay");
        }
    }
    match node.federation.reload(&node.config).await {
        Ok(count) => tracing::info!(resources = count, "SIGHUP: the resources were read again"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "SIGHUP: the resources cannot be used; the old ones stay");
        }
    }
}
