//! The catalogue: which service has which endpoints, here and in the peer clusters, and how sure that is.
//!
//! For: one place that merges registrations, the slices of sibling gateways and the statements of peers into the views
//! that discovery delivers. Called by the gateway's discovery and peering (`federation/server`) and, for the parts
//! about deltas and ages, by `federation/client`. Never: I/O, tasks or clocks; who calls says what time it is.
//!
//! Read in this order: [`Catalogue`] (the whole), [`registration`] (one endpoint's life), [`peers`] (mirrors of other
//! clusters), [`membership`] (the store), [`Mirror`] and [`Reader`] (versions), [`facts`] (views, their age and differences).

pub mod catalogue;
pub mod registration;
pub mod resources;

pub mod admission;
pub mod exporter;
pub mod facts;
pub mod hold;
pub mod membership;
pub mod mirror;
pub mod options;
pub mod peers;
pub mod reader;
pub mod statements;
pub mod store;
pub mod virtuals;
pub mod zones;

pub use admission::{AddressError, Admission};
pub use catalogue::{
    Catalogue, Changes, EndpointReport, Key, Probe, ProbeOutcome, RegisterError, Slice, Speaker, StateChanges,
};
pub use exporter::Exporter;
pub use facts::{Delta, ServiceFacts};
pub use mirror::Mirror;
pub use options::{Options, PeerBounds};
pub use peers::{Cut, Exported, GatewayReport, PathFacts, PeerReport, StoredMirror, staleness_at};
pub use reader::{Fact, Reader, Statement, SyncError};
pub use registration::{EndpointState, Registration, StreamId};
pub use resources::{PeerPolicy, Resources};
pub use statements::Statements;
pub use virtuals::{NoNumber, Virtuals};
