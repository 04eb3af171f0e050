//! Calling upstreams: connections over any byte stream, and a pool of those that can be used again.
//!
//! A connection is a handle plus a task on the same worker that drives it; the task ends with the connection, or once
//! the handle is dropped and nothing is under way. A failed [`H1::send`] says what failed, whether the request can
//! have reached the other side, and gives the request back when it surely did not.
//!
//! Nothing here dials, chooses an endpoint or retries: that is the sidecar's business.

mod error;
mod expect;
mod h1;
mod h2;
mod link;
mod options;
mod pool;
mod tunnel;

pub use error::{SendError, SendFailure};
pub use h1::H1;
pub use h2::H2;
pub use link::{Link, Unopened};
pub use options::ClientOptions;
pub use pool::{Leased, Pool, PoolOptions};
pub use tunnel::{ConnectError, Connected, connect};

pub use crate::h2_options::{H2Options, Ping};

#[cfg(test)]
mod tests;
