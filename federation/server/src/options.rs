//! What a server is told when it starts: who it is, and its times and bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eastway_client::LinkOptions;
use eastway_core::Coordinates;
use eastway_identity::Identity;
use eastway_registry::{Admission, Options};
use eastway_resilience::liveness::PathMonitorConfig;
use eastway_resilience::transports::TransportConfig;
use eastway_transport::accept::HandshakeLimits;

use crate::dialer::Dialer;

/// What a server needs to know.
#[derive(Debug)]
pub struct ServerConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The region it lies in.
    pub region: String,
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// Its zones.
    pub zones: BTreeMap<String, Option<Coordinates>>,
    /// This gateway's id.
    pub gateway: String,
    /// The address at which siblings and peers reach this gateway, for the store.
    pub address: String,
    /// This gateway's identity.
    pub identity: Arc<Identity>,
    /// Where sidecars are accepted; bound, not yet listened on.
    pub discovery: std::net::TcpListener,
    /// Opens control connections to peers.
    pub dialer: Arc<dyn Dialer>,
    /// Where workloads may be reached.
    pub admission: Admission,
    /// The folder in which it is kept what the store held last, to start from when that does not answer.
    pub state: Option<std::path::PathBuf>,
    /// Times and bounds.
    pub options: ServerOptions,
}

/// Times and bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Of the catalogue.
    pub registry: Options,
    /// Of the peers.
    pub peering: PeeringOptions,
    /// Of clusters that become peers by a token.
    pub joining: JoinOptions,
    /// Between signs of life on every stream. Default 1 s.
    pub heartbeat: Duration,
    /// A stream that is silent for this long is lost. Default 3 s.
    pub silence: Duration,
    /// Between two looks at the clock, and between two batches of loads. Default 100 ms.
    pub tick: Duration,
    /// How long a probe may take. Default 500 ms.
    pub probe_timeout: Duration,
    /// Probes at a time. Default 64.
    pub max_probes: usize,
    /// How long subscribers wait at most after a start, until what was loaded has been probed. Default 600 ms.
    pub settle: Duration,
    /// Between two statements of exported loads. Default 1 s.
    pub export_interval: Duration,
    /// The least time between two writes of the peers' mirrors. Default 10 s.
    pub mirror_interval: Duration,
    /// A gateway's slices are collected when it has been gone for this long. Default 60 s.
    pub collect_after: Duration,
    /// The time to live of the gateway's own key. Default 10 s.
    pub session_ttl: Duration,
    /// The bounds of sidecars' TLS handshakes. Default 512, 128 from one address, 5 s.
    pub handshakes: HandshakeLimits,
    /// Connections of sidecars at a time. Default 20,000.
    pub max_connections: u32,
    /// Topics that one sidecar may follow: two for each service that it calls. Default 5,000.
    pub max_topics: usize,
    /// How long a start waits for the store, if it can do without. Default 3 s.
    pub store_patience: Duration,
    /// Between two looks whether what is kept of the store is what it holds. Default 10 s.
    pub keep_interval: Duration,
    /// The wall clock in milliseconds since 1970, which epochs follow.
    pub wall_clock: fn() -> u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            registry: Options::default(),
            peering: PeeringOptions::default(),
            joining: JoinOptions::default(),
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            tick: Duration::from_millis(100),
            probe_timeout: Duration::from_millis(500),
            max_probes: 64,
            settle: Duration::from_millis(600),
            export_interval: Duration::from_secs(1),
            mirror_interval: Duration::from_secs(10),
            collect_after: Duration::from_secs(60),
            session_ttl: Duration::from_secs(10),
            handshakes: HandshakeLimits { places: 512, per_address: 128, timeout: Duration::from_secs(5) },
            max_connections: 20_000,
            max_topics: 5_000,
            store_patience: Duration::from_secs(3),
            keep_interval: Duration::from_secs(10),
            wall_clock,
        }
    }
}

impl ServerOptions {
    /// The same times for gRPC towards a peer.
    pub(crate) fn link(&self) -> LinkOptions {
        LinkOptions { silence: self.silence, heartbeat: self.heartbeat, ..LinkOptions::default() }
    }
}

/// Times of peering.
#[derive(Clone, Debug)]
pub struct PeeringOptions {
    /// When a path is suspect, and when down.
    pub liveness: PathMonitorConfig,
    /// A connection whose path has been down for this long is given up and dialled anew. Default 3 s.
    pub redial_after: Duration,
    /// How long opening a connection may take. Default 2 s.
    pub dial_timeout: Duration,
    /// The longest pause before a gateway is dialled again. Default 1 s: peers are few, and one that returns is wanted.
    pub backoff_max: Duration,
    /// The same over a transport that does not work while another does. Default 30 s.
    pub standby_backoff_max: Duration,
    /// The same to a gateway that does not take this cluster for its peer. Default 10 s.
    pub refused_backoff_max: Duration,
    /// When a path goes over another transport.
    pub transports: TransportConfig,
    /// Before statements are asked for again on the same connection. Default 500 ms.
    pub resync_pause: Duration,
    /// Raw streams that a peer may have open on one control connection. Default 8.
    pub max_streams: usize,
    /// How long a peer stays connected of which nothing is wanted any more, and no longer than it takes until something is.
    /// Default `None`: every peer is connected to, always.
    pub idle: Option<Duration>,
    /// How long whoever wants something of a peer that was not connected to waits for it. Default 700 ms: a sidecar waits for a second
    /// for what a service is.
    pub patience: Duration,
}

impl Default for PeeringOptions {
    fn default() -> Self {
        Self {
            liveness: PathMonitorConfig::default(),
            redial_after: Duration::from_secs(3),
            dial_timeout: Duration::from_secs(2),
            backoff_max: Duration::from_secs(1),
            standby_backoff_max: Duration::from_secs(30),
            refused_backoff_max: Duration::from_secs(10),
            transports: TransportConfig::default(),
            resync_pause: Duration::from_millis(500),
            max_streams: 8,
            idle: None,
            patience: Duration::from_millis(700),
        }
    }
}

/// Bounds of joining by a token.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Tokens that are valid at a time. With 0, nobody joins this cluster by a token. Default 16.
    pub max_tokens: usize,
    /// The longest time for which a token may be valid. Default 7 days.
    pub max_ttl: Duration,
    /// Exchanges that are served at a time; a further one ends the oldest. Default 8.
    pub max_exchanges: usize,
    /// The longest time for one exchange. Default 5 s.
    pub exchange_timeout: Duration,
    /// The longest time for joining, whatever the number of addresses. Default 9 s: who asked waits for 10 s.
    pub join_timeout: Duration,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self {
            max_tokens: 16,
            max_ttl: Duration::from_secs(7 * 24 * 3600),
            max_exchanges: 8,
            exchange_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(9),
        }
    }
}

/// The wall clock in milliseconds since 1970.
pub(crate) fn wall_clock() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "epochs must grow even if the store that counts them is restored")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
