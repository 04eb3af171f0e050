//! Child processes of a test: started, killed for real, and never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use crate::{eventually, protogen};

/// The `eastway` binary under test: `EASTWAY_BIN`, else built once from this checkout.
///
/// # Panics
/// If it cannot be built.
pub fn eastway() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("EASTWAY_BIN") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = protogen::root();
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "-p", "eastway-cli", "--bin", "eastway"])
            .current_dir(&root)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the eastway binary does not build");
        // Beside the test binary's `deps` folder, wherever the target folder is.
        let test = std::env::current_exe().expect("a running test has a file");
        let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        profile.join("eastway")
    })
}

/// A command of the binary under test, whose process ends with the test's, however that ends.
pub fn eastway_command() -> Command {
    let mut command = Command::new(eastway());
    command.env("EASTWAY_PARENT", std::process::id().to_string());
    command
}

/// A program that the tests cannot do without, from PATH.
///
/// # Panics
/// If it is missing: a test that cannot run has failed.
pub fn required(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The administrator's folders are not on everybody's PATH.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("`{program}` is not on PATH: install the package {package} (`make test` does it)"))
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `log`, appended.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the lab's folder is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be cloned"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had resident, in bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
        let kilobytes: Option<u64> = peak.and_then(|peak| peak.trim().parse().ok());
        kilobytes.unwrap_or_else(|| panic!("{} is gone", self.name)) * 1024
    }

    /// Everything it printed so far, over all of its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal, by name: `TERM`, `HUP`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// If the process is gone already.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} is gone", self.name);
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.ended().ok_or_else(|| "still running".to_owned()))
    }

    fn end(&mut self) {
        // One that ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of {}'s log\n{}", self.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
