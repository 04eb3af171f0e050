//! `eastway sidecar capture`: having this host lead connections to the sidecar.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use eastway_sidecar::capture::{Around, HostCapture, Standing};
use eastway_sidecar::config::{Capture, Config, InboundMode, Unknown};

use crate::operator::Output;
use crate::status::write_problems;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum CaptureVerb {
    /// Set this host's rules, in one step; what was set before is replaced. Needs root, or CAP_NET_ADMIN.
    Install {
        #[command(flatten)]
        file: File,
        /// Only print what would be set: what nft(8) is given, and what ip(8) is told.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take all rules back.
    Remove {
        #[command(flatten)]
        file: File,
    },
    /// Say how it stands, with the rules and what they have counted.
    Show {
        #[command(flatten)]
        file: File,
    },
    /// Look for ways around the sidecar. Exits with 1 if something does not work as configured.
    Check {
        #[command(flatten)]
        file: File,
        /// As text, or as JSON for programs.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct File {
    /// The sidecar's configuration, with `capture` in it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl CaptureVerb {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Install { file, dry_run: true } => {
                let (_, capture) = file.load()?;
                let (document, commands) = HostCapture::new(&capture).plan();
                print!("{document}");
                commands.iter().for_each(|command| println!("ip {command}"));
            }
            Self::Install { file, .. } => {
                let (_, capture) = file.load()?;
                HostCapture::new(&capture).install()?;
                println!("this host captures: {} (table inet {})", what(&capture), capture.table);
            }
            Self::Remove { file } => {
                let (_, capture) = file.load()?;
                let removed = HostCapture::new(&capture).remove()?;
                println!("{}", if removed { "this host captures nothing any more" } else { "nothing was installed" });
            }
            Self::Show { file } => {
                let (_, capture) = file.load()?;
                let host = HostCapture::new(&capture);
                let standing = host.standing()?;
                println!("{}", word(standing));
                if standing != Standing::Absent {
                    println!("\n{}", host.text()?.trim_end());
                }
            }
            Self::Check { file, output } => {
                let (config, capture) = file.load()?;
                let problems = serde_json::to_value(Around::new(&config, &capture).problems(Path::new("/"))?)?;
                let problems = problems.as_array().cloned().unwrap_or_default();
                if *output == Output::Json {
                    println!("{:#}", serde_json::Value::from(problems.clone()));
                } else {
                    let mut text = String::new();
                    write_problems(&mut text, &problems)?;
                    println!("{}", text.trim());
                }
                if problems.iter().any(|problem| problem["severity"] == "error") {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl File {
    fn load(&self) -> anyhow::Result<(Config, Capture)> {
        let config = Config::load(&self.config)?;
        let capture = config.capture.clone();
        let capture = capture.with_context(|| format!("{} has no `capture`", self.config.display()))?;
        Ok((config, capture))
    }
}

/// What is captured, in words.
fn what(capture: &Capture) -> String {
    let mut all = Vec::new();
    if capture.listen.is_some() {
        all.push("connections to names of the mesh".to_owned());
    }
    if capture.unknown == Unknown::Deny {
        all.push("connections to all that is no name, which are refused".to_owned());
    }
    if let Some(inbound) = &capture.inbound {
        let ports: Vec<String> = inbound.ports.iter().map(ToString::to_string).collect();
        let mode = match inbound.mode {
            InboundMode::Strict => "which are refused",
            InboundMode::Permissive => "which are let through in plain text and counted",
        };
        all.push(format!("callers around the sidecar to port {}, {mode}", ports.join(", ")));
    }
    all.join("; ")
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Absent => "not installed",
        Standing::Current => "installed, as configured",
        Standing::Outdated => "installed by another configuration: install again",
        Standing::Altered => "installed, and changed by hand since: install again",
    }
}
