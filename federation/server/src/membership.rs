//! Membership in the store: what is loaded at the start, written when it changes, and read from siblings.
//!
//! What is decided about it is in `eastway_registry::membership`; here the store is asked, and waited for. Writing never holds
//! anything up: while the store is away, what changed waits as a set of slices, and the newest content of each is written when it
//! is back. Reading never takes anything away at once: the catalogue holds what vanishes without explanation. A store that was
//! restored or edited is made to hold again what the gateway has.

mod begin;
mod collect;
mod lives;
mod slices;

pub(crate) use begin::{Beginning, begin};
pub(crate) use collect::{collect, follow as follow_gateways, load as load_gateways};
pub(crate) use slices::Slices;
