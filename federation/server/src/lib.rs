//! The gateway's half of discovery: registrations in, views out, statements to and from the peer clusters.
//!
//! For: one [`Server`] per gateway, which owns the catalogue (`federation/registry`), serves sidecars over gRPC, probes
//! endpoints whose sidecars fell silent, keeps membership and mirrors in the [`store`], and peers with other clusters.
//! Never: carrying requests, or picking endpoints for them. Called by the gateway role.
//!
//! Read in this order: [`server`], `options` (what it is told), `hub` (the state and its publication), `discovery`
//! (sidecars), `probing`, `membership` (the store), `virtuals` (addresses of names), [`resources`] (declared in files and
//! applied), `peering` (other clusters),
//! [`joining`] (how they become peers by a token).

pub mod resources;
pub mod server;
pub mod store;
mod topic;

mod demand;
mod dialer;
mod discovery;
mod document;
mod error;
mod feed;
mod grpc;
mod hub;
pub mod joining;
mod listener;
mod local;
mod membership;
mod mirrors;
mod options;
pub mod peering;
mod probing;
mod virtuals;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use dialer::{DialError, Dialer};
pub use error::StartError;
pub use joining::{JOIN_ALPN, Joining};
pub use options::{JoinOptions, PeeringOptions, ServerConfig, ServerOptions};
pub use peering::{BundleStatus, PeerHold, PeerPath, PeerStatus};
pub use resources::{BundleError, Files};
pub use server::{LocalFollower, Server, ServerStatus, SiblingStatus};
