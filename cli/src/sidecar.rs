//! `eastway sidecar`: the role, and what is set up on the host around it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use eastway_sidecar::config::{Config, Dns};
use eastway_sidecar::resolver::{HostResolver, Kind};

use crate::role::{self, RoleCommand};

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
}

#[derive(Debug, clap::Subcommand)]
enum DnsVerb {
    /// Have the host ask the sidecar: systemd-resolved for the mesh's names, else resolv.conf for all.
    Install {
        /// The sidecar's configuration, with `dns` in it.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        host: Host,
    },
    /// Put back what was there before.
    Remove {
        /// Also if somebody else has written the file since: what they wrote is lost.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        host: Host,
    },
    /// Say how it stands.
    Show {
        #[command(flatten)]
        host: Host,
    },
}

#[derive(Debug, clap::Args)]
struct Host {
    /// The folder that the host's files are below.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

impl SidecarCommand {
    /// Runs the role, or sets something up.
    pub(crate) fn run(&self) -> ExitCode {
        let Some(Setup::Dns { verb }) = &self.setup else {
            return self.run.as_ref().map_or(ExitCode::FAILURE, RoleCommand::sidecar);
        };
        match verb.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => role::failed(&error),
        }
    }
}

impl DnsVerb {
    fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Install { config, host } => {
                let Config { dns, suffix, .. } = Config::load(config)?;
                let Dns { listen, .. } = dns
                    .with_context(|| format!("{} has no `dns`: the sidecar answers for no names", config.display()))?;
                let kind = host.resolver().install(listen, &suffix)?;
                println!("this host looks names of the mesh up at {listen} ({})", word(kind));
                host.restart(kind)
            }
            Self::Remove { force, host } => match host.resolver().remove(*force)? {
                Some(kind) => {
                    println!("this host looks names up as before ({})", word(kind));
                    host.restart(kind)
                }
                None => {
                    println!("nothing was installed");
                    Ok(())
                }
            },
            Self::Show { host } => {
                let standing = host.resolver().standing()?;
                match standing.installed {
                    Some((path, text)) => println!("installed ({}): {}\n\n{text}", word(standing.kind), path.display()),
                    None => println!("not installed: this host looks names up by {}", word(standing.kind)),
                }
                Ok(())
            }
        }
    }
}

impl Host {
    fn resolver(&self) -> HostResolver {
        HostResolver::new(&self.root)
    }

    /// systemd-resolved reads its configuration when it starts.
    fn restart(&self, kind: Kind) -> anyhow::Result<()> {
        let other_host = self.root.as_os_str() != "/";
        if kind == Kind::ResolvConf || other_host {
            return Ok(());
        }
        let restarted = Command::new("systemctl").args(["restart", "systemd-resolved"]).status();
        match restarted {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                anyhow::bail!("the file is written, but systemd-resolved cannot be restarted ({status}): restart it")
            }
            Err(error) => {
                Err(error).context("the file is written, but systemctl cannot be run: restart systemd-resolved")
            }
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Resolved => "systemd-resolved",
        Kind::ResolvConf => "resolv.conf",
    }
}
