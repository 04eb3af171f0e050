//! Bytes between machines: TCP, TLS, and the tunnels between gateways, over QUIC or TCP.
//!
//! What runs over the network is an [`Io`], whatever it is made of. [`tcp`] dials and listens, [`tls`] wraps one `Io` in
//! another, [`quic`] and [`tcp_tunnel`] make tunnels, whose streams are `Io` again ([`tunnel`]), and [`relay`] joins two of them.
//!
//! This crate never picks where to connect to, never retries, never looks into application bytes, and knows no HTTP.
//! Sidecars and gateways call it, and `mesh/http` runs over its `Io`.

pub mod accept;
pub mod copies;
pub mod error;
pub mod io;
pub mod link;
pub mod quic;
pub mod relay;
pub mod tcp;
pub mod tcp_tunnel;
pub mod tls;
pub mod tunnel;

#[cfg(test)]
mod testing;

pub use error::StreamError;
pub use io::{ByteStream, ChunkStream, Io};
pub use quic::QuicStream;
pub use tunnel::{IncomingStream, Kind, OpenError, StreamAccepted, StreamOpen, StreamOpening, Tunnel, TunnelStats};

/// The application protocol of the QUIC connections between gateways.
pub const ALPN: &[u8] = b"eastway/1";

/// The address that a socket is bound to.
fn io_address(socket: &socket2::Socket) -> std::io::Result<std::net::SocketAddr> {
    let address = socket.local_addr()?;
    address.as_socket().ok_or_else(|| std::io::Error::other("the socket has no IP address"))
}
