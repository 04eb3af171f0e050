//! QUIC between gateways: endpoints that share one port, and the tunnels over them.
//!
//! [`bind`] makes the sockets (one for control connections, one for each data worker) and steers packets to them; each
//! becomes an [`Endpoint`] in the runtime that drives it; a connection is a [`QuicTunnel`] and its streams [`QuicStream`]s.
//!
//! Resumption and 0-RTT are never used: the TLS configurations that are handed in have them off.

mod admission;
mod cid;
mod congestion;
mod datagram;
mod endpoint;
mod error;
mod mtu;
mod options;
mod reset;
mod socket;
mod tunnel;

pub use endpoint::{Endpoint, Incoming};
pub use options::QuicOptions;
pub use reset::{derived_reset_secret, new_reset_secret};
pub use socket::bind;
pub use tunnel::QuicTunnel;

pub use crate::io::quic::QuicStream;
pub use crate::tunnel::{ConnectError, Kind};

#[cfg(test)]
mod tests;
