//! How control connections to other gateways are opened: the gateway role says how.

use std::sync::Arc;

use async_trait::async_trait;
use eastway_core::Reason;
use eastway_core::view::Transport;
use eastway_identity::ClientTls;
use eastway_transport::{Io, Tunnel};

/// Opens control connections. The gateway role implements it over its carriers.
#[async_trait]
pub trait Dialer: Send + Sync + std::fmt::Debug {
    /// A control connection over `transport` to the gateway at `address` (`HOST:PORT`), which must show the identity of a gateway
    /// of `trust_domain`. Limited in time by itself.
    async fn dial(&self, address: &str, trust_domain: &str, transport: Transport)
    -> Result<Arc<dyn Tunnel>, DialError>;

    /// A TLS session with whatever gateway answers at `address`, by which it introduces itself: whoever calls verifies it.
    /// Limited in time by the caller. By default it reaches nobody.
    async fn introduce(&self, address: &str, tls: ClientTls) -> Result<Io, DialError> {
        let _ = tls;
        Err(DialError { reason: Reason::PathDown, message: format!("{address} is not reached from here") })
    }

    /// The transports that it dials over, the preferred one first.
    fn transports(&self) -> &[Transport];
}

/// Why a control connection could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// The reason, as for a stream.
    pub reason: Reason,
    /// What happened, for the log.
    pub message: String,
}
