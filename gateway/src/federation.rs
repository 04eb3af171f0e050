//! The border to discovery and peering: starts the server, dials control connections for it, and answers what the data
//! path needs to know of peers.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_core::ServiceName;
use eastway_core::view::{PathState, Transport};
use eastway_core::{Chain, Reason};
use eastway_identity::{ClientTls, Expected, Identity, ServerTls, client_config};
use eastway_node::NodeError;
use eastway_registry::{Admission, Options};
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::{state_file, throttled};
use eastway_server::store::{self, EmbeddedStore, EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls, Store};
use eastway_server::{
    DialError, Dialer, Files, JoinOptions, PeerHold, PeerPath, PeeringOptions, Server, ServerConfig, ServerOptions,
};
use eastway_transport::io::Detached;
use eastway_transport::tcp::DialOptions;
use eastway_transport::tls::TlsError;
use eastway_transport::tunnel::{Kind, Tunnel};
use eastway_transport::{ALPN, Io, tcp, tls};
use tokio::sync::mpsc;

use crate::RunError;
use crate::carriers::Carriers;
use crate::config::{self, Config, Etcd, Store as StoreConfig};
use crate::resolve::{self, ResolveError};
use crate::services::Services;

/// Gateways that introduced themselves and wait to be served.
const MAX_STRANGERS: usize = 8;
/// For a TCP connection to a gateway to which this one introduces itself.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// The largest file of etcd's TLS or password that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A gateway's view of the mesh, and its part in making it.
#[derive(Debug)]
pub(crate) struct Federation {
    server: Arc<Server>,
    /// Sessions of gateways that nobody knows yet, for the control runtime.
    strangers: mpsc::Sender<Detached>,
}

impl Federation {
    /// Opens the store, starts discovery on `discovery` and peering over `carriers`, and has `sink` follow it.
    ///
    /// # Errors
    /// [`RunError`], by what cannot be opened or read.
    pub(crate) async fn start(
        config: &Config,
        tasks: &TaskGroup,
        identity: Arc<Identity>,
        sink: Arc<Services>,
        carriers: Carriers,
        discovery: TcpListener,
    ) -> Result<Self, RunError> {
        let store = open_store(config).await?;
        let files = read_files(config)?;
        let transports = carriers.transports();
        let dialer = ControlDialer { carriers: carriers.clone(), transports, identity: Arc::clone(&identity) };
        let server = ServerConfig {
            cluster: config.cluster.clone(),
            region: config.region.clone(),
            trust_domain: config.trust_domain.clone(),
            zones: config.zones.clone(),
            gateway: config.gateway.clone(),
            address: advertised(&config.tunnel).to_string(),
            identity,
            discovery,
            dialer: Arc::new(dialer),
            admission: admission(config),
            state: config.state.clone(),
            options: options(config),
        };
        let server = Server::start(server, store, files).await.map_err(RunError::Federation)?;
        sink.follow(&server);
        let (strangers, arriving) = mpsc::channel(MAX_STRANGERS);
        tasks.spawn_loop("introductions", introductions(Arc::clone(&server), arriving));
        tasks.spawn_loop("control-connections", accept(Arc::clone(&server), carriers));
        Ok(Self { server, strangers })
    }

    /// Reads the resources again; answers how many there are.
    ///
    /// # Errors
    /// If they cannot be used; the old ones stay.
    pub(crate) async fn reload(&self, config: &Config) -> Result<usize, RunError> {
        let config = config.clone();
        let read = tokio::task::spawn_blocking(move || read_files(&config));
        let files = read.await.map_err(|error| NodeError::Threads(io::Error::other(error)))??;
        let count = files.declared.len();
        self.server.set_files(files).map_err(RunError::Contested)?;
        Ok(count)
    }

    /// The peer cluster whose identities are of `trust_domain`.
    pub(crate) fn cluster_of(&self, trust_domain: &str) -> Option<String> {
        self.server.peer_of(trust_domain)
    }

    /// Sees to it that `cluster` is connected to for as long as the answer is held, and waits until there is a way to it.
    pub(crate) async fn hold(&self, cluster: &str) -> PeerHold {
        self.server.hold_peer(cluster).await
    }

    /// The trust domain of `cluster` and the ways there, best first, those known to be down left out; `None` if it is no
    /// peer.
    pub(crate) fn paths(&self, cluster: &str) -> Option<(String, Vec<PeerPath>)> {
        let trust_domain = self.server.trust_domain_of(cluster)?;
        let mut paths = self.server.paths(cluster);
        paths.retain(|path| path.state != PathState::Down);
        Some((trust_domain, paths))
    }

    /// Completes when what goes to `cluster` by the gateway at `address` should no longer go over `transport`.
    pub(crate) async fn path_leaves(&self, cluster: &str, address: &str, transport: Transport) {
        self.server.path_leaves(cluster, address, transport).await;
    }

