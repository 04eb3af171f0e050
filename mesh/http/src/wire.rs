//! HTTP/1.1 by our own code.
//!
//! The codec ([`Decoder`], [`Encoder`], [`write_request`], [`write_response`]) is pure. Over it lie two halves: a
//! [`ServerConnection`] towards a caller and a [`ClientConnection`] towards an upstream, which read into buffers that belong to
//! their thread, gather what is to be sent into few writes, and hold nothing while they are idle. What may be said, and where
//! messages end, [`framing`](crate::framing) judges. Nothing here decides anything about a request.

mod buffer;
mod client;
mod conn;
mod date;
mod decode;
mod encode;
mod frame;
mod linger;
mod patience;
mod sending;
mod server;
mod text;
mod write;

pub use buffer::Buffers;
pub use client::{ClientConnection, Unanswered, is_interim};
pub(crate) use conn::Conn;
pub use conn::{Limits, SendFault, Shared};
pub use decode::{Chunks, Decoded, Decoder, Malformed, Step};
pub use encode::{Encoder, WrongLength};
pub(crate) use sending::{Over, Sending, Unsent};
pub use server::{CallerState, ServerConnection, ServerEnd};
pub use write::{Caller, Written, write_request, write_response};

#[cfg(test)]
mod tests;
