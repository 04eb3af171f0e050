//! The test harness: what the end-to-end scenarios and the rule checks share.
//!
//! Scenarios build a [`lab::Lab`]: real processes of the real binary, with certificates made at run time, each lab on
//! loopback addresses of its own. Nothing sleeps: [`eventually`] waits for what must come true.

pub mod apart;
pub mod apps;
pub mod caller;
pub mod client;
pub mod clock;
pub mod lab;
pub mod machine;
pub mod nemesis;
pub mod process;
pub mod protogen;
pub mod relay;
pub mod wire;

use std::time::{Duration, Instant};

/// How long [`eventually`] waits: far longer than anything takes, because machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` answers `Ok`, and gives its value.
///
/// # Panics
/// With what `check` said last, if it does not come true within [`PATIENCE`].
pub fn eventually<T>(what: &str, check: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, check)
}

/// The same, with a patience of its own: for what by design takes longer.
///
/// # Panics
/// With what `check` said last, if it does not come true in time.
pub fn eventually_within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) => {
                assert!(Instant::now() < deadline, "{what} did not come true within {patience:?}; last: {last}")
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `Ok` if `holds`, else the words for [`eventually`].
///
/// # Errors
/// If it does not hold.
pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
