//! Whether to send, and whether to send again: breakers, retry rules and budgets, limits, deadlines, path liveness.
//!
//! Everything here is a plain state machine: it is told the time ([`eastway_core::Timestamp`]) and handed a random
//! source, it never sleeps, spawns or reads a clock. `mesh/balance` drives the breakers; the roles drive the rest.
//!
//! Suggested reading order: [`attribution`] (what an attempt's end means), [`breaker`], [`attempts`] with [`backoff`]
//! and [`budget`], then [`limits`], [`deadline`], [`patience`], [`liveness`] and [`transports`].

pub mod attempts;
pub mod attribution;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod deadline;
pub mod error;
pub mod limits;
pub mod liveness;
pub mod patience;
pub mod sync;
pub mod transports;
pub mod window;

pub use attempts::{AttemptEnd, Decision, GiveUp, Repeatable, Retries, RetryPolicy};
pub use attribution::{ChargedFailure, Class, Outcome};
pub use breaker::{Breaker, BreakerConfig, Phase, Trigger};
pub use budget::RetryBudget;
pub use error::{AttemptError, Fault, Progress};
pub use limits::{KeyedLimit, KeyedPermit, Limit, Permit};
pub use liveness::{PathMonitor, PathMonitorConfig};
pub use patience::{Patience, Upload, Waited};
pub use transports::{Cause, TransportChoice, TransportConfig, TransportFacts};

#[cfg(all(test, eastway_interleave))]
mod interleave;
