//! `eastway-link/1`: the multiplexed protocol between our own sidecars.
//!
//! One connection carries the requests and the opaque streams of a pair of workers: frames with a small header, heads in a compact
//! encoding, credit for each stream and for the connection, fair turns. `docs/link.md` is the specification.
//!
//! Everything here is a state machine: a [`Connection`] is handed bytes and the time, and says what happened and what is to be
//! written. It opens no socket, reads no clock and spawns nothing; it does not know TLS. The sidecar's workers drive one for
//! each connection, and so do tests, in memory.
//!
//! ```text
//!   bytes ──► receive ──► poll_event ──► Request, Readable, Finished, ...
//!                                          │ read, consume
//!   open_request, send_response, send_data, finish, reset
//!              └──► transmit ──► Outgoing ──► one large write
//!   next_timeout ──► handle_timeout
//! ```
//!
//! A stream is done when both directions have ended and everything was read; until then it holds one of the peer's streams.
//! A shell therefore reads every stream to its end, or gives it up by [`Connection::reset`].
//!
//! Suggested reading order: `frame`, `head` and `hello` (what is on the wire), `stream` and `schedule`, then `connection` with
//! `liveness` and `budget`.

mod budget;
mod connection;
mod error;
mod event;
mod frame;
pub mod fuzzing;
pub mod head;
mod hello;
mod inbox;
mod liveness;
mod options;
mod outgoing;
mod schedule;
mod stats;
mod stream;
mod streams;
mod varint;

pub use budget::Rate;
pub use connection::{Connection, Side};
pub use error::{Flood, LinkError, Malformed, OpenError, SendError};
pub use event::Event;
pub use frame::HEADER_BYTES;
pub use head::{
    Fields, HeadError, HeaderField, HttpVersion, OpaqueBuf, OpaqueHead, RequestBuf, RequestHead, ResponseBuf,
    ResponseHead, TrailersBuf,
};
pub use options::{FloodLimits, LinkOptions};
pub use outgoing::Outgoing;
pub use stats::LinkStats;
pub use stream::{MAX_INTERIM, StreamId};

/// The name in the TLS handshake (ALPN).
pub const ALPN: &[u8] = b"eastway-link/1";

#[cfg(test)]
mod testing;
