//! The sidecar: next to each workload, it takes the workload's calls, finds where they are served, and admits calls to it.
//!
//! Reading path: this file is the life of the process; `outbound.rs` and `inbound.rs` are the two sides, a phase a file;
//! `upstream.rs` holds the connections to other sidecars, `app.rs` those to the application; `services.rs` what discovery
//! says. A sidecar never talks to a store and never knows remote endpoints one by one.

pub mod capture;
pub mod config;
pub mod health;
pub mod load;
pub mod resolver;

mod access_log;
mod adapter;
mod admin;
mod app;
mod connections;
mod dns;
mod h2;
mod inbound;
mod judge;
mod node;
mod outbound;
mod plaintext;
mod record;
mod register;
mod services;
mod stream;
mod upstream;
mod virtuals;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::Policy;
use eastway_client::{Discovery, DiscoveryOptions, Link, LinkOptions, TlsConnector, preference};
use eastway_core::resource::ClusterMeta;
use eastway_core::view::MeshView;
use eastway_core::{Locality, ServiceName, SpiffeId};
use eastway_identity::{Identity, Watch};
use eastway_node::{NodeError, Process, identity, listen};
use eastway_runtime::descriptors;
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::workers::Workers;
use eastway_telemetry::TelemetryNode;
use eastway_telemetry::metrics::{Party, PlainMetrics, TrafficMetrics};
use eastway_transport::tcp;
use tokio::sync::mpsc;

use access_log::AccessLog;
use config::{Capture, Config, InboundMode};
use connections::Connections;
use dns::DnsSockets;
use load::OwnLoad;
use node::SidecarNode;
use plaintext::Plaintext;
use services::Services;
use virtuals::network::Network;
use virtuals::{Opened, Virtuals};
use worker::Worker;

/// How long a gateway may take to hear that the workload leaves.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(1);

