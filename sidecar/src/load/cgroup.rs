//! The processor time that an application's control group (version 2) uses, as a part of what it may use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eastway_core::Timestamp;

/// A control group, and its use when it was last looked at.
#[derive(Debug)]
pub(crate) struct CpuGroup {
    folder: PathBuf,
    last: Option<(Timestamp, Duration)>,
}

impl CpuGroup {
    /// The group at `folder`, below `/sys/fs/cgroup`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), last: None }
    }

    /// The part of its processors that the group used since the last call; `None` the first time, and where the group
    /// cannot be read (any more).
    pub(crate) fn utilisation(&mut self, now: Timestamp) -> Option<f64> {
        let read = usage(&self.folder).and_then(|used| Ok((used, processors(&self.folder)?)));
        let Ok((used, processors)) = read else {
            self.last = None;
            return None;
        };
        let (at, before) = self.last.replace((now, used))?;
        let passed = (now - at).as_secs_f64();
        (passed > 0.0 && processors > 0.0).then(|| used.saturating_sub(before).as_secs_f64() / passed / processors)
    }
}

/// Processor time used since the group was made.
///
/// # Errors
/// The file cannot be read, or is none of a control group of version 2 with its processor accounted for.
pub(crate) fn usage(folder: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(folder.join("cpu.stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let micros = line.and_then(|number| number.trim().parse().ok());
    micros.map(Duration::from_micros).ok_or_else(|| io::Error::other("its cpu.stat has no usage_usec"))
}

/// The processors that the group may use at once: its quota, or all that there are.
fn processors(folder: &Path) -> io::Result<f64> {
    let all = || std::thread::available_parallelism().map(|count| count.get() as f64);
    // The root group has no quota and no such file.
    let Ok(text) = fs::read_to_string(folder.join("cpu.max")) else { return all() };
    let mut words = text.split_whitespace().map(str::parse::<f64>);
    match (words.next(), words.next()) {
        (Some(Ok(quota)), Some(Ok(period))) if period > 0.0 => Ok(quota / period),
        _ => all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, micros: u64) {
        let text = format!("usage_usec {micros}\nuser_usec 1\nsystem_usec 1\n");
        fs::write(folder.join("cpu.stat"), text).expect("written");
    }

    #[test]
    fn use_is_measured_against_the_quota_between_two_looks() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), 1_000_000);
        fs::write(folder.path().join("cpu.max"), "200000 100000\n").expect("written");
        let mut group = CpuGroup::new(folder.path());
        assert_eq!(group.utilisation(Timestamp::from_millis(1_000)), None);
        write(folder.path(), 2_500_000);
        assert_eq!(group.utilisation(Timestamp::from_millis(2_000)), Some(0.75));
        // Started anew: counts begin again, and nothing is negative.
        write(folder.path(), 0);
        assert_eq!(group.utilisation(Timestamp::from_millis(3_000)), Some(0.0));
        fs::remove_file(folder.path().join("cpu.stat")).expect("removed");
        assert_eq!(group.utilisation(Timestamp::from_millis(4_000)), None);
    }

    #[test]
    fn without_a_quota_all_processors_count() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), 0);
        fs::write(folder.path().join("cpu.max"), "max 100000\n").expect("written");
        let count = std::thread::available_parallelism().expect("known").get() as f64;
        assert_eq!(processors(folder.path()).ok(), Some(count));
        fs::remove_file(folder.path().join("cpu.max")).expect("removed");
        assert_eq!(processors(folder.path()).ok(), Some(count));
    }
}
