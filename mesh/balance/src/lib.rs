//! Where a request goes: priorities, localities, shares, and the pick of an endpoint.
//!
//! [`Service`] is the decision object of one service in one node. Sidecars, gateways, `explain`, `what-if` and the
//! simulator all call it (or the pure functions beneath it), so that what is predicted is what happens. Nothing here does
//! I/O, reads a clock or owns a random source that was not seeded by the caller.
//!
//! Suggested reading order: [`shares`] (the formulas), [`situation`] and [`scenario`] (what an operator asks of them),
//! [`priorities`] and [`distance`] (what is near), [`ramp`] (what returns), [`endpoint`] and [`locality`] (what the workers
//! share), [`plan`] (what a pick reads), then [`service`], and [`attempts`] (a request's way through all of it). [`envoy`]
//! is Envoy's integer algorithm, for those who must match it.

pub mod alias;
mod allocation;
pub mod attempts;
pub mod distance;
pub mod endpoint;
pub mod envoy;
pub mod explain;
pub mod locality;
pub mod pick;
pub mod plan;
pub mod policy;
pub mod priorities;
pub mod ramp;
pub mod scenario;
pub mod service;
pub mod shares;
pub mod situation;
mod sync;
pub mod table;
pub mod tried;
pub mod utilisation;

pub use attempts::Attempts;
pub use eastway_core::policy::{Algorithm, Mode};
pub use eastway_resilience::{AttemptError, ChargedFailure, Class, Outcome};
pub use endpoint::Endpoint;
pub use explain::Explanation;
pub use locality::LocalityEndpoints;
pub use pick::{NoPick, Pick};
pub use policy::Policy;
pub use scenario::Scenario;
pub use service::{Service, WhatIf};
pub use situation::{Division, Loss, LossError, Question, Situation};
pub use tried::Tried;
