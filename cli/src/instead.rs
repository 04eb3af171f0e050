//! `eastway instead`: another program in the place of this process, which the kernel ends with the demo that started it.
//!
//! What [`crate::role::die_with_parent`] has asked of the kernel stays in force when a process changes its program. So
//! programs that know nothing of the demo end with it too, however it ends.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

/// The program and its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct InsteadCommand {
    /// The program, found on PATH.
    program: String,
    /// Its arguments.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl InsteadCommand {
    /// Returns only if the program cannot be run.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let error = Command::new(&self.program).args(&self.arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", self.program))
    }
}
