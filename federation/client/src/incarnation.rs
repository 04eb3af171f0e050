//! Which life of a workload's sidecar this is.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use eastway_runtime::state_file;

/// The file with the last incarnation, in the state directory.
const FILE: &str = "incarnation";
/// More bytes than any number has.
const MOST: u64 = 64;

/// The next incarnation: the clock in microseconds, but always more than the last one stored under `state`, so that a
/// clock set back does not make a new life look like an old one. Without a state directory the clock alone counts; the
/// gateway then says if it knows a higher one.
pub fn next(state: Option<&Path>) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "incarnations are ordered by the wall clock where no state is kept")]
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
    let Some(path) = state.map(|state| state.join(FILE)) else { return clock };
    let last = state_file::read(&path, MOST).ok().and_then(|text| String::from_utf8(text).ok());
    let last = last.and_then(|text| text.trim().parse::<u64>().ok());
    let next = clock.max(last.map_or(0, |last| last.saturating_add(1)));
    if let Err(error) = state_file::write(&path, next.to_string().as_bytes()) {
        tracing::warn!(path = %path.display(), error = %error, "cannot store the incarnation");
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_never_repeated_though_the_clock_stands_still_or_goes_back() {
        let state = tempfile::tempdir().expect("a directory");
        let first = next(Some(state.path()));
        assert!(next(Some(state.path())) > first);
        let future = first + 1_000_000_000_000;
        std::fs::write(state.path().join(FILE), future.to_string()).expect("written");
        assert_eq!(next(Some(state.path())), future + 1);
    }

    #[test]
    fn a_damaged_file_falls_back_to_the_clock() {
        let state = tempfile::tempdir().expect("a directory");
        std::fs::write(state.path().join(FILE), "nonsense").expect("written");
        assert!(next(Some(state.path())) > 1_000_000_000_000);
    }
}
