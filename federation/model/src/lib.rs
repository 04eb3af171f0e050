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
//! `invariants`. `isolation` is what is wanted to be true of a cluster that is left alone.

use std::collections::BTreeMap;

use eastway_registry::Options;

mod sabotage;
mod world;

pub use sabotage::Sabotage;
pub use world::Violation;
use world::World;

/// How long a gateway's key is gone before its slices may be collected, in milliseconds.
const COLLECT_AFTER: u64 = 8_000;
/// How long faults are made, in milliseconds.
const FAULTS: u64 = 27_000;
/// How long after the healing everything must be as it should be, in milliseconds: longer than the longest bound.
const SETTLES: u64 = 38_000;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Decides everything.
    pub seed: u64,
    /// What happens.
    pub plan: Plan,
    /// What is broken on purpose, to see that it is noticed.
    pub sabotage: Option<Sabotage>,
    /// Keep what happened, for a reader.
    pub trace: bool,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// Faults of all kinds.
    #[default]
    Faults,
    /// For so many milliseconds no store has a quorum and the clusters do not reach one another, while workloads come and go
    /// and call one another.
    Isolation(u64),
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Events that were handled, after each of which the invariants held.
    pub steps: u64,
    /// Faults that were made, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Calls of an isolation.
    pub calls: Calls,
    /// How long after the healing of an isolation everybody knew everything again, in milliseconds.
    pub recovered_ms: Option<u64>,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
}

/// How calls ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// An endpoint took them.
    pub succeeded: u64,
    /// Two endpoints did not live, or none was known.
    pub failed: u64,
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
