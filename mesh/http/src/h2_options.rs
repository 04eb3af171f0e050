//! The settings of HTTP/2, the same on both sides.

use std::time::Duration;

/// The settings of an HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct H2Options {
    /// Bytes that the peer may send on one stream before we read them; 1 MiB by default.
    pub stream_window: u32,
    /// Bytes that the peer may send on all streams together; 8 MiB by default.
    pub connection_window: u32,
    /// The largest frame that we accept; 64 KiB by default.
    pub max_frame_size: u32,
    /// Streams that the peer may have open at once; 1,000 by default.
    pub max_streams: u32,
    /// Bytes buffered for sending on one stream; 256 KiB by default.
    pub send_buffer: usize,
    /// Pings while work is outstanding; by default of clients only.
    pub ping: Option<Ping>,
}

impl Default for H2Options {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            max_frame_size: 64 * 1024,
            max_streams: 1000,
            send_buffer: 256 * 1024,
            ping: None,
        }
    }
}

/// When to ask a silent peer whether it still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Silence after which a ping is sent, while streams are open; 200 ms by default.
    pub interval: Duration,
    /// How long to wait for the answer before the connection counts as dead; 250 ms by default.
    pub timeout: Duration,
}
