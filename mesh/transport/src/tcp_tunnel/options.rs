//! The numbers of a tunnel over TCP, and what they become for the link in it.

use std::time::Duration;

use eastway_link::{FloodLimits, LinkOptions, Rate};

/// How tunnels over TCP behave. They mean what they do for QUIC, so that a path behaves alike over both.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Bytes that a stream's sender may be ahead of its reader. Default: 2 MiB.
    pub stream_window: u32,
    /// The same for all streams of a connection together, in stream windows. Default: 64.
    pub window_streams: u32,
    /// Streams that a peer may have open at once. Default: 4096.
    pub max_streams: u32,
    /// Silence after which a connection is given up. Default: 20 s.
    pub idle_timeout: Duration,
    /// How often a peer is asked for a sign of life. Default: 5 s.
    pub keepalive: Duration,
    /// The longest time for the connection with its handshake. Default: 5 s.
    pub handshake_timeout: Duration,
    /// Accepted connections of one carrier; more are refused. Default: 1024.
    pub max_connections: u32,
    /// The same of one trust domain. Default: 256.
    pub max_domain_connections: u32,
    /// Connections that wait to be accepted after their handshakes; more are refused. Default: 64.
    pub max_arrivals: usize,
    /// The longest time for opening a stream, up to the peer's answer. Default: 1 s.
    pub open_timeout: Duration,
    /// The longest time that a peer may take for its opening message, and for taking in our answer. Default: 5 s.
    pub opening_timeout: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            stream_window: 2 << 20,
            window_streams: 64,
            max_streams: 4096,
            idle_timeout: Duration::from_secs(20),
            keepalive: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            max_connections: 1024,
            max_domain_connections: 256,
            max_arrivals: 64,
            open_timeout: Duration::from_secs(1),
            opening_timeout: Duration::from_secs(5),
        }
    }
}

impl TcpOptions {
    /// The link's part of it. A lost segment holds up everything, so that silence means less than between sidecars.
    pub(super) fn link(&self) -> LinkOptions {
        let defaults = FloodLimits::default();
        LinkOptions {
            stream_window: self.stream_window,
            connection_window: self.stream_window.saturating_mul(self.window_streams),
            max_streams: self.max_streams,
            stream_buffer: STREAM_BUFFER,
            connection_buffer: CONNECTION_BUFFER,
            ping_after: self.keepalive,
            ping_timeout: self.idle_timeout.saturating_sub(self.keepalive),
            hello_timeout: self.handshake_timeout,
            // A gateway that loses its sidecars gives all of its streams up at once.
            floods: FloodLimits { resets: Rate::new(self.max_streams.saturating_mul(2), RESETS), ..defaults },
            ..LinkOptions::default()
        }
    }

    /// So many stalled streams may hold half of a connection's window.
    pub(super) fn stall_limit(&self) -> u64 {
        u64::from(self.link().bounded().connection_window / self.stream_window.max(1) / 2)
    }
}

/// Bytes of a stream that may wait to be written.
const STREAM_BUFFER: usize = 512 << 10;
/// The same of all streams together.
const CONNECTION_BUFFER: usize = 4 << 20;
/// Streams of a peer that may come to nothing in a second, besides those at once.
const RESETS: u32 = 1000;
