//! `eastway peer`: other clusters become peers by a token, are listed, and end to be.

use std::fmt::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::division::{list, text};
use crate::operator::{Node, Table};
use crate::resources::{refused_by_sidecar, tell, who};

/// The command's options.
#[derive(Debug, Args)]
pub(crate) struct PeerCommand {
    #[command(subcommand)]
    verb: PeerVerb,
}

#[derive(Debug, Subcommand)]
enum PeerVerb {
    /// Print a token by which one other cluster may become a peer of this one.
    Token(TokenCommand),
    /// Become a peer of the cluster that issued a token.
    Join(JoinCommand),
    /// List the peers, how each came about, and whether it is reached.
    List(ListCommand),
    /// End a peer that no file declares.
    Remove(RemoveCommand),
}

/// Options of `eastway peer token`.
#[derive(Debug, Args)]
struct TokenCommand {
    /// For how long it is valid.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// What this cluster imports of the one that joins: *, NAMESPACE/* or NAMESPACE/SERVICE. May be given several times.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    imports: Vec<String>,
    /// What the other cluster is told to import, as this one exports it to it.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    export_hint: Vec<String>,
    /// Make no token, but end all that there are.
    #[arg(long, conflicts_with_all = ["ttl", "imports", "export_hint"])]
    withdraw: bool,
    #[command(flatten)]
    node: Node,
}

/// Options of `eastway peer join`.
#[derive(Debug, Args)]
struct JoinCommand {
    /// The token, or `-` to read it from standard input, where no list of processes shows it.
    token: String,
    /// What this cluster imports of the other: *, NAMESPACE/* or NAMESPACE/SERVICE. May be given several times. Default:
    /// what it imports so far, which is nothing at first.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    imports: Option<Vec<String>>,
    #[command(flatten)]
    node: Node,
}

/// Options of `eastway peer list`.
#[derive(Debug, Args)]
struct ListCommand {
    #[command(flatten)]
    node: Node,
}

/// Options of `eastway peer remove`.
#[derive(Debug, Args)]
struct RemoveCommand {
    /// The other cluster.
    name: String,
    #[command(flatten)]
    node: Node,
}

impl PeerCommand {
    /// Does what the verb says.
    ///
    /// # Errors
    /// Why the gateway did not do it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            PeerVerb::Token(command) => command.run(),
            PeerVerb::Join(command) => command.run(),
            PeerVerb::List(command) => command.run(),
            PeerVerb::Remove(command) => command.run(),
        }
    }
}

impl TokenCommand {
    fn run(&self) -> anyhow::Result<()> {
        if self.withdraw {
            let answer = post(&self.node, "/peers/withdraw", &json!({}))?;
            return self.node.print(&answer, |out, answer| writeln!(out, "{} tokens ended", answer["withdrawn"]));
        }
        let wanted = json!({
            "ttlSeconds": self.ttl.as_secs(), "imports": self.imports, "offers": self.export_hint, "by": who(),
        });
        let issued = post(&self.node, "/peers/token", &wanted)?;
        // The token alone is the result: what it is for does not get in its way.
        eprintln!(
            "At a gateway of the cluster that shall become a peer of {}, within {}:\n\n    eastway peer join TOKEN{}\n\n\
             Who has the token may join, once. Whoever joins dials {}, TCP.",
            text(&issued["cluster"]),
            humantime::format_duration(Duration::from_secs(self.ttl.as_secs())),
            if self.export_hint.is_empty() {
                String::new()
            } else {
                format!(" --imports '{}'", self.export_hint.join(","))
            },
            names(&issued["gateways"]),
        );
        self.node.print(&issued, |out, issued| writeln!(out, "{}", text(&issued["token"])))
    }
}

impl JoinCommand {
    fn run(&self) -> anyhow::Result<()> {
        let token = match self.token.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()).context("cannot read the standard input")?,
            token => token.to_owned(),
        };
        let wanted = json!({ "token": token, "imports": self.imports, "by": who() });
        let joined = post(&self.node, "/peers/join", &wanted)?;
        self.node.print(&joined, write_joined)
    }
}

impl ListCommand {
    fn run(&self) -> anyhow::Result<()> {
        let peers = self.node.ask("/peers").context("cannot list the peers: is it a gateway?")?;
        self.node.print(&peers, |out, peers| write_list(out, list(peers)))
    }
}

