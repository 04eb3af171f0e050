//! `eastway ca`: makes a cluster's certificate authority and issues certificates from it, as files.
//!
//! For the first day, for machines without cert-manager or Vault, and for tests. It never talks to a running node: nodes
//! notice by themselves when the files that they were given change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use eastway_core::SpiffeId;
use eastway_core::name::{DEFAULT_SUFFIX, is_label};
use eastway_core::spiffe::Principal;
use eastway_identity::ca::WriteError;
use eastway_identity::{Ca, CaError, IssueOptions, Overwrite};
use serde::Serialize;

/// Make a cluster's certificate authority, and issue certificates from it.
#[derive(Debug, clap::Args)]
pub(crate) struct CaCommand {
    #[command(subcommand)]
    verb: Verb,
    /// How to say what was written.
    #[arg(short = 'o', long, value_enum, global = true, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make the CA of a cluster: ca.crt, which its nodes and its peers trust, and ca.key, which stays here.
    Init(Init),
    /// Issue a certificate for a workload, a gateway or an operator: NAME.crt, NAME.key and bundle.crt.
    Issue(Issue),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The cluster that it is the CA of.
    #[arg(long, value_name = "NAME", value_parser = label)]
    cluster: String,
    /// The trust domain of its identities [default: CLUSTER.mesh.internal].
    #[arg(long, value_name = "TRUST-DOMAIN")]
    trust_domain: Option<String>,
    /// The folder for ca.crt and ca.key; it is created.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the CA is valid from now.
    #[arg(long, value_name = "DURATION", default_value = "3650d", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// Replace a CA that is already there. Nodes that trust the old one refuse what the new one issues.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// The folder with ca.crt and ca.key.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    #[command(flatten)]
    subject: Subject,
    /// The folder for the files; it is created.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The base of the file names [default: the account, the gateway's id or the operator's name].
    #[arg(long, value_name = "FILEBASE")]
    name: Option<String>,
    /// How long the certificate is valid from now, at most as long as its CA.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
    validity: Duration,
    /// Replace files that are already there.
    #[arg(long)]
    force: bool,
}

/// Whom the certificate names: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// A workload, by the account that it runs as.
    #[arg(long, value_name = "NAMESPACE/ACCOUNT", value_parser = workload)]
    workload: Option<Principal>,
    /// A gateway of the cluster.
    #[arg(long, value_name = "ID", value_parser = label)]
    gateway: Option<String>,
    /// A person or a pipeline.
    #[arg(long, value_name = "NAME", value_parser = label)]
    operator: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

impl CaCommand {
    /// Does what was asked for, and says which files were written.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let report = match &self.verb {
            Verb::Init(init) => Report::Init(init.run()?),
            Verb::Issue(issue) => Report::Issue(issue.run()?),
        };
        match self.output {
            Output::Text => println!("{}", report.text()),
            Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        }
        Ok(())
    }
}

impl Init {
    fn run(&self) -> anyhow::Result<Initialised> {
        let default = || format!("{}.{DEFAULT_SUFFIX}", self.cluster);
        let trust_domain = self.trust_domain.clone().unwrap_or_else(default);
        let ca = Ca::create(&trust_domain, self.validity)?;
        let written = ca.save(&self.out, overwrite(self.force)).map_err(|error| match error {
            CaError::Write(WriteError::Exists(path)) => anyhow!(
                "{} exists already, so nothing was written. Choose another folder, or replace that CA with --force: nodes \
                 that trust it then refuse what the new one issues",
                path.display()
            ),
            error => anyhow!(error).context("the CA was not written"),
        })?;
        let [certificate, key] = <[PathBuf; 2]>::try_from(written).map_err(|_| anyhow!("a CA is two files"))?;
        let not_after = rfc3339(ca.not_after());
        Ok(Initialised { cluster: self.cluster.clone(), trust_domain, certificate, key, not_after })
    }
}

impl Issue {
    fn run(&self) -> anyhow::Result<Certified> {
        let ca = Ca::load(&self.ca).with_context(|| {
            format!("{} holds no usable CA; `eastway ca init --cluster NAME --out DIR` makes one", self.ca.display())
        })?;
        let id = SpiffeId { trust_domain: ca.trust_domain().to_owned(), principal: self.subject.principal()? };
        let options = IssueOptions { validity: self.validity, ..IssueOptions::default() };
        let issued = ca.issue(&id, &options)?;
        let name = self.name.as_deref().unwrap_or_else(|| issued.default_name());
        let files = issued.save(&self.out, name, overwrite(self.force)).map_err(|error| match error {
            CaError::Write(WriteError::Exists(path)) => anyhow!(
                "{} exists already, so nothing was written. Choose another name or folder (--name, --out), or replace it \
                 with --force",
                path.display()
            ),
            error => anyhow!(error).context("the certificate was not written"),
        })?;
        Ok(Certified {
            id: id.to_string(),
            certificate: files.certificate,
            key: files.key,
            bundle: files.bundle,
            not_after: rfc3339(issued.not_after),
            shortened: issued.not_after == ca.not_after(),
        })
    }
}

impl Subject {
    fn principal(&self) -> anyhow::Result<Principal> {
        Ok(match (&self.workload, &self.gateway, &self.operator) {
            (Some(workload), None, None) => workload.clone(),
            (None, Some(id), None) => Principal::Gateway(id.clone()),
            (None, None, Some(name)) => Principal::Operator(name.clone()),
            _ => bail!("name exactly one of --workload, --gateway and --operator"),
        })
    }
}

/// What was done, for programs as JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Init(Initialised),
    Issue(Certified),
}

#[derive(Debug, Serialize)]
struct Initialised {
    cluster: String,
    trust_domain: String,
    certificate: PathBuf,
    key: PathBuf,
    not_after: String,
}

#[derive(Debug, Serialize)]
struct Certified {
    id: String,
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    not_after: String,
    /// Whether it ends earlier than asked for, because its CA does.
    shortened: bool,
}

impl Report {
    /// For people: what there is now, and what to do with it.
    fn text(&self) -> String {
        match self {
            Self::Init(made) => format!(
                "The CA of {} (trust domain {}) is valid until {}.\n  {}  what nodes and peers trust\n  {}  its private key: \
                 keep it here, give it to nobody\nNext: eastway ca issue --ca {} --gateway gw-1 --out DIR",
                made.cluster,
                made.trust_domain,
                made.not_after,
                made.certificate.display(),
                made.key.display(),
                folder(&made.certificate).display(),
            ),
            Self::Issue(issued) => format!(
                "{} is valid until {}{}.\n  certificate: {}\n  key: {}\n  bundle: {}\nNext: name the three in the node's \
                 configuration under `identity`; a running node takes renewed files by itself.",
                issued.id,
                issued.not_after,
                if issued.shortened { ", when its CA ends" } else { "" },
                issued.certificate.display(),
                issued.key.display(),
                issued.bundle.display(),
            ),
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("."))
}

const fn overwrite(force: bool) -> Overwrite {
    if force { Overwrite::Force } else { Overwrite::Never }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn label(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err(LABEL.to_owned()) }
}

fn workload(text: &str) -> Result<Principal, String> {
    match text.split_once('/') {
        Some((namespace, account)) if is_label(namespace) && is_label(account) => {
            Ok(Principal::Workload { namespace: namespace.to_owned(), account: account.to_owned() })
        }
        _ => Err(format!("write NAMESPACE/ACCOUNT; each: {LABEL}")),
    }
}

const LABEL: &str = "1 to 63 lower-case letters, digits and `-`, with no `-` at either end";

#[cfg(test)]
mod tests;
