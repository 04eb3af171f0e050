//! Subscribing and registering: what a sidecar embeds to know the mesh and to be known by it.
//!
//! For: [`Discovery`] keeps views of the services that the node uses, from whichever gateway answers, and goes on from
//! the last view when none does, also across a restart; [`Registrar`] says that the workload exists, how it does and how
//! loaded it is. Both share one connection, the [`Link`]. Never: talking to the store, probing anybody, or deciding where
//! a request goes. Called by the sidecar; [`convert`] and [`Sink`] also by `federation/server`.

pub mod connect;
pub mod link;

pub mod discovery;
pub mod registrar;

pub mod clock;
pub mod convert;
pub mod incarnation;
pub mod sink;

pub use connect::{Connector, TlsConnector};
pub use discovery::{Discovery, DiscoveryOptions, DiscoveryStatus};
pub use link::{Link, LinkOptions, preference};
pub use registrar::{Registrar, RegistrarStatus, Workload};
pub use sink::Sink;