    /// The transport that carries what goes to `cluster` by the gateway at `address`; `None` if nothing does.
    pub(crate) fn transport(&self, cluster: &str, address: &str) -> Option<Transport> {
        let path = self.server.paths(cluster).into_iter().find(|path| path.address == address)?;
        path.transport.filter(|_| path.state != PathState::Down)
    }

    /// Completes when the peer's gateway at `address` has announced its end, or is known not to answer.
    pub(crate) async fn path_ends(&self, cluster: &str, address: &str) {
        self.server.path_ends(cluster, address).await;
    }

    /// Whether `cluster` may call `service` here.
    ///
    /// # Errors
    /// [`Reason::NotExported`].
    pub(crate) fn check_export(&self, service: &ServiceName, cluster: &str) -> Result<(), Reason> {
        if self.server.exports(service, cluster) { Ok(()) } else { Err(Reason::NotExported) }
    }

    /// Completes once what was loaded at the start was probed: before, less is known than the sidecars and siblings know.
    pub(crate) async fn settled(&self) {
        self.server.settled().await;
    }

    /// Completes when another process has taken over this gateway's id, with that one's epoch.
    pub(crate) async fn replaced(&self) -> u64 {
        self.server.replaced().await
    }

    /// Completes when `cluster` may call `service` here no longer.
    pub(crate) async fn export_ends(&self, service: &ServiceName, cluster: &str) {
        self.server.export_ends(service, cluster).await;
    }

    /// The handshake with a gateway that nobody knows yet and that offers [`JOIN_ALPN`]; `None` while there is no token that it
    /// could have.
    pub(crate) fn introduction(&self) -> Option<ServerTls> {
        let joining = self.server.joining();
        joining.is_open().then(|| joining.tls())
    }

    /// Hands a session over that agreed on [`JOIN_ALPN`].
    ///
    /// # Errors
    /// Too many wait already.
    pub(crate) fn introduced(&self, io: Io) -> io::Result<()> {
        self.strangers.try_send(io.detach()?).map_err(|error| io::Error::other(error.to_string()))
    }

    /// The server, for the admin API.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Tells peers and sidecars to go elsewhere.
    pub(crate) fn leave(&self) {
        self.server.drain();
    }

    /// Writes what is unwritten and ends every task, within `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        if let Err(left) = self.server.shutdown(limit).await {
            tracing::warn!(%left, "discovery's tasks had to be ended");
        }
    }
}

/// Where siblings reach the tunnel.
fn advertised(tunnel: &config::TunnelConfig) -> SocketAddr {
    let listen = tunnel.listen;
    if let Some(address) = tunnel.advertise {
        return address;
    }
    if !listen.ip().is_unspecified() {
        return listen;
    }
    match outgoing_address(listen.is_ipv4()) {
        Ok(ip) => SocketAddr::new(ip, listen.port()),
        Err(error) => {
            tracing::warn!(%listen, error = %error, "no address to be reached at is known: set `tunnel.advertise`");
            listen
        }
    }
}

/// The address from which this machine reaches others. Connecting a UDP socket sends nothing, it only looks up the route;
/// the addresses are those of documentation, which lead by the default route.
fn outgoing_address(v4: bool) -> io::Result<IpAddr> {
    let (any, far) = if v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = UdpSocket::bind(any)?;
    socket.connect(far)?;
    Ok(socket.local_addr()?.ip())
}

/// What the configuration says of the server; the rest are its defaults.
pub(crate) fn options(config: &Config) -> ServerOptions {
    let registry = Options {
        max_per_account: config.registration.per_account,
        peer: config.peering.clone(),
        ..Options::default()
    };
    let joining = JoinOptions { max_tokens: config.tokens, ..JoinOptions::default() };
    let peering = PeeringOptions { idle: config.peer_idle, ..PeeringOptions::default() };
    ServerOptions {
        registry,
        peering,
        joining,
        session_ttl: config.timeouts.session,
        collect_after: config.timeouts.collect,
        handshakes: config.handshakes(),
        ..ServerOptions::default()
    }
}

/// Where workloads may be reached: never at what this gateway itself listens on.
fn admission(config: &Config) -> Admission {
    Admission {
        networks: config.registration.networks.clone(),
        listeners: vec![config.tunnel.listen, config.discovery, config.admin, config.metrics],
        loopback: config.discovery.ip().is_loopback(),
    }
}

