//! What carries tunnels, whatever its protocol: a socket's end of them.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_core::Reason;
use eastway_core::view::Transport;
use eastway_identity::{ClientTls, Refusal};

use super::{Kind, Tunnel};

/// One socket's end of the tunnels. Gateways connect and listen through it, and know nothing of what is below.
#[async_trait]
pub trait Carrier: Send + Sync + fmt::Debug {
    /// Opens a tunnel to the gateway at `address`, whose identity must be one that `client` expects.
    ///
    /// The own identity is judged by the peer after this returns: if it refuses it, the tunnel closes at once. Whoever
    /// connects again and again should wait for [`Tunnel::confirmed`] before taking an attempt for a success.
    ///
    /// # Errors
    /// If the handshake fails or takes too long.
    async fn connect(
        &self,
        address: SocketAddr,
        client: ClientTls,
        kind: Kind,
    ) -> Result<Arc<dyn Tunnel>, ConnectError>;

    /// The next peer that wants a tunnel; `None` once the carrier is closed.
    async fn accept(&self) -> Option<Box<dyn IncomingTunnel>>;

    /// Tunnels that are open now, handshakes included.
    fn tunnels(&self) -> usize;

    /// Closes all tunnels, telling the peers why, and accepts no more.
    fn close(&self, reason: Reason);

    /// Closes all tunnels, and stays until the peers were told, or `limit` is over: a runtime that ends right after
    /// [`Carrier::close`] takes the farewell with it, and the peers wait for their timeouts.
    async fn shutdown(&self, reason: Reason, limit: Duration);

    /// What it is.
    fn transport(&self) -> Transport;
}

/// A peer that wants a tunnel. Establishing it takes a round trip, so that belongs in a task of its own.
#[async_trait]
pub trait IncomingTunnel: Send + fmt::Debug {
    /// Where it comes from. The address may not be proven yet.
    fn remote_address(&self) -> SocketAddr;

    /// Goes through the handshake.
    ///
    /// # Errors
    /// If it fails or takes too long, or the peer has too many tunnels.
    async fn establish(self: Box<Self>) -> Result<Arc<dyn Tunnel>, ConnectError>;
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer did not answer in time.
    #[error("the handshake took too long")]
    Timeout,
    /// The peer's identity is not acceptable.
    #[error("the peer's identity is refused: {}", .0.as_str())]
    Identity(Refusal),
    /// The peer ended the handshake: because it does not accept our identity, because it has no room, or otherwise.
    #[error("the peer refused the connection ({reason}): {message}")]
    ByPeer {
        /// What the peer's code means.
        reason: Reason,
        /// What it said.
        message: String,
    },
    /// The peer's cluster has as many connections here as it may.
    #[error("the limit of connections is reached")]
    Overloaded,
    /// The connection broke during the handshake.
    #[error("the connection broke during the handshake")]
    Lost(#[source] Box<dyn Error + Send + Sync>),
    /// The configuration or the address cannot be used.
    #[error("no connection can be made: {0}")]
    Invalid(String),
}

impl ConnectError {
    /// The reason to report further.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Identity(_) => Reason::WrongIdentity,
            Self::ByPeer { reason, .. } => *reason,
            Self::Overloaded => Reason::Overloaded,
            Self::Timeout | Self::Lost(_) => Reason::PathDown,
            Self::Invalid(_) => Reason::Internal,
        }
    }
}
