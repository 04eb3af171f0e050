//! `eastway sidecar`: the role, and what is set up on the host around it.

use std::process::ExitCode;

use crate::role::{self, RoleCommand};
use capture::CaptureVerb;
use dns::DnsVerb;

mod capture;
mod dns;

/// Without a subcommand, the role itself.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct SidecarCommand {
    #[command(flatten)]
    run: Option<RoleCommand>,
    #[command(subcommand)]
    setup: Option<Setup>,
}

#[derive(Debug, clap::Subcommand)]
enum Setup {
    /// Have this host look names of the mesh up at the sidecar, or no longer.
    Dns {
        #[command(subcommand)]
        verb: DnsVerb,
    },
    /// Have this host lead connections to names' addresses to the sidecar, and keep callers from going around it.
    Capture {
        #[command(subcommand)]
        verb: CaptureVerb,
    },
}

impl SidecarCommand {
    /// Runs the role, or sets something up.
    pub(crate) fn run(&self) -> ExitCode {
        let done = match &self.setup {
            None => return self.run.as_ref().map_or(ExitCode::FAILURE, RoleCommand::sidecar),
            Some(Setup::Dns { verb }) => verb.run().map(|()| ExitCode::SUCCESS),
            Some(Setup::Capture { verb }) => verb.run(),
        };
        done.unwrap_or_else(|error| role::failed(&error))
    }
}
