//! Connections that were meant for somebody else, and that the host's packet filter has led here.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// How the destination is kept that a captured connection was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// By the kernel's connection tracking, which has rewritten it (REDIRECT).
    Tracked,
    /// As the connection's own address, which was left as it was (TPROXY).
    Local,
}

/// Where the connection was meant to go.
///
/// # Errors
/// What the operating system says: nothing is known of a connection that was not captured.
pub fn original_destination(stream: &TcpStream, kept: Kept) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    if kept == Kept::Local {
        return Ok(local);
    }
    let socket = SockRef::from(stream);
    // A connection over IPv4 to a listener of all addresses has an address of IPv6.
    let original =
        if local.ip().to_canonical().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Has a listener take connections to any address.
pub(super) fn accept_any_destination(listener: &std::net::TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    match listener.local_addr()? {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}
