//! Namespaces of a test's own. Needs root.
//!
//! Each is held by a process that ends with the test's, however that ends: then it is gone, with its addresses, rules and
//! mounts. Nothing of it is seen from outside, and nothing of the machine's own network from within.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::process::required;

/// A network namespace, with mounts of its own. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new one, in which nothing runs.
    ///
    /// # Panics
    /// Without root.
    pub(super) fn new() -> Self {
        // `cat` reads from the test's process, and so ends when that is gone. It answers once the namespaces are its own.
        let mut holder = Command::new(required("unshare", "util-linux"))
            .args(["--net", "--mount", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let asked = holder.stdin.as_mut().expect("a pipe").write_all(b"\n");
        let answered = asked.and_then(|()| holder.stdout.as_mut().expect("a pipe").read(&mut [0]));
        assert!(matches!(answered, Ok(1)), "no namespace ({answered:?}): this needs root, or CAP_SYS_ADMIN");
        let namespace = Self { holder };
        namespace.run("ip", "iproute2", &["link", "set", "lo", "up"], "");
        namespace
    }

    /// A command that runs in it, as the process that is started, and does not outlive the thread that starts it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(required("nsenter", "util-linux"));
        command.arg("--target").arg(self.holder.id().to_string()).args(["--net", "--mount", "--"]);
        command.arg(required("setpriv", "util-linux")).args(["--pdeathsig", "KILL"]).arg(program);
        command
    }

    /// Runs a program of a package in it, with `input`.
    ///
    /// # Panics
    /// If it fails.
    pub(super) fn run(&self, program: &str, package: &str, arguments: &[&str], input: &str) {
        let mut command = self.command(&required(program, package));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // It may have ended without reading; then it says why.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} {input}: {words} (this needs root)");
    }

    /// Its holder, by which `ip` names the namespace.
    pub(super) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// What [`enter`] takes.
    pub(super) fn file(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// Calls `work` on a thread of its own that is in the namespace.
    ///
    /// # Panics
    /// If `work` does.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = self.file();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&file);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path as it is seen in the namespace's mounts, for whoever is outside.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Moves the calling thread for good into the network namespace behind `file`: its sockets are in there from now on.
///
/// # Panics
/// If that is not allowed.
pub(super) fn enter(file: &Path) {
    let namespace = File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering a network namespace needs root, or CAP_SYS_ADMIN");
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that ended already is what is wanted.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