fn read_files(config: &Config) -> Result<Files, RunError> {
    let (declared, warnings) = config.load_resources().map_err(RunError::Resources)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Files::new(declared).map_err(RunError::Bundle)
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, RunError> {
    Ok(match &config.store {
        StoreConfig::Embedded { path } => Arc::new(EmbeddedStore::open(path).await.map_err(RunError::Store)?),
        StoreConfig::Etcd(etcd) => {
            let mut options = etcd_options(etcd)?;
            options.cluster_id = config.state.as_deref().and_then(store::kept_id);
            Arc::new(EtcdStore::new(options).await.map_err(RunError::Store)?)
        }
    })
}

fn etcd_options(config: &Etcd) -> Result<EtcdOptions, RunError> {
    let mut options = EtcdOptions::new(config.endpoints.clone());
    options.prefix.clone_from(&config.prefix);
    let EtcdCredentials { user, tls } = credentials(config).map_err(RunError::EtcdFile)?;
    (options.user, options.tls) = (user, tls);
    if config.user.is_some() || config.tls.is_some() {
        let config = config.clone();
        options.renewal = Some(Arc::new(move || credentials(&config)));
    }
    Ok(options)
}

/// The files that etcd's credentials are in, as they are now.
fn credentials(config: &Etcd) -> io::Result<EtcdCredentials> {
    let user = match &config.user {
        Some(user) => {
            let password = String::from_utf8_lossy(&read(&user.password_file)?).trim_end().to_owned();
            Some((user.name.clone(), password))
        }
        None => None,
    };
    let tls = match &config.tls {
        Some(tls) => {
            let identity = match &tls.identity {
                Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                None => None,
            };
            Some(EtcdTls { ca: read(&tls.ca)?, identity, server_name: tls.server_name.clone() })
        }
        None => None,
    };
    Ok(EtcdCredentials { user, tls })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    state_file::read(path, MAX_FILE).map_err(named)
}

/// Takes control connections of peers until it is dropped. Data connections arrive on the workers' sockets.
async fn accept(server: Arc<Server>, carriers: Carriers) {
    while let Some(incoming) = carriers.accept().await {
        let (server, address) = (Arc::clone(&server), incoming.remote_address());
        tokio::spawn(async move {
            match incoming.establish().await {
                Ok(tunnel) => server.on_control_connection(tunnel).await,
                Err(error) => {
                    throttled!(info, peer = %address, error = %Chain(&error), "refused a peer's control connection");
                }
            }
        });
    }
}

/// Serves gateways that introduce themselves until it is dropped.
async fn introductions(server: Arc<Server>, mut arriving: mpsc::Receiver<Detached>) {
    while let Some(session) = arriving.recv().await {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            match session.attach() {
                Ok(io) => server.joining().serve(io).await,
                Err(error) => tracing::debug!(%error, "a gateway that introduced itself is gone"),
            }
        });
    }
}

/// Opens control connections from the gateway's own port.
#[derive(Debug)]
struct ControlDialer {
    carriers: Carriers,
    transports: Vec<Transport>,
    identity: Arc<Identity>,
}

#[async_trait]
impl Dialer for ControlDialer {
    async fn dial(
        &self,
        address: &str,
        trust_domain: &str,
        transport: Transport,
    ) -> Result<Arc<dyn Tunnel>, DialError> {
        let unused = || failed(Reason::Internal, &io::Error::from(io::ErrorKind::Unsupported));
        let carrier = self.carriers.over(Some(transport)).ok_or_else(unused)?;
        let expected = Expected::Gateway { trust_domain: trust_domain.to_owned() };
        let client = client_config(&self.identity, expected, &[ALPN]);
        let connect = |address| {
            let connecting = carrier.connect(address, client.clone(), Kind::Control);
            async {
                let tunnel = connecting.await.map_err(|error| failed(error.reason(), &error))?;
                // Our side of the handshake ends before the peer has judged our identity: wait for its word.
                tunnel.confirmed().await.map_err(|error| failed(error.reason(), &error))?;
                Ok(tunnel)
            }
        };
        resolve::connect(address, connect).await.map_err(unresolved)
    }

    async fn introduce(&self, address: &str, tls: ClientTls) -> Result<Io, DialError> {
        resolve::connect(address, |address| introduce(address, tls.clone())).await.map_err(unresolved)
    }

    fn transports(&self) -> &[Transport] {
        &self.transports
    }
}

fn unresolved(error: ResolveError<DialError>) -> DialError {
    match error {
        ResolveError::Name(error) => failed(Reason::PathDown, &error),
        ResolveError::Connect(error) => error,
    }
}

/// A session with whatever gateway answers there.
async fn introduce(address: SocketAddr, tls: ClientTls) -> Result<Io, DialError> {
    let options = DialOptions { connect_timeout: INTRODUCTION, ..DialOptions::default() };
    let tcp = tcp::dial(address, &options).await.map_err(|error| failed(Reason::PathDown, &error))?;
    tls::connect(Io::from(tcp), tls).await.map_err(|error| match takes_nobody(&error) {
        true => {
            let why = "it takes no token: all have expired or were withdrawn, or it is of an earlier release";
            DialError { reason: error.reason(), message: why.to_owned() }
        }
        false => failed(error.reason(), &error),
    })
}

/// Whether the gateway does not speak the protocol of the exchange, which it does only while there are tokens.
fn takes_nobody(error: &TlsError) -> bool {
    let TlsError::Handshake(error) = error else { return false };
    let alert = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(alert, Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

fn failed(reason: Reason, error: &dyn std::error::Error) -> DialError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    DialError { reason, message: format!("{error}{cause}") }
}
