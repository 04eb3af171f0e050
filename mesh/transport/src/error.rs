//! Why a tunnel's stream ended badly, in a form that survives being wrapped in an `io::Error`.
//!
//! Readers and writers of an [`crate::Io`] see `io::Error`s; what refused, reset or lost a tunnel stream is inside and can
//! be taken out again with [`StreamError::of`], also when TLS layers lie between.

use std::io;

use eastway_core::Reason;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

/// How a tunnel's stream ended, other than by its regular end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer's sending half was reset: its source failed.
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The peer reads no further: its reader is gone.
    #[error("the peer stopped reading the stream: {0}")]
    Stopped(Reason),
    /// The connection that carried the stream is gone.
    #[error("the tunnel broke: {0}")]
    Lost(Reason),
    /// The half was used after its end.
    #[error("the stream was used after its end")]
    Closed,
}

impl StreamError {
    /// The stream error inside `error`, if a tunnel's stream caused it.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The reason to report further.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Reset(reason) | Self::Stopped(reason) | Self::Lost(reason) => *reason,
            Self::Closed => Reason::Internal,
        }
    }

    /// From a failed read; `unstated` is what a reset without a known code means.
    pub(crate) fn reading(error: &ReadError, unstated: Reason) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(reason_of(*code).unwrap_or(unstated)),
            ReadError::ConnectionLost(error) => Self::Lost(lost(error)),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Closed,
        }
    }

    /// From a failed write; `unstated` is what a stop without a known code means.
    pub(crate) fn writing(error: &WriteError, unstated: Reason) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(reason_of(*code).unwrap_or(unstated)),
            WriteError::ConnectionLost(error) => Self::Lost(lost(error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Closed => io::ErrorKind::BrokenPipe,
            StreamError::Lost(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

/// What the end of a whole connection means for its streams.
pub(crate) fn lost(error: &ConnectionError) -> Reason {
    match error {
        ConnectionError::ApplicationClosed(close) => reason_of(close.error_code).unwrap_or(Reason::TunnelLost),
        _ => Reason::TunnelLost,
    }
}

/// The code of a reset, a stop or a close.
pub(crate) fn code(reason: Reason) -> VarInt {
    VarInt::from_u32(reason.number())
}

/// The reason behind a code; `None` for numbers of newer versions and for 0, which says nothing.
pub(crate) fn reason_of(code: VarInt) -> Option<Reason> {
    u32::try_from(code.into_inner()).ok().and_then(Reason::from_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for &reason in Reason::ALL {
            assert_eq!(reason_of(code(reason)), Some(reason));
        }
    }

    #[test]
    fn an_unknown_code_means_what_the_direction_implies() {
        let error = StreamError::reading(&ReadError::Reset(VarInt::from_u32(99_999)), Reason::CallerGone);
        assert_eq!(error, StreamError::Reset(Reason::CallerGone));
        let error = StreamError::writing(&WriteError::Stopped(VarInt::from_u32(0)), Reason::UpstreamReset);
        assert_eq!(error, StreamError::Stopped(Reason::UpstreamReset));
    }

    #[test]
    fn the_cause_is_found_inside_an_io_error_and_nowhere_else() {
        let error = io::Error::from(StreamError::Reset(Reason::Overloaded));
        assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::Overloaded)));
        assert_eq!(StreamError::of(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(StreamError::of(&io::Error::other("something else")), None);
    }
}
