//! Setting the host to capture, and back.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::rules;
use crate::config::Capture;

/// Why the host's rules were not changed, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A program cannot be started.
    #[error("cannot run `{program}` (of the package {package})")]
    Program {
        /// Which.
        program: &'static str,
        /// What it comes with.
        package: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A program refuses.
    #[error("`{command}`: {said}{}", hint(said))]
    Refused {
        /// What was tried.
        command: String,
        /// What it says.
        said: String,
    },
    /// There is a table of this name, which is somebody else's.
    #[error(
        "the table `inet {0}` of nftables is not ours: it is left as it is; choose another name for ours (`capture.table`)"
    )]
    Foreign(String),
}

/// What else may help.
fn hint(said: &str) -> &'static str {
    if said.contains("not permitted") {
        " (setting rules needs root, or CAP_NET_ADMIN in this network namespace)"
    } else if said.contains("No such file or directory") || said.contains("not supported") {
        " (the kernel may lack nftables' nat, tproxy or socket expressions, or a control group is not there)"
    } else {
        ""
    }
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are no rules.
    Absent,
    /// The rules are those of the configuration.
    Current,
    /// They are those of another configuration.
    Outdated,
    /// Somebody has added or removed rules.
    Altered,
}

/// A host that is to capture.
#[derive(Clone, Copy, Debug)]
pub struct HostCapture<'a> {
    capture: &'a Capture,
}

impl<'a> HostCapture<'a> {
    /// By this configuration.
    pub const fn new(capture: &'a Capture) -> Self {
        Self { capture }
    }

    /// What `install` would set, for a reader: what nft(8) is given, and the arguments of ip(8).
    pub fn plan(&self) -> (String, Vec<String>) {
        let commands = rules::routes(self.capture).into_iter().chain(rules::marks(self.capture)).collect();
        (rules::document(self.capture), commands)
    }

    /// Sets the host to capture: what was set before is replaced in one step.
    ///
    /// # Errors
    /// [`CaptureError`]; then nothing is captured that was not before.
    pub fn install(&self) -> Result<(), CaptureError> {
        self.own_table()?;
        for arguments in rules::routes(self.capture) {
            ip(&arguments)?;
        }
        let known = ip("-4 rule show")? + &ip("-6 rule show")?;
        let wanted = rules::marks(self.capture);
        let is_there =
            known.matches(&format!("fwmark {:#x}", rules::mark(&self.capture.table))).count() >= wanted.len();
        for arguments in wanted.iter().filter(|_| !is_there) {
            ip(arguments)?;
        }
        nft(&["-f", "-"], &rules::document(self.capture)).map(drop)
    }

    /// Takes back all that was set. False if there was nothing.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn remove(&self) -> Result<bool, CaptureError> {
        let was_there = self.own_table()?.is_some();
        if was_there {
            nft(&["delete", "table", "inet", &self.capture.table], "")?;
        }
        let mark = rules::mark(&self.capture.table);
        for family in ["-4", "-6"] {
            // However often it was set by hand.
            while ip(&format!("{family} rule del fwmark {mark}")).is_ok() {}
        }
        if !any_other()? {
            let prefix = self.capture.prefix.map(|prefix| format!("-6 route del {prefix}/96 dev lo"));
            let tables = ["-4", "-6"].map(|family| format!("{family} route flush table {}", rules::ROUTES));
            for route in [format!("-4 route del {} dev lo", rules::NETWORK)].into_iter().chain(prefix).chain(tables) {
                // What is not there is gone.
                let _ = ip(&route);
            }
        }
        Ok(was_there)
    }

    /// How it stands.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn standing(&self) -> Result<Standing, CaptureError> {
        let Some(items) = self.own_table()? else { return Ok(Standing::Absent) };
        let found = rules::found(&items).unwrap_or_default();
        if found != rules::fingerprint(self.capture) {
            return Ok(Standing::Outdated);
        }
        let count = items.as_array().map_or(0, |items| items.iter().filter(|item| item.get("rule").is_some()).count());
        let stated = found.split(' ').next().and_then(|count| count.parse().ok());
        Ok(if stated == Some(count) { Standing::Current } else { Standing::Altered })
    }

    /// The rules as they are, with their counters, in the words of nft(8).
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn text(&self) -> Result<String, CaptureError> {
        nft(&["list", "table", "inet", &self.capture.table], "")
    }

    /// Whether packets to names' addresses have a way.
    pub(super) fn has_route(&self) -> bool {
        ip("-4 route get 240.0.0.1").is_ok()
    }

    /// What is in the table; `None` if there is none.
    fn own_table(&self) -> Result<Option<Value>, CaptureError> {
        let tables = listed(&["list", "tables"])?;
        let is_it = |item: &Value| item["table"]["family"] == "inet" && item["table"]["name"] == *self.capture.table;
        if !tables.as_array().is_some_and(|tables| tables.iter().any(is_it)) {
            return Ok(None);
        }
        let items = listed(&["list", "table", "inet", &self.capture.table])?;
        let is_ours = |item: &Value| item["chain"]["name"] == rules::MARKED;
        let any = items.as_array().is_some_and(|items| items.iter().any(is_ours));
        if any { Ok(Some(items)) } else { Err(CaptureError::Foreign(self.capture.table.clone())) }
    }
}

/// Whether a table of another sidecar is there.
fn any_other() -> Result<bool, CaptureError> {
    let chains = listed(&["list", "chains"])?;
    Ok(chains.as_array().is_some_and(|chains| chains.iter().any(|item| item["chain"]["name"] == rules::MARKED)))
}

/// What nft(8) lists.
fn listed(arguments: &[&str]) -> Result<Value, CaptureError> {
    let arguments: Vec<&str> = ["-j"].iter().chain(arguments).copied().collect();
    let said = nft(&arguments, "")?;
    let mut listed: Value = serde_json::from_str(&said).unwrap_or_default();
    Ok(listed["nftables"].take())
}

fn nft(arguments: &[&str], input: &str) -> Result<String, CaptureError> {
    run("nft", "nftables", arguments, input)
}

fn ip(arguments: &str) -> Result<String, CaptureError> {
    run("ip", "iproute2", &arguments.split(' ').collect::<Vec<_>>(), "")
}

fn run(program: &'static str, package: &'static str, arguments: &[&str], input: &str) -> Result<String, CaptureError> {
    let failed = |source| CaptureError::Program { program, package, source };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read all says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(CaptureError::Refused { command: format!("{program} {}", arguments.join(" ")), said })
}
