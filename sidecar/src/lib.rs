//! The sidecar: next to each workload, it takes the workload's calls, finds where they are served, and admits calls to it.
//!
//! Reading path: this file is the life of the process; `outbound.rs` and `inbound.rs` are the two sides, a phase a file;
//! `upstream.rs` holds the connections to other sidecars, `app.rs` those to the application; `services.rs` what discovery
//! says. A sidecar never talks to a store and never knows remote endpoints one by one.

pub mod config;
pub mod health;
pub mod load;

mod access_log;
mod adapter;
mod admin;
mod app;
mod h2;
mod inbound;
mod node;
mod outbound;
mod record;
mod register;
mod services;
mod stream;
mod upstream;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::Policy;
use eastway_client::{Discovery, DiscoveryOptions, Link, LinkOptions, TlsConnector};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::MeshView;
use eastway_core::{Chain, Locality, ServiceName};
use eastway_identity::Identity;
use eastway_runtime::drain::{Drain, Draining};
use eastway_runtime::readiness::Readiness;
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::workers::Workers;
use eastway_runtime::{clock, control, descriptors, signals};
use eastway_telemetry::Node as TelemetryNode;
use eastway_telemetry::logging::listening;
use eastway_telemetry::metrics::{Metrics, Party, TraceMetrics, TrafficMetrics};
use eastway_telemetry::trace::{TraceOptions, Tracer};
use eastway_transport::tcp;

use access_log::AccessLog;
use config::Config;
use load::OwnLoad;
use node::Node;
use services::Services;
use worker::Worker;

