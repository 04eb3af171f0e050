//! Three clusters of nine hosts each under faults of every kind, drawn from a seed: nothing is lost, and nobody notices.
//!
//! The short form of `make soak`. A failure prints its seed: `make soak DURATION=1s SEED=n` runs the same again.

use eastway_tests::machine;
use eastway_tests::nemesis::{Kind, LENGTH, Schedule, run};

/// What is run each time.
const SEED: u64 = 2;

#[test]
fn a_mesh_of_three_clusters_under_faults_of_every_kind_loses_no_registration_and_hardly_a_request() {
    let _machine = machine::alone();
    let report = run(&Schedule::from_seed(SEED, LENGTH));
    println!("{report}");
    assert_eq!(report.kinds().len(), Kind::ALL.len(), "{:?}", report.kinds());
    // A run in which hardly anything was asked proves nothing.
    assert!(report.tally.counted > 1_000 && report.observations > 300, "{report}");
    assert!(report.violations.is_empty(), "{report}");
}
