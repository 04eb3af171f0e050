//! The catalogue's times and bounds.

use std::time::Duration;

/// Times and bounds of a [`crate::Catalogue`]. The defaults are the design's.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A registration stream that was silent for this long counts as lost. Default 3 s.
    pub silence: Duration,
    /// Between two probes of an endpoint whose stream is lost. Default 1 s.
    pub probe_interval: Duration,
    /// Unanswered probes in a row that are evidence of being down. A refused connection is, by itself. Default 2.
    pub probe_failures: u32,
    /// An endpoint that is down for this long is removed. Default 10 min.
    pub forget_after: Duration,
    /// How long unexplained deletions are gathered before they are judged. Default 10 s.
    pub hold_window: Duration,
    /// How long unexplained deletions of half a service or more are held. Default 30 s.
    pub hold: Duration,
    /// How long the return of a zone from failure is published. Longer than any ramp. Default 60 s.
    pub returned_for: Duration,
    /// Endpoints in all. Default 50,000.
    pub max_endpoints: usize,
    /// Endpoints that one account may have registered here. Default 5,000.
    pub max_per_account: usize,
    /// Services that one peer may export to this cluster. Default 10,000.
    pub max_exported: usize,
    /// What else one peer may say.
    pub peer: PeerBounds,
    /// Endpoints in one stored slice. Default 100.
    pub slice_size: usize,
    /// Names with a virtual address. Default 100,000.
    pub max_virtuals: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(3),
            probe_interval: Duration::from_secs(1),
            probe_failures: 2,
            forget_after: Duration::from_secs(600),
            hold_window: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            returned_for: Duration::from_secs(60),
            max_endpoints: 50_000,
            max_per_account: 5_000,
            max_exported: 10_000,
            peer: PeerBounds::default(),
            slice_size: 100,
            max_virtuals: 100_000,
        }
    }
}

/// Bounds of what one peer cluster may say.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerBounds {
    /// Gateways whose statements are kept. Default 16.
    pub gateways: usize,
    /// Zones of the cluster, and of each of its services. Default 64.
    pub zones: usize,
    /// Ports of a service. Default 64.
    pub ports: usize,
    /// Accounts that may serve a service. Default 32.
    pub accounts: usize,
    /// Endpoints of a zone. Default 50,000.
    pub endpoints: u32,
    /// Services, each with its zones, accounts and ports, over all gateways. Default 200,000.
    pub entries: usize,
}

impl Default for PeerBounds {
    fn default() -> Self {
        Self { gateways: 16, zones: 64, ports: 64, accounts: 32, endpoints: 50_000, entries: 200_000 }
    }
}
