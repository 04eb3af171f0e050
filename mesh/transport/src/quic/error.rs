//! What can go wrong until there is a tunnel.

use eastway_core::Reason;
use eastway_identity::Refusal;
use quinn::{ConnectionError, TransportErrorCode};

use crate::error::lost;

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
    Lost(#[source] ConnectionError),
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

impl From<ConnectionError> for ConnectError {
    fn from(error: ConnectionError) -> Self {
        match &error {
            // An error of our own: for the TLS part, only the alert is left of what the verifier said.
            ConnectionError::TransportError(own) => match alert(u64::from(own.code)).and_then(Refusal::of_alert) {
                Some(refusal) => Self::Identity(refusal),
                None => Self::Lost(error),
            },
            ConnectionError::ConnectionClosed(close) => {
                Self::ByPeer { reason: closed(close.error_code), message: close.to_string() }
            }
            ConnectionError::ApplicationClosed(_) => {
                let reason = lost(&error);
                Self::ByPeer { reason, message: reason.meaning().to_owned() }
            }
            ConnectionError::TimedOut => Self::Timeout,
            _ => Self::Lost(error),
        }
    }
}

/// Why a peer closes a connection that it has not accepted, by the code of QUIC itself.
fn closed(code: TransportErrorCode) -> Reason {
    match code {
        TransportErrorCode::CONNECTION_REFUSED => Reason::Overloaded,
        code if alert(code.into()).is_some() => Reason::IdentityRefused,
        _ => Reason::PathDown,
    }
}

/// The TLS alert inside a QUIC error code (RFC 9001, section 4.8).
fn alert(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(0x100)?).ok()
}
