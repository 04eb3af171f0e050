//! What can be wrong with the messages that open a stream.

use eastway_core::endpoint::MAX_EXCLUDED;

/// How a message breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no protobuf message of the expected type.
    #[error("it cannot be decoded")]
    Protobuf(#[from] prost::DecodeError),
    /// It does not say what it must.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// It asks to avoid more endpoints than [`MAX_EXCLUDED`].
    #[error("`exclude` names {0} endpoints, and {MAX_EXCLUDED} are allowed")]
    Excluded(usize),
    /// The caller's identity cannot be read.
    #[error("`source` is no identity")]
    Source(#[from] eastway_core::SpiffeError),
}
