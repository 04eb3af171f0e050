//! The production decision code under simulated load: `eastway simulate`.
//!
//! A [`Scenario`] states callers, endpoints, times and faults. [`run`] lets every caller decide with a
//! [`eastway_balance::Service`] of its own, exactly as a sidecar would, over a model of network, endpoints and discovery,
//! and answers with a [`Report`]. The same scenario runs a second time with the baseline `global-jsq2`, over the same
//! arrivals and service times. Equal scenarios and seeds give equal reports, byte for byte.
//!
//! Nothing here decides where a request goes, does I/O, or reads a clock. The command line and the benches call it.
//!
//! Suggested reading order: [`scenario`] (what can be stated), `world` (places and distances), `flight`, `net` and `server`
//! (what happens to an attempt), `discovery` (who learns what, and when), `driver` (what the loop, `engine`, tells whoever
//! decides), `production` (what sidecars do), `gateway`, `baseline`, `record` (what is counted), then [`report`], [`table`]
//! and [`plot`].

mod baseline;
mod discovery;
mod driver;
mod engine;
mod faults;
mod flight;
mod gateway;
mod net;
pub mod plot;
mod production;
mod queue;
mod record;
pub mod report;
pub mod scenario;
mod server;
pub mod table;
mod world;

pub use engine::run;
pub use report::Report;
pub use scenario::{Fault, Mistake, Scenario};

#[cfg(test)]
mod tests;
