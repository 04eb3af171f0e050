//! The numbers of a tunnel, and what they become in quinn's configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::congestion::Congestion;

/// How tunnels behave. The defaults suit links between regions as well as loopback.
#[derive(Clone)]
pub struct QuicOptions {
    /// Bytes that a stream's sender may be ahead of its reader; fixed for the life of a connection. A stream moves at most
    /// this much per round trip. Default: 2 MiB.
    pub stream_window: u32,
    /// The same for all streams of a connection together, in stream windows. At least 64, so that a few readers that stall
    /// do not stop the others. Default: 64.
    pub window_streams: u32,
    /// Streams that a peer may have open at once. Default: 4096.
    pub max_streams: u32,
    /// Silence after which a connection is given up. Default: 20 s.
    pub idle_timeout: Duration,
    /// Silence after which a connection is kept alive by a ping. Default: 5 s.
    pub keepalive: Duration,
    /// The longest time for a handshake, on both sides. Default: 5 s.
    pub handshake_timeout: Duration,
    /// Handshakes that may wait to be looked at; more are ignored. Default: 256.
    pub max_incoming: usize,
    /// Handshakes at once with clients whose address may be forged; with more, clients have to prove theirs first, which
    /// costs them a round trip. Default: 32.
    pub max_unproven_handshakes: u32,
    /// Handshakes at once with clients that have proven their address; more are refused. Default: 256.
    pub max_handshakes: u32,
    /// The same from one address (an IPv4 address, or a /64 of IPv6). Default: 32.
    pub max_address_handshakes: u32,
    /// Accepted connections of one endpoint; more are refused. Default: 1024.
    pub max_connections: u32,
    /// The same of one trust domain: each data worker of each gateway of a peer cluster needs one. Default: 256.
    pub max_domain_connections: u32,
    /// The largest UDP payload that is tried, clamped to what the interface carries. Default: 8952 (jumbo frames).
    pub max_mtu: u16,
    /// Kernel buffer of each socket and direction, as far as the kernel grants it. Default: 4 MiB.
    pub socket_buffer: usize,
    /// The longest time for opening a stream, up to the peer's answer. Default: 1 s.
    pub open_timeout: Duration,
    /// The longest time that a peer may take for its opening message, and for taking in our answer. Default: 5 s.
    pub opening_timeout: Duration,
    /// Whether a peer may change its address during a connection. Gateways have fixed ones. Default: no.
    pub migration: bool,
    /// A secret that a gateway keeps over its restarts: with it, peers learn with the first packet that the connections of
    /// its earlier life are over. Default: none, so that they learn it by the idle timeout.
    pub reset_secret: Option<[u8; 32]>,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            stream_window: 2 << 20,
            window_streams: 64,
            max_streams: 4096,
            idle_timeout: Duration::from_secs(20),
            keepalive: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            max_incoming: 256,
            max_unproven_handshakes: 32,
            max_handshakes: 256,
            max_address_handshakes: 32,
            max_connections: 1024,
            max_domain_connections: 256,
            max_mtu: 8952,
            socket_buffer: 4 << 20,
            open_timeout: Duration::from_secs(1),
            opening_timeout: Duration::from_secs(5),
            migration: false,
            reset_secret: None,
        }
    }
}

/// Shows what can be configured, and not the secret.
impl fmt::Debug for QuicOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicOptions")
            .field("stream_window", &self.stream_window)
            .field("window_streams", &self.window_streams)
            .field("max_streams", &self.max_streams)
            .field("idle_timeout", &self.idle_timeout)
            .field("keepalive", &self.keepalive)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_unproven_handshakes", &self.max_unproven_handshakes)
            .field("max_handshakes", &self.max_handshakes)
            .field("max_address_handshakes", &self.max_address_handshakes)
            .field("max_connections", &self.max_connections)
            .field("max_domain_connections", &self.max_domain_connections)
            .field("max_mtu", &self.max_mtu)
            .finish_non_exhaustive()
    }
}

impl QuicOptions {
    /// Stream windows that a connection's window holds.
    pub(super) fn window_streams(&self) -> u32 {
        self.window_streams.max(MIN_WINDOW_STREAMS)
    }

    /// quinn's transport configuration for a link that carries payloads up to `mtu`, of an endpoint that will say when it
    /// is `closing`.
    pub(super) fn transport(&self, mtu: u16, closing: &Arc<AtomicBool>) -> Arc<TransportConfig> {
        let window = u64::from(self.stream_window);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(mtu);
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(varint(window * u64::from(self.window_streams())))
            .send_window(window * SEND_WINDOWS)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keepalive))
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(Congestion::new(mtu, Arc::clone(closing))));
        Arc::new(transport)
    }
}

/// A larger number than QUIC can express means "as much as it can".
fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// The least number of stream windows in a connection's window.
const MIN_WINDOW_STREAMS: u32 = 64;
/// Unacknowledged bytes of a connection, in stream windows.
const SEND_WINDOWS: u64 = 8;
