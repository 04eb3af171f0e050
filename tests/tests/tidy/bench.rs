//! The benchmark beside other proxies: what it decides is tested, and its files are as short as the others.

use std::process::Command;

use eastway_tests::process::required;
use eastway_tests::protogen::root;

use super::assert_none;
use super::scan::files;

/// Lines of one file at most.
const MAX_LINES: usize = 500;

#[test]
fn the_benchmarks_own_tests_pass() {
    let folder = root().join("tests/bench");
    let output = Command::new(required("python3", "python3"))
        .args(["-B", "-m", "unittest", "discover", "--start-directory", "peers/tests", "--top-level-directory", "."])
        .current_dir(&folder)
        .output()
        .expect("a program that was found can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Ran 0 tests"), "`make bench-check` fails:\n{said}");
}

#[test]
fn the_benchmarks_files_are_short() {
    let long = files("py").into_iter().filter(|file| file.text.lines().count() > MAX_LINES);
    assert_none("split them", long.map(|file| file.path).collect());
}
