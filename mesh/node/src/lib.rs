//! What sidecars and gateways do alike: begin, be somebody, listen, answer operators, read their files again, drain and end.
//!
//! A role's own file says in which order; each step is here. [`Process`] is the life from the first task to the last;
//! [`identity`], [`listen`] and [`telemetry`] are what a node needs before it begins, [`workers`] what carries its traffic,
//! and [`admin`] what operators ask: services as [`listing`] tells them, and [`problem`]s. Nothing here knows which role it serves.

pub mod admin;
pub mod identity;
pub mod listen;
pub mod listing;
pub mod problem;

mod error;
mod process;
mod telemetry;

pub use error::NodeError;
pub use process::{Process, STOP_LIMIT, run, workers};
pub use telemetry::telemetry;