/// Why a sidecar cannot run. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What keeps a node of any role from running.
    #[error(transparent)]
    SidecarNode(#[from] NodeError),
    /// A file of the configuration cannot be written.
    #[error("cannot write `{what}`")]
    File {
        /// Which setting names it.
        what: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// Runs a sidecar until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// [`RunError`] if it cannot start, or if a worker dies.
pub fn run(config: Config) -> Result<(), RunError> {
    eastway_node::run(life(config))
}

async fn life(config: Config) -> Result<(), RunError> {
    let mut process = Process::begin("sidecar", config.timeouts.drain)?;
    let starting = process.readiness.require("listeners");

    let limits = &config.limits;
    // Each side's connections may each lead to another one.
    let needed = limits.workers as u64 * (4 * u64::from(limits.connections) + u64::from(limits.handshakes));
    descriptors::prepare(needed, "`limits.connections` and `limits.handshakes` of all workers");

    let (node, link, _watch) = build(config, &process).await?;
    let mut listeners = bind(&node)?;
    let virtuals = names(&process.tasks, &node, &mut listeners)?;
    let workers = start_workers(&node, listeners.data)?;
    let registrar = register::start(&process.tasks, &node, link, listeners.inbound);
    admin::start(&process, &node, (registrar.clone(), virtuals), (listeners.admin, listeners.metrics))?;
    drop(starting);

    process.serve(&workers, async || identity::reload(&node.identity)).await;
    if let Some(registrar) = registrar {
        registrar.deregister(DEREGISTER_LIMIT).await;
    }
    let ended = process.finish(workers).await;
    node.discovery.shutdown();
    process.end(&node.tracer).await;
    Ok(ended?)
}

/// Makes what all threads share, and starts the tasks that keep it current.
async fn build(config: Config, process: &Process) -> Result<(Arc<SidecarNode>, Link, Watch), RunError> {
    let tasks = &process.tasks;
    let (identity, watch) = identity::load(&config.identity, "workload", SpiffeId::is_workload)?;
    let zone = eastway_core::ZoneId::new(config.cluster.as_str(), config.zone.as_str());
    let telemetry = TelemetryNode {
        role: "sidecar",
        name: config.workload.name.clone(),
        cluster: config.cluster.clone(),
        zone: Some(config.zone.clone()),
        version: env!("CARGO_PKG_VERSION"),
    };
    let (metrics, tracer) = eastway_node::telemetry(telemetry, config.telemetry.otlp.as_ref())?;
    let access_log = access_log(&config, tasks).await?;
    let services = services(&config, &identity);
    let link = link(&config, &identity);
    tasks.spawn_loop("gateway of choice", link.clone().keep_returning());
    let discovery = discovery(&config, &link, &services, tasks);
    let own = own(&config, &identity);
    let is_permissive = |capture: &Capture| capture.inbound.as_ref().is_some_and(|i| i.mode == InboundMode::Permissive);
    let plaintext = config
        .capture
        .as_ref()
        .filter(|capture| is_permissive(capture))
        .map(|_| Plaintext::new(PlainMetrics::new(&metrics)));
    let node = Arc::new(SidecarNode {
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
        draining: process.drain.draining(),
        connections: Connections::new(),
        plaintext,
        config,
    });
    tasks.spawn_loop("services", services.tick(Arc::clone(&node.discovery)));
    Ok((node, link, watch))
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
    let gateways = preference(gateways, &config.workload.name);
    let dial = tcp::DialOptions { connect_timeout: config.timeouts.connect, ..tcp::DialOptions::default() };
    let connector = TlsConnector::new(identity, &identity.id().trust_domain, dial);
    Link::new(gateways, Arc::new(connector), LinkOptions::default())
}

fn discovery(config: &Config, link: &Link, sink: &Arc<Services>, tasks: &TaskGroup) -> Arc<Discovery> {
    let options = DiscoveryOptions {
        resolve_timeout: config.timeouts.discovery,
        state: config.state.clone(),
        max_subscriptions: config.limits.subscriptions as usize,
        max_addresses: config.limits.names as usize,
        served: served(config),
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
    dns: Option<DnsSockets>,
    admin: TcpListener,
    metrics: TcpListener,
}

/// Those of one worker.
struct DataListeners {
    proxy: TcpListener,
    inbound: Option<TcpListener>,
    /// As many, and in the same order, as `outbound.listeners` of the configuration.
    services: Vec<TcpListener>,
    /// What is opened at names' addresses.
    names: Option<mpsc::UnboundedReceiver<Opened>>,
    captured: Captured,
}

/// Where one worker takes what the host captures.
#[derive(Default)]
struct Captured {
    /// Connections to names' addresses.
    outbound: Vec<TcpListener>,
    /// Whose those are.
    virtuals: Option<Arc<Virtuals>>,
    /// Callers that come around the sidecar.
    inbound: Option<TcpListener>,
}

fn bind(node: &SidecarNode) -> Result<Listeners, NodeError> {
    let config = &node.config;
    let shared = |what, address| listen::shared(what, address, config.limits.workers);
    let own = |proxy| DataListeners {
        proxy,
        inbound: None,
        services: Vec::new(),
        names: None,
        captured: Captured::default(),
    };
    let mut data: Vec<_> = shared("outbound.proxy", config.outbound.proxy)?.into_iter().map(own).collect();
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
    if let Some(capture) = &config.capture {
        capture::bind(capture, &mut data)?;
    }
    let admin = listen::single("admin.listen", config.admin)?;
    let metrics = listen::single("metrics.listen", config.metrics)?;
    let dns = config.dns.as_ref().map(dns::bind).transpose()?;
    Ok(Listeners { data, inbound: inbound_address, dns, admin, metrics })
}

/// Answers for names, if that is wanted, and has the workers serve what is behind them.
fn names(
    tasks: &TaskGroup,
    node: &Arc<SidecarNode>,
    listeners: &mut Listeners,
) -> Result<Option<Arc<Virtuals>>, NodeError> {
    let Some((config, sockets)) = node.config.dns.as_ref().zip(listeners.dns.take()) else { return Ok(None) };
    let network = Network::new(config);
    let (virtuals, opened) = Virtuals::new(&node.services, &node.discovery, network, listeners.data.len());
    for (worker, opened) in listeners.data.iter_mut().zip(opened) {
        (worker.names, worker.captured.virtuals) = (Some(opened), Some(Arc::clone(&virtuals)));
    }
    dns::start(tasks, node, (config, &virtuals), sockets)?;
    tasks.spawn_loop("names", Arc::clone(&virtuals).keep());
    Ok(Some(virtuals))
}

fn start_workers(node: &Arc<SidecarNode>, listeners: Vec<DataListeners>) -> Result<Workers, NodeError> {
    let node = Arc::clone(node);
    eastway_node::workers(listeners, move |_, own| work(Arc::clone(&node), own))
}

/// The life of a data worker: it listens until draining begins, and ends when nothing is in flight any more.
async fn work(node: Arc<SidecarNode>, listeners: DataListeners) -> io::Result<()> {
    let seed = fastrand::Rng::new().u64(..);
    let worker = Worker::new(Arc::clone(&node), seed);
    let listen = |listener| tokio::net::TcpListener::from_std(listener);
    let (proxy, inbound) = (listen(listeners.proxy)?, listeners.inbound.map(listen).transpose()?);
    if let Some(names) = listeners.names {
        tokio::task::spawn_local(outbound::named::listen(Rc::clone(&worker), names));
    }
    let services: Vec<_> = listeners.services.into_iter().map(listen).collect::<io::Result<_>>()?;
    for (listener, own) in services.into_iter().zip(&node.config.outbound.listeners) {
        tokio::task::spawn_local(outbound::listen_for(Rc::clone(&worker), listener, own.target.clone()));
    }
    if let Some(capture) = &node.config.capture {
        capture::listen(&worker, capture, listeners.captured)?;
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