/// How long the control tasks may take to end after the workers have.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long a gateway may take to hear that the workload leaves.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Why a sidecar cannot run. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The certificate files cannot be used.
    #[error("the identity cannot be loaded; see `identity` in the configuration")]
    Identity(#[source] eastway_identity::LoadError),
    /// The certificate is genuine, but for another role: nobody would talk to this node.
    #[error("`{0}` is not the identity of a workload; see `identity` in the configuration")]
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
    /// A file of the configuration cannot be written.
    #[error("cannot write `{what}`")]
    File {
        /// Which setting names it.
        what: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A thread or a runtime cannot be created.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
    /// A worker died.
    #[error("a data worker failed")]
    Worker(#[source] eastway_runtime::workers::WorkersError),
}

/// Runs a sidecar until SIGTERM or SIGINT has drained it.
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
    let tasks = TaskGroup::new("sidecar");
    let drain = Drain::new(config.timeouts.drain);
    let mut reloads = signals::listen(&tasks, &drain).map_err(RunError::Threads)?;
    let readiness = Readiness::new(drain.draining());
    let starting = readiness.require("listeners");

    let limits = &config.limits;
    // Each side's connections may each lead to another one.
    let needed = limits.workers as u64 * (4 * u64::from(limits.connections) + u64::from(limits.handshakes));
    descriptors::prepare(needed, "`limits.connections` and `limits.handshakes` of all workers");

    let (node, link, _identity_watch) = build(config, &tasks, drain.draining()).await?;
    let listeners = bind(&node)?;
    let workers = start_workers(&node, listeners.data)?;
    let registrar = register::start(&tasks, &node, link, listeners.inbound);
    admin::start(&tasks, &node, registrar.clone(), readiness.clone(), (listeners.admin, listeners.metrics))?;
    drop(starting);

    let died = workers.any_ended();
    tokio::pin!(died);
    let draining = node.draining.wait();
    tokio::pin!(draining);
    loop {
        tokio::select! {
            () = &mut draining => break,
            () = &mut died => break,
            Some(()) = reloads.next() => reload(&node),
        }
    }
    if let Some(registrar) = registrar {
        registrar.goodbye(GOODBYE_LIMIT).await;
    }
    drain.start();
    let drained = drain.finished().await;
    tracing::info!(?drained, "drained");
    // What outlived the grace period is cut now: the workers wait for it no longer.
    drain.force();
    let ended = workers.join(STOP_LIMIT).await.map(drop).map_err(RunError::Worker);
    node.discovery.shutdown();
    node.tracer.shutdown(STOP_LIMIT).await;
    if let Err(left) = tasks.shutdown(STOP_LIMIT).await {
        tracing::warn!(%left, "control tasks had to be ended");
    }
    ended
}

/// Makes what all threads share, and starts the tasks that keep it current.
async fn build(
    config: Config,
    tasks: &TaskGroup,
    draining: Draining,
) -> Result<(Arc<Node>, Link, eastway_identity::Watch), RunError> {
    let identity = Identity::load(&config.identity).map_err(RunError::Identity)?;
    if !identity.id().is_workload() {
        return Err(RunError::Role(identity.id()));
    }
    let watch = identity.watch();
    let zone = eastway_core::ZoneId::new(config.cluster.as_str(), config.zone.as_str());
    let telemetry = TelemetryNode {
        role: "sidecar",
        name: config.workload.name.clone(),
        cluster: config.cluster.clone(),
        zone: Some(config.zone.clone()),
        version: env!("CARGO_PKG_VERSION"),
    };
    let metrics = Metrics::new(&telemetry);
    let tracer = tracer(&config, telemetry, &metrics)?;
    let access_log = access_log(&config, tasks).await?;
    let services = services(&config, &identity);
    let link = link(&config, &identity);
    let discovery = discovery(&config, &link, &services, tasks);
    let own = own(&config, &identity);
    let node = Arc::new(Node {
        name: format!("eastway-sidecar-{}", config.workload.name),
        zone,
        own,
        load: OwnLoad::new(config.workload.capacity),
        traffic: TrafficMetrics::new(&metrics, config.limits.metric_series),
        identity,
        services: Arc::clone(&services),
        discovery,
        metrics,
        tracer,
        access_log,
        draining,
        config,
    });
    tasks.spawn_loop("services", services.tick(Arc::clone(&node.discovery)));
    Ok((node, link, watch))
}

fn tracer(config: &Config, node: TelemetryNode, metrics: &Metrics) -> Result<Tracer, RunError> {
    let Some(otlp) = &config.telemetry.otlp else { return Ok(Tracer::disabled()) };
    let mut options = TraceOptions::new(&otlp.endpoint, node, clock::now);
    options.sampling = otlp.sampling;
    options.queue = otlp.queue;
    options.timeout = otlp.timeout;
    Tracer::start(options, &TraceMetrics::new(metrics)).map_err(RunError::Tracing)
}

async fn access_log(config: &Config, tasks: &TaskGroup) -> Result<Option<AccessLog>, RunError> {
    let Some(path) = &config.telemetry.access_log else { return Ok(None) };
    let opened = AccessLog::open(path).await;
    let (log, writer) = opened.map_err(|source| RunError::File { what: "telemetry.accessLog", source })?;
    tasks.spawn_loop("access-log", writer);
    Ok(Some(log))
}

fn services(config: &Config, identity: &Arc<Identity>) -> Arc<Services> {
    // Until a gateway says more: the cluster alone, in a region of its own name.
    let cluster = ClusterMeta {
        name: config.cluster.clone(),
        uid: String::new(),
        region: config.cluster.clone(),
        trust_domain: identity.id().trust_domain.clone(),
        zones: [(config.zone.clone(), None)].into(),
    };
    let caller = Locality::new(config.cluster.as_str(), config.cluster.as_str(), config.zone.as_str());
    let policy = Policy { seed: fastrand::Rng::new().u64(..), ..Policy::default() };
    let mesh = MeshView { cluster, peers: Vec::new() };
    Services::new(caller, mesh, Arc::clone(identity), policy, services::traffic_policy(config))
}

fn link(config: &Config, identity: &Arc<Identity>) -> Link {
    let gateways = config.gateways.iter().map(|gateway| gateway.discovery.to_string()).collect();
    let dial = tcp::DialOptions { connect_timeout: config.timeouts.connect, ..tcp::DialOptions::default() };
    let connector = TlsConnector::new(identity, &identity.id().trust_domain, dial);
    Link::new(gateways, Arc::new(connector), LinkOptions::default())
}

fn discovery(config: &Config, link: &Link, sink: &Arc<Services>, tasks: &TaskGroup) -> Arc<Discovery> {
    let options = DiscoveryOptions {
        resolve_timeout: config.timeouts.discovery,
        state: config.state.clone(),
        max_subscriptions: config.limits.subscriptions as usize,
        // What is held against callers of the workload's own service comes this way, too.
        services: served(config).into_iter().collect(),
        ..DiscoveryOptions::new(config.cluster.as_str())
    };
    let (discovery, follow) = Discovery::new(link.clone(), options, Arc::clone(sink) as _);
    tasks.spawn("discovery", follow);
    discovery
}

/// The service that the workload serves.
fn served(config: &Config) -> Option<ServiceName> {
    let service = config.workload.service.as_deref()?;
    Some(ServiceName::new(config.workload.namespace.as_str(), service))
}

/// The workload in metrics and spans: its service, or the account that it calls as.
fn own(config: &Config, identity: &Arc<Identity>) -> Party {
    let zone = eastway_core::ZoneId::new(config.cluster.as_str(), config.zone.as_str());
    let namespace = config.workload.namespace.as_str();
    let service = match (&config.workload.service, &identity.id().principal) {
        (Some(service), _) => service.clone(),
        (None, eastway_core::spiffe::Principal::Workload { account, .. }) => account.clone(),
        (None, _) => config.workload.name.clone(),
    };
    Party::new(ServiceName::new(namespace, service), zone)
}

/// The bound sockets, before anything runs.
struct Listeners {
    data: Vec<DataListeners>,
    inbound: Option<SocketAddr>,
    admin: TcpListener,
    metrics: TcpListener,
}

/// Those of one worker.
struct DataListeners {
    proxy: TcpListener,
    inbound: Option<TcpListener>,
    /// As many, and in the same order, as `outbound.listeners` of the configuration.
    services: Vec<TcpListener>,
}

fn bind(node: &Node) -> Result<Listeners, RunError> {
    let config = &node.config;
    let workers = config.limits.workers;
    let shared = |what, address| {
        let bound =
            tcp::bind_reuseport(address, workers).map_err(|source| RunError::Listen { what, address, source })?;
        announce(what, &bound);
        Ok(bound)
    };
    let single = |what, address| {
        let bound = tcp::bind(address).map_err(|source| RunError::Listen { what, address, source })?;
        announce(what, std::slice::from_ref(&bound));
        Ok(bound)
    };
    let proxies = shared("outbound.proxy", config.outbound.proxy)?;
    let own = |proxy| DataListeners { proxy, inbound: None, services: Vec::new() };
    let mut data: Vec<DataListeners> = proxies.into_iter().map(own).collect();
    let mut inbound_address = None;
    if let Some(inbound) = &config.inbound {
        let bound = shared("inbound.listen", inbound.listen)?;
        inbound_address = bound.first().and_then(|listener| listener.local_addr().ok());
        data.iter_mut().zip(bound).for_each(|(worker, bound)| worker.inbound = Some(bound));
    }
    for listener in &config.outbound.listeners {
        let bound = shared("outbound.listeners", listener.listen)?;
        data.iter_mut().zip(bound).for_each(|(worker, bound)| worker.services.push(bound));
    }
    let admin = single("admin.listen", config.admin)?;
    Ok(Listeners { data, inbound: inbound_address, admin, metrics: single("metrics.listen", config.metrics)? })
}

fn announce(what: &'static str, listeners: &[TcpListener]) {
    if let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) {
        listening(what, address);
    }
}

