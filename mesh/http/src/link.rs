//! The link between our own sidecars (`eastway-link/1`, [`eastway_link`]) over any byte stream: who reads and writes, and its
//! streams as requests, bodies and byte streams.
//!
//! One task drives a connection. What streams want to have written is gathered until the other tasks that are ready have run,
//! and then goes out in one write. [`crate::client::Link`] opens streams, [`crate::serve`] serves them.

pub(crate) mod body;
pub(crate) mod bytes;
pub(crate) mod driver;
pub(crate) mod heads;
pub(crate) mod state;
pub(crate) mod upload;

pub use eastway_link::{ALPN, LinkOptions};

#[cfg(test)]
mod tests;
