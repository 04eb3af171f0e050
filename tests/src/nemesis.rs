//! A mesh of 27 hosts under faults, drawn from a seed: real processes, real packets, and a checker that knows what must hold.
//!
//! [`Schedule`] says which fault, where and when; [`run`] starts the mesh, calls without a pause, makes the faults, waits
//! until all has healed, and has everything that was seen judged. Needs root, and the machine for itself.

mod checker;
mod delay;
mod executor;
mod fault;
mod mesh;
mod model;
mod namespace;
mod network;
mod observer;
mod plan;
mod schedule;
mod traffic;

pub use checker::Tally;
pub use executor::{Report, run};
pub use fault::What;
pub use plan::{Cluster, Host, Role, Target};
pub use schedule::{Fault, Kind, LENGTH, Schedule};
