//! The limits of a connection, all of them bounded.

use std::time::Duration;

use crate::budget::Rate;
use crate::hello::{Base, Hello, MAX_STREAMS, MAX_WINDOW};

/// What a connection allows, sends and waits for. The defaults are for a pair of sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Bytes of data that a stream may receive before its application has read some. At least 65,536. Default 1 MiB.
    pub stream_window: u32,
    /// The same for all streams of the connection together; bounds what they keep in memory. At least four stream windows,
    /// so that a stream that nobody reads does not stop the others. Default 8 MiB.
    pub connection_window: u32,
    /// Streams that the peer may have open at a time. At least 64. Default 1,024.
    pub max_streams: u32,
    /// The largest head that is received, in the measure of [`head`](crate::head). From 16,384 to 65,535. Default 65,535.
    pub max_head_bytes: u16,
    /// Bytes of data that one stream may have waiting to be written. Default 128 KiB.
    pub stream_buffer: usize,
    /// Bytes of data that all streams together may have waiting to be written. Default 1 MiB.
    pub connection_buffer: usize,
    /// Bytes of heads and of control frames that may wait to be written: beyond, heads have to wait. Default 256 KiB.
    pub head_buffer: usize,
    /// The most data that a stream sends in one turn, in one frame. From 1,024 to 65,535. Default 16,376 bytes: with its header
    /// the frame fills a TLS record.
    pub quantum: u16,
    /// A ping is sent after so long a silence of the peer, if something is awaited from it. Default 200 ms.
    pub ping_after: Duration,
    /// The peer is lost if a ping is followed by so long a silence. Default 250 ms.
    pub ping_timeout: Duration,
    /// A ping is sent after so long a silence while streams are open on which nothing is awaited: it keeps what is on the way from
    /// forgetting them. A peer that answers nothing for as long again is lost. Default 30 s.
    pub keepalive: Duration,
    /// The peer's HELLO must have come after this time. Default 5 s.
    pub hello_timeout: Duration,
    /// What a peer may do that costs more here than there.
    pub floods: FloodLimits,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
            max_streams: 1024,
            max_head_bytes: u16::MAX,
            stream_buffer: 128 * 1024,
            connection_buffer: 1024 * 1024,
            head_buffer: 256 * 1024,
            quantum: 16_376,
            ping_after: Duration::from_millis(200),
            ping_timeout: Duration::from_millis(250),
            keepalive: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(5),
            floods: FloodLimits::default(),
        }
    }
}

impl LinkOptions {
    /// The options with every value moved into its range. A connection uses no others; configuration that wants to complain
    /// compares the two.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let stream_window = self.stream_window.clamp(Base::STREAM_WINDOW, MAX_WINDOW / 4);
        Self {
            stream_window,
            connection_window: self
                .connection_window
                .clamp((stream_window * 4).max(Base::CONNECTION_WINDOW), MAX_WINDOW),
            max_streams: self.max_streams.clamp(Base::MAX_STREAMS, MAX_STREAMS),
            max_head_bytes: self.max_head_bytes.max(Base::MAX_HEAD_BYTES),
            stream_buffer: self.stream_buffer.clamp(1024, MAX_WINDOW as usize),
            connection_buffer: self.connection_buffer.clamp(1024, MAX_WINDOW as usize),
            head_buffer: self.head_buffer.clamp(1024, MAX_WINDOW as usize),
            quantum: self.quantum.max(1024),
            ..self.clone()
        }
    }

    /// The limits that the peer is told.
    pub(crate) const fn hello(&self) -> Hello {
        Hello {
            max_streams: self.max_streams,
            stream_window: self.stream_window,
            connection_window: self.connection_window,
            max_head_bytes: self.max_head_bytes,
        }
    }
}

/// Budgets against floods. Whoever exceeds one loses the connection.
///
/// What is useful costs no budget: a stream that ends properly earns one of `resets` and four of `strays`, and data that was
/// sent earns `windows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Streams of the peer that came to nothing: it reset them (as in the attack on HTTP/2 of 2023), or they were refused, or
    /// their heads were malformed. Default 4,096 at once and 200 a second, far more than a caller that gives up all of its
    /// requests at a deadline.
    pub resets: Rate,
    /// Pings. Default 20 at once and 10 a second; a proper peer sends one for each silence.
    pub pings: Rate,
    /// Grants of credit. Default 1,000 at once and 1,000 a second, and one for every 4 KiB that were sent.
    pub windows: Rate,
    /// Frames without effect: for streams that are closed already, which cross their end on the way, or of kinds that are to be
    /// skipped. Default 16,384 at once and 1,000 a second.
    pub strays: Rate,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            resets: Rate::new(4096, 200),
            pings: Rate::new(20, 10),
            windows: Rate::new(1000, 1000),
            strays: Rate::new(16_384, 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert_eq!(LinkOptions::default().bounded(), LinkOptions::default());
    }

    #[test]
    fn values_out_of_range_are_moved_into_it() {
        let least = LinkOptions {
            stream_window: 0,
            connection_window: 0,
            max_streams: 0,
            max_head_bytes: 0,
            stream_buffer: 0,
            connection_buffer: 0,
            head_buffer: 0,
            quantum: 0,
            ..LinkOptions::default()
        };
        let bounded = least.bounded();
        assert_eq!((bounded.stream_window, bounded.connection_window, bounded.max_streams), (65_536, 262_144, 64));
        assert_eq!((bounded.max_head_bytes, bounded.stream_buffer, bounded.quantum), (16_384, 1024, 1024));
        let most = LinkOptions {
            stream_window: u32::MAX,
            connection_window: 1,
            max_streams: u32::MAX,
            ..LinkOptions::default()
        };
        let bounded = most.bounded();
        assert!(bounded.connection_window <= MAX_WINDOW && bounded.stream_window <= bounded.connection_window / 4);
        assert_eq!(bounded.bounded(), bounded);
    }
}
