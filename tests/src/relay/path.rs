//! The way between two gateways: datagrams and connections at one address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{DatagramRelay, Relay};

/// Passes TCP and UDP on to another address. It ends with the process that made it.
#[derive(Clone, Debug)]
pub struct PathRelay {
    connections: Relay,
    datagrams: DatagramRelay,
}

impl PathRelay {
    /// A relay at a free port of `host` that leads to `target`.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(host: IpAddr, target: SocketAddr) -> Self {
        let connections = Relay::start(host, target);
        let datagrams = DatagramRelay::at(connections.address(), target, Duration::ZERO);
        Self { connections, datagrams }
    }

    /// Where it listens, with both.
    pub const fn address(&self) -> SocketAddr {
        self.connections.address()
    }

    /// Drops every datagram from now on. Nobody is told.
    pub fn block_udp(&self) {
        self.datagrams.drop_one_in(1);
    }

    /// Passes datagrams on again.
    pub fn heal_udp(&self) {
        self.datagrams.drop_one_in(0);
    }

    /// Drops one of so many datagrams from now on.
    pub fn lose_udp(&self, one_in: u32) {
        self.datagrams.drop_one_in(one_in);
    }
}