impl RemoveCommand {
    fn run(&self) -> anyhow::Result<()> {
        let outcome = post(&self.node, "/peers/remove", &json!({ "name": self.name, "by": who() }))?;
        self.node.print(&outcome, |out, outcome| {
            tell(out, outcome, false)?;
            writeln!(
                out,
                "{name} is refused from now on, and told so; there, `eastway peer remove` ends it as well",
                name = self.name
            )
        })
    }
}

/// A gateway's answer.
fn post(node: &Node, path: &str, wanted: &Value) -> anyhow::Result<Value> {
    let (status, body) = node.target.post(path, wanted)?;
    refused_by_sidecar(node, status, &body)?;
    node.target.answer(status, &body)
}

fn write_joined(out: &mut String, joined: &Value) -> fmt::Result {
    let cluster = text(&joined["cluster"]);
    writeln!(out, "{cluster} is a peer now, at {}", names(&joined["gateways"]))?;
    match list(&joined["imports"]).is_empty() {
        false => writeln!(out, "imported of it: {}", names(&joined["imports"]))?,
        true if list(&joined["offers"]).is_empty() => {
            writeln!(out, "nothing is imported of it: repeat the command with --imports, such as 'NAMESPACE/*'")?;
        }
        true => writeln!(
            out,
            "nothing is imported of it; it offers {}: repeat the command with --imports",
            names(&joined["offers"])
        )?,
    }
    writeln!(out, "what is exported to it, each Service says (`export`); how it stands: `eastway status`")
}

fn write_list(out: &mut String, peers: &[Value]) -> fmt::Result {
    if peers.is_empty() {
        return writeln!(
            out,
            "no peers: `eastway peer token` at a gateway of another cluster, and `eastway peer join` here"
        );
    }
    let mut table = Table::new(&["cluster", "from", "state", "gateways", "imports"]);
    for peer in peers {
        let state = match () {
            () if peer["refuses"] == true => "REFUSES".to_owned(),
            () if peer["idle"] == true => "idle".to_owned(),
            () => text(&peer["state"]),
        };
        let row = [&peer["cluster"], &peer["origin"]].map(text);
        let row = row.into_iter().chain([state, names(&peer["gateways"]), names(&peer["imports"])]);
        table.row(row.collect());
    }
    table.write(out, "")
}

/// The texts of a list.
fn names(value: &Value) -> String {
    let names: Vec<String> = list(value).iter().map(text).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut text = String::new();
        write(&mut text).expect("written");
        text
    }

    #[test]
    fn peers_are_listed_with_how_they_came_about() {
        let peers = [
            json!({ "cluster": "eu-west", "origin": "token", "state": "up", "refuses": false,
                    "gateways": ["10.2.0.1:15443", "10.2.0.2:15443"], "imports": ["shop/*"] }),
            json!({ "cluster": "ap-south", "origin": "/etc/eastway/peers.yaml:3", "state": "down", "refuses": true,
                    "gateways": ["10.3.0.1:15443"], "imports": [] }),
        ];
        let text = told(|out| write_list(out, &peers));
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
        assert_eq!(lines[1], ["eu-west", "token", "up", "10.2.0.1:15443, 10.2.0.2:15443", "shop/*"]);
        assert_eq!(lines[2], ["ap-south", "/etc/eastway/peers.yaml:3", "REFUSES", "10.3.0.1:15443", "-"]);
        assert!(told(|out| write_list(out, &[])).contains("`eastway peer token`"));
    }

    #[test]
    fn who_joined_is_told_what_is_still_to_be_done() {
        let joined = |imports: &[&str], offers: &[&str]| {
            let joined =
                json!({ "cluster": "us-east", "gateways": ["10.1.0.1:15443"], "imports": imports, "offers": offers });
            told(|out| write_joined(out, &joined))
        };
        assert!(joined(&["shop/*"], &[]).contains("imported of it: shop/*"));
        assert!(joined(&[], &["bank/*"]).contains("it offers bank/*: repeat the command with --imports"));
        assert!(joined(&[], &[]).contains("repeat the command with --imports, such as"));
    }
}
