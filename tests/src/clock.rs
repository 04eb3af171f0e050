//! Wall clocks that are set: what a process takes for the time is in a file.

use std::path::{Path, PathBuf};

use crate::process::required;

/// A clock that a test sets, for every process that is started with [`FakeClock::environment`].
#[derive(Debug)]
pub struct FakeClock {
    file: PathBuf,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that goes right until it is set, kept in `file`.
    ///
    /// # Panics
    /// Without the package faketime.
    pub fn new(file: PathBuf) -> Self {
        required("faketime", "faketime");
        let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let found = libraries.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
        let library = found.expect("the package faketime brings its library");
        let clock = Self { file, library };
        clock.set(0);
        clock
    }

    /// Moves the clock `seconds` away from the true time.
    ///
    /// # Panics
    /// If its folder cannot be written.
    pub fn set(&self, seconds: i64) {
        // By rename, so that nobody ever reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the folder is writable");
        std::fs::rename(&new, &self.file).expect("the folder is writable");
    }

    /// Only the wall clock lies: the monotonic one goes on, as it does when a real clock is set.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
