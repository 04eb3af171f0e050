//! What QUIC says when there is no tunnel.

use eastway_core::Reason;
use eastway_identity::Refusal;
use quinn::{ConnectionError, TransportErrorCode};

use crate::error::lost;
use crate::tunnel::ConnectError;

impl From<ConnectionError> for ConnectError {
    fn from(error: ConnectionError) -> Self {
        match &error {
            // An error of our own: for the TLS part, only the alert is left of what the verifier said.
            ConnectionError::TransportError(own) => match alert(u64::from(own.code)).and_then(Refusal::of_alert) {
                Some(refusal) => Self::Identity(refusal),
                None => Self::Lost(error.into()),
            },
            ConnectionError::ConnectionClosed(close) => {
                Self::ByPeer { reason: closed(close.error_code), message: close.to_string() }
            }
            ConnectionError::ApplicationClosed(_) => {
                let reason = lost(&error);
                Self::ByPeer { reason, message: reason.meaning().to_owned() }
            }
            ConnectionError::TimedOut => Self::Timeout,
            _ => Self::Lost(error.into()),
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
