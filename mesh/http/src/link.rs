//! The link between our own sidecars (`eastway-link/1`, [`eastway_link`]): its streams as requests and bodies.
//!
//! What reads and writes the connection is in `mesh/transport`. [`crate::client::Link`] opens streams, [`crate::serve`] serves them.

pub(crate) mod body;
pub(crate) mod heads;
pub(crate) mod upload;

pub use eastway_link::{ALPN, LinkOptions};

#[cfg(test)]
mod tests;