fn start_workers(node: &Arc<Node>, listeners: Vec<DataListeners>) -> Result<Workers, RunError> {
    let count = listeners.len();
    let slots: Vec<_> = listeners.into_iter().map(|own| parking_lot::Mutex::new(Some(own))).collect();
    let (slots, node) = (Arc::new(slots), Arc::clone(node));
    Workers::spawn(count, "data", move |index| {
        let taken = slots.get(index).and_then(|slot| slot.lock().take());
        let node = Arc::clone(&node);
        async move {
            if let Some(listeners) = taken
                && let Err(error) = work(node, listeners).await
            {
                tracing::error!(%error, "a bound socket cannot be used");
            }
        }
    })
    .map_err(RunError::Threads)
}

/// The life of a data worker: it listens until draining begins, and ends when nothing is in flight any more.
async fn work(node: Arc<Node>, listeners: DataListeners) -> io::Result<()> {
    let seed = fastrand::Rng::new().u64(..);
    let worker = Worker::new(Arc::clone(&node), seed);
    let listen = |listener| tokio::net::TcpListener::from_std(listener);
    let (proxy, inbound) = (listen(listeners.proxy)?, listeners.inbound.map(listen).transpose()?);
    let services: Vec<_> = listeners.services.into_iter().map(listen).collect::<io::Result<_>>()?;
    for (listener, own) in services.into_iter().zip(&node.config.outbound.listeners) {
        tokio::task::spawn_local(outbound::listen_for(Rc::clone(&worker), listener, own.target.clone()));
    }
    let inbound = async {
        if let Some(inbound) = inbound {
            inbound::listen(Rc::clone(&worker), inbound).await;
        }
    };
    tokio::join!(outbound::listen(Rc::clone(&worker), proxy), inbound);
    worker.finish().await;
    Ok(())
}

fn reload(node: &Node) {
    match node.identity.reload() {
        Ok(changed) => tracing::info!(changed, "SIGHUP: the identity's files were read again"),
        Err(error) => {
            tracing::error!(
                error = %Chain(&error),
                "SIGHUP: the identity's files cannot be used; the old ones stay"
            );
        }
    }
}
