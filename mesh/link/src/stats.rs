//! What a connection did so far.

use std::time::Duration;

/// Figures of one connection, for metrics and for deciding whether a second connection would help: where packets are lost, one
/// TCP connection holds up all of its streams, and credit that is used up shows a path that is longer than its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Streams that are open now.
    pub streams: usize,
    /// Streams that were opened so far, by the connecting side.
    pub opened: u64,
    /// Streams that were refused, reset or lost, by either side.
    pub failed: u64,
    /// Bytes of data that were sent, without heads and frames.
    pub data_sent: u64,
    /// Bytes of data that were received, without heads and frames.
    pub data_received: u64,
    /// Bytes that were handed out to be written.
    pub bytes_sent: u64,
    /// Bytes that came in.
    pub bytes_received: u64,
    /// For how long data waited because the connection's credit was used up.
    pub blocked: Duration,
    /// How often a stream wanted to send and had used up its own credit.
    pub starved: u64,
    /// The smoothed time from a ping to its answer; `None` before the first.
    pub rtt: Option<Duration>,
    /// The least of these times.
    pub min_rtt: Option<Duration>,
    /// Bytes that this side keeps for streams now: received and not read, and not yet written.
    pub buffered: usize,
}
