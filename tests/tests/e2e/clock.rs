//! The wall clock is set back and forth under running nodes, as an administrator or a broken time server would.

use std::process::Command;

use eastway_tests::caller::Caller;
use eastway_tests::clock::FakeClock;
use eastway_tests::lab::{Lab, PAYMENTS, StoreKind, reaches};
use eastway_tests::{check, eventually};

/// Half an hour. Certificates are valid from an hour before they are issued.
const JUMP: i64 = 1_800;

/// What a process that lives by this clock takes for the time, in seconds since 1970.
fn read(clock: &FakeClock) -> i64 {
    let output = Command::new("date").arg("+%s").envs(clock.environment()).output().expect("date starts");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("date says the time")
}

#[test]
fn the_clock_jumps_back_and_forth_and_no_request_fails() {
    let mut lab = Lab::new();
    let clock = FakeClock::new(lab.path("clock"));
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
    let truth = read(&clock);
    for jump in [JUMP, -JUMP, 0] {
        clock.set(jump);
        let off = read(&clock) - truth;
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
