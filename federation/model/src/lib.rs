//! Proof under faults: the production logic of membership and merging in a deterministic simulation.
//!
//! For: clusters of gateways with a store each, siblings, peers and sidecars as actors on one event queue in simulated time.
//! The catalogue, the writing and reading of slices, the lives of gateways, the collection and the streams of statements are
//! the production machines of `federation/registry`; the network, the stores, the clocks and the faults are made up here. A
//! schedule is a seed: it decides everything, so that the same seed gives the same run. After every step the invariants are
//! checked ([`Violation`]). Never: I/O, tasks, clocks, or a decision of its own about membership.
//!
//! Called by its tests, by `make figures` (`tests/bench/schedules.rs`), and by whoever replays a seed there.
//!
//! Read in this order: [`run`], `world` (the queue and what happens), below it `nemesis` (the faults), `gateway` and `sidecar` (the actors),
//! `invariants`.

use std::collections::BTreeMap;

use eastway_registry::Options;

mod sabotage;
mod world;

pub use sabotage::Sabotage;
pub use world::Violation;
use world::World;

/// How long a gateway's key is gone before its slices may be collected, in milliseconds.
const COLLECT_AFTER: u64 = 8_000;
/// When the faults end, in milliseconds.
const HEALED: u64 = 32_000;
/// When everything must be as it should be: later than the longest bound after the healing.
const SETTLED: u64 = HEALED + 38_000;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Decides everything.
    pub seed: u64,
    /// What is broken on purpose, to see that it is noticed.
    pub sabotage: Option<Sabotage>,
    /// Keep what happened, for a reader.
    pub trace: bool,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Events that were handled, after each of which the invariants held.
    pub steps: u64,
    /// Faults that were made, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
}

/// Runs one schedule.
///
/// # Errors
/// The invariant that was violated, with what led to it.
pub fn run(schedule: &Schedule) -> Result<Outcome, Box<Violation>> {
    World::new(schedule).run().map_err(|mut violation| {
        // The run is the same every time: the second one keeps what happened.
        if !schedule.trace
            && let Err(traced) = World::new(&Schedule { trace: true, ..schedule.clone() }).run()
        {
            violation.last = traced.last;
        }
        violation
    })
}

/// The times of the catalogue, shorter than in production so that a schedule sees all of them.
fn options(sabotage: Option<Sabotage>) -> Options {
    use std::time::Duration;
    let hold = |seconds| if sabotage == Some(Sabotage::Hold) { Duration::ZERO } else { Duration::from_secs(seconds) };
    Options {
        hold_window: hold(3),
        hold: hold(9),
        forget_after: Duration::from_secs(17),
        returned_for: Duration::from_secs(8),
        slice_size: 2,
        ..Options::default()
    }
}
