//! The wall clock is set back and forth under running nodes, as an administrator or a broken time server would.

use std::path::{Path, PathBuf};
use std::process::Command;

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::process::required;
use eastway_tests::{check, eventually};

/// Half an hour. Certificates are valid from an hour before they are issued.
const JUMP: i64 = 1_800;

/// A clock that a test sets, for every role that is started with [`FakeClock::environment`].
struct FakeClock {
    file: PathBuf,
    library: PathBuf,
}

impl FakeClock {
    fn new(folder: &Path) -> Self {
        required("faketime", "faketime");
        let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let found = libraries.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
        let library = found.expect("the package faketime brings its library");
        let clock = Self { file: folder.join("clock"), library };
        clock.set(0);
        clock
    }

    /// Moves the clock `seconds` away from the true time.
    fn set(&self, seconds: i64) {
        // By rename, so that nobody ever reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the lab's folder is writable");
        std::fs::rename(&new, &self.file).expect("the lab's folder is writable");
    }

    /// Only the wall clock lies: the monotonic one goes on, as it does when a real clock is set.
    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// What a process that lives by this clock takes for the time, in seconds since 1970.
    fn read(&self) -> i64 {
        let output = Command::new("date").arg("+%s").envs(self.environment()).output().expect("date starts");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("date says the time")
    }
}

#[test]
fn the_clock_jumps_back_and_forth_and_no_request_fails() {
    let mut lab = Lab::new();
    let clock = FakeClock::new(lab.folder());
    for (name, value) in clock.environment() {
        lab.environment(name, value);
    }
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    let near = lab.payments("us-east", "a", "payments-1");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let far = Caller::start(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/");
    eventually("eu-west answers", || check(far.tally().answered > 0, || format!("{:?}", far.tally())));
    drop(far);
    let near_caller = Caller::start(storefront.proxy(), PAYMENTS);
    let far_caller = Caller::start(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/");
    let truth = clock.read();
    for jump in [JUMP, -JUMP, 0] {
        clock.set(jump);
        let off = clock.read() - truth;
        assert!((off - jump).abs() < JUMP / 2, "the clock is {off} s off, not {jump}");
        near_caller.answers(60);
        far_caller.answers(60);
        // Whoever starts now has to be believed by those who live by the old clock, and by all of the others.
        let newcomer = lab.storefront("us-east", "b");
        reaches(newcomer.proxy(), "us-east/a");
    }
    let process = lab.process(&near.name);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid())).unwrap_or_default();
    assert!(maps.contains("libfaketime"), "the sidecar lives by the true clock");
    near_caller.finish_without_failure();
    far_caller.finish_without_failure();
}
