//! `eastway sidecar dns`: having this host ask the sidecar for names.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use eastway_sidecar::config::{Config, Dns};
use eastway_sidecar::resolver::{HostResolver, Kind};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum DnsVerb {
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
pub(crate) struct Host {
    /// The folder that the host's files are below.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

impl DnsVerb {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
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
