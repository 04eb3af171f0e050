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
mod mtu;
mod options;
mod reset;
mod socket;
mod stream;
mod tunnel;

pub use endpoint::{ConnectError, Endpoint, Incoming};
pub use options::QuicOptions;
pub use reset::{derived_reset_secret, new_reset_secret};
pub use socket::bind;
pub use stream::QuicStream;
pub use tunnel::QuicTunnel;

pub use crate::tunnel::Kind;

#[cfg(test)]
mod tests;
