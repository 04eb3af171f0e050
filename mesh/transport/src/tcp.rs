//! TCP connections and listeners, set up the one way that the data path wants them.
//!
//! Never resolves names: discovery delivers addresses. Sidecars and gateways dial and listen through this module.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use eastway_runtime::descriptors;
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

mod captured;
mod watched;

pub use captured::{Kept, original_destination};
pub use watched::{Watched, lost_packets};

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// The longest time for the connection to come about. Default: 250 ms.
    pub connect_timeout: Duration,
    /// How long sent bytes may stay unacknowledged before the connection counts as broken (TCP_USER_TIMEOUT): without it a
    /// vanished host is noticed after a quarter of an hour. It counts the time in which the peer's window is closed, too:
    /// where an application may read slowly, let [`Watched`] look instead. Default: 30 s.
    pub user_timeout: Option<Duration>,
    /// Probes of an idle connection. Default: on.
    pub keepalive: Option<Keepalive>,
    /// Whether it may have one of the last descriptors, which are kept for the control plane. Default: yes.
    pub uses_reserve: bool,
}

impl DialOptions {
    /// For connections that carry an application's bytes: idle ones are probed every `period`, and those whose peer answers
    /// nothing for about `gone` are broken. They may not have the last descriptors. That sent bytes are acknowledged is for
    /// [`Watched`] to see.
    pub fn data(connect_timeout: Duration, period: Duration, gone: Duration) -> Self {
        let probes = gone.as_secs_f64() / period.as_secs_f64().max(1.0);
        let keepalive = Keepalive { probes: probes.ceil().clamp(1.0, 100.0) as u32, ..Keepalive::every(period) };
        Self { connect_timeout, user_timeout: None, keepalive: Some(keepalive), uses_reserve: false }
    }
}

/// Probes of an idle connection.
#[derive(Clone, Debug)]
pub struct Keepalive {
    /// Silence before the first probe. Default: 30 s.
    pub idle: Duration,
    /// Time between probes. Default: 10 s.
    pub interval: Duration,
    /// Unanswered probes after which the connection is broken. Default: 3.
    pub probes: u32,
}

impl Keepalive {
    /// A probe after each `period` of silence. The kernel counts in whole seconds.
    pub fn every(period: Duration) -> Self {
        Self { idle: period, interval: period, ..Self::default() }
    }
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(250),
            user_timeout: Some(Duration::from_secs(30)),
            keepalive: Some(Keepalive::default()),
            uses_reserve: true,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 }
    }
}

/// Connects to `address`.
///
/// # Errors
/// What the operating system says, or [`io::ErrorKind::TimedOut`] after `connect_timeout`. An error that [`is_exhaustion`]
/// says nothing about the address.
pub async fn dial(address: SocketAddr, options: &DialOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !options.uses_reserve && !descriptors::spare(&socket) {
        return Err(Errno::EMFILE.into());
    }
    let connecting = socket.connect(address);
    let stream = tokio::time::timeout(options.connect_timeout, connecting).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no connection after {:?}", options.connect_timeout))
    })??;
    tune(&stream, options)?;
    Ok(stream)
}

/// Whether a connection could not be made because this process, or the machine, has no descriptors left.
pub fn is_exhaustion(error: &io::Error) -> bool {
    let numbers = [Errno::EMFILE, Errno::ENFILE].map(|number| number as i32);
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

/// Gives an accepted connection the settings that a dialled one has: no delay, user timeout, keepalive.
///
/// # Errors
/// If the connection is gone already.
pub fn tune(stream: &TcpStream, options: &DialOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(options.user_timeout)?;
    if let Some(keepalive) = &options.keepalive {
        let probes = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&probes)?;
    }
    Ok(())
}

/// Ends a connection on which there is nothing more to say, in order: our end first, then what the peer still sends is read
/// to its end. A connection that is closed with unread bytes is reset, which its peer sees as a failure.
///
/// Gives up after `limit`, or after [`LEFTOVER`] bytes.
pub async fn close(mut stream: TcpStream, limit: Duration) {
    let orderly = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LEFTOVER), &mut tokio::io::sink()).await
    };
    // However it ends, nobody waits for it.
    let _ = tokio::time::timeout(limit, orderly).await;
}

/// Bytes of a peer's last words that [`close`] reads.
pub const LEFTOVER: u64 = 64 * 1024;

/// A listener on `address`, alone; port 0 takes a free one.
///
/// # Errors
/// What the operating system says, for example that the address is in use.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = unbound(address)?;
    socket.bind(&address.into())?;
    listen(&socket)?;
    Ok(socket.into())
}

/// [`bind_reuseport`] for connections that the host captures and whose destinations are `kept` so.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::PermissionDenied`] without CAP_NET_ADMIN for [`Kept::Local`].
pub fn bind_captured(address: SocketAddr, n: usize, kept: Kept) -> io::Result<Vec<std::net::TcpListener>> {
    let listeners = bind_reuseport(address, n)?;
    if kept == Kept::Local {
        listeners.iter().try_for_each(captured::accept_any_destination)?;
    }
    Ok(listeners)
}

/// `n` listeners on one port, among which the kernel spreads new connections: one for each data worker.
///
/// # Errors
/// What the operating system says. That somebody else listens there is an error too, although the kernel would let the
/// two share the port, and each would get a part of the other's connections.
pub fn bind_reuseport(address: SocketAddr, n: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if n <= 1 {
        return Ok(vec![bind(address)?]);
    }
    let alone = unbound(address)?;
    alone.bind(&address.into())?;
    let address = crate::io_address(&alone)?;
    drop(alone);
    (0..n)
        .map(|_| {
            let socket = unbound(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            listen(&socket)?;
            Ok(socket.into())
        })
        .collect()
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)
}

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests;
