//! The answer to a request that goes no further.

use std::time::Duration;

use crate::reason::Reason;

/// Why a request is refused, and what its caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The HTTP status.
    pub status: u16,
    /// The status towards a caller that speaks gRPC.
    pub grpc_status: u8,
    /// When the caller may come again, if that is known.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The same, with another status for each kind of caller.
    #[must_use]
    pub const fn with_status(self, status: u16, grpc_status: u8) -> Self {
        Self { status, grpc_status, ..self }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, status: reason.status(), grpc_status: reason.grpc_status(), retry_after: None }
    }
}
