//! The life of a process: its configuration, clock, threads, tasks, signals, readiness, drain, descriptors and
//! administration server.
//!
//! The roles compose these parts; nothing here knows what a gateway or a sidecar does, and nothing here is on the path of
//! a request but [`clock::now`] and the in-flight guards of [`drain`].

pub mod clock;
pub mod control;
pub mod descriptors;
pub mod displacing;
pub mod drain;
pub mod http;
pub mod readiness;
pub mod sections;
pub mod signals;
pub mod state_file;
pub mod tasks;
pub mod throttle;
pub mod workers;

pub use drain::{Drain, Draining};
pub use readiness::Readiness;
pub use tasks::TaskGroup;
pub use workers::Workers;
