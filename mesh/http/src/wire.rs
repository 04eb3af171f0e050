//! HTTP/1.1 by our own code: heads go on as slices of the buffer that they were read into, bodies without a copy, and nothing
//! is allocated for a request once a connection is warm.
//!
//! The codec (heads, [`Decoder`], [`Encoder`]) is pure. Over it lie the two halves of a forwarder, which one task drives: a
//! [`ServerConnection`] towards the caller and a [`ClientConnection`] towards an upstream. What may be said, and where
//! messages end, [`framing`](crate::framing) judges, as it does for hyper. Nothing here decides anything about a request: its
//! user reads a head, asks whoever decides, and has it written with [`Change`]s.
//!
//! Not yet used by a node: [`serve`](crate::serve) and [`H1`](crate::H1), which are hyper's, carry all traffic.

mod buffer;
mod change;
mod client;
mod conn;
mod copy;
mod decode;
mod encode;
mod forwarding;
mod patience;
mod request;
mod response;
mod server;
mod write;

pub use buffer::Buffers;
pub use change::{BadChange, Change};
pub use client::{Answer, ClientConnection, ClientError};
pub use conn::{BodyFault, Limits, SendFault, Shared};
pub use copy::CopyFault;
pub use decode::{Chunks, Decoded, Decoder, Malformed, Step};
pub use encode::{Encoder, WrongLength};
pub use forwarding::{Event, ForwardFault, Forwarding};
pub use request::{RequestHead, RequestView};
pub use response::{ResponseHead, ResponseView};
pub use server::{CallerState, Piece, ServerConnection, ServerEnd};
pub use write::{Caller, Written, write_request, write_response};

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Its bytes; 64 KiB by default.
    pub bytes: usize,
    /// Its fields; 256 by default, and never more than [`MAX_FIELDS`]. The bytes bound them before, in all but odd heads:
    /// browsers send each cookie of HTTP/2 as a field of its own, and some applications answer with hundreds.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, fields: 256 }
    }
}

/// The most fields that a head may have, however it is configured.
pub const MAX_FIELDS: usize = 1024;

#[cfg(test)]
mod tests;
