//! `eastway gateway` and `eastway sidecar`: load the configuration, start the logs, run.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use eastway_core::Chain;
use eastway_documents::Problems;
use eastway_telemetry::logging::{self, LogOptions};

/// The exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 3;
/// Set by the demo for its children: the process id of who must not outlive them.
const PARENT: &str = "EASTWAY_PARENT";

/// The options of both roles.
#[derive(Debug, clap::Args)]
pub(crate) struct RoleCommand {
    /// The configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only say whether the configuration is valid, and exit.
    #[arg(long)]
    check: bool,
}

impl RoleCommand {
    /// Runs a gateway until it is told to end.
    pub(crate) fn gateway(&self) -> ExitCode {
        let config = match eastway_gateway::config::Config::load(&self.config) {
            Ok(config) => config,
            Err(problems) => return self.invalid(&problems),
        };
        if self.check
            && let Ok((_, warnings)) = config.load_resources()
            && !warnings.is_empty()
        {
            eprintln!("{warnings}");
        }
        let log = &config.telemetry.log;
        self.run(LogOptions { filter: log.level.as_str().to_owned(), json: log.json }, || eastway_gateway::run(config))
    }

    /// Runs a sidecar until it is told to end.
    pub(crate) fn sidecar(&self) -> ExitCode {
        let config = match eastway_sidecar::config::Config::load(&self.config) {
            Ok(config) => config,
            Err(problems) => return self.invalid(&problems),
        };
        let log = &config.telemetry.log;
        self.run(LogOptions { filter: log.level.as_str().to_owned(), json: log.json }, || eastway_sidecar::run(config))
    }

    fn invalid(&self, problems: &Problems) -> ExitCode {
        eprintln!("{problems}");
        eprintln!("eastway: {} cannot be used; nothing was started", self.config.display());
        ExitCode::from(BAD_CONFIGURATION)
    }

    fn run<E: Error + 'static>(&self, log: LogOptions, role: impl FnOnce() -> Result<(), E>) -> ExitCode {
        if self.check {
            println!("{} is valid", self.config.display());
            return ExitCode::SUCCESS;
        }
        if let Err(error) = logging::init(&log) {
            eprintln!("eastway: {}", Chain(&error));
            return ExitCode::from(BAD_CONFIGURATION);
        }
        match role() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot go on");
                eprintln!("eastway: {}", Chain(&error));
                ExitCode::FAILURE
            }
        }
    }
}

/// The end of a command that failed, or whose files cannot be used.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let Some(problems) = error.downcast_ref::<Problems>() else {
        eprintln!("eastway: {error:#}");
        return ExitCode::FAILURE;
    };
    eprintln!("{problems}");
    eprintln!("eastway: what is given cannot be used: nothing was done");
    ExitCode::from(BAD_CONFIGURATION)
}

/// Asks the kernel to end this process with the demo that started it, however that ends.
pub(crate) fn die_with_parent() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    if nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_err() {
        return;
    }
    // The demo may have ended before the kernel was asked.
    if nix::unistd::getppid().to_string() != parent {
        std::process::exit(1);
    }
}
