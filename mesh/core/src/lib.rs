//! The mesh's vocabulary: names, places, endpoints, versions, refusals and resources.
//!
//! Every other crate speaks these types. There is no I/O here, no clock and no runtime: what needs the time is
//! handed a [`Timestamp`].

pub mod chain;
pub mod endpoint;
pub mod former;
pub mod head;
pub mod locality;
pub mod name;
pub mod network;
pub mod policy;
pub mod reason;
pub mod refusal;
pub mod resource;
pub mod spiffe;
pub mod text;
pub mod time;
pub mod trace;
pub mod version;
pub mod via;
pub mod view;

pub use chain::Chain;
pub use endpoint::{EndpointId, Health, Labels, LoadReport};
pub use locality::{Coordinates, Locality, ZoneId};
pub use name::{Authority, AuthorityError, MeshHost, ServiceName};
pub use network::Network;
pub use reason::{Attribution, Blame, Reason};
pub use refusal::Refusal;
pub use spiffe::{SpiffeError, SpiffeId};
pub use time::Timestamp;
pub use version::Version;
